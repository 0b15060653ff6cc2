//! A conversation's history: a fold over the entries of the log.
//!
//! The same [`Document::apply`] serves the live conversation and a reload, so both give the same
//! bytes. Pure: no clock, no I/O.

use std::sync::Arc;

use smallvec::SmallVec;

mod branches;
#[cfg(test)]
mod tests;
mod turns;

pub use branches::{Branch, Heirs, Kind, NoPlace, Replacing};
use turns::Turns;
pub use turns::{History, Windowed};

use super::message::{MalformedFragment, Role, StoredMessage};
use crate::{
    id::{MessageId, TurnId},
    log::entry::{
        CANCELLED, Entry, EntryHead, Heard, IdempotencyKey, Owed, Prepended, TurnAccepted,
        TurnEnded, TurnReopened,
    },
    time::Timestamp,
    voice::usage::VoiceUsage,
};

/// The history of one conversation, as far as it is in the log.
#[derive(Debug, Clone)]
pub struct Document {
    incarnation: u64,
    /// Whether a document of this id may be somewhere that could not be looked for.
    unverified: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    user_id: Option<String>,
    character_id: Option<String>,
    /// Those of the document, and those that are to replace some of them and have no reply.
    turns: Turns,
    /// Turns that have left the document.
    replaced: Vec<TurnRecord>,
    heirs: Arc<Heirs>,
    seq: u64,
    bytes: usize,
    last_own: Timestamp,
    voice_usage: VoiceUsage,
}

/// A turn of the history: what was said, then the reply if there is one.
#[derive(Debug, Clone)]
pub struct TurnRecord {
    /// None for imported messages.
    pub turn: Option<TurnId>,
    /// Id that the reply has, or will have.
    pub reply_id: Option<MessageId>,
    /// The messages in order; a reply is the last. None before it has a reply, if it replaces.
    pub messages: SmallVec<[StoredMessage; 2]>,
    /// Whether it has ended.
    pub state: TurnState,
    /// Entry with which each run of it began, the first of which accepted it. Turns are told in this
    /// order, which is not that of the document where one ran again or replaced another.
    pub runs: SmallVec<[u64; 1]>,
    /// What a repeat of its request is recognized by, and when it last began to run.
    pub key: Option<Box<(IdempotencyKey, Timestamp)>>,
    /// What it replaces.
    pub branch: Option<Box<Branch>>,
}

/// Where a turn is.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnState {
    /// Accepted; its end is not in the log.
    Open {
        /// Which run of it, from 1.
        attempt: u32,
        /// Model asked.
        model: String,
        /// What it is owed.
        owed: Owed,
    },
    /// Ended.
    Ended(Box<TurnEnded>),
    /// Taken over from a document of before.
    Imported,
}

/// The entries do not make a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first entry is not the beginning, or a later one is.
    #[error("entry {seq} is out of place")]
    OutOfPlace {
        /// Its number, from 1.
        seq: u64,
    },
    /// A message does not parse.
    #[error("entry {seq}: {source}")]
    Malformed {
        /// Its number, from 1.
        seq: u64,
        /// Why.
        source: MalformedFragment,
    },
    /// A turn ends that was not accepted, or not open.
    #[error("entry {seq} ends turn {turn}, which is not open")]
    NotOpen {
        /// Its number, from 1.
        seq: u64,
        /// The turn.
        turn: TurnId,
    },
    /// A turn is to run again that has not ended.
    #[error("entry {seq} runs turn {turn} again, which has not ended")]
    NotOver {
        /// Its number, from 1.
        seq: u64,
        /// The turn.
        turn: TurnId,
    },
}

/// What the entries of a conversation come to.
#[derive(Debug, Clone)]
pub enum Folded {
    /// There is nothing: no entry, or a deletion as the last one.
    Over {
        /// Entries so far, deleted ones included.
        seq: u64,
    },
    /// There is a document.
    Here(Box<Document>),
}

/// A document at one moment, for showing. Shares the text.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When the conversation began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Owner, as the app named it.
    pub user_id: Option<String>,
    /// Companion, as the app named it.
    pub character_id: Option<String>,
    /// This life of the id.
    pub incarnation: u64,
    /// Entries in the log.
    pub seq: u64,
    /// The messages, in order.
    pub messages: Vec<StoredMessage>,
    /// What was spoken and heard.
    pub voice_usage: VoiceUsage,
    /// What stands for those that were replaced.
    pub heirs: Arc<Heirs>,
}

impl Snapshot {
    /// Where those after a message begin. Those after a replaced one begin with what replaced it.
    #[must_use]
    pub fn after(&self, id: MessageId) -> Option<usize> {
        let find = |id| {
            let mut ids = self.messages.iter().map(StoredMessage::id);
            ids.position(|it| it == Some(id))
        };
        find(id).map(|index| index + 1).or_else(|| {
            let heir = branches::successor(&self.heirs, id);
            find(heir).filter(|_| heir != id)
        })
    }
}

impl Document {
    /// Begins with an entry that is the `seq`th of its conversation.
    pub fn begin(entry: &Entry, seq: u64) -> Result<Self, FoldError> {
        let EntryHead::Begun(begun) = &entry.head else {
            return Err(FoldError::OutOfPlace { seq });
        };
        let mut document = Self {
            created_at: begun.at,
            updated_at: begun.imported_updated_at.unwrap_or(begun.at),
            user_id: begun.user_id.clone(),
            character_id: begun.character_id.clone(),
            incarnation: begun.incarnation,
            unverified: begun.unverified,
            turns: Turns::default(),
            replaced: Vec::new(),
            heirs: Arc::default(),
            seq: seq.saturating_sub(1),
            bytes: 0,
            last_own: Timestamp::from_micros(0),
            voice_usage: begun.voice_usage.unwrap_or_default(),
        };
        for message in parse(&entry.messages, seq)? {
            document.import(message);
        }
        document.seq = seq;
        Ok(document)
    }

    /// Folds all entries of a conversation, the first of which is the `first_seq`th.
    pub fn fold(first_seq: u64, entries: &[Entry]) -> Result<Folded, FoldError> {
        // A deletion stands at the beginning: what was before it is gone.
        let (deleted, entries) = match entries {
            [deletion, rest @ ..] if matches!(deletion.head, EntryHead::Deleted(_)) => (1, rest),
            all => (0, all),
        };
        let seq = first_seq.max(1) + deleted;
        let Some((first, rest)) = entries.split_first() else {
            return Ok(Folded::Over { seq: seq - 1 });
        };
        let mut document = Self::begin(first, seq)?;
        for entry in rest {
            document.apply(entry)?;
        }
        Ok(Folded::Here(Box::new(document)))
    }

    /// Adds the next entry, as the log gives it back.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), FoldError> {
        let messages = parse(&entry.messages, self.seq + 1)?;
        self.apply_parsed(&entry.head, messages)
    }

    /// Adds the next entry, whose messages the caller has at hand.
    pub fn apply_parsed(
        &mut self,
        head: &EntryHead,
        mut messages: Vec<StoredMessage>,
    ) -> Result<(), FoldError> {
        let seq = self.seq + 1;
        match head {
            EntryHead::Begun(_) | EntryHead::Deleted(_) => {
                return Err(FoldError::OutOfPlace { seq });
            }
            EntryHead::TurnAccepted(accepted) => self.accept(accepted, messages),
            EntryHead::TurnEnded(ended) => self.end(ended, messages.pop(), seq)?,
            EntryHead::TurnReopened(reopened) => self.reopen(reopened, seq)?,
            EntryHead::Heard(heard) => self.hear(heard),
            EntryHead::VoiceUsed(used) => self.voice_usage += used.usage,
            EntryHead::Appended(added) => {
                for message in &messages {
                    self.last_own = self.last_own.max(message.timestamp());
                }
                match added.replaces {
                    Some(at) => self.replace(at, messages),
                    None => messages
                        .into_iter()
                        .for_each(|message| self.import(message)),
                }
                self.updated_at = self.updated_at.max(added.at);
            }
            EntryHead::Prepended(prepended) => self.prepend(prepended, messages),
        }
        self.seq = seq;
        Ok(())
    }

    fn import(&mut self, message: StoredMessage) {
        self.bytes += message.shown_bytes();
        self.note_alternatives(&message);
        // A turn begins where a user speaks after somebody else: the window is cut between turns.
        let begins = message.role() == Role::User
            && self.turns.last().is_none_or(|turn| {
                turn.messages
                    .last()
                    .is_none_or(|last| last.role() != Role::User)
            });
        let goes_on = |last: &TurnRecord| !begins && last.state == TurnState::Imported;
        if self.turns.last().is_some_and(goes_on) {
            let last = self.turns.changing(self.turns.len() - 1);
            last[0].messages.push(message);
        } else {
            let messages = SmallVec::from_iter([message]);
            let turn = TurnRecord::imported(messages, self.seq + 1);
            self.turns.push(turn);
        }
    }

    /// Puts messages before all others; they keep their own times.
    fn prepend(&mut self, prepended: &Prepended, messages: Vec<StoredMessage>) {
        self.name_owner(
            prepended.user_id.as_deref(),
            prepended.character_id.as_deref(),
        );
        self.created_at = self.created_at.min(prepended.created_at);
        self.unverified = false;
        let ours = self.turns.split_off(0);
        for message in messages {
            self.import(message);
        }
        self.turns.extend(ours);
    }

    fn name_owner(&mut self, user_id: Option<&str>, character_id: Option<&str>) {
        for (known, given) in [
            (&mut self.user_id, user_id),
            (&mut self.character_id, character_id),
        ] {
            if known.is_none() {
                *known = given.map(str::to_owned);
            }
        }
    }

    fn reopen(&mut self, reopened: &TurnReopened, seq: u64) -> Result<(), FoldError> {
        let turn = reopened.turn;
        // It stays where it was accepted, and replaces nothing that was accepted after it. One that
        // has left the document runs to no effect.
        let record = self
            .turn_mut(turn)
            .filter(|record| matches!(record.state, TurnState::Ended(_)))
            .ok_or(FoldError::NotOver { seq, turn })?;
        record.runs.push(seq);
        if let Some(key) = &mut record.key {
            key.1 = key.1.max(reopened.at);
        }
        record.state = TurnState::Open {
            attempt: reopened.attempt,
            model: reopened.model.clone(),
            owed: Owed::Reply,
        };
        self.updated_at = self.updated_at.max(reopened.at);
        Ok(())
    }

    fn accept(&mut self, accepted: &TurnAccepted, mut messages: Vec<StoredMessage>) {
        self.name_owner(
            accepted.user_id.as_deref(),
            accepted.character_id.as_deref(),
        );
        for message in &mut messages {
            self.bytes += message.bytes();
            // Stamped before a reply that reached the log first: it stands after that reply.
            if message.timestamp() <= self.last_own {
                *message = message.at(self.last_own.next());
            }
            self.last_own = message.timestamp();
        }
        self.updated_at = self.updated_at.max(accepted.at);
        let mut messages: SmallVec<_> = messages.into();
        let branch = accepted.replaces.map(|at| {
            let own: SmallVec<_> = std::mem::take(&mut messages).into_iter().collect();
            let told = self.told(at, &own).unwrap_or_default();
            Box::new(Branch { at, own, told })
        });
        self.turns.push(TurnRecord {
            turn: Some(accepted.turn),
            reply_id: Some(accepted.reply),
            messages,
            branch,
            runs: SmallVec::from_iter([self.seq + 1]),
            state: TurnState::Open {
                attempt: 1,
                model: accepted.model.clone(),
                owed: accepted.owed,
            },
            key: accepted.key.clone().map(|key| Box::new((key, accepted.at))),
        });
    }

    fn end(
        &mut self,
        ended: &TurnEnded,
        reply: Option<StoredMessage>,
        seq: u64,
    ) -> Result<(), FoldError> {
        let not_open = FoldError::NotOpen {
            seq,
            turn: ended.turn,
        };
        if self.end_replaced(ended) {
            return Ok(());
        }
        // Open turns are among the newest, save for one that runs again.
        let position = self
            .turns
            .iter()
            .rposition(|record| record.turn == Some(ended.turn))
            .filter(|position| self.turns[*position].is_open_at(ended.attempt))
            .ok_or(not_open.clone())?;
        let record = self.turns.get_mut(position).ok_or(not_open)?;
        record.state = TurnState::Ended(Box::new(ended.clone()));
        let first = reply.filter(|_| record.reply().is_none());
        self.updated_at = self.updated_at.max(ended.at);
        if let Some(reply) = first {
            self.bytes += reply.bytes();
            let id = self.turns[position].reply_id;
            let (position, old) = match id.filter(|id| reply.id() == Some(*id)) {
                Some(id) => self.select(position, id),
                None => (position, None),
            };
            self.place_reply(position, branches::replacing(reply, old));
        }
        Ok(())
    }

    /// Ends a turn that left the document and ran again all the same; its reply belongs nowhere.
    fn end_replaced(&mut self, ended: &TurnEnded) -> bool {
        let mut replaced = self.replaced.iter_mut().rev();
        let record = replaced.find(|it| it.turn == Some(ended.turn));
        let Some(record) = record.filter(|it| it.is_open_at(ended.attempt)) else {
            return false;
        };
        record.state = TurnState::Ended(Box::new(ended.clone()));
        self.updated_at = self.updated_at.max(ended.at);
        true
    }

    /// Cuts a reply to what was heard of it; to no effect where it is gone, or that short already.
    fn hear(&mut self, heard: &Heard) {
        self.updated_at = self.updated_at.max(heard.at);
        let turn = Some(heard.turn);
        let position = self.turns.iter().rposition(|it| it.turn == turn);
        let record = position.and_then(|position| self.turns.get_mut(position));
        let Some(record) = record.filter(|it| it.reply_id == Some(heard.reply)) else {
            return;
        };
        let cut = record.reply().and_then(|it| it.heard(heard.bytes));
        if let (Some(cut), Some(reply)) = (cut, record.messages.last_mut()) {
            self.bytes = self.bytes + cut.bytes() - reply.bytes();
            *reply = cut;
            if let TurnState::Ended(ended) = &mut record.state {
                ended.finish_reason = CANCELLED.to_owned();
                ended.error = None;
            }
        }
    }

    /// Puts a reply behind its turn's messages, and sees to it that times go up.
    fn place_reply(&mut self, position: usize, reply: StoredMessage) {
        let asked = self.turns[position].messages.last();
        let earliest = asked.map_or(reply.timestamp(), |message| message.timestamp().next());
        // The reply of a turn that ran again has turns behind it that have ended: their times stay.
        let followed = self.turns[position + 1..]
            .iter()
            .filter(|later| !later.is_open());
        let time = if self.turns[position].branch.is_some() {
            // What it answers may be old.
            let behind = followed.flat_map(|later| &later.messages);
            let behind = behind.map(|it| it.timestamp().micros() - 1).min();
            let latest = behind.map_or(reply.timestamp(), Timestamp::from_micros);
            reply.timestamp().min(latest).max(earliest)
        } else if followed.count() > 0 {
            earliest
        } else {
            reply.timestamp().max(earliest)
        };
        let reply = if time == reply.timestamp() {
            reply
        } else {
            reply.at(time)
        };
        let (own, followers) = match self.turns.changing(position) {
            [own, followers @ ..] => (own, followers),
            [] => return,
        };
        own.messages.push(reply);
        // Messages that waited behind this reply stand after it, so their time is later, too.
        let mut last = time;
        for message in followers.iter_mut().flat_map(|later| {
            let own = later.branch.iter_mut().flat_map(|it| it.own.iter_mut());
            later.messages.iter_mut().chain(own)
        }) {
            if message.timestamp() <= last {
                *message = message.at(last.next());
            }
            last = message.timestamp();
        }
        self.last_own = self.last_own.max(last);
    }

    /// Whether no message was ever stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.iter().all(|turn| turn.messages.is_empty())
    }

    /// When it began.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// All messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &StoredMessage> {
        self.turns.iter().flat_map(|turn| &turn.messages)
    }

    /// Entries folded so far.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// This life of the id.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Bytes of all messages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Owner, as the app named it.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The turns, oldest first. Those that are to replace others stand where they were accepted,
    /// and have no messages yet.
    #[must_use]
    pub fn turns(&self) -> &[TurnRecord] {
        &self.turns
    }

    /// The history for the prompt of a turn: all before it, or all if it is not there yet.
    #[must_use]
    pub fn until(&self, turn: TurnId) -> History<'_> {
        let position = match self.turns.may_hold(turn) {
            true => self.turns.iter().rposition(|it| it.turn == Some(turn)),
            false => None,
        };
        self.turns.until(position.unwrap_or(self.turns.len()))
    }

    /// The turn of this id; it may have been replaced.
    #[must_use]
    pub fn turn(&self, turn: TurnId) -> Option<&TurnRecord> {
        if !self.turns.may_hold(turn) {
            return None;
        }
        let replaced = self.replaced.iter().rev();
        self.turns
            .iter()
            .rev()
            .chain(replaced)
            .find(|record| record.turn == Some(turn))
    }

    fn turn_mut(&mut self, turn: TurnId) -> Option<&mut TurnRecord> {
        let is_it = |record: &TurnRecord| record.turn == Some(turn);
        if let Some(position) = self.replaced.iter().rposition(is_it) {
            return self.replaced.get_mut(position);
        }
        let position = self.turns.iter().rposition(is_it)?;
        self.turns.get_mut(position)
    }

    /// The newest turn that was accepted with a key of this scope, and is open or `kept`: told by
    /// its id and the time at which it last began to run.
    pub fn keyed(
        &self,
        scope: &str,
        key: &str,
        kept: impl Fn(Option<TurnId>, Timestamp) -> bool,
    ) -> Option<&TurnRecord> {
        if !self.turns.may_hold_key(scope, key) {
            return None;
        }
        let replaced = self.replaced.iter().rev();
        self.turns.iter().rev().chain(replaced).find(|record| {
            record.key.as_ref().is_some_and(|known| {
                let (known, accepted_at) = &**known;
                let is_kept = || record.is_open() || kept(record.turn, *accepted_at);
                known.key == key && known.scope == scope && is_kept()
            })
        })
    }

    /// Whether a document of this id may be somewhere that could not be looked for.
    #[must_use]
    pub fn began_unverified(&self) -> bool {
        self.unverified
    }

    /// A time for the next message: now, but after every message that stands before it.
    #[must_use]
    pub fn next_timestamp(&self, now: Timestamp) -> Timestamp {
        now.max(self.last_own.next())
    }

    /// A time for the reply of an open turn: now, but after that turn's own messages.
    #[must_use]
    pub fn reply_timestamp(&self, turn: TurnId, now: Timestamp) -> Timestamp {
        self.turn(turn)
            .and_then(|record| self.received(record).last())
            .map_or(now, |message| now.max(message.timestamp().next()))
    }

    /// What was spoken and heard.
    #[must_use]
    pub fn voice_usage(&self) -> VoiceUsage {
        self.voice_usage
    }

    /// What a reader is shown.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            created_at: self.created_at,
            updated_at: self.updated_at,
            user_id: self.user_id.clone(),
            character_id: self.character_id.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            messages: self
                .turns
                .iter()
                .flat_map(|turn| turn.messages.iter().cloned())
                .collect(),
            voice_usage: self.voice_usage,
            heirs: self.heirs.clone(),
        }
    }
}

impl TurnRecord {
    fn imported(messages: SmallVec<[StoredMessage; 2]>, since: u64) -> Self {
        Self {
            turn: None,
            reply_id: None,
            messages,
            runs: SmallVec::from_iter([since]),
            state: TurnState::Imported,
            key: None,
            branch: None,
        }
    }

    /// Entry that accepted it.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.runs.first().copied().unwrap_or_default()
    }

    /// Entry with which its last run began.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.runs.last().copied().unwrap_or_default()
    }

    /// Whether it ran more than once.
    #[must_use]
    pub fn ran_again(&self) -> bool {
        self.runs.len() > 1
    }

    /// The entry with which a run of it began that was not the last.
    #[must_use]
    pub fn earlier_run(&self, run: usize) -> Option<u64> {
        let began = self.runs.get(run.checked_sub(1)?)?;
        (run < self.runs.len()).then_some(*began)
    }

    /// Messages of the place in which it replaced another reply: older ones than it.
    #[must_use]
    pub fn stayed(&self) -> &[StoredMessage] {
        let after = self.branch.as_ref().and_then(|branch| branch.told().after);
        let received = self.received();
        let last = received
            .iter()
            .position(|it| after.is_some() && it.id() == after);
        &received[..last.map_or(0, |index| index + 1)]
    }

    /// Whether its end is not in the log.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, TurnState::Open { .. })
    }

    fn is_open_at(&self, wanted: u32) -> bool {
        matches!(self.state, TurnState::Open { attempt, .. } if attempt == wanted)
    }

    /// What was said, without the reply.
    #[must_use]
    pub fn received(&self) -> &[StoredMessage] {
        match self.reply() {
            Some(_) => &self.messages[..self.messages.len() - 1],
            None => &self.messages,
        }
    }

    /// The reply, if the turn produced one.
    #[must_use]
    pub fn reply(&self) -> Option<&StoredMessage> {
        self.messages
            .last()
            .filter(|last| self.reply_id.is_some() && last.id() == self.reply_id)
    }
}

fn parse(fragments: &[Arc<str>], seq: u64) -> Result<Vec<StoredMessage>, FoldError> {
    fragments
        .iter()
        .map(|fragment| {
            StoredMessage::from_fragment(fragment.clone())
                .map_err(|source| FoldError::Malformed { seq, source })
        })
        .collect()
}

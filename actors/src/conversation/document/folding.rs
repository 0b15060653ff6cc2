//! The fold: what each entry of the log adds to a history.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Branch, Document, TurnRecord, TurnState, branches, turns::Turns};
use crate::{
    conversation::message::{MalformedFragment, Role, StoredMessage},
    id::TurnId,
    log::entry::{
        CANCELLED, Entry, EntryHead, Heard, Owed, Prepended, TurnAccepted, TurnEnded, TurnReopened,
    },
    time::Timestamp,
};

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

    pub(super) fn import(&mut self, message: StoredMessage) {
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

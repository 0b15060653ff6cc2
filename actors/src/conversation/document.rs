//! A conversation's history: a fold over the entries of the log.
//!
//! The same [`Document::apply`] serves the live conversation and a reload, so both give the same
//! bytes. Pure: no clock, no I/O.

use std::sync::Arc;

use smallvec::SmallVec;

use super::message::{MalformedFragment, Role, StoredMessage};
use crate::{
    id::{MessageId, TurnId},
    log::entry::{Begun, Entry, EntryHead, TurnAccepted, TurnEnded},
    time::Timestamp,
};

/// The history of one conversation, as far as it is in the log.
#[derive(Debug, Clone)]
pub struct Document {
    begun: Begun,
    updated_at: Timestamp,
    user_id: Option<String>,
    character_id: Option<String>,
    turns: Vec<TurnRecord>,
    seq: u64,
    bytes: usize,
    last_own: Timestamp,
}

/// A turn of the history: what was said, then the reply if there is one.
#[derive(Debug, Clone)]
pub struct TurnRecord {
    /// None for imported messages.
    pub turn: Option<TurnId>,
    /// Id that the reply has, or will have.
    pub reply_id: Option<MessageId>,
    /// The messages in order; a reply is the last.
    pub messages: SmallVec<[StoredMessage; 2]>,
    /// Whether a reply is still owed.
    pub state: TurnState,
}

/// Where a turn is.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnState {
    /// Accepted; its end is not in the log.
    Open,
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
}

impl Document {
    /// Begins with the first entry of the log.
    pub fn begin(entry: &Entry) -> Result<Self, FoldError> {
        let EntryHead::Begun(begun) = &entry.head else {
            return Err(FoldError::OutOfPlace { seq: 1 });
        };
        let mut document = Self {
            updated_at: begun.imported_updated_at.unwrap_or(begun.at),
            user_id: begun.user_id.clone(),
            character_id: begun.character_id.clone(),
            begun: begun.clone(),
            turns: Vec::new(),
            seq: 1,
            bytes: 0,
            last_own: Timestamp::from_micros(0),
        };
        for message in parse(&entry.messages, 1)? {
            document.import(message);
        }
        Ok(document)
    }

    /// Folds all entries of a conversation.
    pub fn fold(entries: &[Entry]) -> Result<Option<Self>, FoldError> {
        let Some((first, rest)) = entries.split_first() else {
            return Ok(None);
        };
        let mut document = Self::begin(first)?;
        for entry in rest {
            document.apply(entry)?;
        }
        Ok(Some(document))
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
            EntryHead::Begun(_) => return Err(FoldError::OutOfPlace { seq }),
            EntryHead::TurnAccepted(accepted) => self.accept(accepted, messages),
            EntryHead::TurnEnded(ended) => self.end(ended, messages.pop(), seq)?,
        }
        self.seq = seq;
        Ok(())
    }

    fn import(&mut self, message: StoredMessage) {
        self.bytes += message.bytes();
        // A turn begins where a user speaks after somebody else: the window is cut between turns.
        let begins = message.role() == Role::User
            && self.turns.last().is_none_or(|turn| {
                turn.messages
                    .last()
                    .is_none_or(|last| last.role() != Role::User)
            });
        match self.turns.last_mut() {
            Some(turn) if !begins => turn.messages.push(message),
            Some(_) | None => self.turns.push(TurnRecord {
                turn: None,
                reply_id: None,
                messages: SmallVec::from_iter([message]),
                state: TurnState::Imported,
            }),
        }
    }

    fn accept(&mut self, accepted: &TurnAccepted, mut messages: Vec<StoredMessage>) {
        if self.user_id.is_none() {
            self.user_id.clone_from(&accepted.user_id);
        }
        if self.character_id.is_none() {
            self.character_id.clone_from(&accepted.character_id);
        }
        for message in &mut messages {
            self.bytes += message.bytes();
            // Stamped before a reply that reached the log first: it stands after that reply.
            if message.timestamp() <= self.last_own {
                *message = message.at(self.last_own.next());
            }
            self.last_own = message.timestamp();
        }
        self.updated_at = self.updated_at.max(accepted.at);
        self.turns.push(TurnRecord {
            turn: Some(accepted.turn),
            reply_id: Some(accepted.reply),
            messages: messages.into(),
            state: TurnState::Open,
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
        // Open turns are the newest: the queue bounds this walk.
        let position = self
            .turns
            .iter()
            .rposition(|record| record.turn == Some(ended.turn))
            .filter(|position| self.turns[*position].state == TurnState::Open)
            .ok_or(not_open)?;
        let record = &mut self.turns[position];
        record.state = TurnState::Ended(Box::new(ended.clone()));
        self.updated_at = self.updated_at.max(ended.at);
        if let Some(reply) = reply {
            self.bytes += reply.bytes();
            let mut last = reply.timestamp();
            record.messages.push(reply);
            // Messages that waited behind this reply stand after it, so their time is later, too.
            for message in self.turns[position + 1..]
                .iter_mut()
                .flat_map(|later| later.messages.iter_mut())
            {
                if message.timestamp() <= last {
                    *message = message.at(last.next());
                }
                last = message.timestamp();
            }
            self.last_own = self.last_own.max(last);
        }
        Ok(())
    }

    /// Whether no message was ever stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.iter().all(|turn| turn.messages.is_empty())
    }

    /// Entries folded so far.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// This life of the id.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.begun.incarnation
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

    /// The turns, oldest first.
    #[must_use]
    pub fn turns(&self) -> &[TurnRecord] {
        &self.turns
    }

    /// The turn of this id.
    #[must_use]
    pub fn turn(&self, turn: TurnId) -> Option<&TurnRecord> {
        self.turns
            .iter()
            .rev()
            .find(|record| record.turn == Some(turn))
    }

    /// The turns before the first one that still owes a reply.
    #[must_use]
    pub fn settled(&self) -> &[TurnRecord] {
        let open = self
            .turns
            .iter()
            .rev()
            .take_while(|record| record.state == TurnState::Open)
            .count();
        &self.turns[..self.turns.len() - open]
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
            .and_then(|record| record.messages.last())
            .map_or(now, |message| now.max(message.timestamp().next()))
    }

    /// What a reader is shown.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            created_at: self.begun.at,
            updated_at: self.updated_at,
            user_id: self.user_id.clone(),
            character_id: self.character_id.clone(),
            incarnation: self.begun.incarnation,
            seq: self.seq,
            messages: self
                .turns
                .iter()
                .flat_map(|turn| turn.messages.iter().cloned())
                .collect(),
        }
    }
}

impl TurnRecord {
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

//! A conversation's history: a fold over the entries of the log.
//!
//! The same [`Document::apply`] serves the live conversation and a reload, so both give the same
//! bytes. Pure: no clock, no I/O.

use std::sync::Arc;

mod branches;
mod folding;
mod record;
#[cfg(test)]
mod tests;
mod turns;

pub use branches::{Branch, Heirs, Kind, NoPlace, Replacing};
pub use folding::{FoldError, Folded};
pub use record::{TurnRecord, TurnState};
use turns::Turns;
pub use turns::{History, Windowed};

use super::message::StoredMessage;
use crate::{
    id::{MessageId, TurnId},
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

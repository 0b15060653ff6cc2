//! A turn of the history: its messages, and how far it has come.

use smallvec::SmallVec;

use super::Branch;
use crate::{
    conversation::message::StoredMessage,
    id::{MessageId, TurnId},
    log::entry::{IdempotencyKey, Owed, TurnEnded},
    time::Timestamp,
};

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

impl TurnRecord {
    pub(super) fn imported(messages: SmallVec<[StoredMessage; 2]>, since: u64) -> Self {
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

    pub(super) fn is_open_at(&self, wanted: u32) -> bool {
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

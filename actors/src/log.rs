//! The durable log: the one truth about every conversation.
//!
//! Nothing of the storage engine shows here, so that a clustered log can follow. What an append
//! acknowledges is on disk, synced.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;

use crate::id::{ConversationId, TurnId};

pub mod data_dir;
pub mod entry;
pub mod sqlite;

use entry::Entry;

/// Appends entries to one conversation, if it is where the writer believes it is.
#[derive(Debug)]
pub struct Append {
    /// Whose history.
    pub id: ConversationId,
    /// Number of entries the conversation has, as the writer knows it.
    pub expected_seq: u64,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The conversation is elsewhere: another writer came first. Nothing was written.
    #[error("the conversation is at entry {actual_seq}")]
    Refused {
        /// Entries it really has.
        actual_seq: u64,
    },
    /// The log already holds this turn's acceptance or this turn's end. Nothing was written.
    #[error("the log already holds this entry of turn {turn}")]
    Duplicate {
        /// The turn.
        turn: TurnId,
    },
    /// The log cannot write now (disk full, read-only); nothing was written.
    #[error("the log cannot write: {0}")]
    Unavailable(Arc<str>),
    /// Whether it was written is not known; only reading the log after a restart tells.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(Arc<str>),
}

/// Why a read failed. Never "not there": that is `Ok(None)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be read now.
    #[error("the log cannot be read: {0}")]
    Unavailable(Arc<str>),
    /// An entry does not parse, or one is missing.
    #[error("entry {seq} of the log is damaged: {reason}")]
    Corrupt {
        /// Position in the conversation, from 1.
        seq: u64,
        /// What is wrong.
        reason: Arc<str>,
    },
}

/// A conversation as the log has it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every entry in order; entry `n` (from 1) is at index `n - 1`.
    pub entries: Vec<Entry>,
}

/// The log. Cheap to call from any thread: a call queues, its future resolves when it is done.
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Appends; `Ok` holds the new number of entries and means: synced.
    fn append(&self, append: Append) -> BoxFuture<'static, Result<u64, AppendError>>;

    /// Reads one conversation, after every append queued before this call; `None`: the log has none.
    fn load(&self, id: ConversationId) -> BoxFuture<'static, Result<Option<Loaded>, LogError>>;
}

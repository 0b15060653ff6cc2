//! The durable log: the one truth about every conversation.
//!
//! Nothing of the storage engine shows here, so that a clustered log can follow. What an append
//! acknowledges is on disk, synced.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;

use crate::id::{ConversationId, TurnId};

pub mod data_dir;
pub mod entry;
pub mod space;
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
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Loaded {
    /// Number of the first entry: 1, or that of the deletion with which they begin.
    pub first_seq: u64,
    /// Every entry in order; entry `n` is at index `n - first_seq`.
    pub entries: Vec<Entry>,
    /// Text of replies under way, as far as it was checkpointed.
    pub partials: Vec<Partial>,
}

/// The text of a reply under way that is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Of which turn.
    pub turn: TurnId,
    /// From its beginning, escaped as in a fragment.
    pub text: String,
}

/// A piece of a reply under way, to be kept in case that nobody lives to write its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of which turn.
    pub turn: TurnId,
    /// Which run of it.
    pub attempt: u32,
    /// Bytes of text before it, escaped.
    pub offset: u64,
    /// What came since the last one, escaped.
    pub text: String,
}

/// The log. Cheap to call from any thread: a call queues, its future resolves when it is done.
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Appends; `Ok` holds the new number of entries and means: synced.
    fn append(&self, append: Append) -> BoxFuture<'static, Result<u64, AppendError>>;

    /// Keeps the text of a reply under way; `Ok` means: synced.
    ///
    /// It leaves the log with the transaction that ends the turn. For a turn that is not open it is
    /// dropped: its end was written by somebody else, and has the text.
    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'static, Result<(), LogError>>;

    /// Reads one conversation, after every append and checkpoint queued before this call; `None`:
    /// the log has none.
    fn load(&self, id: ConversationId) -> BoxFuture<'static, Result<Option<Loaded>, LogError>>;
}

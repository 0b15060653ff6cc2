//! Why the engine refuses or fails a command.

use std::time::Duration;

use serde::Serialize;

use crate::provider::UpstreamError;

/// Every way a command can fail. The server maps each to a status and a public code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EngineError {
    /// The command is well formed but cannot be carried out: nothing to answer, say.
    #[error("{message}")]
    Invalid {
        /// Member of the request at fault, as a path (`messages`).
        field: &'static str,
        /// One sentence.
        message: String,
    },
    /// No such conversation, or not this caller's.
    #[error("Conversation not found")]
    NotFound,
    /// The turn queue is full.
    #[error("This conversation has too many turns waiting; try again when some are answered")]
    Busy,
    /// The idempotency key was sent with another request before.
    #[error("This idempotency key was used for another request")]
    KeyReused,
    /// Whether there is such a conversation cannot be told: a mirror that may hold it does not
    /// answer.
    #[error("Stored conversations cannot be read at the moment")]
    MirrorUnavailable,
    /// The upstream failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The log cannot write or read now.
    #[error("The conversation log cannot be written at the moment")]
    StorageUnavailable,
    /// The server is stopping.
    #[error("The server is shutting down")]
    ShuttingDown {
        /// When to come back.
        retry_after: Duration,
    },
    /// The conversation's actor died under the request.
    #[error("The conversation was restarted while this request was under way")]
    Restarted,
    /// Another writer owns the conversation.
    #[error("The conversation is owned by another writer")]
    Moved,
    /// The stored document cannot be read; it was kept aside, untouched.
    #[error("The stored document of this conversation cannot be read: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The engine did not answer in time.
    #[error("The server is overloaded")]
    Overloaded,
}

impl EngineError {
    /// The stable public code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_request",
            Self::NotFound => "conversation_not_found",
            Self::Busy => "conversation_busy",
            Self::KeyReused => "idempotency_mismatch",
            Self::Upstream(error) => error.kind.code(),
            Self::StorageUnavailable | Self::MirrorUnavailable => "storage_unavailable",
            Self::ShuttingDown { .. } => "shutting_down",
            Self::Restarted => "conversation_restarted",
            Self::Moved => "conversation_moved",
            Self::Unreadable { .. } => "conversation_unreadable",
            Self::Overloaded => "overloaded",
        }
    }
}

//! Why a call failed, and what may be concluded from it.

use std::time::Duration;

/// A call without the outcome that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SupabaseError {
    /// What kind of failure.
    pub kind: SupabaseErrorKind,
    /// A sentence for the operator. Never holds the key.
    pub message: String,
    /// How long the server asks to wait; at most an hour.
    pub retry_after: Option<Duration>,
}

/// What kind of failure. Each but [`Unknown`](Self::Unknown) and [`Malformed`](Self::Malformed)
/// means that nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupabaseErrorKind {
    /// The server says in so many words that it has no such thing.
    NotFound(Missing),
    /// The key is at fault.
    Auth(AuthFault),
    /// The key is good, but not for this: row-level security, or a missing grant.
    Forbidden,
    /// The document exceeds the server's limit, or an answer exceeds ours.
    TooLarge,
    /// The server takes no object or bucket of this name.
    RejectedName,
    /// What was to be created exists.
    Duplicate,
    /// Too many requests.
    RateLimited,
    /// No connection, a server that is down, busy, locked or read-only, a failed transaction, or
    /// a read that broke off.
    Unavailable,
    /// The outcome of a write is not known: the server may have taken the request, but its answer
    /// did not come. It may still land later.
    Unknown,
    /// The table `chats` is missing, or PostgREST has not seen it yet.
    MissingTable,
    /// A row names a user or a character that the database does not have.
    ForeignKey,
    /// A column holds UUIDs (or numbers), and the value is none.
    BadUuid,
    /// The server has no such route: another version, or the URL is wrong.
    NoRoute,
    /// The request was refused for another reason; sent again, it would be refused again.
    Rejected,
    /// The answer is not the server's as we know it. If it answers a write, the outcome is not
    /// known.
    Malformed,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The bucket.
    Bucket,
    /// The object.
    Object,
}

/// What is wrong with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFault {
    /// The server saw none.
    Absent,
    /// Its time has passed.
    Expired,
    /// It is from the future. Gateways with a hurried clock say so of good keys, for a moment.
    NotYetValid,
    /// It names a role that the database does not have.
    UnknownRole,
    /// Not a key of this project.
    Invalid,
}

impl SupabaseError {
    /// Whether the same call may succeed later, without an operator's help.
    ///
    /// For [`AuthFault::NotYetValid`] one repetition is enough; a key that still is not valid is
    /// wrong. For [`SupabaseErrorKind::Unknown`] first see what became of the first attempt.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use SupabaseErrorKind as Kind;
        match self.kind {
            Kind::RateLimited
            | Kind::Unavailable
            | Kind::Unknown
            | Kind::Auth(AuthFault::NotYetValid) => true,
            Kind::NotFound(_)
            | Kind::Auth(_)
            | Kind::Forbidden
            | Kind::TooLarge
            | Kind::RejectedName
            | Kind::Duplicate
            | Kind::MissingTable
            | Kind::ForeignKey
            | Kind::BadUuid
            | Kind::NoRoute
            | Kind::Rejected
            | Kind::Malformed => false,
        }
    }

    /// Whether a write that failed so may have taken effect, or may still do so.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        use SupabaseErrorKind as Kind;
        matches!(self.kind, Kind::Unknown | Kind::Malformed)
    }

    pub(super) fn new(kind: SupabaseErrorKind, what: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: format!("Supabase {}", what.as_ref()),
            retry_after: None,
        }
    }

    /// The answer is not what the API promises; `what` the server did, without a subject.
    pub(super) fn malformed(what: impl AsRef<str>) -> Self {
        Self::new(SupabaseErrorKind::Malformed, what)
    }
}

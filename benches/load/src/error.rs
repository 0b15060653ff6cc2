//! What can go wrong in a run.

use std::{io, time::Duration};

use thiserror::Error;

/// Why the load test cannot go on.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("{what} took longer than {after:?}")]
    Deadline { what: String, after: Duration },
    #[error("{0} ended before its time")]
    Ended(String),
    #[error("{0}")]
    Unusable(String),
    #[error("a reply is wrong: {0}")]
    WrongReply(String),
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    #[error("the turn failed: {0}")]
    TurnFailed(String),
    #[error("interrupted")]
    Interrupted,
}

impl LoadError {
    /// Says in front of an input or output error what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// Whether the run is worthless with it: text came that nobody sent.
    pub(crate) fn is_wrong_reply(&self) -> bool {
        matches!(self, Self::WrongReply(_))
    }
}

impl From<serde_json::Error> for LoadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unusable(format!("unexpected JSON: {error}"))
    }
}

/// Bounds what is waited for.
pub(crate) async fn within<T>(
    what: &str,
    after: Duration,
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    match tokio::time::timeout(after, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(LoadError::Deadline {
            what: what.to_owned(),
            after,
        }),
    }
}

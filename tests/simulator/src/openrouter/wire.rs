//! The form of an answer on the wire.

use crate::http::Split;

/// The form of a stream on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) usage: Usage,
    pub(crate) role: Role,
    pub(crate) eol: &'static str,
    pub(crate) prefix: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) done: Option<Done>,
    pub(crate) split: Split,
    pub(crate) delimited: Delimited,
    pub(crate) newlines: usize,
}

/// Where usage is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Choice,
    Empty,
    Every,
    Missing,
}

/// Which deltas carry the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Every,
    First,
}

/// How the end marker is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Sent,
    Missing,
    /// Without the blank line after it.
    Bare,
}

/// How the end of a streamed body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimited {
    Chunked,
    Close,
}

impl Wire {
    /// Whether a streamed body is sent in chunks.
    pub(crate) fn is_chunked(&self) -> bool {
        self.delimited == Delimited::Chunked
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            usage: Usage::Choice,
            role: Role::Every,
            eol: "\n",
            prefix: "data: ",
            comment: ": OPENROUTER PROCESSING",
            done: None,
            split: Split::Whole,
            delimited: Delimited::Chunked,
            newlines: 0,
        }
    }
}

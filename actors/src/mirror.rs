//! Followers of the log: each keeps a readable copy of every conversation somewhere else.
//!
//! A mirror holds no queue of writes, only what each conversation's copy should show. It may fall
//! behind, and catches up from the log; it never holds up a turn.

use std::sync::Arc;

use crate::{id::ConversationId, log::Loaded};

pub mod imported;
pub mod json_files;
pub mod supabase;

/// Makes a conversation's document from its entries.
pub trait Render: Send + Sync {
    /// Folds the entries. Called on a thread that may block.
    fn render(&self, id: &ConversationId, loaded: Loaded) -> Result<Rendered, RenderError>;
}

/// A document as it is written.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The life of the id that it shows.
    pub incarnation: u64,
    /// Entries that it shows.
    pub seq: u64,
    /// The JSON text, in pieces that follow each other; shared with whoever holds the messages.
    pub json: Vec<Arc<str>>,
}

/// The entries make no document: a mistake of ours, or damage that still parses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document cannot be made: {0}")]
pub struct RenderError(pub String);

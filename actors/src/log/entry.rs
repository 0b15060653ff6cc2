//! What the log holds: versioned events. A document is a fold over them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    id::{MessageId, TurnId},
    provider::RawJson,
    time::Timestamp,
};

/// One record of the log.
///
/// The messages stand beside the head: each is the complete JSON object that the document shows,
/// shared with the history and copied by the storage engine alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Everything but the messages' text.
    pub head: EntryHead,
    /// Message fragments, in order; `{role, content, …}` as the document shows them.
    pub messages: Vec<Arc<str>>,
}

/// The small part of an entry. Stored as JSON; a new variant or member is a new version of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
// Externally tagged: the other forms buffer, and a raw JSON member does not survive that.
#[serde(rename_all = "snake_case")]
pub enum EntryHead {
    /// The first entry of every conversation. Carries messages if the conversation was imported.
    Begun(Begun),
    /// A turn was accepted; its user messages (possibly none) stand in the entry.
    TurnAccepted(TurnAccepted),
    /// A turn ended; its reply, if there is any text, stands in the entry.
    TurnEnded(TurnEnded),
}

/// A conversation begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// Random; tells this life of the id from one before a deletion.
    pub incarnation: u64,
    /// Owner, as the app named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Companion, as the app named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character_id: Option<String>,
    /// For an imported document: when it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_updated_at: Option<Timestamp>,
}

/// A turn is accepted: its user messages are durable, a reply is owed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnAccepted {
    /// When.
    pub at: Timestamp,
    /// Minted by the session.
    pub turn: TurnId,
    /// Id that the reply will have.
    pub reply: MessageId,
    /// Fills in the conversation's owner if it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Fills in the conversation's companion if it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character_id: Option<String>,
}

/// A turn ended. At most one per turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnEnded {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub turn: TurnId,
    /// `stop`, `length`, `tool_calls`, `content_filter`, `unknown`; or, for a cut reply,
    /// `error`, `cancelled`, `interrupted`.
    pub finish_reason: String,
    /// The upstream's `usage` object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<RawJson>,
    /// Public code of the error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Finish reason of a turn that a crash or a shutdown cut.
pub const INTERRUPTED: &str = "interrupted";
/// Finish reason of a turn whose upstream failed.
pub const FAILED: &str = "error";
/// Finish reason of a turn that the user stopped.
pub const CANCELLED: &str = "cancelled";
/// Finish reason where the upstream ended its stream properly but gave none.
pub const UNKNOWN: &str = "unknown";

impl Entry {
    /// The turn that this entry accepts, if it does.
    #[must_use]
    pub fn accepts(&self) -> Option<TurnId> {
        match &self.head {
            EntryHead::TurnAccepted(accepted) => Some(accepted.turn),
            EntryHead::Begun(_) | EntryHead::TurnEnded(_) => None,
        }
    }

    /// The turn that this entry ends, if it does.
    #[must_use]
    pub fn ends(&self) -> Option<TurnId> {
        match &self.head {
            EntryHead::TurnEnded(ended) => Some(ended.turn),
            EntryHead::Begun(_) | EntryHead::TurnAccepted(_) => None,
        }
    }
}

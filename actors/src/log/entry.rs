//! What the log holds: versioned events. A document is a fold over them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    id::{MessageId, TurnId},
    provider::RawJson,
    time::Timestamp,
    voice::usage::VoiceUsage,
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
    /// A turn that ended without text runs once more.
    TurnReopened(TurnReopened),
    /// A reply was heard in part: the rest is unsaid.
    Heard(Heard),
    /// Something was spoken or heard, which somebody charges for.
    VoiceUsed(VoiceUsed),
    /// Messages without a turn, behind what is there: a suffix that the log had lost.
    Appended(Added),
    /// Messages without a turn, before what is there: a document that was found late.
    Prepended(Prepended),
    /// The conversation was deleted: nothing before this entry is kept.
    Deleted(Deleted),
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
    /// What was spoken and heard before, for an imported document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice_usage: Option<VoiceUsage>,
    /// Whether a mirror may hold a document of this id that could not be looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
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
    /// Model asked: names the author of a reply that is recovered after a crash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// What a repeat of the request is recognized by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
    /// The message in whose place the turn stands once it has a reply: a user's message, which the
    /// entry's own replaces; or, where the entry has none, a reply. From there on everything that
    /// was accepted before this turn is replaced then, and stays as it is if there is no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MessageId>,
    /// What the turn is owed.
    #[serde(default, skip_serializing_if = "Owed::is_reply")]
    pub owed: Owed,
}

/// What a turn is owed once its messages are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owed {
    /// A reply.
    #[default]
    Reply,
    /// Nothing: it ends when its turn comes, as [`UNANSWERED`].
    Nothing,
}

impl Owed {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_reply(&self) -> bool {
        *self == Self::Reply
    }
}

/// What a repeat of a request is recognized by. Counts within one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// Whose key it is, see [`crate::caller::Caller::scope`].
    pub scope: String,
    /// As the client sent it.
    pub key: String,
    /// Digest of what was asked: the same key with another request is a mistake.
    pub request: Uuid,
}

/// A turn ended. At most one per turn and attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnEnded {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub turn: TurnId,
    /// Which run of it, from 1.
    #[serde(default = "first_attempt", skip_serializing_if = "is_first_attempt")]
    pub attempt: u32,
    /// `stop`, `length`, `tool_calls`, `content_filter`, `unknown`; or, for a cut reply,
    /// `error`, `cancelled`, `interrupted`; or, where none was wanted, `unanswered`.
    pub finish_reason: String,
    /// The upstream's `usage` object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<RawJson>,
    /// Public code of the error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A turn that ended without text runs once more: its user messages are there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnReopened {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub turn: TurnId,
    /// Which run of it begins, from 2.
    pub attempt: u32,
    /// Model asked this time.
    pub model: String,
}

/// A reply that was over was heard in part: its text is cut, and its finish reason is
/// [`CANCELLED`]. To no effect where it is that short already, or was replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// When.
    pub at: Timestamp,
    /// The turn of the reply.
    pub turn: TurnId,
    /// The reply.
    pub reply: MessageId,
    /// UTF-8 bytes of its text that were heard.
    pub bytes: usize,
}

/// Something was spoken or heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoiceUsed {
    /// When.
    pub at: Timestamp,
    /// How much: it adds to what was before.
    pub usage: VoiceUsage,
}

/// Messages without a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// When.
    pub at: Timestamp,
    /// The message in whose place they stand; it is replaced with all that is behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MessageId>,
}

/// Messages that belong before all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepended {
    /// When.
    pub at: Timestamp,
    /// When the conversation really began.
    pub created_at: Timestamp,
    /// Owner, if the conversation has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Companion, if the conversation has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character_id: Option<String>,
}

/// The conversation was deleted. Stays for good, so that nothing brings the old one back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deleted {
    /// When.
    pub at: Timestamp,
    /// Random; no mirror's copy has it.
    pub incarnation: u64,
}

fn first_attempt() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_first_attempt(attempt: &u32) -> bool {
    *attempt == 1
}

/// Finish reason of a turn that a crash or a shutdown cut.
pub const INTERRUPTED: &str = "interrupted";
/// Finish reason of a turn whose upstream failed.
pub const FAILED: &str = "error";
/// Finish reason of a turn that the user stopped.
pub const CANCELLED: &str = "cancelled";
/// Finish reason of a turn that was given up as nobody had listened to it for long.
pub const ABANDONED: &str = "abandoned";
/// Finish reason of a turn whose messages were to be kept without a reply.
pub const UNANSWERED: &str = "unanswered";
/// Finish reason where the upstream ended its stream properly but gave none.
pub const UNKNOWN: &str = "unknown";

impl EntryHead {
    /// When it was written.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Begun(begun) => begun.at,
            Self::TurnAccepted(accepted) => accepted.at,
            Self::TurnEnded(ended) => ended.at,
            Self::TurnReopened(reopened) => reopened.at,
            Self::Heard(heard) => heard.at,
            Self::VoiceUsed(used) => used.at,
            Self::Appended(added) => added.at,
            Self::Prepended(prepended) => prepended.at,
            Self::Deleted(deleted) => deleted.at,
        }
    }

    /// The turn that it begins or ends, and which run of it.
    #[must_use]
    pub fn turn(&self) -> Option<(TurnId, u32)> {
        match self {
            Self::TurnAccepted(accepted) => Some((accepted.turn, 1)),
            Self::TurnEnded(ended) => Some((ended.turn, ended.attempt)),
            Self::TurnReopened(reopened) => Some((reopened.turn, reopened.attempt)),
            Self::Begun(_)
            | Self::Heard(_)
            | Self::VoiceUsed(_)
            | Self::Appended(_)
            | Self::Prepended(_)
            | Self::Deleted(_) => None,
        }
    }
}

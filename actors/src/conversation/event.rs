//! What a conversation tells its sessions. Plain data; encoded once per transport.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::message::StoredMessage;
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::JsonText,
    provider::{RawJson, ReplyHead},
    time::Timestamp,
};

/// A place in a conversation's stream. Opaque on the wire; sent back as it was received.
///
/// `epoch` changes whenever text is rebuilt from the log, since the text may then be shorter than
/// what was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cursor {
    /// The turn.
    pub turn: TurnId,
    /// The life of the text.
    pub epoch: u32,
    /// Item of the turn, from 0.
    pub item: u32,
    /// Byte within the item, in its escaped form.
    pub byte: u32,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = Uuid::encode_buffer();
        f.write_str(self.turn.0.simple().encode_lower(&mut buffer))?;
        write!(f, ".{:x}.{:x}.{:x}", self.epoch, self.item, self.byte)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        let number =
            |text: &str| u32::from_str_radix(text, 16).map_err(|_not_a_number| InvalidCursor);
        let turn = Uuid::try_parse(part()?).map_err(|_not_a_uuid| InvalidCursor)?;
        let cursor = Self {
            turn: TurnId(turn),
            epoch: number(part()?)?,
            item: number(part()?)?,
            byte: number(part()?)?,
        };
        match parts.next() {
            None => Ok(cursor),
            Some(_) => Err(InvalidCursor),
        }
    }
}

/// A wire form of an event, of which the encoded bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A Server-Sent Event.
    Sse,
    /// A WebSocket text frame.
    WebSocket,
}

/// Something that happened in a turn. Shared by all sessions that are at the same place.
#[derive(Debug, Serialize)]
pub struct Event {
    /// The turn.
    pub turn: TurnId,
    /// Id that its reply has.
    pub reply: MessageId,
    /// The place after this event.
    pub cursor: Cursor,
    /// What happened.
    pub body: EventBody,
    #[serde(skip)]
    encoded: [OnceLock<Bytes>; 2],
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    /// The turn's user messages are in the log. Always the first event of a turn.
    Received(Received),
    /// The reply is asked for.
    Started {
        /// Model asked.
        model: Arc<str>,
    },
    /// Text of the reply.
    Text {
        /// UTF-8 bytes of reply text before it.
        offset: u64,
        /// The text.
        text: JsonText,
        /// Who answers.
        head: Arc<ReplyHead>,
    },
    /// Reasoning text, not part of the reply.
    Reasoning {
        /// The text.
        text: JsonText,
        /// Who answers.
        head: Arc<ReplyHead>,
    },
    /// Members of a delta passed through: tool calls and the rest, as a raw JSON object.
    Delta {
        /// The object.
        members: RawJson,
        /// Who answers.
        head: Arc<ReplyHead>,
    },
    /// The upstream gave its reason to end.
    Finish {
        /// OpenAI's word.
        reason: String,
        /// The upstream's own word.
        native: Option<String>,
        /// Who answers.
        head: Arc<ReplyHead>,
    },
    /// The upstream told what it cost.
    Usage {
        /// Raw JSON object.
        usage: RawJson,
        /// Who answers.
        head: Arc<ReplyHead>,
    },
    /// The reply broke off here, and another request goes on with it.
    Seam {
        /// UTF-8 bytes of reply text before it.
        offset: u64,
        /// The model that goes on.
        model: Arc<str>,
    },
    /// The turn's end is in the log. Always the last event of a turn.
    Ended(Arc<Outcome>),
}

/// The user messages of a turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Received {
    /// In order; empty where a turn answers what the history holds.
    #[serde(skip)]
    pub messages: Vec<StoredMessage>,
    /// Id of the last of them.
    pub message: Option<MessageId>,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// `stop`, `length`, …; `error`, `cancelled` or `interrupted` for a cut reply.
    pub finish_reason: String,
    /// The upstream's own word.
    pub native_finish_reason: Option<String>,
    /// The stored reply; none if no text came.
    #[serde(skip)]
    pub reply: Option<StoredMessage>,
    /// Reasoning text, where the upstream gave any; not stored.
    pub reasoning: Option<JsonText>,
    /// The upstream's usage object.
    pub usage: Option<RawJson>,
    /// Who answered.
    pub head: Arc<ReplyHead>,
    /// When.
    pub timestamp: Timestamp,
    /// Set if the turn failed: then the reply, if any, is a part of one.
    pub error: Option<EngineError>,
}

impl Outcome {
    /// A turn that ended without a reply.
    #[must_use]
    pub fn failed(head: Arc<ReplyHead>, finish_reason: &str, error: EngineError) -> Self {
        Self {
            finish_reason: finish_reason.to_owned(),
            native_finish_reason: None,
            reply: None,
            reasoning: None,
            usage: None,
            head,
            timestamp: Timestamp::now(),
            error: Some(error),
        }
    }
}

impl Event {
    /// An event that no transport has encoded yet.
    #[must_use]
    pub fn new(turn: TurnId, reply: MessageId, cursor: Cursor, body: EventBody) -> Self {
        Self {
            turn,
            reply,
            cursor,
            body,
            encoded: [const { OnceLock::new() }; 2],
        }
    }

    /// Whether it is the last of its turn.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self.body, EventBody::Ended(_))
    }

    /// Its bytes on a transport; encoded by the first session that asks.
    pub fn encoded(&self, transport: Transport, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        let slot = match transport {
            Transport::Sse => &self.encoded[0],
            Transport::WebSocket => &self.encoded[1],
        };
        slot.get_or_init(|| encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let cursor = Cursor {
            turn: TurnId::now(),
            epoch: u32::MAX,
            item: 3,
            byte: 70_000,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "x", "0.0.0", &format!("{cursor}.1"), "garbage.1.2.3"] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}

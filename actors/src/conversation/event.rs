//! What a conversation tells its sessions. Plain data; encoded once per transport.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{document::Replacing, message::StoredMessage};
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::JsonText,
    provider::{RawJson, ReplyHead},
    time::Timestamp,
};

/// A place in a conversation's stream: after an event. Opaque on the wire; sent back as it was
/// received.
///
/// Within one `epoch` it is exact, by `item` and `byte`. In text that was told anew since (from the
/// log, after a restart) the place is found by `offset` and `seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cursor {
    /// The turn; nil between turns, as [`Cursor::behind_entry`] says.
    pub turn: TurnId,
    /// The life of the text: random while it is live, the attempt where it is told from the log.
    pub epoch: u32,
    /// Item of the turn, from 0.
    pub item: u32,
    /// Byte within the item, in its escaped form.
    pub byte: u32,
    /// UTF-8 bytes of reply text before it.
    pub offset: u64,
    /// How far the turn has been seen.
    pub seen: Seen,
}

/// How far a turn has been seen, by the kinds of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// What was received.
    Received,
    /// The start of the reply; text and reasoning, if any.
    Started,
    /// Also members of a delta passed through: tool calls perhaps.
    Delta,
    /// The finish reason.
    Finish,
    /// The usage.
    Usage,
    /// All.
    Ended,
}

impl Seen {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Received,
        Self::Started,
        Self::Delta,
        Self::Finish,
        Self::Usage,
        Self::Ended,
    ];
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self {
        turn: TurnId(Uuid::nil()),
        epoch: 0,
        item: 0,
        byte: 0,
        offset: 0,
        seen: Seen::Nothing,
    };

    /// Behind everything that began with an entry up to this one, in this life of the conversation.
    #[must_use]
    pub fn behind_entry(incarnation: u64, seq: u64) -> Self {
        Self {
            epoch: life(incarnation),
            offset: seq,
            ..Self::START
        }
    }

    /// Whether it is no place in a turn.
    #[must_use]
    pub fn is_between_turns(&self) -> bool {
        self.turn == Self::START.turn
    }

    /// The entry behind which it is, if it is between the turns of this life of the conversation.
    /// What is before everything is so in every life.
    #[must_use]
    pub fn entry(&self, incarnation: u64) -> Option<u64> {
        let ours = *self == Self::START || self.epoch == life(incarnation);
        (self.is_between_turns() && ours).then_some(self.offset)
    }
}

/// Tells the lives of a conversation apart.
fn life(incarnation: u64) -> u32 {
    let low = incarnation & u64::from(u32::MAX);
    u32::try_from(low).unwrap_or_default()
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = Uuid::encode_buffer();
        f.write_str(self.turn.0.simple().encode_lower(&mut buffer))?;
        let (epoch, seen) = (self.epoch, self.seen as u8);
        let (item, byte, offset) = (self.item, self.byte, self.offset);
        write!(f, ".{epoch:x}.{item:x}.{byte:x}.{offset:x}.{seen:x}")
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        let turn = Uuid::try_parse(part()?).map_err(|_not_a_uuid| InvalidCursor)?;
        let cursor = Self {
            turn: TurnId(turn),
            epoch: number(part()?)?,
            item: number(part()?)?,
            byte: number(part()?)?,
            offset: number(part()?)?,
            seen: *Seen::ALL
                .get(number::<usize>(part()?)?)
                .ok_or(InvalidCursor)?,
        };
        match parts.next() {
            None => Ok(cursor),
            Some(_) => Err(InvalidCursor),
        }
    }
}

fn number<N: TryFrom<u64>>(text: &str) -> Result<N, InvalidCursor> {
    // `from_str_radix` takes a sign.
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(text, 16).map_err(|_not_a_number| InvalidCursor)?;
    plain
        .then(|| N::try_from(number).ok())
        .flatten()
        .ok_or(InvalidCursor)
}

/// A wire form of an event, of which the encoded bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A Server-Sent Event.
    Sse,
    /// A WebSocket text frame.
    WebSocket,
    /// What a WebSocket is told, as a Server-Sent Event with an id.
    Events,
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
    encoded: [OnceLock<Bytes>; 3],
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
        /// The message that the turn replaces.
        replaces: Option<MessageId>,
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
    /// Less of a reply was heard than was told of it, and that is what it is from now on. No event of
    /// the turn, which is over, and no place to go on from: its cursor says nothing. Told to those who
    /// are there.
    Cut {
        /// UTF-8 bytes of the reply's text.
        offset: u64,
        /// The text behind it, which was not heard.
        unsaid: JsonText,
    },
}

/// The user messages of a turn.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Received {
    /// Older messages that the turn took over when it replaced their reply: those who come back
    /// may not have seen them.
    #[serde(skip)]
    pub before: Vec<StoredMessage>,
    /// In order; empty where a turn answers what the history holds.
    #[serde(skip)]
    pub messages: Vec<StoredMessage>,
    /// Id of the last of them, or of the message that is answered again.
    pub message: Option<MessageId>,
    /// The key that the request came with: another device knows its own message by it.
    pub key: Option<String>,
    /// What the turn replaces once it has a reply.
    pub replacing: Option<Replacing>,
    /// How many of its parts were told before: messages, and what is replaced.
    pub told: u32,
}

impl Received {
    /// How many parts are told: the older messages, what is replaced, the messages.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.before.len() + usize::from(self.replacing.is_some()) + self.messages.len()
    }

    /// What is left when so many parts have been told.
    #[must_use]
    pub fn behind(&self, parts: u32) -> Self {
        let mut left = parts as usize;
        let mut rest = self.clone();
        let before = left.min(rest.before.len());
        rest.before.drain(..before);
        left -= before;
        if left > 0 && rest.replacing.take().is_some() {
            left -= 1;
        }
        rest.messages.drain(..left.min(rest.messages.len()));
        rest.told += parts;
        rest
    }
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
    /// Where a reply that was interrupted was heard to its end, in UTF-8 bytes of its text, and the
    /// text behind that, escaped. None: it is whole, or was not interrupted.
    #[must_use]
    pub fn heard(&self) -> Option<(usize, &str)> {
        let reply = self.reply.as_ref()?;
        Some((reply.text_len(), reply.unsaid()?))
    }

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
            encoded: [const { OnceLock::new() }; 3],
        }
    }

    /// Whether it is the last of its turn.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self.body, EventBody::Ended(_))
    }

    /// The place behind one part of what was received, of so many; behind the last one it is that of
    /// the event.
    #[must_use]
    pub fn part(&self, told: u32, parts: u32) -> Cursor {
        match told < parts {
            true => Cursor {
                item: 0,
                byte: told,
                offset: 0,
                seen: Seen::Nothing,
                ..self.cursor
            },
            false => self.cursor,
        }
    }

    /// Its bytes on a transport; encoded by the first session that asks.
    pub fn encoded(&self, transport: Transport, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        let slot = match transport {
            Transport::Sse => &self.encoded[0],
            Transport::WebSocket => &self.encoded[1],
            Transport::Events => &self.encoded[2],
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
            offset: 1 << 40,
            seen: Seen::Delta,
        };
        let between = Cursor::behind_entry(7, 9);
        for cursor in [cursor, Cursor::START, between] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert_eq!(between.entry(7), Some(9));
        assert_eq!(between.entry(8), None, "of another life");
        assert_eq!(Cursor::START.entry(8), Some(0));
        assert_eq!(cursor.entry(7), None);
        let text = cursor.to_string();
        for bad in [
            "",
            "x",
            "0.0.0",
            &format!("{cursor}.1"),
            "garbage.1.2.3.4.5",
            &text.replace(".3.", ".+3."),
            &text.replace(".3.", ".100000000."),
            &format!("{}.7", &text[..text.len() - 2]),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}

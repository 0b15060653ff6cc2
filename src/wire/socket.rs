//! The messages of `/ws/chat`.

use bytes::Bytes;
use idol_actors::{
    conversation::{
        event::{Event, EventBody, Outcome},
        message::StoredMessage,
    },
    error::EngineError,
    id::TurnId,
    limits::WATCHED_MAX,
};

use super::{
    chat::{Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
    document::{bytes_of, instant, messages},
    fields::Fields,
    idempotency,
    json::Object,
    page::{MESSAGES_MAX, Page, PageRequest},
};
use crate::{
    config::Timestamps,
    error::{ApiError, public},
};

/// What a client sends.
#[derive(Debug)]
pub enum ClientMessage {
    /// Begins a conversation, or names one to go on with.
    Start {
        /// The conversation; none: a new one.
        conversation: Option<Named>,
        /// A first message; none: just begin.
        message: Option<String>,
        /// Everything else.
        choice: PromptChoice,
        /// For the client to recognize its message by.
        client_message_id: Option<String>,
        /// Whether all events of the conversation are wanted.
        watch: Watch,
        /// Whether reasoning is wanted.
        reasoning: Reasoning,
    },
    /// Says something.
    Message {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
        /// What is said.
        message: String,
        /// Everything else.
        choice: PromptChoice,
        /// For the client to recognize its message by.
        client_message_id: Option<String>,
        /// Whether reasoning is wanted.
        reasoning: Reasoning,
    },
    /// Wants a pong.
    Ping,
    /// Wants a part of a conversation's messages.
    History {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
        /// Which part.
        part: PageRequest,
    },
    /// Wants no more events of a conversation.
    Leave {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
    },
}

/// Messages in one `history` where no limit is given.
const HISTORY_MESSAGES: usize = 100;

/// Which events of a conversation a socket wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Those of the turns it began.
    Own,
    /// All.
    All,
}

/// Whether a socket wants reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// It does not.
    Hidden,
    /// It does.
    Shown,
}

/// A message that cannot be carried out.
#[derive(Debug, Clone)]
pub struct Refused {
    /// One sentence; the ancestor's where it had one.
    pub sentence: String,
    /// Stable code.
    pub code: &'static str,
    /// Seconds to wait before a retry.
    pub retry_after: Option<u64>,
}

impl Refused {
    /// A message that does not make sense.
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            code: "invalid_request",
            retry_after: None,
        }
    }

    /// No conversation is named, and none was before.
    #[must_use]
    pub fn no_conversation() -> Self {
        Self::invalid("conversation_id is required. Send start_conversation first.")
    }

    /// The socket watches as much as it may.
    #[must_use]
    pub fn watching_too_many() -> Self {
        Self {
            sentence: format!(
                "A socket watches at most {WATCHED_MAX} conversations: leave one first"
            ),
            code: "rate_limited",
            retry_after: None,
        }
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        let public = public(&error);
        Self {
            sentence: public.sentence,
            code: public.code,
            retry_after: public.retry_after,
        }
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let public = error.public();
        Self {
            sentence: public.sentence,
            code: public.code,
            retry_after: public.retry_after,
        }
    }
}

impl ClientMessage {
    /// Reads a text frame.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let mut fields = Fields::of_body(text.as_bytes())
            .map_err(|_not_json| Refused::invalid("Invalid JSON format"))?;
        let kind = fields.string("type");
        let read = match kind.as_deref() {
            Some("ping") => Self::Ping,
            Some("start_conversation") => Self::start(&mut fields)?,
            Some("message") => Self::message(&mut fields)?,
            Some("leave") => Self::Leave {
                conversation: conversation_of(&mut fields)?,
            },
            Some("history") => Self::history(&mut fields)?,
            Some(other) => {
                let shown: String = other.chars().take(64).collect();
                return Err(Refused::invalid(format!("Unknown message type: {shown}")));
            }
            None => {
                let raw = fields.raw("type").map_or("None", |raw| raw.get());
                let shown: String = raw.chars().take(64).collect();
                return Err(Refused::invalid(format!("Unknown message type: {shown}")));
            }
        };
        fields
            .finish(read)
            .map_err(|errors| ApiError::Invalid(errors).into())
    }

    fn start(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        let choice = choice_of(fields);
        if choice.character_id.is_none() && fields.errors.is_empty() {
            return Err(Refused::invalid("character_id is required"));
        }
        let conversation = conversation_of(fields)?;
        let message = fields.filled("message");
        let client_message_id = fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX);
        let names = conversation.is_none() && message.is_some();
        let too_short = |key: &String| key.chars().count() < idempotency::CHARACTERS_MIN;
        if names && client_message_id.as_ref().is_some_and(too_short) {
            let least = idempotency::CHARACTERS_MIN;
            let msg = format!("String should have at least {least} characters to begin with");
            fields.wrong("client_message_id", "string_too_short", msg);
        }
        Ok(Self::Start {
            conversation,
            message,
            choice,
            client_message_id,
            watch: match flag(fields, "watch") {
                true => Watch::All,
                false => Watch::Own,
            },
            reasoning: reasoning_of(fields),
        })
    }

    fn history(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        let most = i64::try_from(MESSAGES_MAX).unwrap_or(i64::MAX);
        let limit = fields.integer("limit", 1, most);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Ok(Self::History {
            conversation: conversation_of(fields)?,
            part: PageRequest {
                after: fields.filled("after"),
                limit: Some(limit.unwrap_or(HISTORY_MESSAGES)),
            },
        })
    }

    fn message(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        let message = fields.filled("message");
        let Some(message) = message else {
            if fields.errors.is_empty() {
                return Err(Refused::invalid("message is required"));
            }
            return Err(ApiError::Invalid(std::mem::take(&mut fields.errors)).into());
        };
        Ok(Self::Message {
            conversation: conversation_of(fields)?,
            message,
            choice: choice_of(fields),
            client_message_id: fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX),
            reasoning: reasoning_of(fields),
        })
    }

    /// Whether the ancestor's clients did not know it: then added events are understood, too.
    #[must_use]
    pub fn is_added(&self) -> bool {
        match self {
            Self::Start {
                client_message_id,
                watch,
                reasoning,
                ..
            } => {
                *watch == Watch::All
                    || *reasoning == Reasoning::Shown
                    || client_message_id.is_some()
            }
            Self::Message {
                client_message_id,
                reasoning,
                ..
            } => *reasoning == Reasoning::Shown || client_message_id.is_some(),
            Self::Ping => false,
            Self::Leave { .. } | Self::History { .. } => true,
        }
    }
}

fn choice_of(fields: &mut Fields<'_>) -> PromptChoice {
    PromptChoice {
        user_id: fields.bounded("user_id", OPAQUE_ID_BYTES_MAX),
        character_id: fields.bounded("character_id", OPAQUE_ID_BYTES_MAX),
        system_prompt: fields.filled("system_prompt"),
        model: fields.filled("model"),
    }
}

fn reasoning_of(fields: &mut Fields<'_>) -> Reasoning {
    match flag(fields, "reasoning") {
        true => Reasoning::Shown,
        false => Reasoning::Hidden,
    }
}

/// A boolean in any of the spellings that the ancestor took.
fn flag(fields: &mut Fields<'_>, name: &'static str) -> bool {
    let Some(raw) = fields.raw(name) else {
        return false;
    };
    let word = raw.get().trim_matches('"').to_ascii_lowercase();
    match word.as_str() {
        "true" | "1" | "yes" | "on" => true,
        "false" | "0" | "no" | "off" | "" => false,
        _ => {
            fields.wrong(name, "bool_parsing", "Input should be a valid boolean");
            false
        }
    }
}

fn typed(kind: &str, spelled: &str, bytes: usize) -> Object {
    Object::with_capacity(bytes + 192)
        .escaped("type", kind)
        .string("conversation_id", spelled)
}

/// `pong`.
pub const PONG: &str = "{\"type\":\"pong\"}";

/// `conversation_started`: it is in the log.
#[must_use]
pub fn conversation_started(spelled: &str) -> String {
    typed("conversation_started", spelled, 0).end()
}

/// `message_received`: the message is in the log.
#[must_use]
pub fn message_received(spelled: &str, event: &Event, client_message_id: Option<&str>) -> String {
    let message = match &event.body {
        EventBody::Received(received) => received.message,
        _ => None,
    };
    typed("message_received", spelled, 64)
        .shown("turn_id", event.turn)
        .maybe(message, |it, id| it.shown("message_id", id))
        .maybe(client_message_id, |it, id| {
            it.string("client_message_id", id)
        })
        .end()
}

/// `user_message`: somebody said something on another device.
#[must_use]
pub fn user_message(
    spelled: &str,
    turn: TurnId,
    message: &StoredMessage,
    timestamps: Timestamps,
) -> Option<String> {
    // The stored message is `{"role":…,"content":<JSON>`: the content is copied as it stands.
    let content = message.comparable().split_once(",\"content\":")?.1;
    Some(
        typed("user_message", spelled, content.len())
            .shown("turn_id", turn)
            .maybe(message.id(), |it, id| it.shown("message_id", id))
            .escaped("role", message.role().as_str())
            .raw("content", content)
            .shown("timestamp", instant(message.timestamp(), timestamps))
            .end(),
    )
}

/// The event as a frame, for a conversation spelled like this; none if it has no frame.
///
/// The first and the last event of a turn depend on the session and are written by other functions.
#[must_use]
pub fn event(spelled: &str, event: &Event) -> Option<Bytes> {
    let object = match &event.body {
        EventBody::Started { .. } => typed("response_start", spelled, 64)
            .shown("turn_id", event.turn)
            .shown("message_id", event.reply),
        EventBody::Text { offset, text, .. } => typed("chunk", spelled, text.as_escaped().len())
            .escaped("content", text.as_escaped())
            .shown("turn_id", event.turn)
            .number("offset", offset)
            .shown("cursor", event.cursor),
        EventBody::Reasoning { text, .. } => typed("reasoning", spelled, text.as_escaped().len())
            .escaped("content", text.as_escaped())
            .shown("turn_id", event.turn)
            .shown("cursor", event.cursor),
        EventBody::Seam { offset, model } => typed("seam", spelled, model.len())
            .shown("turn_id", event.turn)
            .number("offset", offset)
            .string("model", model)
            .shown("cursor", event.cursor),
        EventBody::Received(_)
        | EventBody::Delta { .. }
        | EventBody::Finish { .. }
        | EventBody::Usage { .. }
        | EventBody::Ended(_) => return None,
    };
    Some(object.end().into())
}

/// `response_complete`, or `error` for a turn that failed.
#[must_use]
pub fn ended(spelled: &str, event: &Event, outcome: &Outcome, timestamps: Timestamps) -> String {
    if let Some(error) = &outcome.error {
        return turn_error(spelled, Some(event.turn), error);
    }
    let model = Some(&outcome.head.model).filter(|model| !model.is_empty());
    typed("response_complete", spelled, 256)
        .shown("turn_id", event.turn)
        .maybe(outcome.reply.as_ref(), |it, _| {
            it.shown("message_id", event.reply)
        })
        .string("finish_reason", &outcome.finish_reason)
        .maybe(outcome.usage.as_ref(), |it, usage| {
            it.raw("usage", usage.get())
        })
        .maybe(model, |it, model| it.string("model", model))
        .shown("timestamp", instant(outcome.timestamp, timestamps))
        .end()
}

/// `conversation_deleted`: it is watched no more.
#[must_use]
pub fn conversation_deleted(spelled: &str) -> String {
    typed("conversation_deleted", spelled, 0).end()
}

/// `history`: a part of a conversation's messages.
#[must_use]
pub fn history(spelled: &str, page: Page<'_>, timestamps: Timestamps) -> String {
    let object = typed("history", spelled, bytes_of(page.messages));
    messages(object, page.messages, timestamps)
        .raw("has_more", page.more.as_json())
        .end()
}

/// `error` in a conversation; ends the turn it names.
#[must_use]
pub fn turn_error(spelled: &str, turn: Option<TurnId>, error: &EngineError) -> String {
    let public = public(error);
    Object::with_capacity(256)
        .escaped("type", "error")
        .string("error", &public.sentence)
        .string("conversation_id", spelled)
        .escaped("code", public.code)
        .maybe(public.retry_after, |it, wait| {
            it.number("retry_after", wait)
        })
        .maybe(turn, |it, turn| it.shown("turn_id", turn))
        .end()
}

/// `error` about a message that could not be carried out.
#[must_use]
pub fn refused(refused: &Refused) -> String {
    Object::with_capacity(128)
        .escaped("type", "error")
        .string("error", &refused.sentence)
        .escaped("code", refused.code)
        .maybe(refused.retry_after, |it, wait| {
            it.number("retry_after", wait)
        })
        .end()
}

/// `going_away`: the server stops; come back after so many seconds.
#[must_use]
pub fn going_away(retry_after: u64) -> String {
    Object::with_capacity(64)
        .escaped("type", "going_away")
        .number("retry_after", retry_after)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ancestors_sentences_are_kept() {
        let sentence = |text: &str| ClientMessage::parse(text).unwrap_err().sentence;
        assert_eq!(sentence("{"), "Invalid JSON format");
        assert_eq!(sentence("[1]"), "Invalid JSON format");
        assert_eq!(
            sentence(r#"{"type":"start_conversation"}"#),
            "character_id is required"
        );
        assert_eq!(sentence(r#"{"type":"message"}"#), "message is required");
        assert_eq!(
            sentence(r#"{"type":"message","message":""}"#),
            "message is required"
        );
        assert_eq!(
            sentence(r#"{"type":"dance"}"#),
            "Unknown message type: dance"
        );
        assert_eq!(sentence(r#"{"x":1}"#), "Unknown message type: None");
    }

    #[test]
    fn flags_come_in_every_spelling() {
        for (spelling, watch) in [
            ("true", Watch::All),
            ("\"Yes\"", Watch::All),
            ("1", Watch::All),
            ("\"off\"", Watch::Own),
            ("null", Watch::Own),
        ] {
            let text =
                format!(r#"{{"type":"start_conversation","character_id":"c","watch":{spelling}}}"#);
            let ClientMessage::Start { watch: read, .. } = ClientMessage::parse(&text).unwrap()
            else {
                panic!("no start");
            };
            assert_eq!(read, watch, "{spelling}");
        }
    }
}

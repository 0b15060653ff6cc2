//! The messages of `/ws/chat`.

use bytes::Bytes;
use idol_actors::{
    conversation::{
        command::{At, CaughtUp, Earlier, Reset, ResetReason, Said},
        document::Replacing,
        event::{Cursor, Event, EventBody, Outcome, Received},
        message::StoredMessage,
    },
    error::EngineError,
    id::{MessageId, TurnId},
    limits::WATCHED_MAX,
};
use uuid::Uuid;

use super::{
    branch,
    chat::{MODEL_BYTES_MAX, Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
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
    /// Wants something of the history replaced.
    Replace {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
        /// What.
        at: At,
        /// The user's message in its place; none: a reply is to be made again.
        message: Option<String>,
        /// Everything else.
        choice: PromptChoice,
        /// For the client to recognize its request by.
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
    /// Wants to go on where it had come to, and all that happens from then on.
    Resume {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
        /// The last message that it has whole.
        after: Said<MessageId>,
        /// The last event that it has seen.
        cursor: Said<Cursor>,
        /// Whether reasoning is wanted.
        reasoning: Reasoning,
    },
    /// Stops turns.
    Cancel {
        /// The conversation; none: the one last named on this socket.
        conversation: Option<Named>,
        /// Which turn; none: the one that runs and all that wait.
        turn: Option<TurnId>,
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
            Some("resume") => Self::Resume {
                conversation: conversation_of(&mut fields)?,
                after: said(fields.filled("after").as_deref(), message_id),
                cursor: said(fields.filled("cursor").as_deref(), |text| text.parse().ok()),
                reasoning: reasoning_of(&mut fields),
            },
            Some("cancel") => Self::Cancel {
                conversation: conversation_of(&mut fields)?,
                turn: fields.turn_id(),
            },
            Some("regenerate") => {
                let at = At::Reply(branch::message_id(&mut fields));
                Self::replace(&mut fields, at, None)?
            }
            Some("edit") => {
                let at = branch::required_message_id(&mut fields);
                let Some(message) = fields.filled("message") else {
                    return Err(Self::no_message(&mut fields));
                };
                // What is missing was an error.
                let at = at.map_or(At::End, At::Message);
                Self::replace(&mut fields, at, Some(message))?
            }
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
            return Err(Self::no_message(fields));
        };
        Ok(Self::Message {
            conversation: conversation_of(fields)?,
            message,
            choice: choice_of(fields),
            client_message_id: fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX),
            reasoning: reasoning_of(fields),
        })
    }

    fn no_message(fields: &mut Fields<'_>) -> Refused {
        match fields.errors.is_empty() {
            true => Refused::invalid("message is required"),
            false => ApiError::Invalid(std::mem::take(&mut fields.errors)).into(),
        }
    }

    fn replace(fields: &mut Fields<'_>, at: At, message: Option<String>) -> Result<Self, Refused> {
        Ok(Self::Replace {
            conversation: conversation_of(fields)?,
            at,
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
            Self::Cancel { .. }
            | Self::Leave { .. }
            | Self::History { .. }
            | Self::Replace { .. }
            | Self::Resume { .. } => true,
        }
    }
}

/// What a client says of a place; nothing at all is not nonsense.
pub fn said<T>(text: Option<&str>, read: impl FnOnce(&str) -> Option<T>) -> Said<T> {
    match text {
        None => Said::Nothing,
        Some(text) => read(text).map_or(Said::Nonsense, Said::This),
    }
}

/// A message's id.
#[must_use]
pub fn message_id(text: &str) -> Option<MessageId> {
    Uuid::try_parse(text).ok().map(MessageId)
}

fn choice_of(fields: &mut Fields<'_>) -> PromptChoice {
    PromptChoice {
        user_id: fields.bounded("user_id", OPAQUE_ID_BYTES_MAX),
        character_id: fields.bounded("character_id", OPAQUE_ID_BYTES_MAX),
        system_prompt: fields.filled("system_prompt"),
        model: fields.bounded("model", MODEL_BYTES_MAX),
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
pub fn message_received(
    spelled: &str,
    turn: TurnId,
    message: Option<MessageId>,
    client_message_id: Option<&str>,
    cursor: Option<Cursor>,
) -> String {
    typed("message_received", spelled, 64)
        .shown("turn_id", turn)
        .maybe(message, |it, id| it.shown("message_id", id))
        .maybe(client_message_id, |it, id| {
            it.string("client_message_id", id)
        })
        .maybe(cursor, |it, cursor| it.shown("cursor", cursor))
        .end()
}

/// `history_truncated`: what follows a message is about to be replaced.
#[must_use]
pub fn history_truncated(
    spelled: &str,
    turn: TurnId,
    replacing: Replacing,
    cursor: Option<Cursor>,
) -> String {
    let object = typed("history_truncated", spelled, 64).shown("turn_id", turn);
    let object = match replacing.after {
        Some(after) => object.shown("after", after),
        None => object.raw("after", "null"),
    };
    object
        .maybe(cursor, |it, cursor| it.shown("cursor", cursor))
        .end()
}

/// What somebody said on another device, and what it replaces: a frame each, and the place behind
/// it.
#[must_use]
pub fn received_of_others(
    spelled: &str,
    event: &Event,
    received: &Received,
    timestamps: Timestamps,
) -> Vec<(Cursor, String)> {
    let mut told = received.told;
    let parts = told.saturating_add(u32::try_from(received.parts()).unwrap_or(u32::MAX));
    let mut place = || {
        told += 1;
        event.part(told, parts)
    };
    let mut frames = Vec::with_capacity(received.parts());
    for message in &received.before {
        let cursor = place();
        let frame = user_message(spelled, event.turn, message, None, cursor, timestamps);
        frames.push((cursor, frame));
    }
    if let Some(replacing) = received.replacing {
        let cursor = place();
        let frame = history_truncated(spelled, event.turn, replacing, Some(cursor));
        frames.push((cursor, frame));
    }
    for message in &received.messages {
        let cursor = place();
        // The key is that of the last one.
        let key = received.key.as_deref().filter(|_| cursor == event.cursor);
        let frame = user_message(spelled, event.turn, message, key, cursor, timestamps);
        frames.push((cursor, frame));
    }
    frames
}

fn user_message(
    spelled: &str,
    turn: TurnId,
    message: &StoredMessage,
    key: Option<&str>,
    cursor: Cursor,
    timestamps: Timestamps,
) -> String {
    // The stored message is `{"role":…,"content":<JSON>`: the content is copied as it stands.
    let content = message.comparable().split_once(",\"content\":");
    let content = content.map_or("null", |(_, content)| content);
    typed("user_message", spelled, content.len())
        .shown("turn_id", turn)
        .maybe(message.id(), |it, id| it.shown("message_id", id))
        .escaped("role", message.role().as_str())
        .raw("content", content)
        .shown("timestamp", instant(message.timestamp(), timestamps))
        .maybe(key, |it, key| it.string("client_message_id", key))
        .shown("cursor", cursor)
        .end()
}

/// A frame without its place. That is the last member of each frame that has one.
#[must_use]
pub fn unplaced(mut frame: String) -> String {
    if let Some(place) = frame.rfind(",\"cursor\":\"") {
        frame.truncate(place);
        frame.push('}');
    }
    frame
}

/// The event as a frame, for a conversation spelled like this; none if it has no frame.
///
/// The first and the last event of a turn depend on the session and are written by other functions.
#[must_use]
pub fn event(spelled: &str, event: &Event) -> Option<Bytes> {
    let object = match &event.body {
        EventBody::Started { replaces, .. } => typed("response_start", spelled, 128)
            .shown("turn_id", event.turn)
            .shown("message_id", event.reply)
            .maybe(*replaces, |it, id| it.shown("replaces", id))
            .shown("cursor", event.cursor),
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
        return failed(spelled, Some(event.turn), error)
            .shown("cursor", event.cursor)
            .end();
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
        .shown("cursor", event.cursor)
        .end()
}

/// The end of a turn whose place is behind the client already.
#[must_use]
pub fn missed_end(spelled: &str, event: &Event, timestamps: Timestamps) -> String {
    match &event.body {
        EventBody::Ended(outcome) => unplaced(ended(spelled, event, outcome, timestamps)),
        _ => String::new(),
    }
}

/// `reset`: what the client has does not hold any more, or not all of it.
#[must_use]
pub fn reset(spelled: &str, reset: &Reset) -> String {
    let reason = match reset.reason {
        ResetReason::NotACursor => "not_a_cursor",
        ResetReason::UnknownTurn => "unknown_turn",
        ResetReason::UnknownMessage => "unknown_message",
        ResetReason::BeyondText => "beyond_text",
        ResetReason::Retold => "retold",
        ResetReason::Replaced => "replaced",
        ResetReason::TooFarBehind => "too_far_behind",
    };
    typed("reset", spelled, 128)
        .escaped("reason", reason)
        .maybe(reset.turn, |it, (turn, kept)| {
            it.shown("turn_id", turn).number("offset", kept)
        })
        .end()
}

/// `resumed`: what the client missed; what follows is live.
#[must_use]
pub fn resumed(spelled: &str, caught_up: &CaughtUp, timestamps: Timestamps) -> String {
    let bytes = bytes_of(&caught_up.messages)
        + caught_up
            .turn
            .as_ref()
            .map_or(0, |turn| turn.text.as_escaped().len() + 256);
    let object = typed("resumed", spelled, bytes);
    let earlier = match caught_up.earlier {
        Earlier::No => "false",
        Earlier::Yes => "true",
    };
    messages(object, &caught_up.messages, timestamps)
        .raw("has_earlier", earlier)
        .maybe(caught_up.turn.as_ref(), |it, turn| {
            let under_way = Object::with_capacity(turn.text.as_escaped().len() + 256)
                .shown("turn_id", turn.turn)
                .shown("message_id", turn.reply)
                .escaped("content", turn.text.as_escaped())
                .number("offset", turn.offset)
                .shown("cursor", turn.cursor);
            it.raw("turn", &under_way.end())
        })
        .shown("cursor", caught_up.cursor)
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
    failed(spelled, turn, error).end()
}

fn failed(spelled: &str, turn: Option<TurnId>, error: &EngineError) -> Object {
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
    fn a_frame_without_its_place_is_whole_but_for_it() {
        let frame = r#"{"content":",\"cursor\":\"x\"}","cursor":"0.1"}"#;
        let bare = r#"{"content":",\"cursor\":\"x\"}"}"#;
        assert_eq!(unplaced(frame.to_owned()), bare);
        assert_eq!(unplaced(r#"{"a":1}"#.to_owned()), r#"{"a":1}"#);
    }

    #[test]
    fn a_start_without_its_place_says_all_the_same_what_it_replaces() {
        let replaced = MessageId::now();
        let body = EventBody::Started {
            model: "m".into(),
            replaces: Some(replaced),
        };
        let start = Event::new(TurnId::now(), MessageId::now(), Cursor::START, body);
        let frame = event("c1", &start).map(|bytes| bytes.to_vec()).unwrap();
        let bare = unplaced(String::from_utf8(frame).unwrap());
        let bare: serde_json::Value = serde_json::from_str(&bare).unwrap();
        assert_eq!(bare["replaces"], replaced.to_string());
        assert!(bare.get("cursor").is_none());
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

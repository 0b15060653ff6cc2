//! What a client sends over `/ws/chat`.

use idol_actors::{
    conversation::{
        command::{At, Said},
        event::Cursor,
    },
    error::EngineError,
    id::{MessageId, TurnId},
    limits::WATCHED_MAX,
};
use uuid::Uuid;

use crate::{
    error::{ApiError, public},
    wire::{
        branch,
        chat::{MODEL_BYTES_MAX, Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
        fields::Fields,
        idempotency,
        page::{MESSAGES_MAX, PageRequest},
    },
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
            watch: match fields.flag("watch").unwrap_or(false) {
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
    match fields.flag("reasoning").unwrap_or(false) {
        true => Reasoning::Shown,
        false => Reasoning::Hidden,
    }
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

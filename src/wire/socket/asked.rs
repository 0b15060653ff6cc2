//! What a client sends over `/ws/chat`.

use std::{borrow::Cow, sync::Arc};

use idol_actors::{
    conversation::{
        command::{At, Said},
        event::Cursor,
    },
    error::EngineError,
    id::{MessageId, TurnId},
    limits::WATCHED_MAX,
    provider::speech::Voice,
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    error::{ApiError, public},
    wire::{
        branch,
        chat::{MODEL_BYTES_MAX, Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
        fields::Fields,
        idempotency,
        page::{MESSAGES_MAX, PageRequest},
        voice::{VoiceDefaults, voice_of},
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
        /// How the reply is to be spoken; none: not at all.
        voice: Option<SpokenReply>,
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
        /// How the reply is to be spoken; none: not at all.
        voice: Option<SpokenReply>,
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
        /// How the reply is to be spoken; none: not at all.
        voice: Option<SpokenReply>,
    },
    /// Begins to speak: audio follows in binary frames.
    AudioStart(Box<AudioStart>),
    /// Has said all: it is to be written down, and answered.
    AudioEnd,
    /// Has said nothing.
    AudioAbort,
    /// Has played a spoken reply up to there.
    Played {
        /// Which turn's.
        turn: Option<TurnId>,
        /// All pieces before this one.
        sequence: u32,
        /// And so many milliseconds of it.
        ms: u32,
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

/// How a reply is to be spoken.
#[derive(Debug, Clone)]
pub struct SpokenReply {
    /// With which voice.
    pub voice: Arc<Voice>,
    /// How audio is carried.
    pub carriage: Carriage,
}

/// How audio is carried to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// As base64 in text frames.
    Text,
    /// In binary frames.
    Binary,
}

/// What a client is about to say aloud.
#[derive(Debug)]
pub struct AudioStart {
    /// The conversation; none: the one last named on this socket.
    pub conversation: Option<Named>,
    /// How the audio is coded: the ending of such files, or a media type.
    pub format: String,
    /// In which language; none: the provider finds out.
    pub language: Option<String>,
    /// As in a message.
    pub choice: PromptChoice,
    /// As in a message.
    pub client_message_id: Option<String>,
    /// As in a message.
    pub reasoning: Reasoning,
    /// As in a message.
    pub voice: Option<SpokenReply>,
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

/// Whether a message that was refused is one that audio comes behind.
#[must_use]
pub fn is_audio_start(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    serde_json::from_str::<Head<'_>>(text).is_ok_and(|head| head.kind == "audio_start")
}

impl ClientMessage {
    /// Whether a reply is asked for by it.
    #[must_use]
    pub fn is_said(&self) -> bool {
        match self {
            Self::Message { .. } | Self::Replace { .. } => true,
            Self::Start { message, .. } => message.is_some(),
            _ => false,
        }
    }

    /// By what a repeat of it is known.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Message {
                client_message_id, ..
            }
            | Self::Replace {
                client_message_id, ..
            }
            | Self::Start {
                client_message_id, ..
            } => client_message_id.as_deref(),
            _ => None,
        }
    }

    /// Reads a text frame.
    pub fn parse(text: &str, voices: &VoiceDefaults) -> Result<Self, Refused> {
        let mut fields = Fields::of_body(text.as_bytes())
            .map_err(|_not_json| Refused::invalid("Invalid JSON format"))?;
        let kind = fields.string("type");
        let read = match kind.as_deref() {
            Some("ping") => Self::Ping,
            Some("start_conversation") => Self::start(&mut fields, voices)?,
            Some("message") => Self::message(&mut fields, voices)?,
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
            Some("audio_start") => Self::audio_start(&mut fields, voices)?,
            Some("audio_end") => Self::AudioEnd,
            Some("audio_abort") => Self::AudioAbort,
            Some("played") => Self::Played {
                turn: fields.turn_id(),
                sequence: whole(&mut fields, "sequence"),
                ms: whole(&mut fields, "ms"),
            },
            Some("cancel") => Self::Cancel {
                conversation: conversation_of(&mut fields)?,
                turn: fields.turn_id(),
            },
            Some("regenerate") => {
                let at = At::Reply(branch::message_id(&mut fields));
                Self::replace(&mut fields, at, None, voices)?
            }
            Some("edit") => {
                let at = branch::required_message_id(&mut fields);
                let Some(message) = fields.filled("message") else {
                    return Err(Self::missing(&mut fields, "message is required"));
                };
                // What is missing was an error.
                let at = at.map_or(At::End, At::Message);
                Self::replace(&mut fields, at, Some(message), voices)?
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

    fn start(fields: &mut Fields<'_>, voices: &VoiceDefaults) -> Result<Self, Refused> {
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
            voice: spoken_of(fields, voices),
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

    fn message(fields: &mut Fields<'_>, voices: &VoiceDefaults) -> Result<Self, Refused> {
        let message = fields.filled("message");
        let Some(message) = message else {
            return Err(Self::missing(fields, "message is required"));
        };
        Ok(Self::Message {
            conversation: conversation_of(fields)?,
            message,
            choice: choice_of(fields),
            client_message_id: fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX),
            reasoning: reasoning_of(fields),
            voice: spoken_of(fields, voices),
        })
    }

    fn audio_start(fields: &mut Fields<'_>, voices: &VoiceDefaults) -> Result<Self, Refused> {
        let format = fields.bounded("format", FORMAT_BYTES_MAX);
        let Some(format) = format else {
            return Err(Self::missing(fields, "format is required"));
        };
        Ok(Self::AudioStart(Box::new(AudioStart {
            conversation: conversation_of(fields)?,
            format,
            language: fields.bounded("language", FORMAT_BYTES_MAX),
            choice: choice_of(fields),
            client_message_id: fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX),
            reasoning: reasoning_of(fields),
            voice: spoken_of(fields, voices),
        })))
    }

    /// What is not there, or is none: then that is told.
    fn missing(fields: &mut Fields<'_>, sentence: &'static str) -> Refused {
        match fields.errors.is_empty() {
            true => Refused::invalid(sentence),
            false => ApiError::Invalid(std::mem::take(&mut fields.errors)).into(),
        }
    }

    fn replace(
        fields: &mut Fields<'_>,
        at: At,
        message: Option<String>,
        voices: &VoiceDefaults,
    ) -> Result<Self, Refused> {
        Ok(Self::Replace {
            conversation: conversation_of(fields)?,
            at,
            message,
            choice: choice_of(fields),
            client_message_id: fields.bounded("client_message_id", OPAQUE_ID_BYTES_MAX),
            reasoning: reasoning_of(fields),
            voice: spoken_of(fields, voices),
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
                voice,
                ..
            } => {
                *watch == Watch::All
                    || voice.is_some()
                    || *reasoning == Reasoning::Shown
                    || client_message_id.is_some()
            }
            Self::Message {
                client_message_id,
                reasoning,
                voice,
                ..
            } => {
                let shown = *reasoning == Reasoning::Shown;
                shown || voice.is_some() || client_message_id.is_some()
            }
            Self::Ping => false,
            Self::AudioStart(_)
            | Self::AudioEnd
            | Self::AudioAbort
            | Self::Played { .. }
            | Self::Cancel { .. }
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

/// Longest name of a format or a language, in bytes.
const FORMAT_BYTES_MAX: usize = 64;

/// How a reply is to be spoken, if it is: `voice`, an object.
fn spoken_of(fields: &mut Fields<'_>, voices: &VoiceDefaults) -> Option<SpokenReply> {
    let raw = fields.of_kind("voice", "{", "an object")?;
    let mut inner = match Fields::of(raw, fields.path_to("voice")) {
        Ok(inner) => inner,
        Err(error) => {
            fields.errors.push(error);
            return None;
        }
    };
    let voice = voice_of(&mut inner, &["format", "output_format"], voices);
    let carriage = match inner.flag("binary").unwrap_or(false) {
        true => Carriage::Binary,
        false => Carriage::Text,
    };
    if !voice.format.is_for_streams() {
        // A stream cannot begin with its length.
        let msg = "Input should be a format that can be streamed: mp3, pcm, ulaw, alaw or opus";
        inner.wrong("format", "value_error", msg);
    }
    fields.errors.append(&mut inner.errors);
    Some(SpokenReply { voice, carriage })
}

fn whole(fields: &mut Fields<'_>, name: &'static str) -> u32 {
    let number = fields.integer(name, 0, i64::from(u32::MAX)).unwrap_or(0);
    u32::try_from(number).unwrap_or(u32::MAX)
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
    use crate::wire::voice::SpeechModels;

    fn parse(text: &str) -> Result<ClientMessage, Refused> {
        let voices = VoiceDefaults {
            voice_id: "v".to_owned(),
            model_id: "m".to_owned(),
            hearing_model_id: "h".to_owned(),
            models: SpeechModels::Named,
        };
        ClientMessage::parse(text, &voices)
    }

    #[test]
    fn the_ancestors_sentences_are_kept() {
        let sentence = |text: &str| parse(text).unwrap_err().sentence;
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
            let ClientMessage::Start { watch: read, .. } = parse(&text).unwrap() else {
                panic!("no start");
            };
            assert_eq!(read, watch, "{spelling}");
        }
    }
}

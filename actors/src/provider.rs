//! What a provider of replies promises, and what it is asked.
//!
//! A provider is an actor that answers [`Generate`]. It reports to the `Recipient` handed to it and
//! knows nothing of conversations.

use std::{fmt, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{id::TurnId, json_text::JsonText};

pub use body::{ChatBody, Places};
pub use endpoint::EndpointError;

pub mod attempts;
mod body;
pub mod breaker;
pub mod budget;
pub mod elevenlabs;
pub mod embedded;
mod endpoint;
pub mod failure;
pub mod hearing;
pub mod openrouter;
pub mod protection;
mod report;
pub mod seam;
pub mod speech;
mod text;
pub mod whisper;

/// Asks for one reply. The answer is a guard: dropping it closes the upstream call at once.
#[derive(Message)]
#[rtype(result = "Generation")]
pub struct Generate {
    /// The turn it is for, repeated in every [`Progress`].
    pub turn: TurnId,
    /// The request, of the first model.
    pub body: ChatBody,
    /// Models to ask, in this order, until one answers; at least the one in the body.
    pub models: Vec<Arc<str>>,
    /// Where the reply goes: one message per network read, the last with an `end`.
    pub reply_to: Recipient<Progress>,
}

impl fmt::Debug for Generate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generate")
            .field("turn", &self.turn)
            .field("body", &self.body)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

/// A call under way. Dropping it aborts the call, which closes the upstream connection.
#[derive(Debug)]
pub struct Generation(tokio::task::AbortHandle);

impl Generation {
    /// Guards a spawned call.
    #[must_use]
    pub fn new(task: tokio::task::AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<A, M> actix::dev::MessageResponse<A, M> for Generation
where
    A: actix::Actor,
    M: Message<Result = Self>,
{
    fn handle(self, _: &mut A::Context, tx: Option<actix::dev::OneshotSender<Self>>) {
        if let Some(tx) = tx {
            // A refused guard is dropped here, which cancels the call nobody waits for.
            drop(tx.send(self));
        }
    }
}

/// What one network read brought. The last one of a call has an `end`, and nothing follows it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Progress {
    /// The turn named in [`Generate`].
    pub turn: TurnId,
    /// In order; adjacent text is one delta.
    pub deltas: Vec<Delta>,
    /// Set on the last message: how the upstream's stream ended.
    pub end: Option<Result<(), UpstreamError>>,
}

/// A piece of a reply, as the upstream sent it.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Who answers; on the first chunk, and again if it changes.
    Head(Arc<ReplyHead>),
    /// Text of the reply; never empty.
    Text(JsonText),
    /// Reasoning text; shown, never saved. Never empty.
    Reasoning(JsonText),
    /// Tool-call fragments: the raw `tool_calls` array of a delta.
    ToolCalls(RawJson),
    /// Other members of a delta (`reasoning_details`, `refusal`, …): one raw JSON object holding them.
    Other(RawJson),
    /// The finish reason. Usage may follow.
    Finish {
        /// OpenAI's word: `stop`, `length`, `tool_calls`, `content_filter`, …
        reason: String,
        /// The upstream's own word.
        native: Option<String>,
    },
    /// The raw `usage` object; the last one counts.
    Usage(RawJson),
    /// The reply broke off here. What follows is another request's continuation of it.
    Seam {
        /// The model that goes on.
        model: Arc<str>,
    },
}

/// Who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// Generation id (`gen-…`).
    pub id: String,
    /// The model that answers, which need not be the one asked.
    pub model: String,
    /// The host behind the router, where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Unix seconds.
    pub created: i64,
}

/// Raw JSON, compared by its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(pub Box<RawValue>);

impl RawJson {
    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

/// A call to an upstream that failed, or a reply that broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{upstream}: {message}")]
pub struct UpstreamError {
    /// Who failed.
    pub upstream: Upstream,
    /// What kind of failure; decides the status and whether a retry can help.
    pub kind: UpstreamErrorKind,
    /// One sentence for the user; the upstream's own words where it is our request that is bad.
    pub message: String,
    /// How long the upstream asks to wait.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// The upstream's own word on whether a repeat can help.
    #[serde(skip)]
    pub retryable: Option<bool>,
    /// One of the models that were asked found the prompt too long, whatever came of the others.
    #[serde(skip)]
    pub too_long: Option<Arc<TooLong>>,
}

/// A model's answer that the prompt is longer than its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLong {
    /// The model that was asked.
    pub model: Arc<str>,
    /// The upstream's words, which may state how much it takes.
    pub message: String,
}

/// An upstream by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// OpenRouter, or whatever serves chat completions at `OPENROUTER_BASE_URL`.
    OpenRouter,
    /// The companion inside this process.
    Embedded,
    /// ElevenLabs, or whatever speaks at `ELEVENLABS_BASE_URL`.
    ElevenLabs,
    /// OpenAI, or whatever transcribes at `OPENAI_BASE_URL`.
    Whisper,
}

impl Upstream {
    /// What users call it, who may not know its name; the subject of an error's sentence.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::OpenRouter | Self::Embedded => "The model provider",
            Self::ElevenLabs => "The speech provider",
            Self::Whisper => "The transcription provider",
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenRouter => "OpenRouter",
            Self::Embedded => "embedded companion",
            Self::ElevenLabs => "ElevenLabs",
            Self::Whisper => "transcription",
        })
    }
}

impl UpstreamErrorKind {
    /// The stable public code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rejected | Self::ContextTooLong => "upstream_rejected",
            Self::AudioTooShort => "invalid_request",
            Self::TooLarge => "payload_too_large",
            Self::Auth => "upstream_auth",
            Self::Credits => "upstream_credits",
            Self::Timeout => "upstream_timeout",
            Self::RateLimited => "upstream_rate_limited",
            Self::Failed => "upstream_failed",
            Self::Unavailable => "upstream_unavailable",
            Self::NotConfigured { .. } => "provider_not_configured",
        }
    }
}

/// Kinds of upstream failure, one per row of the public error table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamErrorKind {
    /// Our request is bad: model, context, moderation. A repeat cannot help.
    Rejected,
    /// The prompt is longer than the model's context. A shorter one may pass.
    ContextTooLong,
    /// The audio is too short to hear anything in.
    AudioTooShort,
    /// What we sent is larger than the upstream takes.
    TooLarge,
    /// Our key is refused.
    Auth,
    /// No credit or quota left.
    Credits,
    /// No answer in time: the upstream's word or our deadline.
    Timeout,
    /// Too many requests.
    RateLimited,
    /// 5xx, reset, malformed, cut.
    Failed,
    /// Overloaded or refused for now, by the upstream or by our own bulkhead.
    Unavailable,
    /// No key: names the variable to set.
    NotConfigured {
        /// Environment variable.
        variable: &'static str,
    },
}

//! The parts of the configuration, one per subsystem.

use std::{fmt, path::PathBuf, time::Duration};

use idol_actors::provider::attempts::MidstreamRepair;
use secrecy::SecretString;

/// The HTTP side.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// HOST: an IP address (IPv6 without brackets) or a name to resolve.
    pub host: String,
    /// PORT: zero takes a free one.
    pub port: u16,
    /// WORKERS: HTTP worker threads; `None` is one per core.
    pub workers: Option<usize>,
    /// MAX_CONNECTIONS: open client connections over all workers.
    pub max_connections: usize,
    /// MAX_BODY_BYTES: largest request body.
    pub max_body_bytes: usize,
    /// ALLOWED_ORIGINS: the browser pages that may call.
    pub allowed_origins: AllowedOrigins,
    /// OPEN_ADMIN: whether the admin pages and lists answer everyone, and not loopback alone.
    pub open_admin: bool,
    /// TIMESTAMPS: how instants are written.
    pub timestamps: Timestamps,
    /// WS_PING_SECS: between pings on a quiet WebSocket.
    pub ws_ping: Duration,
    /// SHUTDOWN_GRACE_SECS: what replies under way get to finish.
    pub shutdown_grace: Duration,
}

/// Origins that CORS admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `*`: whoever asks; the answer mirrors the request's origin.
    Any,
    /// These, spelled as browsers spell them.
    Only(Vec<String>),
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// How instants are written in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// RFC 3339 with `Z`.
    #[default]
    Utc,
    /// Without a zone, the ancestor's form.
    Naive,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// LOG_LEVEL: a level, or a list of `EnvFilter` directives; checked.
    pub filter: String,
    /// LOG_FORMAT.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where conversations are kept.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// DATA_DIR: directory of the log and of the JSON documents.
    pub data_dir: PathBuf,
    /// MIN_FREE_MB, in bytes: room on the disk below which nothing new is begun; 0: never.
    pub min_free: u64,
    /// MIRROR_IDLE_SECS: quiet after which a conversation's document is written.
    pub mirror_idle: Duration,
}

/// What holds for every conversation.
#[derive(Debug, Clone)]
pub struct ConversationConfig {
    /// DEFAULT_MODEL: for requests that name none.
    pub default_model: String,
    /// SYSTEM_PROMPT: for requests that bring none; `None` is the engine's built-in text.
    pub system_prompt: Option<String>,
    /// DEFAULT_CONTEXT_TOKENS: assumed where the model's context length is unknown.
    pub default_context_tokens: u32,
    /// MAX_REPLY_BYTES: the longest reply that is kept.
    pub max_reply_bytes: usize,
    /// CONVERSATION_IDLE_SECS: after which an unused conversation leaves memory.
    pub idle: Duration,
    /// ABANDON_AFTER_SECS: how long a reply that nobody listens to goes on; `None`: to its end.
    pub abandon_after: Option<Duration>,
    /// RESIDENT_HISTORY_MB, in bytes: history held in memory over all conversations.
    pub resident_history_bytes: usize,
    /// STALL_DEADLINE_SECS: after which a session that takes nothing is detached.
    pub stall_deadline: Duration,
}

/// The server of chat completions.
#[derive(Debug, Clone)]
pub struct OpenRouterConfig {
    /// OPENROUTER_API_KEY; without it no Authorization header is sent.
    pub api_key: Option<SecretString>,
    /// OPENROUTER_BASE_URL.
    pub base_url: BaseUrl,
    /// HTTP_REFERER.
    pub http_referer: Option<String>,
    /// X_TITLE.
    pub x_title: Option<String>,
    /// OPENROUTER_CONNECT_TIMEOUT_SECS.
    pub connect_timeout: Duration,
    /// OPENROUTER_FIRST_TOKEN_TIMEOUT_SECS: from the request to the first token.
    pub first_token_timeout: Duration,
    /// OPENROUTER_SILENCE_TIMEOUT_SECS: without a byte, once it answers.
    pub silence_timeout: Duration,
    /// OPENROUTER_TOTAL_TIMEOUT_SECS: for a whole reply, all requests for it together.
    pub total_timeout: Duration,
    /// FALLBACK_MODELS: asked in turn when the first fails.
    pub fallback_models: Vec<String>,
    /// MIDSTREAM_REPAIR: whether a reply that breaks off is continued.
    pub midstream_repair: MidstreamRepair,
    /// OPENROUTER_ATTEMPTS: requests for one reply.
    pub attempts: u32,
    /// OPENROUTER_RETRY_BUDGET: repeats that may help nothing.
    pub retry_budget: u32,
    /// OPENROUTER_CALLS_MAX: calls under way at once.
    pub calls_max: usize,
    /// OPENROUTER_MODEL_CALLS_MAX: calls of one model under way at once.
    pub model_calls_max: usize,
    /// OPENROUTER_QUEUE_MAX: calls that may wait for room.
    pub queue_max: usize,
    /// OPENROUTER_BREAKER_PERCENT: of failed calls from which on a model is left alone; 0: never.
    pub breaker_percent: u32,
}

/// The copy of every conversation in Supabase.
#[derive(Debug, Clone)]
pub struct SupabaseConfig {
    /// SUPABASE_URL: the project's.
    pub url: BaseUrl,
    /// SUPABASE_SERVICE_ROLE_KEY.
    pub service_role_key: SecretString,
    /// SUPABASE_STORAGE_BUCKET.
    pub bucket: String,
    /// SUPABASE_CONNECT_TIMEOUT_SECS.
    pub connect_timeout: Duration,
    /// SUPABASE_TIMEOUT_SECS: for a whole call.
    pub timeout: Duration,
}

/// A checked http(s) URL without a trailing slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseUrl(pub(super) String);

impl BaseUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Speech.
#[derive(Debug, Clone)]
pub struct ElevenLabsConfig {
    /// ELEVENLABS_API_KEY; without it no key is sent.
    pub api_key: Option<SecretString>,
    /// ELEVENLABS_BASE_URL.
    pub base_url: BaseUrl,
    /// ELEVENLABS_DEFAULT_VOICE_ID.
    pub default_voice_id: String,
    /// ELEVENLABS_DEFAULT_MODEL_ID.
    pub default_model_id: String,
    /// ELEVENLABS_MAX_CONCURRENCY: syntheses at once.
    pub concurrency_max: usize,
    /// ELEVENLABS_QUEUE_MAX: syntheses that may wait for room.
    pub queue_max: usize,
    /// ELEVENLABS_CONNECT_TIMEOUT_SECS.
    pub connect_timeout: Duration,
    /// ELEVENLABS_QUEUE_TIMEOUT_SECS: how long one waits for room.
    pub queue_timeout: Duration,
    /// ELEVENLABS_FIRST_AUDIO_TIMEOUT_SECS: from the first request for a speech to its first audio,
    /// repeats included.
    pub first_audio_timeout: Duration,
    /// ELEVENLABS_SILENCE_TIMEOUT_SECS: without audio, once it speaks.
    pub silence_timeout: Duration,
    /// ELEVENLABS_ATTEMPTS: requests for one speech.
    pub attempts: u32,
}

/// Transcription.
#[derive(Debug, Clone)]
pub struct WhisperConfig {
    /// OPENAI_API_KEY; without it no Authorization header is sent.
    pub api_key: Option<SecretString>,
    /// OPENAI_BASE_URL.
    pub base_url: BaseUrl,
    /// OPENAI_TRANSCRIPTIONS_PATH: behind the base URL.
    pub path: String,
    /// WHISPER_LANGUAGE.
    pub language: Option<String>,
    /// WHISPER_MODEL.
    pub model: String,
    /// OPENAI_CONNECT_TIMEOUT_SECS.
    pub connect_timeout: Duration,
    /// OPENAI_ANSWER_TIMEOUT_SECS: from the end of an upload to its transcript.
    pub answer_timeout: Duration,
    /// MAX_AUDIO_BYTES: largest upload.
    pub audio_bytes_max: usize,
}

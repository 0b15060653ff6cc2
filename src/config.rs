//! What an operator chooses, read and checked whole before anything starts.
//!
//! A value comes from a command-line flag, else from the environment, else from `.env` in the
//! working directory, else it is the default; blank counts as unset. [`Config::from_lookup`] takes
//! the values from anywhere, so that a test need not touch the process's environment.

mod cli;
mod dotenv;
mod parts;
mod reader;
#[cfg(test)]
mod tests;
pub mod variable;

use std::{collections::HashMap, env, fs, io, path::Path};

pub use cli::{Backup, Cli, Command, Export, Import, Reconcile, Verify};
pub use dotenv::MalformedLine;
pub use parts::{
    AllowedOrigins, BaseUrl, ConversationConfig, ElevenLabsConfig, LogConfig, LogFormat,
    OpenRouterConfig, ServerConfig, StorageConfig, SupabaseConfig, Timestamps, WhisperConfig,
};
pub use reader::{ConfigError, ConfigErrors};

use idol_actors::provider::attempts::MidstreamRepair;

use reader::Reader;
use variable as var;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const GIB: u64 = 1 << 30;

/// Everything an operator chooses. Secrets are wrapped: no `Debug` shows them.
#[derive(Debug, Clone)]
pub struct Config {
    /// The HTTP side.
    pub server: ServerConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where conversations are kept.
    pub storage: StorageConfig,
    /// What holds for every conversation.
    pub conversations: ConversationConfig,
    /// The server of chat completions.
    pub openrouter: OpenRouterConfig,
    /// The copy in Supabase; `None`: there is none.
    pub supabase: Option<SupabaseConfig>,
    /// Speech.
    pub elevenlabs: ElevenLabsConfig,
    /// Transcription.
    pub whisper: WhisperConfig,
}

/// Whether the companion that answers is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At least one provider is configured.
    Live,
    /// Nothing is: the embedded companion answers.
    Demo,
}

impl Mode {
    /// The word in `/health`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Demo => "demo",
        }
    }
}

/// Who answers chat requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatProvider {
    /// OpenRouter, or what serves chat completions at `OPENROUTER_BASE_URL`.
    OpenRouter,
    /// The companion inside this process.
    Embedded,
    /// Nobody: other features are configured, this one is not.
    NotConfigured {
        /// The variable to set.
        variable: &'static str,
    },
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeechProvider {
    /// ElevenLabs, or what speaks at `ELEVENLABS_BASE_URL`.
    ElevenLabs,
    /// The tones of the demo.
    Embedded,
    /// Nobody.
    NotConfigured,
}

impl Config {
    /// Reads flags, environment and `.env`.
    pub fn load(cli: &Cli) -> Result<Self, ConfigErrors> {
        let file = read_dotenv(Path::new(".env")).map_err(|error| ConfigErrors(vec![error]))?;
        let mut errors: Vec<_> = var::GROUPS
            .iter()
            .flat_map(|group| group.variables)
            .filter(|variable| matches!(env::var(variable.name), Err(env::VarError::NotUnicode(_))))
            .map(|variable| ConfigError::NotUnicode {
                variable: variable.name,
            })
            .collect();
        let lookup = |name: &str| {
            let set = |value: &String| !value.trim().is_empty();
            cli.flag(name)
                .map(str::to_owned)
                .filter(set)
                .or_else(|| env::var(name).ok().filter(set))
                .or_else(|| file.get(name).cloned())
        };
        match Self::from_lookup(&lookup) {
            Ok(config) if errors.is_empty() => Ok(config),
            Ok(_) => Err(ConfigErrors(errors)),
            Err(more) => {
                errors.extend(more.0);
                Err(ConfigErrors(errors))
            }
        }
    }

    /// Reads variables by name from anywhere.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let read = &mut reader;
        let config = Self {
            server: server(read),
            log: LogConfig {
                filter: read.log_filter(&var::LOG_LEVEL),
                format: read.choice(
                    &var::LOG_FORMAT,
                    &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                ),
            },
            storage: StorageConfig {
                data_dir: read.text(&var::DATA_DIR).into(),
                min_free: read.number::<u64>(&var::MIN_FREE_MB, 0..=1 << 30) << 20,
                mirror_idle: read.seconds(&var::MIRROR_IDLE_SECS, 0..=HOUR),
            },
            conversations: conversations(read),
            openrouter: openrouter(read),
            supabase: supabase(read),
            elevenlabs: elevenlabs(read),
            whisper: whisper(read),
        };
        reader.finish(config)
    }

    /// Live, or the demo that runs when nothing is configured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let provider =
            self.has_chat_upstream() || self.has_speech_upstream() || self.has_hearing_upstream();
        if provider || self.supabase.is_some() {
            Mode::Live
        } else {
            Mode::Demo
        }
    }

    /// Who answers chat requests.
    #[must_use]
    pub fn chat_provider(&self) -> ChatProvider {
        match self.mode() {
            Mode::Demo => ChatProvider::Embedded,
            Mode::Live if self.has_chat_upstream() => ChatProvider::OpenRouter,
            Mode::Live => ChatProvider::NotConfigured {
                variable: var::OPENROUTER_API_KEY.name,
            },
        }
    }

    /// Who speaks.
    #[must_use]
    pub fn speech_provider(&self) -> SpeechProvider {
        match self.mode() {
            Mode::Demo => SpeechProvider::Embedded,
            Mode::Live if self.has_speech_upstream() => SpeechProvider::ElevenLabs,
            Mode::Live => SpeechProvider::NotConfigured,
        }
    }

    /// A key, or a server of one's own, as below.
    fn has_speech_upstream(&self) -> bool {
        self.elevenlabs.api_key.is_some()
            || self.elevenlabs.base_url.as_str() != var::ELEVENLABS_BASE_URL.default
    }

    /// Whether uploads of audio can be written down: by a key, or a server of one's own.
    #[must_use]
    pub fn has_hearing_upstream(&self) -> bool {
        self.whisper.api_key.is_some()
            || self.whisper.base_url.as_str() != var::OPENAI_BASE_URL.default
    }

    /// A key, or a server of one's own, which may need none.
    ///
    /// The default URL written out, as in a copy of `.env.example`, is no choice.
    fn has_chat_upstream(&self) -> bool {
        self.openrouter.api_key.is_some()
            || self.openrouter.base_url.as_str() != var::OPENROUTER_BASE_URL.default
    }
}

fn server(read: &mut Reader<'_>) -> ServerConfig {
    ServerConfig {
        host: read.host(&var::HOST),
        port: read.number(&var::PORT, 0..=u64::from(u16::MAX)),
        workers: Some(read.number(&var::WORKERS, 0..=1_024)).filter(|workers| *workers > 0),
        max_connections: read.number(&var::MAX_CONNECTIONS, 1..=10_000_000),
        max_body_bytes: read.number(&var::MAX_BODY_BYTES, 1_024..=GIB),
        allowed_origins: read.origins(&var::ALLOWED_ORIGINS),
        open_admin: read.flag(&var::OPEN_ADMIN),
        timestamps: read.choice(
            &var::TIMESTAMPS,
            &[("utc", Timestamps::Utc), ("naive", Timestamps::Naive)],
        ),
        ws_ping: read.seconds(&var::WS_PING_SECS, 1..=HOUR),
        shutdown_grace: read.seconds(&var::SHUTDOWN_GRACE_SECS, 0..=HOUR),
    }
}

fn conversations(read: &mut Reader<'_>) -> ConversationConfig {
    let abandon_after = read.seconds(&var::ABANDON_AFTER_SECS, 0..=DAY);
    let resident_mib: usize = read.number(&var::RESIDENT_HISTORY_MB, 1..=1 << 20);
    ConversationConfig {
        default_model: read.text(&var::DEFAULT_MODEL),
        system_prompt: read.optional(&var::SYSTEM_PROMPT),
        default_context_tokens: read.number(&var::DEFAULT_CONTEXT_TOKENS, 64..=100_000_000),
        max_reply_bytes: read.number(&var::MAX_REPLY_BYTES, 1_024..=GIB),
        idle: read.seconds(&var::CONVERSATION_IDLE_SECS, 1..=7 * DAY),
        abandon_after: (!abandon_after.is_zero()).then_some(abandon_after),
        resident_history_bytes: resident_mib << 20,
        stall_deadline: read.seconds(&var::STALL_DEADLINE_SECS, 1..=HOUR),
    }
}

fn openrouter(read: &mut Reader<'_>) -> OpenRouterConfig {
    OpenRouterConfig {
        api_key: read.secret(&var::OPENROUTER_API_KEY),
        base_url: read.base_url(&var::OPENROUTER_BASE_URL),
        http_referer: read.header(&var::HTTP_REFERER),
        x_title: read.header(&var::X_TITLE),
        connect_timeout: read.seconds(&var::OPENROUTER_CONNECT_TIMEOUT_SECS, 1..=DAY),
        first_token_timeout: read.seconds(&var::OPENROUTER_FIRST_TOKEN_TIMEOUT_SECS, 1..=DAY),
        silence_timeout: read.seconds(&var::OPENROUTER_SILENCE_TIMEOUT_SECS, 1..=DAY),
        total_timeout: read.seconds(&var::OPENROUTER_TOTAL_TIMEOUT_SECS, 1..=DAY),
        fallback_models: read.list(&var::FALLBACK_MODELS),
        midstream_repair: match read.flag(&var::MIDSTREAM_REPAIR) {
            true => MidstreamRepair::On,
            false => MidstreamRepair::Off,
        },
        attempts: read.number(&var::OPENROUTER_ATTEMPTS, 1..=16),
        retry_budget: read.number(&var::OPENROUTER_RETRY_BUDGET, 0..=1_000_000),
        calls_max: read.number(&var::OPENROUTER_CALLS_MAX, 1..=1_000_000),
        model_calls_max: read.number(&var::OPENROUTER_MODEL_CALLS_MAX, 1..=1_000_000),
        queue_max: read.number(&var::OPENROUTER_QUEUE_MAX, 0..=1_000_000),
        breaker_percent: read.number(&var::OPENROUTER_BREAKER_PERCENT, 0..=100),
    }
}

fn supabase(read: &mut Reader<'_>) -> Option<SupabaseConfig> {
    let url = read.optional_url(&var::SUPABASE_URL);
    let service_role_key = read.secret(&var::SUPABASE_SERVICE_ROLE_KEY);
    let bucket = read.bucket(&var::SUPABASE_STORAGE_BUCKET);
    let connect_timeout = read.seconds(&var::SUPABASE_CONNECT_TIMEOUT_SECS, 1..=HOUR);
    let timeout = read.seconds(&var::SUPABASE_TIMEOUT_SECS, 1..=HOUR);
    read.both(&var::SUPABASE_URL, &var::SUPABASE_SERVICE_ROLE_KEY);
    Some(SupabaseConfig {
        url: url?,
        service_role_key: service_role_key?,
        bucket,
        connect_timeout,
        timeout,
    })
}

fn elevenlabs(read: &mut Reader<'_>) -> ElevenLabsConfig {
    ElevenLabsConfig {
        api_key: read.secret(&var::ELEVENLABS_API_KEY),
        base_url: read.base_url(&var::ELEVENLABS_BASE_URL),
        default_voice_id: read.name(&var::ELEVENLABS_DEFAULT_VOICE_ID),
        default_model_id: read.name(&var::ELEVENLABS_DEFAULT_MODEL_ID),
        concurrency_max: read.number(&var::ELEVENLABS_MAX_CONCURRENCY, 1..=100_000),
        queue_max: read.number(&var::ELEVENLABS_QUEUE_MAX, 0..=1_000_000),
        connect_timeout: read.seconds(&var::ELEVENLABS_CONNECT_TIMEOUT_SECS, 1..=HOUR),
        queue_timeout: read.seconds(&var::ELEVENLABS_QUEUE_TIMEOUT_SECS, 1..=HOUR),
        first_audio_timeout: read.seconds(&var::ELEVENLABS_FIRST_AUDIO_TIMEOUT_SECS, 1..=HOUR),
        silence_timeout: read.seconds(&var::ELEVENLABS_SILENCE_TIMEOUT_SECS, 1..=HOUR),
        attempts: read.number(&var::ELEVENLABS_ATTEMPTS, 1..=3),
    }
}

fn whisper(read: &mut Reader<'_>) -> WhisperConfig {
    WhisperConfig {
        api_key: read.secret(&var::OPENAI_API_KEY),
        base_url: read.base_url(&var::OPENAI_BASE_URL),
        path: read.path(&var::OPENAI_TRANSCRIPTIONS_PATH),
        model: read.text(&var::WHISPER_MODEL),
        language: read.optional(&var::WHISPER_LANGUAGE),
        connect_timeout: read.seconds(&var::OPENAI_CONNECT_TIMEOUT_SECS, 1..=HOUR),
        answer_timeout: read.seconds(&var::OPENAI_ANSWER_TIMEOUT_SECS, 1..=HOUR),
        audio_bytes_max: read.number(&var::MAX_AUDIO_BYTES, 1_024..=GIB),
    }
}

/// The assignments of `.env`; none where there is no such file.
fn read_dotenv(path: &Path) -> Result<HashMap<String, String>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(ConfigError::DotenvUnreadable(error.to_string())),
    };
    let assignments = dotenv::parse(&text).map_err(ConfigError::DotenvMalformed)?;
    Ok(assignments.into_iter().collect())
}

//! Every environment variable there is, with its default and its meaning.
//!
//! The one table behind the reading, `--help` and `.env.example`.

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is unset or blank; empty where nothing does.
    pub default: &'static str,
    /// One line for the operator.
    pub help: &'static str,
}

const fn variable(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable {
        name,
        default,
        help,
    }
}

/// Variables of one subsystem, as `--help` shows them.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// In the order of the help text.
    pub variables: &'static [Variable],
}

macro_rules! variables {
    ($($title:literal { $($name:ident = $default:literal, $help:literal;)* })*) => {
        $($(
            pub(super) const $name: Variable = variable(stringify!($name), $default, $help);
        )*)*
        /// All variables, group by group.
        pub const GROUPS: &[Group] = &[$(Group { title: $title, variables: &[$($name),*] }),*];
    };
}

variables! {
    "Server" {
        HOST = "127.0.0.1", "address to listen on; 0.0.0.0 or :: for every interface";
        PORT = "8000", "TCP port; 0 takes a free one";
        WORKERS = "0", "HTTP worker threads; 0 is one per core";
        MAX_CONNECTIONS = "50000", "open client connections, over all workers";
        MAX_BODY_BYTES = "1048576", "largest request body";
        ALLOWED_ORIGINS = "http://localhost:3000,http://127.0.0.1:3000", "browser origins that may call, comma-separated; * for any";
        OPEN_ADMIN = "false", "true serves the admin pages and lists to everyone, not only to loopback";
        TIMESTAMPS = "utc", "utc (RFC 3339 with Z) or naive (without a zone)";
        WS_PING_SECS = "25", "seconds between pings on a quiet WebSocket";
        STALL_DEADLINE_SECS = "60", "seconds after which a client that takes nothing is detached";
        SHUTDOWN_GRACE_SECS = "25", "seconds that replies under way get to finish at shutdown";
    }
    "Logging" {
        LOG_LEVEL = "info", "error, warn, info, debug, trace, off, or a list like info,idol_actors=debug";
        LOG_FORMAT = "text", "text or json, on standard error";
    }
    "Storage" {
        DATA_DIR = "./data", "directory of the log and the JSON documents";
        MIN_FREE_MB = "64", "MiB free on the disk of DATA_DIR below which no new turns are taken; 0 never refuses";
        MIRROR_IDLE_SECS = "2", "seconds of quiet after which a conversation's document is written";
    }
    "Conversations" {
        DEFAULT_MODEL = "nousresearch/hermes-3-llama-3.1-70b", "model of a request that names none";
        SYSTEM_PROMPT = "", "system prompt of a request that brings none; empty uses the built-in one";
        DEFAULT_CONTEXT_TOKENS = "8192", "context length assumed where the model's is unknown";
        MAX_REPLY_BYTES = "33554432", "longest reply that is kept";
        CONVERSATION_IDLE_SECS = "300", "seconds after which an unused conversation leaves memory";
        ABANDON_AFTER_SECS = "0", "seconds after which a reply that nobody listens to is given up; 0 lets it go on to its end";
        RESIDENT_HISTORY_MB = "512", "MiB of history held in memory, over all conversations";
    }
    "OpenRouter, or any server of chat completions" {
        OPENROUTER_API_KEY = "", "key; secret. Without it, and without another base URL, the demo companion answers";
        OPENROUTER_BASE_URL = "https://openrouter.ai/api/v1", "where chat completions are served; a local server needs no key";
        HTTP_REFERER = "", "sent as HTTP-Referer: the site that calls";
        X_TITLE = "", "sent as X-Title: the application that calls";
        OPENROUTER_CONNECT_TIMEOUT_SECS = "5", "seconds to connect";
        OPENROUTER_FIRST_TOKEN_TIMEOUT_SECS = "60", "seconds from the request to the first token";
        OPENROUTER_SILENCE_TIMEOUT_SECS = "30", "seconds without a byte, once it answers";
        OPENROUTER_TOTAL_TIMEOUT_SECS = "600", "seconds for a whole reply, all requests for it together";
        FALLBACK_MODELS = "", "models asked in turn when the one of a request fails, comma-separated; `models` in the request wins";
        MIDSTREAM_REPAIR = "on", "on or off: a reply that breaks off is continued by a new request";
        OPENROUTER_ATTEMPTS = "6", "requests for one reply, retries, fallbacks and continuations included; 1 never repeats";
        OPENROUTER_RETRY_BUDGET = "100", "repeats that may help nothing before only one in ten replies is asked for again";
        OPENROUTER_CALLS_MAX = "4096", "calls under way at once";
        OPENROUTER_MODEL_CALLS_MAX = "3072", "calls of one model under way at once";
        OPENROUTER_QUEUE_MAX = "512", "calls that may wait for room, 5 seconds at most";
        OPENROUTER_BREAKER_PERCENT = "50", "percent of failed calls from which on a model is left alone for a while; 0 never";
    }
    "Supabase: a copy of every conversation (set both URL and key; ends demo mode)" {
        SUPABASE_URL = "", "project URL, as https://<ref>.supabase.co";
        SUPABASE_SERVICE_ROLE_KEY = "", "service_role or secret key; secret";
        SUPABASE_STORAGE_BUCKET = "conversations", "bucket of the documents; made, private, if it is missing";
        SUPABASE_CONNECT_TIMEOUT_SECS = "5", "seconds to connect";
        SUPABASE_TIMEOUT_SECS = "30", "seconds for a whole call";
    }
    "Speech: ElevenLabs, or a server that speaks like it (its key ends demo mode)" {
        ELEVENLABS_API_KEY = "", "key; secret";
        ELEVENLABS_BASE_URL = "https://api.elevenlabs.io/v1", "where speech is served; a server of one's own needs no key";
        ELEVENLABS_DEFAULT_VOICE_ID = "21m00Tcm4TlvDq8ikWAM", "voice of a request that names none";
        ELEVENLABS_DEFAULT_MODEL_ID = "eleven_turbo_v2_5", "speech model of a request that names none";
        ELEVENLABS_MAX_CONCURRENCY = "4", "syntheses at once, of all users together: as many as the plan allows";
        ELEVENLABS_QUEUE_MAX = "256", "syntheses that may wait for room";
        ELEVENLABS_CONNECT_TIMEOUT_SECS = "5", "seconds to connect";
        ELEVENLABS_QUEUE_TIMEOUT_SECS = "30", "seconds that a synthesis waits for room";
        ELEVENLABS_FIRST_AUDIO_TIMEOUT_SECS = "20", "seconds from the first request for a speech to its first audio, repeats included; WAV has the time of a whole speech";
        ELEVENLABS_SILENCE_TIMEOUT_SECS = "15", "seconds without audio, once it speaks";
        ELEVENLABS_ATTEMPTS = "3", "requests for one speech before its first audio, 3 at most";
    }
    "Transcription: OpenAI, or a Whisper of one's own (its key ends demo mode)" {
        OPENAI_API_KEY = "", "key; secret";
        OPENAI_BASE_URL = "https://api.openai.com/v1", "where transcription is served; a local server needs no key";
        OPENAI_TRANSCRIPTIONS_PATH = "/audio/transcriptions", "path behind the base URL; whisper.cpp serves /inference";
        WHISPER_MODEL = "whisper-1", "transcription model of a request that names none";
        WHISPER_LANGUAGE = "", "language of a request that names none, as `de`; whisper.cpp takes English unless it is told `auto`";
        OPENAI_CONNECT_TIMEOUT_SECS = "5", "seconds to connect";
        OPENAI_ANSWER_TIMEOUT_SECS = "60", "seconds from the end of an upload to its transcript";
        MAX_AUDIO_BYTES = "25690112", "largest upload of audio; OpenAI takes 25 MiB, the form around it included";
    }
}

/// The part of `--help` that lists the variables.
///
/// Shows defaults, never current values: some of them are secrets.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Environment variables (also read from .env in the working directory; the environment wins, \
         and a blank value counts as unset):\n",
    );
    for group in GROUPS {
        text.push_str(&format!("\n{}:\n", group.title));
        for variable in group.variables {
            let default = match variable.default {
                "" => String::new(),
                default => format!(" [{default}]"),
            };
            let Variable { name, help, .. } = variable;
            text.push_str(&format!("  {name}{default}\n          {help}\n"));
        }
    }
    text
}

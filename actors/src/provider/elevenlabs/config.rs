//! What an operator chooses about speech, and what follows from it for every request.

use std::time::Duration;

use reqwest::header::HeaderName;
use secrecy::SecretString;

use crate::provider::{
    EndpointError, Upstream,
    attempts::RetryPolicy,
    endpoint::{Endpoint, check_deadline},
};

/// Where speech comes from, and on what terms.
#[derive(Debug, Clone)]
pub struct ElevenLabsConfig {
    /// Up to and including the version prefix: `https://api.elevenlabs.io/v1`.
    pub base_url: String,
    /// Sent as `xi-api-key`; a server of one's own may need none.
    pub api_key: Option<SecretString>,
    /// How long to wait for what.
    pub deadlines: SpeechDeadlines,
    /// How often a speech is asked for before its first sound.
    pub retry: RetryPolicy,
}

/// How long to wait for what; when one passes, the speech fails as a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechDeadlines {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For room among the syntheses under way.
    pub queue: Duration,
    /// From the first request for a speech to its first audio, where it comes as a stream; otherwise
    /// it has all the time that the whole speech has. The first request waits no longer than half of
    /// it: so there is time for a second one.
    pub first_audio: Duration,
    /// Between two pieces of audio.
    pub silence: Duration,
    /// For a whole speech, the wait for room included.
    pub whole: Duration,
}

impl Default for SpeechDeadlines {
    /// 5 s to connect, 30 s for room, 20 s to the first audio, 15 s of silence, 5 min.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            queue: Duration::from_secs(30),
            first_audio: Duration::from_secs(20),
            silence: Duration::from_secs(15),
            whole: Duration::from_secs(300),
        }
    }
}

/// A checked configuration.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) http: Endpoint,
    pub(super) deadlines: SpeechDeadlines,
    pub(super) retry: RetryPolicy,
}

impl Target {
    pub(super) fn new(config: &ElevenLabsConfig) -> Result<Self, EndpointError> {
        let SpeechDeadlines {
            connect,
            queue,
            first_audio,
            silence,
            whole,
        } = config.deadlines;
        for (what, deadline) in [
            ("queue", queue),
            ("first-audio", first_audio),
            ("silence", silence),
            ("whole-speech", whole),
        ] {
            check_deadline(what, deadline)?;
        }
        let key = HeaderName::from_static("xi-api-key");
        let http = Endpoint::new(Upstream::ElevenLabs, &config.base_url, connect)?.with_key(
            config.api_key.as_ref(),
            key,
            "",
        )?;
        Ok(Self {
            http,
            deadlines: config.deadlines,
            retry: config.retry,
        })
    }
}

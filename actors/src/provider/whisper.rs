//! Whisper: OpenAI's transcription, and whatever else takes its form: speaches, whisper.cpp.
//!
//! An upload is passed on while it comes in, and never held whole.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Context, Handler};
use reqwest::header::AUTHORIZATION;
use secrecy::SecretString;

use self::{form::Defaults, transcribing::Transcribing};
use super::{
    EndpointError, Generation, Upstream,
    attempts::RetryPolicy,
    endpoint::{Endpoint, check_deadline},
    hearing::Transcribe,
    protection::Protection,
};

mod form;
mod length;
mod transcribing;
mod transcript;

/// Where transcripts come from, and on what terms.
#[derive(Debug, Clone)]
pub struct WhisperConfig {
    /// Up to and including the version prefix: `https://api.openai.com/v1`.
    pub base_url: String,
    /// Behind the base URL: `/audio/transcriptions`; whisper.cpp serves `/inference`.
    pub path: String,
    /// Sent as a bearer token; a local server needs none.
    pub api_key: Option<SecretString>,
    /// For requests that name no model, or one of OpenAI's where this is none.
    pub model: String,
    /// For requests that name no language; none: they go without.
    pub language: Option<String>,
    /// How long to wait for what.
    pub deadlines: HearingDeadlines,
    /// How often a connection is tried.
    pub retry: RetryPolicy,
}

/// How long to wait for what; when one passes, the transcription fails as a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HearingDeadlines {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the end of the upload to the transcript.
    pub answer: Duration,
    /// For the whole of it, the upload included.
    pub whole: Duration,
}

impl Default for HearingDeadlines {
    /// 5 s to connect, 60 s for the answer, 10 min.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            whole: Duration::from_secs(600),
        }
    }
}

/// Asks for transcripts; one for each thread that sessions live on, with its own connections.
///
/// Each transcription is one task, ended by its [`Generation`] guard.
#[derive(Debug)]
pub struct Whisper {
    target: Arc<Target>,
    protection: Arc<Protection>,
}

/// A checked configuration.
#[derive(Debug)]
struct Target {
    http: Endpoint,
    path: String,
    defaults: Arc<Defaults>,
    deadlines: HearingDeadlines,
    retry: RetryPolicy,
}

impl Whisper {
    /// Checks the configuration and sets up an HTTP client; does not connect.
    ///
    /// # Errors
    ///
    /// Names the value that is wrong.
    pub fn new(config: &WhisperConfig, protection: Arc<Protection>) -> Result<Self, EndpointError> {
        let HearingDeadlines {
            connect,
            answer,
            whole,
        } = config.deadlines;
        check_deadline("answer", answer)?;
        check_deadline("whole-transcription", whole)?;
        let http = Endpoint::new(Upstream::Whisper, &config.base_url, connect)?.with_key(
            config.api_key.as_ref(),
            AUTHORIZATION,
            "Bearer ",
        )?;
        Ok(Self {
            target: Arc::new(Target {
                http,
                path: config.path.clone(),
                defaults: Arc::new(Defaults {
                    model: config.model.clone(),
                    language: config.language.clone(),
                }),
                deadlines: config.deadlines,
                retry: config.retry,
            }),
            protection,
        })
    }
}

impl Actor for Whisper {
    type Context = Context<Self>;
}

impl Handler<Transcribe> for Whisper {
    type Result = Generation;

    fn handle(&mut self, transcribe: Transcribe, _: &mut Context<Self>) -> Generation {
        let transcribing = Transcribing {
            target: Arc::clone(&self.target),
            protection: Arc::clone(&self.protection),
        };
        let run = transcribing.run(transcribe);
        Generation::new(tokio::task::spawn_local(run).abort_handle())
    }
}

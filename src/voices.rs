//! Who speaks and who listens: the voice providers of one worker, and what they share with those of
//! the others.

use std::sync::Arc;

use actix::{Actor, Recipient};
use idol_actors::{
    error::EngineError,
    provider::{
        EndpointError, Upstream, UpstreamError, UpstreamErrorKind,
        attempts::{RetryPolicy, RetryWaits},
        breaker::BreakerPolicy,
        elevenlabs::{ElevenLabs, ElevenLabsConfig, SpeechDeadlines, SpeechRoom},
        embedded::voice::{EmbeddedVoice, MODEL as EMBEDDED_MODEL},
        hearing::Transcribe,
        protection::{Protection, ProtectionPolicy},
        speech::Speak,
        whisper::{HearingDeadlines, Whisper, WhisperConfig},
    },
};

use crate::{
    config::{Config, SpeechProvider},
    session::ahead::AudioAhead,
    wire::voice::{SpeechModels, VoiceDefaults},
};

/// Calls of one upstream at once, beyond which its own limits are not what holds.
const CALLS_MAX: usize = 4_096;

/// What the voice providers of all workers share.
#[derive(Debug, Clone)]
pub struct VoiceParts {
    speech: SpeechParts,
    hearing: Option<(WhisperConfig, Arc<Protection>)>,
    defaults: Arc<VoiceDefaults>,
    audio_bytes_max: usize,
    audio_ahead: AudioAhead,
}

#[derive(Debug, Clone)]
enum SpeechParts {
    ElevenLabs(Box<ElevenLabsConfig>, Arc<Protection>, Arc<SpeechRoom>),
    Embedded,
    NotConfigured,
}

/// The voice providers of one worker.
#[derive(Debug)]
pub struct Voices {
    speech: Option<Recipient<Speak>>,
    hearing: Option<Recipient<Transcribe>>,
    /// What an operator chose for every request.
    pub defaults: Arc<VoiceDefaults>,
    /// Largest upload in bytes.
    pub audio_bytes_max: usize,
    /// Memory for audio that comes faster than it is taken.
    pub audio_ahead: AudioAhead,
}

impl VoiceParts {
    /// As an operator chose.
    #[must_use]
    pub fn new(config: &Config, waits: Option<RetryWaits>) -> Self {
        let speech = match config.speech_provider() {
            SpeechProvider::ElevenLabs => {
                let room = SpeechRoom::new(
                    config.elevenlabs.concurrency_max,
                    config.elevenlabs.queue_max,
                );
                let protection = protection(Upstream::ElevenLabs, config);
                SpeechParts::ElevenLabs(Box::new(elevenlabs(config, waits)), protection, room)
            }
            SpeechProvider::Embedded => SpeechParts::Embedded,
            SpeechProvider::NotConfigured => SpeechParts::NotConfigured,
        };
        let hearing = config.has_hearing_upstream().then(|| {
            let protection = protection(Upstream::Whisper, config);
            (whisper(config, waits), protection)
        });
        let (model_id, models) = match speech {
            SpeechParts::Embedded => (EMBEDDED_MODEL.to_owned(), SpeechModels::DefaultAlone),
            SpeechParts::ElevenLabs(..) | SpeechParts::NotConfigured => {
                let default = config.elevenlabs.default_model_id.clone();
                (default, SpeechModels::Named)
            }
        };
        Self {
            speech,
            hearing,
            defaults: Arc::new(VoiceDefaults {
                voice_id: config.elevenlabs.default_voice_id.clone(),
                model_id,
                hearing_model_id: config.whisper.model.clone(),
                models,
            }),
            audio_bytes_max: config.whisper.audio_bytes_max,
            audio_ahead: AudioAhead::default(),
        }
    }

    /// What all calls for speech share, and the room for them; none: nobody is asked.
    #[must_use]
    pub fn speech(&self) -> Option<(&Arc<Protection>, &Arc<SpeechRoom>)> {
        match &self.speech {
            SpeechParts::ElevenLabs(_, protection, room) => Some((protection, room)),
            SpeechParts::Embedded | SpeechParts::NotConfigured => None,
        }
    }

    /// What all calls for transcripts share; none: nobody is asked.
    #[must_use]
    pub fn hearing(&self) -> Option<&Arc<Protection>> {
        self.hearing.as_ref().map(|(_, protection)| protection)
    }

    /// Starts the providers of this thread.
    ///
    /// # Errors
    ///
    /// Names the value that is wrong.
    pub fn start(&self) -> Result<Voices, EndpointError> {
        let speech = match &self.speech {
            SpeechParts::ElevenLabs(config, protection, room) => {
                let actor = ElevenLabs::new(config, protection.clone(), room.clone())?;
                Some(actor.start().recipient())
            }
            SpeechParts::Embedded => Some(EmbeddedVoice.start().recipient()),
            SpeechParts::NotConfigured => None,
        };
        let hearing = match &self.hearing {
            Some((config, protection)) => {
                let actor = Whisper::new(config, protection.clone())?;
                Some(actor.start().recipient())
            }
            None => None,
        };
        Ok(Voices {
            speech,
            hearing,
            ..self.silent()
        })
    }

    /// Nobody who speaks or listens.
    #[must_use]
    pub fn silent(&self) -> Voices {
        Voices {
            speech: None,
            hearing: None,
            defaults: self.defaults.clone(),
            audio_bytes_max: self.audio_bytes_max,
            audio_ahead: self.audio_ahead.clone(),
        }
    }
}

impl Voices {
    /// Who speaks.
    ///
    /// # Errors
    ///
    /// Nobody: names the variable to set.
    pub fn speech(&self) -> Result<Recipient<Speak>, EngineError> {
        self.speech.clone().ok_or_else(|| {
            not_configured(
                Upstream::ElevenLabs,
                "ELEVENLABS_API_KEY",
                "No speech provider is configured: set ELEVENLABS_API_KEY",
            )
        })
    }

    /// Who listens.
    ///
    /// # Errors
    ///
    /// Nobody: names the variable to set.
    pub fn hearing(&self) -> Result<Recipient<Transcribe>, EngineError> {
        self.hearing.clone().ok_or_else(|| {
            not_configured(
                Upstream::Whisper,
                "OPENAI_API_KEY",
                "No transcription provider is configured: set OPENAI_API_KEY",
            )
        })
    }
}

fn not_configured(upstream: Upstream, variable: &'static str, message: &str) -> EngineError {
    EngineError::Upstream(UpstreamError {
        upstream,
        kind: UpstreamErrorKind::NotConfigured { variable },
        message: message.to_owned(),
        retry_after: None,
        retryable: None,
        too_long: None,
    })
}

fn protection(upstream: Upstream, config: &Config) -> Arc<Protection> {
    let defaults = ProtectionPolicy::default();
    Arc::new(Protection::new(ProtectionPolicy {
        upstream,
        calls: CALLS_MAX,
        calls_of_model: CALLS_MAX,
        breaker: BreakerPolicy {
            percent: config.openrouter.breaker_percent,
            ..defaults.breaker
        },
        ..defaults
    }))
}

fn elevenlabs(config: &Config, waits: Option<RetryWaits>) -> ElevenLabsConfig {
    let elevenlabs = &config.elevenlabs;
    ElevenLabsConfig {
        base_url: elevenlabs.base_url.as_str().to_owned(),
        api_key: elevenlabs.api_key.clone(),
        deadlines: SpeechDeadlines {
            connect: elevenlabs.connect_timeout,
            queue: elevenlabs.queue_timeout,
            first_audio: elevenlabs.first_audio_timeout,
            silence: elevenlabs.silence_timeout,
            ..SpeechDeadlines::default()
        },
        retry: RetryPolicy {
            attempts: elevenlabs.attempts,
            waits: waits.unwrap_or_default(),
            ..RetryPolicy::default()
        },
    }
}

fn whisper(config: &Config, waits: Option<RetryWaits>) -> WhisperConfig {
    let whisper = &config.whisper;
    WhisperConfig {
        base_url: whisper.base_url.as_str().to_owned(),
        path: whisper.path.clone(),
        api_key: whisper.api_key.clone(),
        model: whisper.model.clone(),
        language: whisper.language.clone(),
        deadlines: HearingDeadlines {
            connect: whisper.connect_timeout,
            answer: whisper.answer_timeout,
            ..HearingDeadlines::default()
        },
        retry: RetryPolicy {
            waits: waits.unwrap_or_default(),
            ..RetryPolicy::default()
        },
    }
}

//! One request for speech: from its words to its last audio.

use actix::{Recipient, prelude::SendError};
use bytes::Bytes;
use reqwest::{Response, header::CONTENT_TYPE};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{config::Target, timing::TimingReader};
use crate::{
    provider::{
        Upstream, UpstreamError,
        breaker::CallEnd,
        endpoint::{Refusal, root_cause},
        failure,
        protection::{Call, Went},
        report::Report,
        speech::{Speak, SpeechEnd, Spoken, Timing, Voice},
    },
    voice::alignment::TimedChar,
};

/// Nobody listens any more.
pub(super) struct Gone;

/// How a request went.
pub(super) struct Called {
    pub(super) end: Result<SpeechEnd, Failed>,
    pub(super) went: Went,
}

/// Why there is no speech, or not all of it.
pub(super) struct Failed {
    pub(super) error: UpstreamError,
    /// Whether audio had come.
    pub(super) reached: Reached,
    pub(super) cue: Cue,
}

/// How far a speech had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Nothing,
    Audio,
}

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cue {
    /// Nothing in particular.
    None,
    /// The account speaks as much at once as its plan allows: to wait for that.
    Crowded,
}

/// The models that refuse to be told what was spoken before.
const UNSTITCHED: &str = "eleven_v3";

#[derive(Serialize)]
struct Body<'a> {
    text: &'a str,
    model_id: &'a str,
    voice_settings: Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_text: Option<&'a str>,
}

#[derive(Serialize)]
struct Settings {
    stability: f64,
    similarity_boost: f64,
    style: f64,
    use_speaker_boost: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
}

impl From<&Voice> for Settings {
    fn from(voice: &Voice) -> Self {
        Self {
            stability: voice.stability,
            similarity_boost: voice.similarity_boost,
            style: voice.style,
            use_speaker_boost: voice.use_speaker_boost,
            speed: voice.speed,
        }
    }
}

/// Makes one request, whose first audio and whose end are awaited until then. What it brings goes to
/// the listener, except for how it ended.
pub(super) async fn call(
    target: &Target,
    speak: &Speak,
    (first_audio, whole): (Instant, Instant),
    out: &Call,
) -> Result<Called, Gone> {
    let response = match timeout_at(first_audio, request(target, speak).send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let reach = match error.is_connect() {
                true => CallEnd::Badly,
                false => CallEnd::Well,
            };
            return Ok(failed(
                target.http.transport(&error),
                Reached::Nothing,
                reach,
            ));
        }
        Err(_) => {
            return Ok(failed(
                too_late(Reached::Nothing),
                Reached::Nothing,
                CallEnd::Well,
            ));
        }
    };
    out.reached();
    if !response.status().is_success() {
        return Ok(refused(target.http.refusal(response, whole).await));
    }
    if let Err(what) = check_media(&response, speak.timing) {
        let error = failure::failed(Upstream::ElevenLabs, what);
        return Ok(failed(error, Reached::Nothing, CallEnd::Well));
    }
    read(target, speak, response, (first_audio, whole), out).await
}

fn request(target: &Target, speak: &Speak) -> reqwest::RequestBuilder {
    let voice = &speak.voice;
    // WAV tells its length first, and is not streamed.
    let path = match (speak.timing, voice.format.is_for_streams()) {
        (Timing::Plain, true) => "/stream",
        (Timing::Plain, false) => "",
        (Timing::Aligned, true) => "/stream/with-timestamps",
        (Timing::Aligned, false) => "/with-timestamps",
    };
    let stitched = !speak.before.is_empty() && !voice.model_id.starts_with(UNSTITCHED);
    let body = Body {
        text: &speak.text,
        model_id: &voice.model_id,
        voice_settings: Settings::from(&**voice),
        previous_text: stitched.then_some(&*speak.before),
    };
    // Checked to hold nothing that a path could not.
    let path = format!("/text-to-speech/{}{path}", voice.voice_id);
    target
        .http
        .post(&path)
        .query(&[("output_format", voice.format.as_str())])
        .json(&body)
}

async fn read(
    target: &Target,
    speak: &Speak,
    mut response: Response,
    (first_audio, whole): (Instant, Instant),
    out: &Call,
) -> Result<Called, Gone> {
    let characters = characters(&response, speak);
    let mut reader = TimingReader::default();
    let mut reached = Reached::Nothing;
    let mut deadline = first_audio;
    let broke = |what: &str, reached| {
        let error = failure::failed(Upstream::ElevenLabs, what);
        failed(error, reached, CallEnd::Well)
    };
    loop {
        let (audio, timed, over) = match timeout_at(deadline, response.chunk()).await {
            Err(_) => return Ok(failed(too_late(reached), reached, CallEnd::Well)),
            Ok(Err(error)) => {
                let what = format!("broke off the speech: {}", root_cause(&error));
                return Ok(broke(&what, reached));
            }
            Ok(Ok(Some(bytes))) => match speak.timing {
                Timing::Plain => (bytes, Vec::new(), false),
                Timing::Aligned => match reader.read(&bytes) {
                    Ok(timed) => (timed.audio.freeze(), timed.chars, false),
                    Err(error) => return Ok(broke(&error.to_string(), reached)),
                },
            },
            Ok(Ok(None)) => match reader.close() {
                Ok(timed) => (timed.audio.freeze(), timed.chars, true),
                Err(error) => return Ok(broke(&error.to_string(), reached)),
            },
        };
        if !audio.is_empty() && reached == Reached::Nothing {
            reached = Reached::Audio;
            out.answered();
        }
        if !audio.is_empty() || !timed.is_empty() {
            send(&speak.reply_to, speak.number, audio, timed, whole).await?;
        }
        if over {
            return Ok(match reached {
                Reached::Audio => Called {
                    end: Ok(SpeechEnd { characters }),
                    went: went(CallEnd::Well, CallEnd::Well),
                },
                Reached::Nothing => broke("sent no audio", reached),
            });
        }
        if reached == Reached::Audio {
            deadline = whole.min(Instant::now() + target.deadlines.silence);
        }
        // Nor must it keep the thread from the other calls.
        tokio::task::coop::consume_budget().await;
    }
}

/// Sends one message. A full mailbox holds up the call, and with it the network: nothing is read
/// until the listener has taken what there is.
async fn send(
    reply_to: &Recipient<Spoken>,
    number: u64,
    audio: Bytes,
    timed: Vec<TimedChar>,
    whole: Instant,
) -> Result<(), Gone> {
    let spoken = Spoken {
        number,
        audio,
        timed,
        end: None,
    };
    match reply_to.try_send(spoken) {
        Ok(()) => Ok(()),
        Err(SendError::Closed(_)) => Err(Gone),
        Err(SendError::Full(spoken)) => match timeout_at(whole, reply_to.send(spoken)).await {
            Ok(sent) => sent.map_err(|_| Gone),
            Err(_) => Err(Gone),
        },
    }
}

/// What is charged for: the upstream's word, else all that it was given.
fn characters(response: &Response, speak: &Speak) -> u64 {
    let told = response.headers().get("character-cost");
    let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
    told.unwrap_or_else(|| speak.text.chars().count() as u64)
}

/// A success that holds no audio is a failure: a gateway's page, an error with the wrong status.
fn check_media(response: &Response, timing: Timing) -> Result<(), String> {
    let media = response.headers().get(CONTENT_TYPE);
    let media = media
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let media = media.trim_start().to_ascii_lowercase();
    let is_right = match timing {
        Timing::Plain => media.starts_with("audio/") || media == "application/octet-stream",
        Timing::Aligned => media.contains("json") || media == "text/event-stream",
    };
    match is_right {
        true => Ok(()),
        false => Err("answered without audio; is the base URL right?".to_owned()),
    }
}

/// What is wrong with every sentence alike.
const OF_NO_SENTENCE: [&str; 6] = [
    "voice_not_found",
    "model_not_found",
    "unsupported_model",
    "invalid_voice_id",
    "paid_plan_required",
    "only_for_creator+",
];

fn refused(
    Refusal {
        error,
        status,
        body,
    }: Refusal,
) -> Called {
    let report = Report::read(&body);
    let crowded = ["concurrent_limit_exceeded", "too_many_concurrent_requests"];
    let cue = match status == 429 && crowded.iter().any(|word| report.has_word(word)) {
        true => Cue::Crowded,
        false => Cue::None,
    };
    let busy = report.has_word("system_busy");
    // More than the plan has in a minute: at once it would only be refused again.
    let spent = status == 429 && report.has_word("rate_limit_exceeded");
    // Of the voice, the model or the plan, and not of what is to be said.
    let never = OF_NO_SENTENCE.iter().any(|word| report.has_word(word));
    let told = match (busy, spent || never) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    let retry_after = error.retry_after;
    let called = failed(error, Reached::Nothing, CallEnd::Well);
    let end = called.end.map_err(|failed| Failed {
        cue,
        error: UpstreamError {
            // One that is busy may answer if it is asked again at once.
            retryable: told.or(failed.error.retryable),
            retry_after,
            ..failed.error
        },
        ..failed
    });
    Called { end, ..called }
}

fn failed(error: UpstreamError, reached: Reached, reach: CallEnd) -> Called {
    let model = match reach {
        CallEnd::Badly => CallEnd::Neither,
        CallEnd::Well | CallEnd::Neither => CallEnd::of(&error.kind),
    };
    Called {
        end: Err(Failed {
            error,
            reached,
            cue: Cue::None,
        }),
        went: went(reach, model),
    }
}

fn went(reach: CallEnd, model: CallEnd) -> Went {
    Went { reach, model }
}

fn too_late(reached: Reached) -> UpstreamError {
    failure::timed_out(
        Upstream::ElevenLabs,
        match reached {
            Reached::Nothing => "did not begin to speak in time",
            Reached::Audio => "fell silent amid the speech",
        },
    )
}

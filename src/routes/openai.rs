//! OpenAI's audio, for its SDKs: `POST /v1/audio/speech` and `/v1/audio/transcriptions`.
//!
//! Errors have OpenAI's shape, and what its SDKs send is understood: names of voices and models are
//! mapped to the configured ones.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use idol_actors::{
    provider::{hearing::Transcript, speech::Voice},
    voice::{format::AudioFormat, usage::VoiceUsage},
};

use serde_json::Value;

use super::{body, speech::SPEECH_MODEL, upload};
use crate::{
    error::ApiError,
    server::Server,
    session::speech::speak,
    wire::{
        fields::{FieldError, Fields, Step},
        json::Object,
        openai,
        voice::{OVER_HTTP, VoiceDefaults, voice_of},
    },
};

/// Longest `input`, in characters, as OpenAI's.
const INPUT_CHARACTERS_MAX: usize = 4_096;

/// OpenAI's voices, which are not ElevenLabs'.
const VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
    "shimmer", "verse",
];

/// An error in OpenAI's shape.
#[derive(Debug)]
pub(super) struct OpenAiError(ApiError);

impl std::fmt::Display for OpenAiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OpenAiError {}

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl ResponseError for OpenAiError {
    fn status_code(&self) -> StatusCode {
        match self.0.status_code() {
            // OpenAI's own word for a bad request.
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let object = self.object();
        let body = Object::after(String::new()).raw("error", &object).end();
        // The headers say the same at every door.
        let mut response = self.0.error_response().set_body(()).map_into_boxed_body();
        *response.status_mut() = self.status_code();
        response.set_body(actix_web::body::BoxBody::new(body))
    }
}

impl OpenAiError {
    /// The object that tells of it.
    fn object(&self) -> String {
        let public = self.0.public();
        let kind = match self.status_code() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let object = Object::with_capacity(256)
            .string("message", &public.sentence)
            .escaped("type", kind);
        let object = match self.0.field() {
            Some(param) => object.string("param", &param),
            None => object.raw("param", "null"),
        };
        object.escaped("code", public.code).end()
    }
}

/// Speaks a text; the audio is sent as it comes.
pub(super) async fn speech(
    server: web::Data<Server>,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    let body = body::read(payload, server.limits.body_bytes).await?;
    let Asked {
        input,
        voice,
        stream,
    } = asked_for(&body, &server.voices.defaults)?;
    let input = input.trim();
    if input.is_empty() {
        return Err(wrong("input", "missing", "Input should not be blank").into());
    }
    let account = server.voice_account(None);
    let mut speech = speak(&server, input, "", &voice, &account)
        .await
        .map_err(engine)?;
    // What fails before its first sound has a status.
    let first = speech.next().await.map_err(engine)?;
    // A text without a word to be spoken has no audio.
    let left = first.is_some().then_some(speech);
    let mut response = HttpResponse::Ok();
    response.insert_header((SPEECH_MODEL, &*voice.model_id));
    Ok(match stream {
        Streamed::Audio => {
            let rest = stream::try_unfold(left, |left| async {
                let Some(mut speech) = left else {
                    return Ok(None);
                };
                let piece = speech.next().await.map_err(engine)?;
                Ok::<_, OpenAiError>(piece.map(|piece| (piece, Some(speech))))
            });
            let audio = stream::iter(first.map(Ok)).chain(rest);
            response
                .insert_header((header::CONTENT_TYPE, voice.format.mime()))
                .streaming(Box::pin(audio))
        }
        Streamed::Events => {
            let events = stream::unfold(Some((first, left)), |state| async {
                let (first, mut left) = state?;
                let piece = match (first, &mut left) {
                    (None, Some(speech)) => speech.next().await,
                    (first, _) => Ok(first),
                };
                Some(match piece {
                    Ok(Some(audio)) => (openai::audio_delta(&audio), Some((None, left))),
                    Ok(None) => (openai::audio_done(), None),
                    Err(error) => (openai::failed(&OpenAiError(engine(error)).object()), None),
                })
            });
            of_events(&mut response).streaming(Box::pin(events.map(Ok::<_, OpenAiError>)))
        }
    })
}

/// The head of an answer that is a stream of events.
fn of_events(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
}

/// Writes down an upload; the answer is the upstream's own, in the form that was asked for.
pub(super) async fn transcriptions(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    if !upload::is_multipart(&request) {
        let sentence = "The request should be a form (multipart/form-data) with a file".to_owned();
        return Err(ApiError::BadRequest { sentence }.into());
    }
    let form = upload::form(&server, &request, payload)?;
    let uploaded = upload::read(&server, form, upload::Told::All, &Anybody).await?;
    let Some(heard) = uploaded.heard else {
        return Err(wrong("file", "missing", "Field required").into());
    };
    let seconds = VoiceUsage::heard(heard.seconds.unwrap_or_default());
    server.voice_account(None).count(seconds).await;
    let field = |name| uploaded.fields.get(name).map(String::as_str);
    let model = field("model").unwrap_or(&server.voices.defaults.hearing_model_id);
    if is_to_be_streamed(field("stream"), model) {
        // The upstream is asked for all of it at once, which its events then tell.
        let events = [
            openai::transcript_delta(&heard.text),
            openai::transcript_done(&heard.text),
        ];
        return Ok(of_events(&mut HttpResponse::Ok()).body(events.concat()));
    }
    let format = field("response_format");
    let (body, media) = match format {
        None | Some("json") => (json_of(heard), "application/json".to_owned()),
        // whisper.cpp calls it HTML, and a stranger dictated it.
        Some("text") => (
            format!("{}\n", heard.text).into(),
            "text/plain; charset=utf-8".to_owned(),
        ),
        Some(_) => heard.raw,
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, media))
        .body(body))
}

/// Who wants what is heard in any file; the provider checks the fields.
struct Anybody;

impl upload::Asker for Anybody {
    fn check(&self, _: &upload::FormFields) -> Result<(), ApiError> {
        Ok(())
    }

    async fn wants(&self, _: &upload::FormFields) -> Result<upload::Wanted, ApiError> {
        Ok(upload::Wanted::Transcript)
    }
}

/// Whether a transcript is told in events. OpenAI does not do so with `whisper-1`.
fn is_to_be_streamed(stream: Option<&str>, model: &str) -> bool {
    let is_wanted = stream.is_some_and(|it| it == "1" || it.eq_ignore_ascii_case("true"));
    is_wanted && model != "whisper-1"
}

/// A transcript as the upstream told it, but for its text, which some begin with a space and break
/// into lines.
fn json_of(heard: Transcript) -> Bytes {
    let told: Option<serde_json::Map<String, Value>> = serde_json::from_slice(&heard.raw.0).ok();
    let mut told = told.unwrap_or_default();
    if told.get("text").and_then(Value::as_str) == Some(&*heard.text) {
        return heard.raw.0;
    }
    told.insert("text".to_owned(), heard.text.into());
    Value::Object(told).to_string().into()
}

/// What a body asks for.
struct Asked {
    input: String,
    voice: Arc<Voice>,
    stream: Streamed,
}

/// In which form audio is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streamed {
    /// As it is.
    Audio,
    /// In base64, within events.
    Events,
}

/// The text of a body, and how it is to be spoken.
fn asked_for(body: &[u8], defaults: &VoiceDefaults) -> Result<Asked, OpenAiError> {
    let mut fields = Fields::of_body(body)?;
    let input = fields.filled("input");
    match &input {
        None if fields.errors.is_empty() => fields.wrong("input", "missing", "Field required"),
        Some(input) if input.chars().count() > INPUT_CHARACTERS_MAX => {
            let msg = format!("String should have at most {INPUT_CHARACTERS_MAX} characters");
            fields.wrong("input", "string_too_long", msg);
        }
        Some(_) | None => {}
    }
    let voice = fields.filled("voice");
    let format = match fields.filled("response_format").as_deref() {
        None | Some("mp3") => AudioFormat::MP3_44100_128,
        Some("opus") => AudioFormat::OPUS_48000_64,
        Some("pcm") => AudioFormat::PCM_24000,
        Some("wav") => AudioFormat::WAV_24000,
        Some(other) => {
            let msg = format!("{other:?} is not supported: use mp3, opus, wav or pcm");
            fields.wrong("response_format", "value_error", msg);
            AudioFormat::MP3_44100_128
        }
    };
    let stream = match fields.filled("stream_format").as_deref() {
        None | Some("audio") => Streamed::Audio,
        Some("sse") => Streamed::Events,
        Some(_) => {
            fields.wrong("stream_format", "enum", "Input should be 'audio' or 'sse'");
            Streamed::Audio
        }
    };
    // ElevenLabs takes a narrower range.
    let speed = fields.number("speed", 0.25, 4.0);
    let speed = speed.map(|speed| speed.clamp(0.7, 1.2));
    let model = fields.filled("model");
    let mut named = Fields::of_body(b"{}")?;
    let template = voice_of(&mut named, OVER_HTTP, defaults);
    let given = |name: Option<String>, default: &str| match name {
        Some(name) if is_elevenlabs(&name) => name,
        Some(_) | None => default.to_owned(),
    };
    let voice = Arc::new(Voice {
        voice_id: given(voice, &defaults.voice_id),
        model_id: defaults.model_for(given(model, &defaults.model_id)),
        format,
        speed,
        ..(*template).clone()
    });
    let input = fields.finish(input.unwrap_or_default())?;
    Ok(Asked {
        input,
        voice,
        stream,
    })
}

/// Whether a name of a voice or a model is one of the provider's own, and fit for a path.
fn is_elevenlabs(name: &str) -> bool {
    let openai = VOICES.contains(&name) || name.starts_with("tts-") || name.starts_with("gpt-");
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !openai && name.len() <= 128 && name.bytes().all(fits)
}

fn engine(error: idol_actors::error::EngineError) -> ApiError {
    ApiError::Engine {
        error,
        conversation: None,
    }
}

fn wrong(name: &'static str, kind: &'static str, msg: &str) -> FieldError {
    FieldError {
        kind,
        loc: vec![Step::Name("body".into()), Step::Name(name.into())],
        msg: msg.to_owned(),
        input: None,
    }
}

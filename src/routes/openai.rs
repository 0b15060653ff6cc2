//! OpenAI's audio, for its SDKs: `POST /v1/audio/speech` and `/v1/audio/transcriptions`.
//!
//! Errors have OpenAI's shape, and what its SDKs send is understood: names of voices and models are
//! mapped to the configured ones.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use futures::stream;
use idol_actors::{
    accounting::VoiceAccount,
    provider::{hearing::Transcript, speech::Voice},
    voice::{format::AudioFormat, usage::VoiceUsage},
};

use serde_json::Value;

use super::{body, upload};
use crate::{
    error::ApiError,
    server::Server,
    session::speech::{Speech, parts_of, speak},
    wire::{
        fields::{FieldError, Fields, Step},
        json::Object,
        voice::{VoiceDefaults, voice_of},
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
        let public = self.0.public();
        let status = self.status_code();
        let kind = match status {
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
        let object = object.escaped("code", public.code).end();
        let body = Object::after(String::new()).raw("error", &object).end();
        // The headers say the same at every door.
        let mut response = self.0.error_response().set_body(()).map_into_boxed_body();
        *response.status_mut() = status;
        response.set_body(actix_web::body::BoxBody::new(body))
    }
}

/// Speaks a text; the audio is sent as it comes.
pub(super) async fn speech(
    server: web::Data<Server>,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    let body = body::read(payload, server.limits.body_bytes).await?;
    let (input, voice) = asked_for(&body, &server.voices.defaults)?;
    let provider = server.voices.speech().map_err(engine)?;
    let mut parts = parts_of(&input)
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    parts.reverse();
    let Some(part) = parts.pop() else {
        return Err(wrong("input", "missing", "Input should not be blank").into());
    };
    let mut speech = speak(&provider, &part, "", &voice).await.map_err(engine)?;
    // What fails before its first sound has a status.
    let first = speech.next().await.map_err(engine)?.unwrap_or_default();
    let rest = Rest {
        first: Some(first),
        speech,
        part,
        parts,
        provider,
        voice: voice.clone(),
        account: server.voice_account(None),
    };
    let audio = stream::try_unfold(rest, Rest::next);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, voice.format.mime()))
        .streaming(Box::pin(audio)))
}

/// What is still to be sent.
struct Rest {
    first: Option<Bytes>,
    speech: Speech,
    /// What is being spoken.
    part: String,
    /// What is spoken behind it, the next one last.
    parts: Vec<String>,
    provider: actix::Recipient<idol_actors::provider::speech::Speak>,
    voice: Arc<Voice>,
    account: VoiceAccount,
}

impl Rest {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, OpenAiError> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        loop {
            if let Some(piece) = self.speech.next().await.map_err(engine)? {
                return Ok(Some((piece, self)));
            }
            let characters = self.speech.characters.unwrap_or_default();
            self.account.count(VoiceUsage::spoken(characters)).await;
            let Some(part) = self.parts.pop() else {
                return Ok(None);
            };
            let before = std::mem::replace(&mut self.part, part);
            self.speech = speak(&self.provider, &self.part, &before, &self.voice)
                .await
                .map_err(engine)?;
        }
    }
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
    let form = upload::form(&request, payload);
    let uploaded = upload::read(&server, form, upload::Told::All, &|_fields| Ok(())).await?;
    let Some(heard) = uploaded.heard else {
        return Err(wrong("file", "missing", "Field required").into());
    };
    let seconds = VoiceUsage::heard(heard.seconds.unwrap_or_default());
    server.voice_account(None).count(seconds).await;
    let format = uploaded.fields.get("response_format").map(String::as_str);
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

/// The text of a body, and how it is to be spoken.
fn asked_for(body: &[u8], defaults: &VoiceDefaults) -> Result<(String, Arc<Voice>), OpenAiError> {
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
        Some(other) => {
            let msg = format!("{other:?} is not supported: use mp3, opus or pcm");
            fields.wrong("response_format", "value_error", msg);
            AudioFormat::MP3_44100_128
        }
    };
    // ElevenLabs takes a narrower range.
    let speed = fields.number("speed", 0.25, 4.0);
    let speed = speed.map(|speed| speed.clamp(0.7, 1.2));
    let model = fields.filled("model");
    let mut named = Fields::of_body(b"{}")?;
    let template = voice_of(&mut named, defaults);
    let given = |name: Option<String>, default: &str| match name {
        Some(name) if is_elevenlabs(&name) => name,
        Some(_) | None => default.to_owned(),
    };
    let voice = Arc::new(Voice {
        voice_id: given(voice, &defaults.voice_id),
        model_id: given(model, &defaults.model_id),
        format,
        speed,
        ..(*template).clone()
    });
    let input = fields.finish(input.unwrap_or_default())?;
    Ok((input, voice))
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

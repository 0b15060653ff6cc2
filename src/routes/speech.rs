//! `POST /tts`: a reply, spoken.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use idol_actors::{
    accounting::VoiceAccount,
    conversation::event::Outcome,
    error::EngineError,
    provider::{Upstream, UpstreamError, UpstreamErrorKind, speech::Voice},
    voice::{
        format::{Coding, WAV_HEADER_BYTES},
        segmenter,
    },
};

use super::chat;
use crate::{
    error::{ApiError, UnspokenText},
    server::Server,
    session::{
        http,
        speech::{parts_of, speak},
        tts_stream::{self, Speaking},
    },
    wire::{chat::Named, fields::Fields, query::Query, speech, voice},
};

/// The header that tells which model speaks.
pub(super) const SPEECH_MODEL: &str = "X-Speech-Model";

/// How an answer that holds speech is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON, with the audio in base64.
    Json,
    /// The audio, as a file.
    Download,
}

impl Form {
    /// As the query says.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let mut query = Query::of(request.query_string());
        let download = query.flag("download");
        if !query.errors.is_empty() {
            return Err(query.errors.into());
        }
        Ok(match download {
            true => Self::Download,
            false => Self::Json,
        })
    }
}

/// Answers with the whole reply, written and spoken.
pub(super) async fn tts(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let form = Form::of(&request)?;
    let (named, command, body) = chat::read(&server, &request, payload).await?;
    let mut fields = Fields::of_body(&body)?;
    let voice = voice::voice_of(&mut fields, voice::OVER_HTTP, &server.voices.defaults);
    let voice = fields.finish(voice)?;
    // A reply that nobody can speak is not asked for.
    let fault = |error| ApiError::of(error, &named.spelled);
    server.voices.speech().map_err(fault)?;
    let conversation = server.conversation(&named);
    let (started, outcome) = http::complete(&conversation, command)
        .await
        .map_err(fault)?;
    let text = text_of(&outcome);
    let account = server.voice_account(Some(conversation));
    let spoken = segmenter::spoken(&text);
    // A reply of stage directions alone: there is nothing else to be heard of it.
    let said = if spoken.is_empty() { &text } else { &spoken };
    let audio = whole(&server, said, &voice, &account).await;
    let audio = audio.map_err(|error| ApiError::Unspoken {
        error,
        text: Box::new(UnspokenText {
            text: Some(text.clone()),
            conversation: Some(named.spelled.clone()),
            turn: Some(started.turn),
            message: Some(started.reply),
        }),
    })?;
    Ok(answer(form, &text, &audio, &voice, Some(&named)))
}

/// Answers with the reply spoken while it is written. What fails before the first sound has a status;
/// what fails behind it breaks the answer off.
pub(super) async fn stream(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (named, command, body) = chat::read(&server, &request, payload).await?;
    let mut fields = Fields::of_body(&body)?;
    let voice = voice::voice_of(&mut fields, voice::OVER_HTTP, &server.voices.defaults);
    if !voice.format.is_for_streams() {
        // A stream cannot begin with its length.
        let msg = "Input should be a format that can be streamed: mp3, pcm, ulaw, alaw or opus";
        fields.wrong("output_format", "value_error", msg);
    }
    let voice = fields.finish(voice)?;
    let fault = |error| ApiError::of(error, &named.spelled);
    let conversation = server.conversation(&named);
    let speaking = Speaking {
        provider: server.voices.speech().map_err(fault)?,
        voice: voice.clone(),
        account: server.voice_account(Some(conversation.clone())),
    };
    let (started, mut pieces) = tts_stream::stream(&conversation, command, speaking)
        .await
        .map_err(fault)?;
    // A reply without a word to be spoken has no audio.
    let first = match tts_stream::next(&mut pieces).await {
        Ok(first) => first,
        Err(error) => {
            // The reply goes on, and can be read.
            return Err(ApiError::Unspoken {
                error,
                text: Box::new(UnspokenText {
                    text: None,
                    conversation: Some(named.spelled.clone()),
                    turn: Some(started.turn),
                    message: Some(started.reply),
                }),
            });
        }
    };
    let spelled = named.spelled.clone();
    let left = first.as_ref().map(|_| pieces);
    let rest = futures::stream::try_unfold(left, |left| async {
        let Some(mut pieces) = left else {
            return Ok(None);
        };
        let piece = tts_stream::next(&mut pieces).await?;
        Ok(piece.map(|piece| (piece, Some(pieces))))
    });
    let audio = futures::stream::iter(first.map(Ok))
        .chain(rest)
        .map(move |piece| piece.map_err(|error| ApiError::of(error, &spelled)));
    let mut response = HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, voice.format.mime()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header((SPEECH_MODEL, &*voice.model_id))
        .insert_header(("X-Turn-Id", started.turn.to_string()))
        .insert_header(("X-Message-Id", started.reply.to_string()))
        .streaming(Box::pin(audio));
    chat::name_conversation(&mut response, &named);
    Ok(response)
}

/// The text of a reply.
fn text_of(outcome: &Outcome) -> String {
    let Some(reply) = &outcome.reply else {
        return String::new();
    };
    let escaped = &reply.fragment()[reply.text_range()];
    idol_actors::json_text::unescape(escaped)
}

/// Most characters that are spoken whole: some three quarters of an hour.
pub(super) const WHOLE_CHARACTERS_MAX: usize = 40_000;

/// Largest speech that is gathered whole: an hour of the default format.
const WHOLE_BYTES_MAX: usize = 64 << 20;

/// A whole text, spoken.
pub(super) async fn whole(
    server: &Server,
    text: &str,
    voice: &Arc<Voice>,
    account: &VoiceAccount,
) -> Result<Bytes, EngineError> {
    let mut audio = BytesMut::new();
    let mut before = "";
    let unspeakable = |kind, message: &str| {
        Err(EngineError::Upstream(UpstreamError {
            upstream: Upstream::OpenRouter,
            kind,
            message: message.to_owned(),
            retry_after: None,
            retryable: Some(false),
            too_long: None,
        }))
    };
    let parts = parts_of(text);
    if parts.is_empty() {
        let message = "The reply has no text that could be spoken";
        return unspeakable(UpstreamErrorKind::Failed, message);
    }
    if text.chars().count() > WHOLE_CHARACTERS_MAX {
        let message = "The reply is too long to be spoken whole: ask for it at /tts/stream";
        return unspeakable(UpstreamErrorKind::Rejected, message);
    }
    let count = parts.len();
    for part in parts {
        let mut speech = speak(server, part, before, voice, account).await?;
        let mut spoken = BytesMut::new();
        let left = WHOLE_BYTES_MAX.saturating_sub(audio.len());
        let into = match audio.is_empty() {
            true => &mut audio,
            false => &mut spoken,
        };
        speech.gather(into, left).await?;
        if !spoken.is_empty() {
            // One header for all.
            audio.extend_from_slice(
                spoken
                    .get(voice.format.header_bytes()..)
                    .unwrap_or_default(),
            );
        }
        before = part;
    }
    if count > 1 && voice.format.coding() == Coding::Wav {
        set_wav_length(&mut audio);
    }
    Ok(audio.freeze())
}

/// Has the header of a WAV file tell how much is behind it.
fn set_wav_length(file: &mut BytesMut) {
    let length = u32::try_from(file.len()).unwrap_or(u32::MAX);
    for (place, before) in [(4, 8), (40, WAV_HEADER_BYTES)] {
        let before = u32::try_from(before).unwrap_or_default();
        if let Some(told) = file.get_mut(place..place + 4) {
            told.copy_from_slice(&length.saturating_sub(before).to_le_bytes());
        }
    }
}

/// The answer of `POST /tts` and `/transcribe`.
pub(super) fn answer(
    form: Form,
    text: &str,
    audio: &Bytes,
    voice: &Voice,
    named: Option<&Named>,
) -> HttpResponse {
    let format = voice.format;
    let spelled = named.map(|named| named.spelled.as_str());
    match form {
        Form::Json => {
            let mut response = super::json(speech::spoken(text, audio, voice, spelled).end());
            if let Some(named) = named {
                chat::name_conversation(&mut response, named);
            }
            response
        }
        Form::Download => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, format.mime()))
            .insert_header((
                header::CONTENT_DISPOSITION,
                speech::disposition(text, format),
            ))
            .insert_header((SPEECH_MODEL, &*voice.model_id))
            .insert_header(("X-Conversation-Id", spelled.unwrap_or_default()))
            .body(audio.clone()),
    }
}

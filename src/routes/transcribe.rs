//! `POST /transcribe`: what was said aloud, or given as text, is written down and spoken.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use idol_actors::{
    caller::Caller,
    conversation::command::{RequestKey, Started},
    error::EngineError,
    id::TurnId,
    log::entry::Owed,
};

use super::{
    body,
    speech::{Form, answer, whole},
    upload::{self, Told, Uploaded},
};
use crate::{
    error::{ApiError, UnspokenText},
    server::Server,
    wire::{
        chat::{ChatRequest, Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
        fields::Fields,
        idempotency,
        voice::voice_of,
    },
};

/// Writes down, keeps, and speaks. No reply is made.
pub(super) async fn transcribe(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let form = Form::of(&request)?;
    // What nobody can speak is not written down either.
    server.voices.speech().map_err(engine)?;
    let uploaded = read(&server, &request, payload).await?;
    let fields = uploaded.fields;
    let (text, given) = match uploaded.heard {
        Some(heard) => {
            let metrics = server.engine.metrics();
            metrics
                .seconds_heard
                .inc_by(heard.seconds.unwrap_or_default());
            (heard.text, Given::Audio)
        }
        None => match fields.get("text") {
            Some(text) => (text.trim().to_owned(), Given::Text),
            None => return Err(bad("Either 'file' or 'text' must be provided")),
        },
    };
    if text.is_empty() {
        return Err(bad(match given {
            Given::Audio => "No speech was heard in the audio",
            Given::Text => "Empty text provided",
        }));
    }
    // A form's values are all text, which the fields of a body may be, too.
    let json = serde_json::to_vec(&fields).map_err(|_unwritable| ApiError::Internal)?;
    let mut read = Fields::of_body(&json)?;
    let conversation = conversation_of(&mut read)?;
    let choice = PromptChoice {
        user_id: read.bounded("user_id", OPAQUE_ID_BYTES_MAX),
        character_id: read.bounded("character_id", OPAQUE_ID_BYTES_MAX),
        ..PromptChoice::default()
    };
    let voice = voice_of(&mut read, &server.voices.defaults);
    let voice = read.finish(voice)?;
    let kept = match &conversation {
        Some(named) => Some(keep(&server, &request, named, &text, choice).await?),
        None => None,
    };
    let audio = whole(&server, &text, &voice).await;
    let audio = audio.map_err(|error| ApiError::Unspoken {
        error,
        text: Box::new(UnspokenText {
            text: text.clone(),
            conversation: conversation.as_ref().map(|named| named.spelled.clone()),
            turn: kept.as_ref().map(|kept| kept.turn),
            message: kept.as_ref().and_then(|kept| kept.message),
        }),
    })?;
    Ok(answer(
        form,
        &text,
        &audio,
        voice.format,
        conversation.as_ref(),
    ))
}

/// What a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Audio,
    Text,
}

/// The fields of a form of either kind, and what is heard in its file.
async fn read(
    server: &Server,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Uploaded, ApiError> {
    if upload::is_multipart(request) {
        let form = upload::form(request, payload);
        return upload::read(server, form, Told::AllButFormat).await;
    }
    let body = body::read(payload, server.limits.body_bytes).await?;
    let fields: BTreeMap<String, String> = url::form_urlencoded::parse(&body)
        .into_owned()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    Ok(Uploaded {
        fields,
        heard: None,
    })
}

/// Keeps the text as a message of the user, to which no reply is made.
async fn keep(
    server: &Server,
    request: &HttpRequest,
    named: &Named,
    text: &str,
    choice: PromptChoice,
) -> Result<Started, ApiError> {
    let caller = Caller::Anonymous;
    let key = idempotency::key_of(request.headers(), &caller)?;
    let chat = ChatRequest::of_text(text, choice, &server.defaults);
    let mut command = chat.into_command(caller, TurnId::now());
    command.owed = Owed::Nothing;
    command.key = key.map(|key| RequestKey::new(key, text.as_bytes()));
    let conversation = server.conversation(named);
    let kept = conversation.start_turn(command, None).await;
    kept.map_err(|error| ApiError::of(error, &named.spelled))
}

fn engine(error: EngineError) -> ApiError {
    ApiError::Engine {
        error,
        conversation: None,
    }
}

fn bad(sentence: &str) -> ApiError {
    ApiError::BadRequest {
        sentence: sentence.to_owned(),
    }
}

//! `POST /chat` and `POST /chat/stream`.

use actix_web::{HttpRequest, HttpResponse, body::BoxBody, http::header, web};
use idol_actors::{
    caller::Caller,
    conversation::command::{RequestKey, StartTurn},
    error::EngineError,
    id::TurnId,
};

use super::{body, events::LAST_EVENT_ID};
use crate::{
    error::ApiError,
    server::Server,
    session::{
        http,
        sse::{self, Ids},
    },
    wire::{
        chat::{ChatRequest, Named},
        completion::completion,
        idempotency,
    },
};

/// Answers with the whole reply.
pub(super) async fn complete(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (named, command, _) = read(&server, &request, payload).await?;
    let conversation = server.conversation(&named);
    let (started, outcome) = http::complete(&conversation, command)
        .await
        .map_err(|error| ApiError::of(error, &named.spelled))?;
    let mut response = super::json(completion(&named.spelled, &started, &outcome));
    name_conversation(&mut response, &named);
    Ok(response)
}

/// Answers with the reply as it comes.
pub(super) async fn stream(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (named, command, _) = read(&server, &request, payload).await?;
    let streaming = streaming(&server, &request, &named, command).await;
    streaming.map_err(|error| ApiError::of(error, &named.spelled))?
}

/// Starts a turn; once its message is in the log, the answer that streams it.
pub(super) async fn streaming(
    server: &Server,
    request: &HttpRequest,
    named: &Named,
    command: StartTurn,
) -> Result<Result<HttpResponse, ApiError>, EngineError> {
    let ids = match request
        .query_string()
        .split('&')
        .any(|pair| pair == "ids=1")
    {
        true => Ids::On,
        false => Ids::Off,
    };
    let mut command = command;
    command.seen = request
        .headers()
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let conversation = server.conversation(named);
    let body = sse::stream(conversation, named.spelled.clone(), command, ids).await?;
    let response = HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .message_body::<BoxBody>(body)
        .map_err(|_unbuildable| ApiError::Internal);
    Ok(response.map(|mut response| {
        name_conversation(&mut response, named);
        response
    }))
}

/// The conversation that a request is for, what it asks of it, and its body.
pub(super) async fn read(
    server: &Server,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Named, StartTurn, web::BytesMut), ApiError> {
    let caller = Caller::Anonymous;
    let body = body::read(payload, server.limits.body_bytes).await?;
    let key = idempotency::key_of(request.headers(), &caller)?;
    let chat = ChatRequest::parse(&body, &server.defaults)?;
    let named = match (&chat.conversation, &key) {
        (Some(named), _) => named.clone(),
        (None, Some(key)) => idempotency::conversation(&caller, key),
        (None, None) => Named::random(),
    };
    let mut command = chat.into_command(caller, TurnId::now());
    command.key = key.map(|key| RequestKey::new(key, &body));
    Ok((named, command, body))
}

pub(super) fn name_conversation(response: &mut HttpResponse, named: &Named) {
    // The id's characters are all fit for a header.
    if let Ok(value) = header::HeaderValue::from_str(&named.spelled) {
        response
            .headers_mut()
            .insert(header::HeaderName::from_static("x-conversation-id"), value);
    }
}

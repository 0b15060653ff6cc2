//! `POST /chat` and `POST /chat/stream`.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, body::BoxBody, http::header, web};
use futures::StreamExt;
use idol_actors::{caller::Caller, id::TurnId};

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
    },
};

/// Answers with the whole reply.
pub(super) async fn complete(
    server: web::Data<Server>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let request = read(&server, payload).await?;
    let named = request.conversation.clone().unwrap_or_else(Named::random);
    let command = request.into_command(Caller::Anonymous, TurnId::now());
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
    let ids = match request
        .query_string()
        .split('&')
        .any(|pair| pair == "ids=1")
    {
        true => Ids::On,
        false => Ids::Off,
    };
    let chat = read(&server, payload).await?;
    let named = chat.conversation.clone().unwrap_or_else(Named::random);
    let command = chat.into_command(Caller::Anonymous, TurnId::now());
    let conversation = server.conversation(&named);
    let body = sse::stream(conversation, named.spelled.clone(), command, ids)
        .await
        .map_err(|error| ApiError::of(error, &named.spelled))?;
    let mut response = HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .message_body::<BoxBody>(body)
        .map_err(|_unbuildable| ApiError::Internal)?;
    name_conversation(&mut response, &named);
    Ok(response)
}

fn name_conversation(response: &mut HttpResponse, named: &Named) {
    // The id's characters are all fit for a header.
    if let Ok(value) = header::HeaderValue::from_str(&named.spelled) {
        response
            .headers_mut()
            .insert(header::HeaderName::from_static("x-conversation-id"), value);
    }
}

/// Longest time that a request's body may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

async fn read(server: &Server, payload: web::Payload) -> Result<ChatRequest, ApiError> {
    let body = gather(payload, server.limits.body_bytes);
    match tokio::time::timeout(BODY_DEADLINE, body).await {
        Ok(body) => ChatRequest::parse(&body?, &server.defaults),
        Err(_elapsed) => Err(ApiError::BodyTimeout),
    }
}

/// A body of at most so many bytes, whatever its Content-Type says.
async fn gather(mut payload: web::Payload, limit: usize) -> Result<web::BytesMut, ApiError> {
    let mut body = web::BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|error| ApiError::BadRequest {
            sentence: format!("The request body cannot be read: {error}"),
        })?;
        if body.len() + piece.len() > limit {
            return Err(ApiError::PayloadTooLarge { limit });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

//! `POST /conversation/{id}/regenerate` and `POST /conversation/{id}/edit`.

use actix_web::{HttpRequest, HttpResponse, web};
use idol_actors::{caller::Caller, conversation::command::StartTurn, id::TurnId};

use super::{body, chat, conversations::Path};
use crate::{
    error::ApiError,
    server::Server,
    wire::{branch, chat::Defaults, idempotency},
};

/// Answers a message again: the reply as it comes.
pub(super) async fn regenerate(
    server: web::Data<Server>,
    request: HttpRequest,
    path: Path,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    stream(&server, &request, &path, payload, branch::regenerate).await
}

/// Replaces a message of the user: the new reply as it comes.
pub(super) async fn edit(
    server: web::Data<Server>,
    request: HttpRequest,
    path: Path,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    stream(&server, &request, &path, payload, branch::edit).await
}

type Parse = fn(&[u8], Caller, TurnId, &Defaults) -> Result<StartTurn, ApiError>;

async fn stream(
    server: &Server,
    request: &HttpRequest,
    path: &Path,
    payload: web::Payload,
    parse: Parse,
) -> Result<HttpResponse, ApiError> {
    let caller = Caller::Anonymous;
    let body = body::read(payload, server.limits.body_bytes).await?;
    let key = idempotency::key_of(request.headers(), &caller)?;
    let mut command = parse(&body, caller, TurnId::now(), &server.defaults)?;
    command.key = key.map(|key| idempotency::of_branch(key, command.at, &body));
    let named = path.named()?;
    let streaming = chat::streaming(server, request, &named, command).await;
    streaming.map_err(|error| path.error(error))?
}

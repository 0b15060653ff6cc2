//! `GET /ws/chat`: the upgrade.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::{error::ApiError, server::Server, session::websocket};

/// Upgrades to a socket.
pub(super) async fn chat(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    websocket::start(server, &request, payload)
}

//! `GET /conversation/{id}/events`: all that happens in a conversation, from a place on.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, body::BoxBody, http::header, web};
use idol_actors::{caller::Caller, conversation::command::Said};

use super::conversations::Path;
use crate::{
    error::{ApiError, public},
    server::Server,
    session::events::{self, Wanted},
    wire::{
        self,
        query::Query,
        socket::{Reasoning, message_id, said},
    },
};

/// The header by which a browser says where it had come to.
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";

pub(super) async fn events(
    server: web::Data<Server>,
    request: HttpRequest,
    path: Path,
) -> Result<HttpResponse, ApiError> {
    let named = path.named()?;
    let wanted = wanted(&request)?;
    let body = match events::stream(server, named, Caller::Anonymous, wanted).await {
        Ok(body) => body,
        // Any status but 200 ends an `EventSource` for good: it is asked to come back instead.
        Err(error) => match public(&error).retry_after {
            Some(wait) => BoxBody::new(wire::events::retry(Duration::from_secs(wait))),
            None => return Err(path.error(error)),
        },
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .message_body::<BoxBody>(body)
        .map_err(|_unbuildable| ApiError::Internal)
}

fn wanted(request: &HttpRequest) -> Result<Wanted, ApiError> {
    let mut query = Query::of(request.query_string());
    let header = request.headers().get(LAST_EVENT_ID);
    let cursor = match header {
        // What is no text is no cursor either. An empty one is what a browser has at first.
        Some(value) if !value.is_empty() => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or(Said::Nonsense, Said::This),
        Some(_) | None => said(query.text("last_event_id"), |text| text.parse().ok()),
    };
    let wanted = Wanted {
        after: said(query.text("after"), message_id),
        cursor,
        reasoning: match query.flag("reasoning") {
            true => Reasoning::Shown,
            false => Reasoning::Hidden,
        },
    };
    Ok(query.finish(wanted)?)
}

//! `GET /conversation/{id}`.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use idol_actors::caller::Caller;

use crate::{
    error::ApiError,
    server::Server,
    wire::{
        chat::Named,
        document::{document, etag},
    },
};

/// The document, as far as it is in the log.
pub(super) async fn read(
    server: web::Data<Server>,
    request: HttpRequest,
    spelled: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let spelled = spelled.into_inner();
    let missing = || ApiError::ConversationNotFound {
        spelled: spelled.clone(),
    };
    // What is no id at all cannot be found either.
    let named = Named::parse(&spelled).map_err(|_invalid| missing())?;
    let snapshot = server
        .conversation(&named)
        .snapshot(Caller::Anonymous)
        .await
        .map_err(|error| ApiError::of(error, &spelled))?
        .ok_or_else(missing)?;
    let tag = etag(&snapshot);
    let mut response = if matches_tag(&request, &tag) {
        HttpResponse::NotModified().finish()
    } else {
        super::json(document(&spelled, &snapshot, server.timestamps))
    };
    let headers = response.headers_mut();
    if let Ok(tag) = header::HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("private, no-cache"),
    );
    Ok(response)
}

/// `If-None-Match`, by weak comparison as RFC 9110 wants it there.
fn matches_tag(request: &HttpRequest, tag: &str) -> bool {
    request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|given| given.trim().trim_start_matches("W/"))
        .any(|given| given == "*" || given == tag)
}

//! `GET` and `DELETE /conversation/{id}`, and `GET /conversations`.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use idol_actors::{caller::Caller, conversation::command::Delete, error::EngineError};
use serde::Deserialize;

use crate::{
    error::ApiError,
    server::Server,
    wire::{
        chat::Named,
        document::{document, etag, page, page_etag},
        fields::FieldError,
        list::{self, ListRequest},
        page::{MESSAGES_MAX, PageRequest},
        query::Query,
    },
};

/// The conversation that a path names.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Spelled(String);

/// What a handler is given of its path.
pub(super) type Path = web::Path<Spelled>;

impl Spelled {
    /// The conversation. What is no id at all cannot be found either.
    pub(super) fn named(&self) -> Result<Named, ApiError> {
        Named::parse(&self.0).map_err(|_invalid| self.missing())
    }

    /// There is no such conversation.
    fn missing(&self) -> ApiError {
        ApiError::ConversationNotFound {
            spelled: self.0.clone(),
        }
    }

    /// An engine error, where it is the path that names the conversation.
    pub(super) fn error(&self, error: EngineError) -> ApiError {
        match error {
            EngineError::NotFound => self.missing(),
            other => ApiError::of(other, &self.0),
        }
    }
}

/// The document or a part of it, as far as it is in the log.
pub(super) async fn read(
    server: web::Data<Server>,
    request: HttpRequest,
    path: Path,
) -> Result<HttpResponse, ApiError> {
    let named = path.named()?;
    let part = part_of(request.query_string())?;
    let snapshot = server
        .conversation(&named)
        .snapshot(Caller::Anonymous)
        .await
        .map_err(|error| path.error(error))?
        .ok_or_else(|| path.missing())?;
    let timestamps = server.timestamps;
    let (tag, body) = if part.is_part() {
        let messages = part.of(&snapshot);
        let messages = messages.map_err(|error| wrong("after", error.to_string()))?;
        let tag = page_etag(&snapshot, &part);
        let body = (!matches_tag(&request, &tag))
            .then(|| page(&named.spelled, &snapshot, messages, timestamps));
        (tag, body)
    } else {
        let tag = etag(&snapshot);
        let body =
            (!matches_tag(&request, &tag)).then(|| document(&named.spelled, &snapshot, timestamps));
        (tag, body)
    };
    let mut response = match body {
        Some(body) => super::json(body),
        None => HttpResponse::NotModified().finish(),
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

/// Which part of a document a query asks for.
fn part_of(query: &str) -> Result<PageRequest, Vec<FieldError>> {
    let mut query = Query::of(query);
    let part = PageRequest {
        after: query.text("after").map(str::to_owned),
        limit: query.integer("limit", 1, MESSAGES_MAX),
    };
    query.finish(part)
}

fn wrong(parameter: &'static str, msg: String) -> ApiError {
    let mut query = Query::of("");
    query.wrong(parameter, "value_error", msg);
    ApiError::Invalid(query.errors)
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

/// Deletes a conversation. Once it answers, the log holds nothing of it.
pub(super) async fn delete(
    server: web::Data<Server>,
    request: HttpRequest,
    path: Path,
) -> Result<HttpResponse, ApiError> {
    server.admit_admin(&request)?;
    let named = path.named()?;
    let command = Delete {
        caller: Caller::Anonymous,
    };
    server
        .conversation(&named)
        .delete(command)
        .await
        .map_err(|error| path.error(error))?;
    Ok(HttpResponse::NoContent().finish())
}

/// The conversations, the one that changed last first.
pub(super) async fn list(
    server: web::Data<Server>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    server.admit_admin(&request)?;
    let wanted = ListRequest::parse(request.query_string())?;
    let page = server
        .log
        .newest(wanted.filter, wanted.cursor, wanted.limit)
        .await
        .map_err(|error| {
            tracing::warn!(%error, "the conversations cannot be listed");
            ApiError::Engine {
                error: EngineError::StorageUnavailable,
                conversation: None,
            }
        })?;
    let mut response = super::json(list::conversations(&page, server.timestamps));
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("private, no-cache"),
    );
    Ok(response)
}

//! The one table from errors to status, public code and body.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use idol_actors::{
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::JsonText,
    provider::{UpstreamError, UpstreamErrorKind},
};

use crate::wire::{
    fields::{FieldError, Step},
    idempotency,
    json::Object,
};

/// What may be too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// The body of a request.
    Body,
    /// A file, or an utterance.
    Audio,
}

/// Everything a request can fail with.
#[derive(Debug, Clone)]
pub enum ApiError {
    /// Members of the body that cannot be read.
    Invalid(Vec<FieldError>),
    /// A conversation id outside the allowed set.
    InvalidId(Vec<FieldError>),
    /// Something is larger than this many bytes.
    PayloadTooLarge {
        /// What.
        what: Payload,
        /// The limit.
        limit: usize,
    },
    /// The body did not come in time.
    BodyTimeout,
    /// Nobody may do this from there.
    Unauthorized {
        /// One sentence.
        sentence: &'static str,
    },
    /// No such path.
    UnknownRoute,
    /// The path exists, the method does not.
    MethodNotAllowed {
        /// What it answers.
        allow: &'static str,
    },
    /// The request is not HTTP as we need it: an upgrade without its headers.
    BadRequest {
        /// One sentence.
        sentence: String,
    },
    /// The engine refused or failed.
    Engine {
        /// How.
        error: EngineError,
        /// The conversation, as the client spelled it.
        conversation: Option<String>,
    },
    /// The text is there, and its speech is not.
    Unspoken {
        /// Why not.
        error: EngineError,
        /// What was to be spoken, and where it is kept.
        text: Box<UnspokenText>,
    },
    /// A conversation that is read does not exist.
    ConversationNotFound {
        /// As the client spelled it.
        spelled: String,
    },
    /// A panic, or anything unforeseen.
    Internal,
}

/// A text that was paid for and could not be spoken.
#[derive(Debug, Clone)]
pub struct UnspokenText {
    /// The text; none: it is not whole yet.
    pub text: Option<String>,
    /// The conversation, as the client spelled it; none: it is kept in none.
    pub conversation: Option<String>,
    /// The turn that it belongs to.
    pub turn: Option<TurnId>,
    /// The message that holds it.
    pub message: Option<MessageId>,
}

/// What the public is told of an engine error.
#[derive(Debug, Clone)]
pub struct Public {
    /// Status of an answer that has not begun.
    pub status: StatusCode,
    /// Stable code.
    pub code: &'static str,
    /// One sentence.
    pub sentence: String,
    /// Seconds to wait before a retry.
    pub retry_after: Option<u64>,
}

/// Seconds to wait where nobody named any.
const RETRY_AFTER: u64 = 2;

/// What the public is told of an engine error.
#[must_use]
pub fn public(error: &EngineError) -> Public {
    let seconds = |wait: Duration| wait.as_secs_f64().ceil().clamp(1.0, 86_400.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped above"
    )]
    let seconds = |wait: Duration| seconds(wait) as u64;
    let (status, retry_after) = match error {
        EngineError::Invalid { .. } | EngineError::KeyReused => {
            (StatusCode::UNPROCESSABLE_ENTITY, None)
        }
        EngineError::NotFound => (StatusCode::NOT_FOUND, None),
        EngineError::Busy => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_AFTER)),
        EngineError::Upstream(error) => upstream(error),
        EngineError::ShuttingDown { retry_after } => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds(*retry_after)))
        }
        EngineError::StorageUnavailable
        | EngineError::MirrorUnavailable
        | EngineError::Restarted
        | EngineError::Moved
        | EngineError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER)),
        EngineError::Unreadable { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
    };
    let asked = match error {
        EngineError::Upstream(error) => error.retry_after.map(seconds),
        _ => None,
    };
    let sentence = match error {
        EngineError::Upstream(error) => error.message.clone(),
        other => other.to_string(),
    };
    Public {
        status,
        code: error.code(),
        sentence,
        retry_after: asked.or(retry_after),
    }
}

fn upstream(error: &UpstreamError) -> (StatusCode, Option<u64>) {
    match error.kind {
        UpstreamErrorKind::Rejected | UpstreamErrorKind::ContextTooLong => {
            (StatusCode::BAD_REQUEST, None)
        }
        UpstreamErrorKind::AudioTooShort => (StatusCode::UNPROCESSABLE_ENTITY, None),
        UpstreamErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None),
        UpstreamErrorKind::Auth | UpstreamErrorKind::Failed => (StatusCode::BAD_GATEWAY, None),
        UpstreamErrorKind::Credits | UpstreamErrorKind::NotConfigured { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
        UpstreamErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, None),
        UpstreamErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_AFTER)),
        UpstreamErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER)),
    }
}

impl ApiError {
    /// An engine error in a conversation.
    #[must_use]
    pub fn of(error: EngineError, spelled: &str) -> Self {
        Self::Engine {
            error,
            conversation: Some(spelled.to_owned()),
        }
    }

    /// Status, code, sentence and wait.
    #[must_use]
    pub fn public(&self) -> Public {
        let plain = |status, code, sentence: &str| Public {
            status,
            code,
            sentence: sentence.to_owned(),
            retry_after: None,
        };
        match self {
            Self::Invalid(errors) => plain(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_request",
                &summary(errors),
            ),
            Self::InvalidId(errors) => plain(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_id",
                &summary(errors),
            ),
            Self::PayloadTooLarge { what, limit } => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                &match what {
                    Payload::Body => format!("The request body is larger than {limit} bytes"),
                    Payload::Audio => format!("The audio is larger than {limit} bytes"),
                },
            ),
            Self::BodyTimeout => plain(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The request body did not come in time",
            ),
            Self::Unauthorized { sentence } => {
                plain(StatusCode::UNAUTHORIZED, "unauthorized", sentence)
            }
            Self::UnknownRoute => plain(StatusCode::NOT_FOUND, "not_found", "Not Found"),
            Self::MethodNotAllowed { .. } => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method Not Allowed",
            ),
            Self::BadRequest { sentence } => {
                plain(StatusCode::BAD_REQUEST, "invalid_request", sentence)
            }
            Self::Engine { error, .. } | Self::Unspoken { error, .. } => public(error),
            Self::ConversationNotFound { .. } => public(&EngineError::NotFound),
            Self::Internal => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "Internal Server Error",
            ),
        }
    }

    /// `detail` as FastAPI gave it, as JSON: members in its order.
    fn detail(&self, sentence: &str) -> String {
        let quoted = || format!("\"{}\"", JsonText::escape(sentence).as_escaped());
        let list = |errors: &[FieldError]| {
            serde_json::to_string(errors).unwrap_or_else(|_unwritable| quoted())
        };
        match self {
            Self::Invalid(errors) | Self::InvalidId(errors) => list(errors),
            Self::Engine {
                error: EngineError::Invalid { field, message },
                ..
            }
            | Self::Unspoken {
                error: EngineError::Invalid { field, message },
                ..
            } => list(&[FieldError {
                kind: "value_error",
                loc: vec![Step::Name("body".into()), Step::Name((*field).into())],
                msg: message.clone(),
                input: None,
            }]),
            Self::Engine {
                error:
                    EngineError::Upstream(UpstreamError {
                        kind: UpstreamErrorKind::AudioTooShort,
                        ..
                    }),
                ..
            } => list(&[FieldError {
                kind: "audio_too_short",
                loc: vec![Step::Name("body".into()), Step::Name("file".into())],
                msg: sentence.to_owned(),
                input: None,
            }]),
            Self::Engine {
                error: EngineError::KeyReused,
                ..
            }
            | Self::Unspoken {
                error: EngineError::KeyReused,
                ..
            } => list(&[FieldError {
                kind: "idempotency_mismatch",
                loc: idempotency::place(),
                msg: sentence.to_owned(),
                input: None,
            }]),
            Self::ConversationNotFound { spelled } => Object::with_capacity(160)
                .string("error", sentence)
                .string("conversation_id", spelled)
                .end(),
            Self::PayloadTooLarge { .. }
            | Self::BodyTimeout
            | Self::Unauthorized { .. }
            | Self::UnknownRoute
            | Self::MethodNotAllowed { .. }
            | Self::BadRequest { .. }
            | Self::Engine { .. }
            | Self::Unspoken { .. }
            | Self::Internal => quoted(),
        }
    }

    /// The field that is at fault, if one is.
    #[must_use]
    pub fn field(&self) -> Option<String> {
        let steps = match self {
            Self::Invalid(errors) | Self::InvalidId(errors) => &errors.first()?.loc,
            Self::Engine {
                error: EngineError::Invalid { field, .. },
                ..
            } => return Some((*field).to_owned()),
            Self::Engine {
                error:
                    EngineError::Upstream(UpstreamError {
                        kind: UpstreamErrorKind::AudioTooShort,
                        ..
                    }),
                ..
            } => return Some("file".to_owned()),
            _ => return None,
        };
        Some(place(steps)).filter(|place| !place.is_empty())
    }

    fn conversation(&self) -> Option<&str> {
        match self {
            Self::Engine { conversation, .. } => conversation.as_deref(),
            Self::Unspoken { text, .. } => text.conversation.as_deref(),
            Self::ConversationNotFound { spelled } => Some(spelled),
            Self::Invalid(_)
            | Self::InvalidId(_)
            | Self::PayloadTooLarge { .. }
            | Self::BodyTimeout
            | Self::Unauthorized { .. }
            | Self::UnknownRoute
            | Self::MethodNotAllowed { .. }
            | Self::BadRequest { .. }
            | Self::Internal => None,
        }
    }
}

/// The first error as a sentence, and how many more there are.
fn summary(errors: &[FieldError]) -> String {
    let Some(first) = errors.first() else {
        return "The request is invalid".to_owned();
    };
    let place = match place(&first.loc) {
        place if place.is_empty() => place,
        place => format!("{place}: "),
    };
    match errors.len() {
        1 => format!("{place}{}", first.msg),
        more => format!("{place}{} (and {} more)", first.msg, more - 1),
    }
}

/// The way to a field, without the body that it begins with.
fn place(steps: &[Step]) -> String {
    let steps = steps.iter().skip(1).map(|step| match step {
        Step::Name(name) => name.to_string(),
        Step::Index(index) => index.to_string(),
    });
    steps.collect::<Vec<_>>().join(".")
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

impl From<Vec<FieldError>> for ApiError {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::Invalid(errors)
    }
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = self.public();
        write!(f, "{}: {}", public.code, public.sentence)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.public().status
    }

    fn error_response(&self) -> HttpResponse {
        let public = self.public();
        let body = Object::with_capacity(256)
            .raw("detail", &self.detail(&public.sentence))
            .string("error", &public.sentence)
            .escaped("code", public.code)
            .maybe(self.conversation(), |it, spelled| {
                it.string("conversation_id", spelled)
            })
            .maybe(public.retry_after, |it, wait| {
                it.number("retry_after", wait)
            });
        let body = match self {
            Self::Unspoken { text, .. } => body
                .maybe(text.text.as_deref(), |it, text| it.string("text", text))
                .maybe(text.turn, |it, turn| it.shown("turn_id", turn))
                .maybe(text.message, |it, message| it.shown("message_id", message)),
            _ => body,
        }
        .end();
        let mut response = HttpResponse::build(public.status);
        response.content_type("application/json");
        if let Some(wait) = public.retry_after {
            response.insert_header((header::RETRY_AFTER, wait.to_string()));
        }
        // OpenAI's SDKs retry 409, 429 and 5xx unless told not to.
        if public.retry_after.is_none() && !retry_may_help(public.code) {
            response.insert_header(("x-should-retry", "false"));
        }
        match self {
            Self::Unauthorized { .. } => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Self::MethodNotAllowed { allow } => {
                response.insert_header((header::ALLOW, *allow));
            }
            Self::Invalid(_)
            | Self::InvalidId(_)
            | Self::PayloadTooLarge { .. }
            | Self::BodyTimeout
            | Self::UnknownRoute
            | Self::BadRequest { .. }
            | Self::Engine { .. }
            | Self::Unspoken { .. }
            | Self::ConversationNotFound { .. }
            | Self::Internal => {}
        }
        response.body(body)
    }
}

/// Errors that the same request may not meet again.
fn retry_may_help(code: &str) -> bool {
    matches!(
        code,
        "upstream_timeout" | "upstream_failed" | "internal_error"
    )
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;

    use super::*;

    fn body(error: &ApiError) -> serde_json::Value {
        let bytes = error.error_response().into_body().try_into_bytes().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_missing_conversation_has_the_ancestors_detail() {
        let error = ApiError::ConversationNotFound {
            spelled: "X".into(),
        };
        let bytes = error.error_response().into_body().try_into_bytes();
        assert_eq!(
            str::from_utf8(&bytes.unwrap()).unwrap(),
            r#"{"detail":{"error":"Conversation not found","conversation_id":"X"},"error":"Conversation not found","code":"conversation_not_found","conversation_id":"X"}"#
        );
    }

    #[test]
    fn a_wait_is_told_in_the_header_and_in_the_body() {
        let error = ApiError::of(EngineError::Busy, "c");
        let response = error.error_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers().get("retry-after").unwrap(), "2");
        assert!(!response.headers().contains_key("x-should-retry"));
        assert_eq!(body(&error)["retry_after"], 2);
    }

    #[test]
    fn what_a_retry_cannot_cure_says_so() {
        let response = ApiError::UnknownRoute.error_response();
        assert_eq!(response.headers().get("x-should-retry").unwrap(), "false");
    }
}

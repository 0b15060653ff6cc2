//! One call: a request, its deadline, its answer.

use std::{error::Error as _, time::SystemTime};

use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant, timeout_at};

use super::{
    config::Endpoint,
    error::{SupabaseError, SupabaseErrorKind},
    failure::Refusal,
    pieces::HandedOver,
    report::quote,
};

/// As much of an error's body is read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// As long is waited for an error's body: its status alone says something.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// What a request changes, and so what a missing answer means.
#[derive(Debug)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// Something, as soon as the server has the request.
    Writes,
    /// Something, as soon as the server has the whole body.
    WritesBody(HandedOver),
}

impl Effect {
    /// Whether a request that got a connection, but no answer, may have changed something.
    pub(super) fn may_have_happened(&self) -> bool {
        match self {
            Self::Reads => false,
            Self::Writes => true,
            Self::WritesBody(handed_over) => handed_over.get(),
        }
    }

    /// There was a connection, but no answer; `what` happened, without a subject.
    fn broken(&self, what: &str) -> SupabaseError {
        if self.may_have_happened() {
            let what = format!("{what}; it may have done what was asked");
            SupabaseError::new(SupabaseErrorKind::Unknown, what)
        } else {
            SupabaseError::new(SupabaseErrorKind::Unavailable, what)
        }
    }

    /// The answer is longer than it may be. For a write it is then no answer of the server's.
    fn too_large(&self, bytes_max: usize) -> SupabaseError {
        let kind = if self.may_have_happened() {
            SupabaseErrorKind::Malformed
        } else {
            SupabaseErrorKind::TooLarge
        };
        SupabaseError::new(
            kind,
            format!("sent an answer of more than {bytes_max} bytes"),
        )
    }
}

/// An answer that reports success, its body still unread.
pub(super) struct Answer {
    response: Response,
    effect: Effect,
    deadline: Instant,
}

impl Endpoint {
    /// Sends the request and waits for the head of its answer.
    pub(super) async fn ask(
        &self,
        request: RequestBuilder,
        effect: Effect,
    ) -> Result<Answer, SupabaseError> {
        let asked_at = Instant::now();
        let deadline = asked_at + self.request_deadline;
        let response = match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => {
                self.answered_after(asked_at.elapsed());
                response
            }
            Ok(Err(error)) => return Err(transport(&error, &effect)),
            Err(_) => {
                self.answered_after(self.request_deadline);
                return Err(effect.broken("did not answer in time"));
            }
        };
        if response.status().is_success() {
            return Ok(Answer {
                response,
                effect,
                deadline,
            });
        }
        Err(self.refusal(response, &effect, deadline).await)
    }

    async fn refusal(
        &self,
        response: Response,
        effect: &Effect,
        deadline: Instant,
    ) -> SupabaseError {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let wait = deadline.min(Instant::now() + ERROR_BODY_WAIT);
        let mut body = Vec::new();
        // However the reading ends: what has come is looked at, and the status says enough.
        drop(timeout_at(wait, read(response, ERROR_BYTES_MAX, &mut body)).await);
        let refusal = Refusal {
            effect,
            status,
            headers: &headers,
            body: &body,
        };
        refusal.classify(&self.key, SystemTime::now())
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Whether the end of the body can be told from a broken connection.
    pub(super) fn tells_its_end(&self) -> bool {
        let headers = self.response.headers();
        self.response.version() >= reqwest::Version::HTTP_2
            || headers.contains_key(reqwest::header::CONTENT_LENGTH)
            || headers.contains_key(reqwest::header::TRANSFER_ENCODING)
    }

    /// Reads the whole body.
    pub(super) async fn bytes(self, bytes_max: usize) -> Result<Vec<u8>, SupabaseError> {
        let mut body = Vec::new();
        let announced = self.response.content_length().unwrap_or_default();
        if announced > bytes_max as u64 {
            return Err(self.effect.too_large(bytes_max));
        }
        match timeout_at(self.deadline, read(self.response, bytes_max, &mut body)).await {
            Ok(Ok(())) => Ok(body),
            Ok(Err(Unread::TooLarge)) => Err(self.effect.too_large(bytes_max)),
            Ok(Err(Unread::Broken(error))) => Err(transport(&error, &self.effect)),
            Err(_) => Err(self.effect.broken("did not finish its answer in time")),
        }
    }

    /// Reads the whole body as JSON; `what` it should be.
    pub(super) async fn json<T: DeserializeOwned>(
        self,
        bytes_max: usize,
        what: &str,
    ) -> Result<T, SupabaseError> {
        let status = self.status();
        let body = self.bytes(bytes_max).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let error = quote(&error.to_string());
            SupabaseError::malformed(format!("sent no {what} (HTTP {status}): {error}"))
        })
    }
}

/// Why a body was not read to its end.
enum Unread {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a body up to `bytes_max`; what was read stays in `body` whatever happens.
async fn read(mut response: Response, bytes_max: usize, body: &mut Vec<u8>) -> Result<(), Unread> {
    while let Some(bytes) = response.chunk().await.map_err(Unread::Broken)? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            return Err(Unread::TooLarge);
        }
    }
    Ok(())
}

fn transport(error: &reqwest::Error, effect: &Effect) -> SupabaseError {
    let cause = quote(&root_cause(error));
    if error.is_builder() {
        let what = format!("cannot be asked: {cause}");
        return SupabaseError::new(SupabaseErrorKind::Rejected, what);
    }
    if error.is_connect() {
        let what = format!("gave no connection: {cause}");
        return SupabaseError::new(SupabaseErrorKind::Unavailable, what);
    }
    effect.broken(&format!("broke the connection: {cause}"))
}

/// The innermost reason: the outer ones repeat the URL and the libraries' names.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

//! Every request has an id: the client's, or a new one. It stands in the answer and in every log line.

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
};
use tracing::Instrument;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client.
const BYTES_MAX: usize = 128;

/// Names the request, and the span of all that is done for it.
pub async fn name_request(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let given = request.headers().get(HEADER).filter(|value| is_fit(value));
    let id = match given {
        Some(given) => given.clone(),
        None => fresh(),
    };
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.path(),
    );
    let mut response = next.call(request).instrument(span).await?;
    response.headers_mut().insert(HEADER, id);
    Ok(response)
}

fn is_fit(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty() && bytes.len() <= BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic)
}

fn fresh() -> HeaderValue {
    let text = Uuid::new_v4().simple().to_string();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unnamed"))
}

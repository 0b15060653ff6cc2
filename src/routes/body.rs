//! The body of a request, whole and within a size and a time.

use std::time::Duration;

use actix_web::web;
use futures::StreamExt;

use crate::error::{ApiError, Payload};

/// Longest time that a request's body may take to come.
const DEADLINE: Duration = Duration::from_secs(30);

/// A body of at most so many bytes, whatever its Content-Type says.
pub(super) async fn read(
    payload: web::Payload,
    bytes_max: usize,
) -> Result<web::BytesMut, ApiError> {
    match tokio::time::timeout(DEADLINE, gather(payload, bytes_max)).await {
        Ok(body) => body,
        Err(_elapsed) => Err(ApiError::BodyTimeout),
    }
}

async fn gather(mut payload: web::Payload, limit: usize) -> Result<web::BytesMut, ApiError> {
    let mut body = web::BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|error| ApiError::BadRequest {
            sentence: format!("The request body cannot be read: {error}"),
        })?;
        if body.len() + piece.len() > limit {
            return Err(ApiError::PayloadTooLarge {
                what: Payload::Body,
                limit,
            });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

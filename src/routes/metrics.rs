//! `GET /metrics`, in the OpenMetrics text format.

use actix_web::{HttpRequest, HttpResponse, web};
use prometheus_client::encoding::text::encode;

use crate::{error::ApiError, server::Server};

/// All metrics.
pub(super) async fn metrics(
    server: web::Data<Server>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    server.admit_admin(&request)?;
    let mut text = String::new();
    encode(&mut text, &server.registry).map_err(|_unwritable| ApiError::Internal)?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text))
}

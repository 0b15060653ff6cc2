//! The routes, as a list; and what every one of them has: a body for 404 and 405, and a net for panics.

use std::panic::AssertUnwindSafe;

use actix_web::{
    Error, HttpResponse, Resource, Route,
    body::{BoxBody, MessageBody},
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    guard,
    http::header,
    middleware::{Next, from_fn},
    web,
};
use futures::FutureExt;

use crate::error::ApiError;

mod chat;
mod conversations;
mod health;
mod metrics;
mod websocket;

/// All routes.
pub fn configure(service: &mut web::ServiceConfig) {
    service
        .service(resource(
            "/health",
            "GET, HEAD",
            reading().to(health::health),
        ))
        .service(resource("/ready", "GET, HEAD", reading().to(health::ready)))
        .service(resource(
            "/metrics",
            "GET, HEAD",
            reading().to(metrics::metrics),
        ))
        .service(resource(
            "/conversation/{id}",
            "GET, HEAD",
            reading().to(conversations::read),
        ))
        .service(resource("/chat", "POST", web::post().to(chat::complete)))
        .service(resource(
            "/chat/stream",
            "POST",
            web::post().to(chat::stream),
        ))
        .service(resource("/ws/chat", "GET", web::get().to(websocket::chat)))
        .default_service(web::to(unknown));
}

/// GET and HEAD; the body of an answer to HEAD is left out when it is sent.
fn reading() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A path with one method, an answer for the others, and a net for panics.
fn resource(
    path: &'static str,
    allow: &'static str,
    route: Route,
) -> Resource<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let mut resource = web::resource([path.to_owned(), format!("{path}/")]).route(route);
    if allow.contains("OPTIONS") {
        resource = resource.route(
            web::route()
                .guard(guard::Options())
                .to(HttpResponse::NoContent),
        );
    }
    resource
        .default_service(web::to(move || async move {
            Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allow })
        }))
        .wrap(from_fn(catch_panic))
}

async fn unknown() -> Result<HttpResponse, ApiError> {
    Err(ApiError::UnknownRoute)
}

/// Answers 500 for a handler that panics. Around each resource, not the app: there the routing is
/// done, so that the request may be kept; and the layers around add their headers to the answer.
async fn catch_panic<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let kept = request.request().clone();
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(Ok(response)) => Ok(response.map_into_boxed_body()),
        Ok(Err(error)) => Ok(ServiceResponse::from_err(error, kept)),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            tracing::error!(panic = what, "a handler panicked");
            Ok(ServiceResponse::from_err(ApiError::Internal, kept))
        }
    }
}

/// JSON that is ready to be sent.
fn json(body: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(body)
}

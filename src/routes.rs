//! The routes, as a list; and what every one of them has: a body for 404 and 405, and a net for panics.

use std::panic::AssertUnwindSafe;

use actix_web::{
    Error, HttpRequest, HttpResponse, Resource, Route,
    body::{BoxBody, MessageBody},
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    guard,
    http::header,
    middleware::{Next, from_fn},
    web,
};
use futures::FutureExt;

use crate::error::ApiError;

mod body;
mod branches;
mod cancel;
mod chat;
mod conversations;
mod events;
mod health;
mod metrics;
mod openai;
mod speech;
mod transcribe;
mod upload;
mod websocket;

/// All routes.
pub fn configure(service: &mut web::ServiceConfig) {
    service
        .service(resource("/health", READ, [read().to(health::health)]))
        .service(resource("/ready", READ, [read().to(health::ready)]))
        .service(resource("/metrics", READ, [read().to(metrics::metrics)]))
        .service(resource(
            "/conversations",
            READ,
            [read().to(conversations::list)],
        ))
        .service(resource(
            "/conversation/{id}",
            "GET, HEAD, DELETE",
            [
                read().to(conversations::read),
                web::delete().to(conversations::delete),
            ],
        ))
        .service(resource(
            "/conversation/{id}/events",
            "GET",
            [web::get().to(events::events)],
        ))
        .service(resource(
            "/conversation/{id}/cancel",
            "POST",
            [web::post().to(cancel::cancel)],
        ))
        .service(resource(
            "/conversation/{id}/regenerate",
            "POST",
            [web::post().to(branches::regenerate)],
        ))
        .service(resource(
            "/conversation/{id}/edit",
            "POST",
            [web::post().to(branches::edit)],
        ))
        .service(resource("/chat", "POST", [web::post().to(chat::complete)]))
        .service(resource(
            "/chat/stream",
            "POST",
            [web::post().to(chat::stream)],
        ))
        .service(resource("/tts", "POST", [web::post().to(speech::tts)]))
        .service(resource(
            "/tts/stream",
            "POST",
            [web::post().to(speech::stream)],
        ))
        .service(resource(
            "/transcribe",
            "POST",
            [web::post().to(transcribe::transcribe)],
        ))
        .service(resource(
            "/v1/audio/speech",
            "POST",
            [web::post().to(openai::speech)],
        ))
        .service(resource(
            "/v1/audio/transcriptions",
            "POST",
            [web::post().to(openai::transcriptions)],
        ))
        .service(resource(
            "/ws/chat",
            "GET",
            [web::get().to(websocket::chat)],
        ))
        .default_service(web::to(unknown));
}

/// What a path that is read answers.
const READ: &str = "GET, HEAD";

fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A path with a route for each method it answers, an answer for other methods, and a net for
/// panics.
fn resource(
    path: &'static str,
    allow: &'static str,
    routes: impl IntoIterator<Item = Route>,
) -> Resource<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let resource = web::resource([path.to_owned(), format!("{path}/")]);
    routes
        .into_iter()
        .fold(resource, Resource::route)
        .default_service(web::to(move |request: HttpRequest| async move {
            let error = ApiError::MethodNotAllowed { allow };
            Err::<HttpResponse, _>(shaped(&request, error))
        }))
        .wrap(from_fn(catch_panic))
}

async fn unknown(request: HttpRequest) -> Result<HttpResponse, Error> {
    Err(shaped(&request, ApiError::UnknownRoute))
}

/// An error in the shape of the door that a request came to.
fn shaped(request: &HttpRequest, error: ApiError) -> Error {
    match request.path().starts_with("/v1/") {
        true => openai::OpenAiError::from(error).into(),
        false => error.into(),
    }
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
            let error = shaped(&kept, ApiError::Internal);
            Ok(ServiceResponse::from_err(error, kept))
        }
    }
}

/// JSON that is ready to be sent.
fn json(body: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(body)
}

#[cfg(test)]
mod tests {
    use actix_web::{App, test};

    use super::*;

    async fn boom() -> HttpResponse {
        panic!("a bug")
    }

    #[actix_web::test]
    async fn a_panic_is_answered_in_the_one_shape_and_the_next_request_is_served() {
        let app = App::new()
            .service(resource("/boom", "GET", [web::get().to(boom)]))
            .default_service(web::to(unknown));
        let app = test::init_service(app).await;
        for _ in 0..2 {
            let request = test::TestRequest::get().uri("/boom").to_request();
            let response = test::call_service(&app, request).await;
            assert_eq!(response.status(), 500);
            let body: serde_json::Value = test::read_body_json(response).await;
            assert_eq!(body["code"], "internal_error");
            assert_eq!(body["detail"], "Internal Server Error");
        }
    }
}

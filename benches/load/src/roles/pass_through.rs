//! The yardstick: hands every body through untouched, with the libraries that the server uses.
//!
//! It parses, stores and checks nothing; what the server costs more is the price of what it does.

use std::io::{self, Write as _};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    error::{Error, ErrorBadGateway},
    http::{StatusCode, header::CONTENT_TYPE},
    web::{self, Bytes, Data},
};

use crate::error::LoadError;

const WORKERS: usize = 2;

struct Upstream {
    client: reqwest::Client,
    origin: String,
}

/// Serves until the process is ended.
pub(crate) fn run(upstream: String) -> Result<(), LoadError> {
    actix_web::rt::System::new().block_on(serve(upstream))
}

async fn serve(origin: String) -> Result<(), LoadError> {
    let server = HttpServer::new(move || {
        // One client a worker: its connections stay on the worker's thread.
        let upstream = Data::new(Upstream {
            client: reqwest::Client::new(),
            origin: origin.clone(),
        });
        App::new()
            .app_data(upstream)
            .app_data(web::PayloadConfig::new(16 << 20))
            .default_service(web::to(pass))
    })
    .workers(WORKERS)
    .tcp_nodelay(true)
    .bind(("127.0.0.1", 0))
    .map_err(LoadError::io("a listening socket"))?;
    for address in server.addrs() {
        writeln!(io::stdout(), "listening on http://{address}").map_err(LoadError::io("stdout"))?;
    }
    server
        .run()
        .await
        .map_err(LoadError::io("the pass-through"))
}

async fn pass(
    upstream: Data<Upstream>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Error> {
    let answer = upstream
        .client
        .post(format!("{}{}", upstream.origin, request.path()))
        .header(reqwest::header::CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
        .map_err(ErrorBadGateway)?;
    let status = StatusCode::from_u16(answer.status().as_u16()).map_err(ErrorBadGateway)?;
    let mut passed = HttpResponse::build(status);
    if let Some(kind) = answer.headers().get(reqwest::header::CONTENT_TYPE) {
        passed.insert_header((CONTENT_TYPE, kind.as_bytes()));
    }
    Ok(passed.streaming(answer.bytes_stream()))
}

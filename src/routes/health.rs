//! `GET /health` and `GET /ready`.

use actix_web::{HttpResponse, http::StatusCode, web};

use crate::{server::Server, wire::json::Object};

/// The process is up.
pub(super) async fn health(server: web::Data<Server>) -> HttpResponse {
    let body = Object::with_capacity(96)
        .escaped("status", "healthy")
        .string("version", env!("CARGO_PKG_VERSION"))
        .escaped("mode", server.mode.as_str())
        .end();
    super::json(body)
}

/// Whether new turns are taken, and the state of each part.
pub(super) async fn ready(server: web::Data<Server>) -> HttpResponse {
    let engine = server.engine.observe();
    let log = server.log.stats();
    let ready = !engine.draining && log.alive;
    let engine_part = Object::with_capacity(128)
        .escaped("state", if engine.draining { "draining" } else { "ok" })
        .number("conversations", engine.conversations)
        .number("resident_bytes", engine.resident_bytes)
        .end();
    let log_part = Object::with_capacity(96)
        .escaped("state", if log.alive { "ok" } else { "dead" })
        .number("wal_bytes", log.wal_bytes)
        .number("queued", log.queued_jobs)
        .end();
    let mirror = server.mirror.borrow().clone();
    let oldest = mirror.oldest.map(|since| since.elapsed().as_secs());
    let mirror_part = Object::with_capacity(160)
        .escaped(
            "state",
            match (&mirror.trouble, mirror.caught_up) {
                (Some(_), _) => "failing",
                (None, true) => "ok",
                (None, false) => "catching_up",
            },
        )
        .number("backlog", mirror.backlog)
        .maybe(oldest, |it, seconds| it.number("oldest_secs", seconds))
        .number("set_aside", mirror.set_aside)
        .end();
    let body = Object::with_capacity(512)
        .escaped("status", if ready { "ready" } else { "not_ready" })
        .raw("engine", &engine_part)
        .raw("log", &log_part)
        .raw("json_files", &mirror_part)
        .raw("sockets", &server.sockets.len().to_string())
        .end();
    let mut response = super::json(body);
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

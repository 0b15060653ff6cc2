//! `GET /health` and `GET /ready`.

use actix_web::{HttpResponse, http::StatusCode, web};

use idol_actors::mirror::supabase_mirror::SupabaseState;

use crate::{server::Server, upstream, wire::json::Object};

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
    let full = engine.disk.is_some_and(|disk| disk.is_low);
    let ready = !engine.draining && log.alive && !full;
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
        .maybe(engine.disk, |it, disk| {
            let part = Object::with_capacity(64)
                .escaped("state", if disk.is_low { "low" } else { "ok" })
                .number("free_bytes", disk.free_bytes)
                .end();
            it.raw("disk", &part)
        })
        .raw("json_files", &mirror_part)
        .raw(
            "supabase",
            &supabase_part(server.supabase.as_ref().map(|state| state.borrow().clone())),
        )
        .maybe(server.engine.protection(), |it, protection| {
            it.raw(
                "openrouter",
                &upstream::ready_part(&protection.state()).end(),
            )
        })
        .maybe(server.voice_parts.speech(), |it, (protection, room)| {
            let room = room.state();
            let part = upstream::ready_part(&protection.state())
                .number("speaking", room.speaking)
                .number("waiting", room.queued)
                .end();
            it.raw("elevenlabs", &part)
        })
        .maybe(server.voice_parts.hearing(), |it, protection| {
            it.raw(
                "transcription",
                &upstream::ready_part(&protection.state()).end(),
            )
        })
        .raw("sockets", &server.sockets.len().to_string())
        .end();
    let mut response = super::json(body);
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// The copy in Supabase. Its trouble makes no server unready: the log has everything.
fn supabase_part(state: Option<SupabaseState>) -> String {
    let Some(state) = state else {
        return Object::with_capacity(16).escaped("state", "off").end();
    };
    let oldest = state.oldest.map(|since| since.elapsed().as_secs());
    let word = match (&state.trouble, state.caught_up) {
        (Some(_), _) => "failing",
        (None, true) => "ok",
        (None, false) => "catching_up",
    };
    let rows = match &state.rows_trouble {
        Some(_) => "failing",
        None => "ok",
    };
    Object::with_capacity(256)
        .escaped("state", word)
        .number("backlog", state.backlog)
        .maybe(oldest, |it, seconds| it.number("oldest_secs", seconds))
        .number("unconfirmed", state.unconfirmed)
        .number("deletions", state.deletions)
        .number("conflicts", state.conflicts)
        .number("too_large", state.too_large)
        .number("refused_names", state.refused_names)
        .escaped("rows", rows)
        .number("rows_backlog", state.rows_backlog)
        .end()
}

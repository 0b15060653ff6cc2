//! Routes to drive a simulator from another process.
//!
//! - `GET /_sim/counters`: the counts as JSON.
//! - `GET /_sim/requests`: the last requests as a JSON list, their bodies as text.
//! - `POST /_sim/default`: the body is an option list, the new default behaviour.
//! - `POST /_sim/script`: the body is an option list, queued for the next chat completion.
//! - `POST /_sim/default/ROUTE`, `POST /_sim/script/ROUTE`: the same for another route.
//! - `POST /_sim/elevenlabs/key`, `POST /_sim/whisper/key`: the body is the key, or empty.
//! - `POST /_sim/elevenlabs/limit`: the body is the most generations at once, or empty.
//! - `/_sim/supabase/…`: see the module of Supabase.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::http::{Answer, Connection, Gone, Next, Request};
use crate::openrouter::{Route, Script};
use crate::server::Shared;
use crate::supabase;

/// What the paths of these routes begin with.
pub(crate) const PREFIX: &str = "/_sim/";

pub(crate) async fn answer(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    request: &Request,
) -> Result<Next, Gone> {
    let answer = if request.path().starts_with(supabase::ADMIN_PREFIX) {
        supabase::admin(shared, request)
    } else {
        respond(shared, request)
    };
    answer.send(connection).await?;
    Ok(Next::KeepAlive)
}

fn respond(shared: &Shared, request: &Request) -> Answer {
    match (request.method.as_str(), request.path()) {
        ("GET", "/_sim/counters") => Answer::json(200, &json!(shared.meter.read())),
        ("GET", "/_sim/requests") => {
            let requests: Vec<Value> = shared
                .log
                .all()
                .iter()
                .map(|request| describe(request))
                .collect();
            Answer::json(200, &json!(requests))
        }
        ("POST", path) => {
            let told = String::from_utf8_lossy(&request.body);
            match tell(
                shared,
                path.strip_prefix(PREFIX).unwrap_or_default(),
                told.trim(),
            ) {
                Ok(()) => Answer::json(200, &json!({"ok": true})),
                Err(refusal) => refusal,
            }
        }
        _ => unknown(),
    }
}

/// Does what a path and a body tell.
fn tell(shared: &Shared, path: &str, body: &str) -> Result<(), Answer> {
    let given = (!body.is_empty()).then(|| body.to_owned());
    match path {
        "elevenlabs/key" => shared.elevenlabs.require_key(given),
        "whisper/key" => shared.whisper.require_key(given),
        "elevenlabs/limit" => {
            let limit = given.map(|limit| limit.parse()).transpose();
            let mistake = |_| mistake(&format!("{body:?} is no limit"));
            shared.elevenlabs.limit_generations(limit.map_err(mistake)?);
        }
        _ => {
            let (what, route) = path.split_once('/').unwrap_or((path, "chat"));
            let route = Route::named(route).ok_or_else(unknown)?;
            let script = || {
                let script = body.parse::<Script>();
                script.map_err(|error| mistake(&error.to_string()))
            };
            match what {
                "default" => shared.openrouter.set_default(route, script()?),
                "script" => shared.openrouter.queue(route, script()?),
                _ => return Err(unknown()),
            }
        }
    }
    Ok(())
}

fn unknown() -> Answer {
    Answer::json(404, &json!({"error": "no such administrative route"}))
}

fn mistake(message: &str) -> Answer {
    Answer::json(400, &json!({"error": message}))
}

fn describe(request: &Request) -> Value {
    json!({
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": String::from_utf8_lossy(&request.body),
    })
}

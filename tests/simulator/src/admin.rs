//! Routes to drive a simulator from another process.
//!
//! - `GET /_sim/counters`: the counts as JSON.
//! - `GET /_sim/requests`: the last requests as a JSON list, their bodies as text.
//! - `POST /_sim/default`: the body is an option list, the new default behaviour.
//! - `POST /_sim/script`: the body is an option list, queued for the next chat completion.
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
        ("POST", "/_sim/default") => match script_of(request) {
            Ok(script) => {
                shared.openrouter.set_default(script);
                Answer::json(200, &json!({"ok": true}))
            }
            Err(refusal) => refusal,
        },
        ("POST", "/_sim/script") => match script_of(request) {
            Ok(script) => {
                shared.openrouter.queue(Route::Chat, script);
                Answer::json(200, &json!({"ok": true}))
            }
            Err(refusal) => refusal,
        },
        _ => Answer::json(404, &json!({"error": "no such administrative route"})),
    }
}

fn script_of(request: &Request) -> Result<Script, Answer> {
    let options = String::from_utf8_lossy(&request.body);
    options
        .trim()
        .parse()
        .map_err(|error| Answer::json(400, &json!({"error": format!("{error}")})))
}

fn describe(request: &Request) -> Value {
    json!({
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": String::from_utf8_lossy(&request.body),
    })
}

//! OpenRouter's API as it behaves on the wire.
//!
//! What one answer does is a [`Script`]. A request takes the next queued script of its route; a
//! chat completion without one takes the script that its model name spells, and otherwise the
//! default. The audio APIs are steered with the same scripts.

mod api;
mod chat;
mod chunk;
mod deltas;
mod errors;
mod fault;
mod fixtures;
mod models;
mod options;
mod pace;
mod reply;
mod route;
mod script;
mod state;
mod stream;
mod text;
mod usage;
mod whole;
mod wire;

use serde_json::json;
use tokio::time::sleep;

pub(crate) use api::Api;
pub use errors::ErrorCase;
pub use fault::{Fault, StreamError};
pub use fixtures::stream as recorded_stream;
pub use models::ModelCard;
pub use options::{MODEL_PREFIX, OptionError};
pub use reply::ToolCall;
pub use route::Route;
pub(crate) use script::Mark;
pub use script::Script;
pub(crate) use state::OpenRouter;
pub use text::{reasoning_text, reply_text, sized_reply_text};
pub(crate) use whole::{before, send};

use crate::counters::Counted;
use crate::http::{Answer, Connection, Gone, Next, Request};
use crate::server::Shared;
use chat::ChatRequest;
use stream::Performance;

/// Answers a request, and returns what becomes of the connection.
pub(crate) async fn answer(
    shared: &Shared,
    connection: &mut Connection,
    route: Route,
    request: &Request,
) -> Result<Next, Gone> {
    if let Some(refusal) = refusal(shared, route, request) {
        refusal.send(connection).await?;
        return Ok(Next::KeepAlive);
    }
    let meter = &shared.meter;
    let body = match route {
        Route::Chat => return chat(shared, connection, request).await,
        Route::Key => models::KEY.to_owned(),
        _ => shared.openrouter.models(),
    };
    let (script, fails) = shared.openrouter.choose(route, None);
    if let Some(next) = whole::before(connection, meter, &script, fails, Api::OpenRouter).await? {
        return Ok(next);
    }
    let answer = Answer::new(200, "application/json", body);
    whole::send(connection, meter, &script, fails, answer).await
}

/// Refuses a wrong method and a wrong key.
fn refusal(shared: &Shared, route: Route, request: &Request) -> Option<Answer> {
    if request.method != route.method() {
        return Some(Answer::json(
            405,
            &json!({"error": {"code": 405, "message": "Method Not Allowed"}}),
        ));
    }
    // The list of models is public.
    if route != Route::Models && !shared.openrouter.admits(request.header("authorization")) {
        return Some(ErrorCase::of_status(401).answer());
    }
    None
}

async fn chat(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request,
) -> Result<Next, Gone> {
    let meter = &shared.meter;
    let request: ChatRequest<'_> = match serde_json::from_slice(&request.body) {
        Ok(request) => request,
        Err(error) => return mistake(connection, &error.to_string()).await,
    };
    let (script, fails) = shared.openrouter.choose(Route::Chat, Some(request.model()));
    if let Some(error) = &script.mistake {
        return mistake(connection, &error.to_string()).await;
    }
    if request.stream != Some(true) {
        if let Some(next) =
            whole::before(connection, meter, &script, fails, Api::OpenRouter).await?
        {
            return Ok(next);
        }
        connection
            .wait(sleep(whole::thinking_time(&script, &request)))
            .await?;
        let answer = whole::completion(&script, &request);
        return whole::send(connection, meter, &script, fails, answer).await;
    }
    let _active = Counted::new(
        meter,
        |counters| counters.active_streams += 1,
        |counters| counters.active_streams -= 1,
    );
    if let Some(next) = whole::before(connection, meter, &script, fails, Api::OpenRouter).await? {
        return Ok(next);
    }
    let performance = Performance {
        meter,
        script: &script,
        fails,
        request: &request,
    };
    stream::play(connection, &performance).await
}

/// Answers 400 to what can only be an error of the caller.
async fn mistake(connection: &mut Connection, message: &str) -> Result<Next, Gone> {
    let body = json!({
        "error": {"code": 400, "message": message, "metadata": {"error_type": "invalid_request"}},
    });
    Answer::json(400, &body).send(connection).await?;
    Ok(Next::KeepAlive)
}

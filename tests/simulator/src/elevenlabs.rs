//! ElevenLabs as it behaves on the wire: speech from text, over HTTP and over sockets.
//!
//! What one answer does is a [`Script`], queued for [`Route::Speech`], or for
//! [`Route::SpeechSocket`]; where a script counts deltas, here it counts characters. The audio is
//! [`voice_audio`], so a test can compare every byte.

mod format;
mod handle;
mod models;
mod mp3;
mod pcm;
mod play;
mod request;
mod socket;
mod state;
mod voice;

use serde_json::json;
use uuid::Uuid;

pub use format::AudioFormat;
pub use handle::ElevenLabs;
pub use state::SocketMessage;
pub(crate) use state::State;
pub use voice::{Alignment, CHARACTER_MS, alignment, audio_until, voice_audio};

use crate::http::{Answer, Connection, Gone, Next, Request};
use crate::openrouter::{Api, Route, Script, before, send};
use crate::server::Shared;
use format::Delivery;
use play::Performance;
use request::{Content, Speech, named};
use voice::Voice;

/// Answers a request, and returns what becomes of the connection.
pub(crate) async fn answer(
    shared: &Shared,
    connection: &mut Connection,
    route: Route,
    request: &Request,
) -> Result<Next, Gone> {
    if request.method != route.method() {
        let refusal = Answer::json(405, &json!({"detail": "Method Not Allowed"}));
        refusal.send(connection).await?;
        return Ok(Next::KeepAlive);
    }
    match route {
        Route::Speech => return speak(shared, connection, request).await,
        Route::SpeechSocket => return socket::serve(shared, connection, request).await,
        _ => {}
    }
    let answer = match (route, refusal(shared, request)) {
        // A list of models without a key is not refused but not found.
        (Route::SpeechModels, Some(_)) if request.header("xi-api-key").is_none() => {
            named("workspace_not_found")
        }
        (_, Some(refusal)) => refusal,
        (Route::SpeechModels, None) => Answer::json(200, &models::models()),
        (_, None) => Answer::json(200, &models::voices()),
    };
    let (script, fails) = shared.openrouter.choose(route, None);
    let meter = &shared.meter;
    if let Some(next) = before(connection, meter, &script, fails, Api::ElevenLabs).await? {
        return Ok(next);
    }
    send(connection, meter, &script, fails, answer).await
}

/// Answers a request for speech.
async fn speak(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request,
) -> Result<Next, Gone> {
    // The schema is looked at before the key, and the key before the text.
    let parsed = Speech::parse(request);
    let parsed = parsed.and_then(|speech| match refusal(shared, request) {
        Some(refusal) => Err(refusal),
        None => Ok(speech),
    });
    let speech = match parsed.and_then(|speech| match speech.refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(speech),
    }) {
        Ok(speech) => speech,
        Err(refusal) => {
            refusal.send(connection).await?;
            return Ok(Next::KeepAlive);
        }
    };
    let meter = &shared.meter;
    let Some(_generation) = shared.elevenlabs.generate(meter) else {
        named("concurrent_limit_exceeded").send(connection).await?;
        return Ok(Next::KeepAlive);
    };
    let (script, fails) = shared.openrouter.choose(Route::Speech, Some(&speech.model));
    if let Some(mistake) = &script.mistake {
        return mistaken(connection, &mistake.to_string()).await;
    }
    if let Some(next) = before(connection, meter, &script, fails, Api::ElevenLabs).await? {
        return Ok(next);
    }
    let count = speech.text.chars().count().to_string();
    let id = Uuid::new_v4().simple().to_string();
    let active = meter.read().active_generations.to_string();
    let limit = shared.elevenlabs.limit().unwrap_or(5).to_string();
    let headers = [
        ("request-id", id.as_str()),
        ("x-trace-id", id.as_str()),
        ("x-region", "loopback"),
        ("character-cost", count.as_str()),
        ("current-concurrent-requests", active.as_str()),
        ("maximum-concurrent-requests", limit.as_str()),
    ];
    if (speech.delivery, speech.content) == (Delivery::Whole, Content::Timestamps) {
        return timed(shared, connection, &script, fails, &speech, &headers).await;
    }
    let performance = Performance {
        meter,
        script: &script,
        fails,
        speech: &speech,
        headers: &headers,
    };
    play::play(connection, &performance).await
}

/// Answers with the audio and its times in one JSON object.
async fn timed(
    shared: &Shared,
    connection: &mut Connection,
    script: &Script,
    fails: bool,
    speech: &Speech,
    headers: &[(&str, &str)],
) -> Result<Next, Gone> {
    connection
        .wait(tokio::time::sleep(script.pace.first))
        .await?;
    let voice = Voice::new(&speech.text, speech.format);
    let answer = Answer::json(200, &voice.timed(0..voice.len()));
    let answer = headers
        .iter()
        .fold(answer, |answer, (name, value)| answer.header(name, value));
    let next = send(connection, &shared.meter, script, fails, answer).await?;
    if next == Next::KeepAlive {
        shared
            .meter
            .change(|counters| counters.generations_completed += 1);
    }
    Ok(next)
}

/// Refuses a request without the key, where one is required.
fn refusal(shared: &Shared, request: &Request) -> Option<Answer> {
    let key = shared.elevenlabs.key()?;
    let given = request.header("xi-api-key");
    if given == Some(key.as_str()) {
        return None;
    }
    let bearer = given.is_none() && request.header("authorization").is_some();
    Some(named(if bearer {
        "invalid_authorization_header"
    } else {
        "unauthorized"
    }))
}

/// Answers 400 to what can only be an error of the test.
async fn mistaken(connection: &mut Connection, message: &str) -> Result<Next, Gone> {
    let body = json!({"detail": {"status": "simulator_mistake", "message": message}});
    Answer::json(400, &body).send(connection).await?;
    Ok(Next::KeepAlive)
}

//! Transcription as OpenAI and whisper.cpp answer for it.
//!
//! `POST …/audio/transcriptions` answers as OpenAI does, `POST …/inference` as whisper.cpp's
//! server. What one answer does is a [`Script`], queued for
//! [`Route::Transcription`] or spelled by the model's name; without one the transcript is
//! [`transcript`].

mod answer;
mod form;
mod handle;
mod state;

use std::sync::Arc;

use serde_json::json;
use tokio::time::sleep;

pub use answer::transcript;
pub use form::Upload;
pub use handle::Whisper;
pub(crate) use state::State;

use crate::counters::Counted;
use crate::http::{Answer, BodyLength, Connection, Ended, Gone, Head, Next, Request};
use crate::openrouter::{Api, Route, Script, before, send};
use crate::server::Shared;

/// Reads a request while telling how far it has come, and answers it.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    head: Head,
) -> Result<Next, Ended> {
    let meter = &shared.meter;
    let mut known = None;
    let mut arrived = |bytes: usize| {
        if bytes > 0 {
            let more = bytes.saturating_sub(known.unwrap_or(0));
            meter.change(|counters| {
                counters.audio_bytes_received += more as u64;
                counters.audio_uploads_begun += u64::from(known.is_none());
            });
            known = Some(bytes);
        }
    };
    let api = if head.request.path().ends_with("/inference") {
        Api::WhisperCpp
    } else {
        Api::OpenAi
    };
    let mut begun = None;
    if let Some(bytes) = shared.openrouter.upload(Route::Transcription) {
        let bytes = match head.body {
            BodyLength::Exact(length) => bytes.min(length),
            BodyLength::Chunked => bytes,
        };
        connection.gather(bytes, &mut arrived).await?;
        let (script, fails) = shared.openrouter.choose(Route::Transcription, None);
        if let Some(next) = before(connection, meter, &script, fails, api).await? {
            meter.change(|counters| counters.requests += 1);
            let body = head.body;
            shared.log.push(Arc::new(head.request));
            if next == Next::KeepAlive {
                connection.drain_body(body).await?;
            }
            return Ok(next);
        }
        begun = Some((script, fails));
    }
    let request = connection.read_body_told(head, arrived).await?;
    let request = Arc::new(request);
    shared.log.push(Arc::clone(&request));
    let _active = Counted::new(
        meter,
        |counters| {
            counters.requests += 1;
            counters.transcription_requests += 1;
            counters.active_requests += 1;
        },
        |counters| counters.active_requests -= 1,
    );
    Ok(transcribe(shared, connection, &request, api, begun).await?)
}

/// Answers a request that has come whole; `begun` is the script whose answer has begun already.
async fn transcribe(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request,
    api: Api,
    begun: Option<(Arc<Script>, bool)>,
) -> Result<Next, Gone> {
    let meter = &shared.meter;
    let upload = form::parse(request).await.map(Arc::new);
    if let Ok(upload) = &upload {
        shared.whisper.keep(Arc::clone(upload));
    }
    let (script, fails) = match begun {
        Some(begun) => begun,
        None => {
            let upload = upload.as_ref().ok();
            let model = upload.and_then(|upload| upload.field("model"));
            let (script, fails) = shared.openrouter.choose(Route::Transcription, model);
            if let Some(next) = before(connection, meter, &script, fails, api).await? {
                return Ok(next);
            }
            (script, fails)
        }
    };
    if let Some(mistake) = &script.mistake {
        let body = json!({"error": {"message": mistake.to_string()}});
        Answer::json(400, &body).send(connection).await?;
        return Ok(Next::KeepAlive);
    }
    let answer = match (answer::refusal(shared, request, api), upload) {
        (Some(refusal), _) => refusal,
        (None, Err(error)) => answer::unreadable(api, &error),
        (None, Ok(upload)) => answer::answer(api, &upload, &script),
    };
    connection.wait(sleep(script.pace.first)).await?;
    send(connection, meter, &script, fails, answer).await
}

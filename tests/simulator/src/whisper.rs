//! Transcription as OpenAI and whisper.cpp answer for it.
//!
//! `POST …/audio/transcriptions` answers as OpenAI does, `POST …/inference` as whisper.cpp's
//! server. What one answer does is a [`Script`](crate::Script), queued for
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
use crate::http::{Answer, Connection, Ended, Gone, Head, Next, Request};
use crate::openrouter::{Api, Route, before, send};
use crate::server::Shared;

/// Reads a request while telling how far it has come, and answers it.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    head: Head,
) -> Result<Next, Ended> {
    let meter = &shared.meter;
    let mut begun = false;
    let request = connection
        .read_body_told(head, |bytes| {
            meter.change(|counters| {
                counters.audio_bytes_received += bytes as u64;
                counters.audio_uploads_begun += u64::from(!begun);
            });
            begun = true;
        })
        .await?;
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
    Ok(transcribe(shared, connection, &request).await?)
}

async fn transcribe(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request,
) -> Result<Next, Gone> {
    let api = if request.path().ends_with("/inference") {
        Api::WhisperCpp
    } else {
        Api::OpenAi
    };
    let meter = &shared.meter;
    let upload = form::parse(request).await.map(Arc::new);
    if let Ok(upload) = &upload {
        shared.whisper.keep(Arc::clone(upload));
    }
    let model = upload
        .as_ref()
        .ok()
        .and_then(|upload| upload.field("model"));
    let (script, fails) = shared.openrouter.choose(Route::Transcription, model);
    if let Some(mistake) = &script.mistake {
        let body = json!({"error": {"message": mistake.to_string()}});
        Answer::json(400, &body).send(connection).await?;
        return Ok(Next::KeepAlive);
    }
    if let Some(next) = before(connection, meter, &script, fails, api).await? {
        return Ok(next);
    }
    let answer = match (answer::refusal(shared, request, api), upload) {
        (Some(refusal), _) => refusal,
        (None, Err(error)) => answer::unreadable(api, &error),
        (None, Ok(upload)) => answer::answer(api, &upload, &script),
    };
    connection.wait(sleep(script.pace.first)).await?;
    send(connection, meter, &script, fails, answer).await
}

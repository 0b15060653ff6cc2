//! One call upstream: from the request to its last deltas.

use actix::{Recipient, prelude::SendError};
use bytes::Bytes;
use reqwest::{
    Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use tokio::{
    pin, select,
    time::{Duration, Instant, sleep_until, timeout, timeout_at},
};

use super::{
    config::Endpoint,
    failure,
    passage::Passage,
    reply::{End, Phase, ReplyReader},
    watch::Watch,
};
use crate::{
    codec::sse::EVENT_BYTES_MAX,
    id::TurnId,
    provider::{
        Delta, Progress, Upstream, UpstreamErrorKind,
        breaker::CallEnd,
        endpoint::{read_body, root_cause},
        protection::{Call, Went},
        seam::Restarted,
    },
};

/// As long may a stream take to end after `[DONE]`, for its connection to be used again.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// Nobody listens any more.
pub(super) struct Gone;

/// How a call went.
pub(super) struct Called {
    /// The deltas of the last read.
    pub(super) deltas: Vec<Delta>,
    /// How it ended.
    pub(super) end: End,
    /// What that says of the upstream.
    pub(super) went: Went,
}

/// What ends a call: the last deltas, and how it ended.
type Last = (Vec<Delta>, End);

/// Makes one call. What it brings goes through `passage` to the listener, except for the last.
pub(super) async fn call(
    endpoint: &Endpoint,
    body: Bytes,
    watch: Watch,
    passage: &mut Passage,
    outbox: &mut Outbox,
    out: &Call,
) -> Result<Called, Gone> {
    let request = endpoint
        .http
        .post_to(endpoint.completions.clone())
        .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(body);
    let response = match timeout_at(watch.deadline(Phase::Waiting), request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => {
            return Ok(Called {
                deltas: Vec::new(),
                end: Err(endpoint.http.transport(&error)),
                went: Went {
                    reach: CallEnd::Badly,
                    model: CallEnd::Neither,
                },
            });
        }
        Ok(Err(error)) => return Ok(called((Vec::new(), Err(endpoint.http.transport(&error))))),
        Err(_) => return Ok(called((Vec::new(), Err(watch.passed(Phase::Waiting))))),
    };
    out.reached();
    if !response.status().is_success() {
        let refusal = endpoint.http.refusal(response, watch.whole).await.error;
        if !matches!(
            refusal.kind,
            UpstreamErrorKind::Failed | UpstreamErrorKind::Timeout | UpstreamErrorKind::RateLimited
        ) {
            // It is well enough to judge our request.
            out.answered();
        }
        return Ok(called((Vec::new(), Err(refusal))));
    }
    let reader = ReplyReader::new(passage.room(endpoint.reply_bytes_max));
    match Media::of(&response) {
        Media::Json => {
            let (deltas, end) = read_whole(response, reader, &watch).await;
            Ok(match passage.pass(deltas) {
                Ok(deltas) => called((deltas, end)),
                Err(Restarted) => restarted(),
            })
        }
        Media::Page => {
            let end = Err(failure::failed(
                "answered with a web page; is the base URL right?",
            ));
            Ok(called((Vec::new(), end)))
        }
        Media::Events => read_stream(response, reader, watch, passage, outbox, out).await,
    }
}

fn called((deltas, end): Last) -> Called {
    let model = match &end {
        Ok(()) => CallEnd::Well,
        Err(error) => CallEnd::of(&error.kind),
    };
    Called {
        deltas,
        end,
        went: Went {
            reach: CallEnd::Well,
            model,
        },
    }
}

/// The model is well, and its answer of no use.
fn restarted() -> Called {
    let end = Err(failure::failed(
        "began the reply anew in place of continuing it",
    ));
    Called {
        went: Went {
            reach: CallEnd::Well,
            model: CallEnd::Neither,
        },
        ..called((Vec::new(), end))
    }
}

async fn read_stream(
    mut response: Response,
    mut reader: ReplyReader,
    mut watch: Watch,
    passage: &mut Passage,
    outbox: &mut Outbox,
    out: &Call,
) -> Result<Called, Gone> {
    // One timer for the whole call, set anew only when it fires too early or must fire sooner:
    // a timer per token would cost more than the token.
    let timer = sleep_until(watch.deadline(reader.phase()));
    pin!(timer);
    loop {
        let mut deltas = Vec::new();
        // One read is one message. To yield and look for more first was measured: it joins nothing
        // at a model's pace, and in a burst the connection has already read all there is.
        let end = select! {
            // The deadline first: an upstream that never pauses must not outrun it.
            biased;
            () = timer.as_mut() => {
                let deadline = watch.deadline(reader.phase());
                if Instant::now() < deadline {
                    timer.as_mut().reset(deadline);
                    continue;
                }
                let (deltas, end) = on_deadline(&mut reader, &watch, deltas);
                return Ok(match passage.pass(deltas) {
                    Ok(deltas) => called((deltas, end)),
                    Err(Restarted) => restarted(),
                });
            }
            read = response.chunk() => match read {
                Ok(Some(bytes)) => reader.read(&bytes, &mut deltas),
                Ok(None) => Some(reader.close("the stream ended", &mut deltas)),
                Err(error) => Some(reader.close(&root_cause(&error), &mut deltas)),
            },
        };
        let was_answered = passage.is_answered();
        let Ok(deltas) = passage.pass(deltas) else {
            return Ok(restarted());
        };
        if !was_answered && passage.is_answered() {
            out.answered();
        }
        if let Some(end) = end {
            if end.is_ok() && !reader.is_full() {
                drain(response);
            }
            return Ok(called((deltas, end)));
        }
        if !deltas.is_empty() {
            outbox.send(deltas, None).await?;
        }
        watch.saw(reader.events_seen());
        let deadline = watch.deadline(reader.phase());
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        // Nor must it keep the thread from the other calls.
        tokio::task::coop::consume_budget().await;
    }
}

/// A finished reply is whole though its usage never came; every other one failed.
fn on_deadline(reader: &mut ReplyReader, watch: &Watch, mut deltas: Vec<Delta>) -> Last {
    let phase = reader.phase();
    let end = match reader.close("timed out", &mut deltas) {
        Ok(()) => Ok(()),
        Err(_) => Err(watch.passed(phase)),
    };
    (deltas, end)
}

/// Reads a stream's last bytes aside, so that its connection can be used again while the end is
/// already on its way to the user.
fn drain(mut response: Response) {
    let rest = async move { while let Ok(Some(_)) = response.chunk().await {} };
    // Not waited for at shutdown: it is bounded, and only a connection is lost.
    drop(tokio::task::spawn_local(timeout(DRAIN_WAIT, rest)));
}

async fn read_whole(response: Response, mut reader: ReplyReader, watch: &Watch) -> Last {
    let (mut body, mut deltas) = (Vec::new(), Vec::new());
    let read = read_body(Upstream::OpenRouter, response, EVENT_BYTES_MAX, &mut body);
    let end = match timeout_at(watch.deadline(Phase::Waiting), read).await {
        Ok(Ok(())) => reader.read_whole(&body, &mut deltas),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(watch.passed(Phase::Waiting)),
    };
    (deltas, end)
}

/// Where the messages go.
pub(super) struct Outbox {
    pub(super) turn: TurnId,
    pub(super) reply_to: Recipient<Progress>,
}

impl Outbox {
    /// Sends one message. A full mailbox holds up the call, and with it the network: nothing is
    /// read until the listener has taken what there is.
    pub(super) async fn send(&mut self, deltas: Vec<Delta>, end: Option<End>) -> Result<(), Gone> {
        let turn = self.turn;
        match self.reply_to.try_send(Progress { turn, deltas, end }) {
            Ok(()) => Ok(()),
            Err(SendError::Closed(_)) => Err(Gone),
            Err(SendError::Full(progress)) => self.reply_to.send(progress).await.map_err(|_| Gone),
        }
    }
}

/// How an answer is to be read.
enum Media {
    Events,
    Json,
    Page,
}

impl Media {
    /// By content type; what has none, or an odd one, is read as the stream that was asked for.
    fn of(response: &Response) -> Self {
        let media = response.headers().get(CONTENT_TYPE);
        let media = media
            .and_then(|media| media.to_str().ok())
            .unwrap_or_default();
        let media = media.trim_start().to_ascii_lowercase();
        if media.starts_with("application/json") || media.starts_with("application/problem+json") {
            Self::Json
        } else if media.starts_with("text/html") {
            Self::Page
        } else {
            Self::Events
        }
    }
}

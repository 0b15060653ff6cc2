//! Accepts connections and hands each request to the upstream that its path names.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::admin;
use crate::counters::{Counted, Meter};
use crate::elevenlabs;
use crate::http::{Answer, Connection, Ended, Gone, Head, Next, Persistence, Request, Unread};
use crate::log::Log;
use crate::openrouter::{self, OpenRouter, Route};
use crate::supabase::{self, State};
use crate::whisper;

/// The pause after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) meter: Meter,
    pub(crate) log: Log,
    pub(crate) openrouter: OpenRouter,
    pub(crate) supabase: State,
    pub(crate) elevenlabs: elevenlabs::State,
    pub(crate) whisper: whisper::State,
}

impl Shared {
    pub(crate) fn new(key: Option<String>) -> Self {
        Self {
            meter: Meter::new(),
            log: Log::default(),
            openrouter: OpenRouter::new(key),
            supabase: State::default(),
            elevenlabs: elevenlabs::State::default(),
            whisper: whisper::State::default(),
        }
    }
}

/// Accepts connections until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An accept fails when descriptors run out; only other connections' ends help.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        drop(tokio::spawn(async move { converse(stream, &shared).await }));
    }
}

async fn converse(stream: TcpStream, shared: &Arc<Shared>) {
    let _open = Counted::new(
        &shared.meter,
        |counters| {
            counters.accepted_connections += 1;
            counters.open_connections += 1;
        },
        |counters| counters.open_connections -= 1,
    );
    // Without Nagle a write is a segment, which is what a split shows on the wire.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut connection = Connection::new(stream);
    loop {
        let head = match connection.next_head().await {
            Ok(head) => head,
            Err(Unread::Refused(status)) => return refuse(connection, status).await,
            Err(Unread::Closed) => return,
        };
        let persistence = head.persistence;
        let next = match exchange(shared, &mut connection, head).await {
            Ok(next) => next,
            Err(Ended::Unread(Unread::Refused(status))) => {
                return refuse(connection, status).await;
            }
            Err(Ended::Unread(Unread::Closed)) => return,
            Err(Ended::Gone) => {
                shared
                    .meter
                    .change(|counters| counters.client_disconnects += 1);
                return;
            }
        };
        if next != Next::KeepAlive || persistence == Persistence::Close {
            return connection.end(next).await;
        }
    }
}

async fn refuse(mut connection: Connection, status: u16) {
    let body =
        json!({"error": {"code": status, "message": "the simulator cannot read this request"}});
    let answer = Answer::json(status, &body).header("Connection", "close");
    if answer.send(&mut connection).await.is_ok() {
        connection.end_refused().await;
    }
}

/// Reads the rest of a request and answers it.
async fn exchange(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    head: Head,
) -> Result<Next, Ended> {
    if supabase::serves(head.request.path()) {
        // Supabase answers some requests before their body is read.
        return supabase::serve(shared, connection, head).await;
    }
    if Route::of(head.request.path()) == Some(Route::Transcription) {
        // How the body of an upload arrives is told while it does.
        return whisper::serve(shared, connection, head).await;
    }
    let request = connection.read_body(head).await?;
    Ok(answer(shared, connection, request).await?)
}

async fn answer(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    request: Request,
) -> Result<Next, Gone> {
    if request.path().starts_with(admin::PREFIX) {
        return admin::answer(shared, connection, &request).await;
    }
    let request = Arc::new(request);
    let route = Route::of(request.path());
    shared.log.push(Arc::clone(&request));
    shared.meter.change(|counters| {
        counters.requests += 1;
        counters.chat_requests += u64::from(route == Some(Route::Chat));
        counters.speech_requests += u64::from(route == Some(Route::Speech));
    });
    let _active = Counted::new(
        &shared.meter,
        |counters| counters.active_requests += 1,
        |counters| counters.active_requests -= 1,
    );
    match route {
        Some(
            route @ (Route::Speech | Route::SpeechSocket | Route::SpeechModels | Route::Voices),
        ) => elevenlabs::answer(shared, connection, route, &request).await,
        Some(route) => openrouter::answer(shared, connection, route, &request).await,
        None => {
            let body = json!({"error": {"code": 404, "message": "Not Found"}});
            Answer::json(404, &body).send(connection).await?;
            Ok(Next::KeepAlive)
        }
    }
}

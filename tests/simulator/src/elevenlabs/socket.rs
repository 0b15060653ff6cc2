//! The sockets: text comes in pieces, and audio goes out in frames.
//!
//! One half reads what the client tells and decides what is to be done, the other does it in
//! order; so a client is listened to while it is spoken to.

mod input;
mod output;

use std::time::Duration;

use futures::stream::{SplitStream, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::format::{AudioFormat, Delivery};
use super::request::{named, query, unknown_format};
use super::{mistaken, refusal};
use crate::counters::Counted;
use crate::http::{Answer, Connection, Gone, Next, Request, response_head};
use crate::openrouter::{Api, Route, before};
use crate::server::Shared;
use input::{Input, Job};
use output::{Ending, Output};

/// What is decided and not yet done, at most; past it the client is not read.
const JOBS_MAX: usize = 1024;
/// The longest message that is taken from a client, in bytes.
const MESSAGE_MAX: usize = 1024 * 1024;
/// How long a client may go on after the socket's close was told to it.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// The time without input after which a socket is closed, when the client asks for none; and the
/// longest that it may ask for.
const INACTIVITY: Duration = Duration::from_secs(20);
const INACTIVITY_MAX: Duration = Duration::from_secs(180);

/// Answers a request for a socket, and returns what becomes of the connection.
pub(crate) async fn serve(
    shared: &Shared,
    connection: &mut Connection,
    request: &Request,
) -> Result<Next, Gone> {
    let format = match look(shared, request) {
        Ok(format) => format,
        Err(refusal) => {
            refusal.send(connection).await?;
            return Ok(Next::KeepAlive);
        }
    };
    let model = query(request, "model_id");
    let route = Route::SpeechSocket;
    let (script, fails) = shared.openrouter.choose(route, model.as_deref());
    if let Some(mistake) = &script.mistake {
        return mistaken(connection, &mistake.to_string()).await;
    }
    let meter = &shared.meter;
    if let Some(next) = before(connection, meter, &script, fails, Api::ElevenLabs).await? {
        return Ok(next);
    }
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    let usual = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", accept.as_str()),
    ];
    connection
        .write(&response_head(101, &usual, &script.headers))
        .await?;
    let mut number = 0;
    meter.change(|counters| {
        counters.speech_sockets += 1;
        counters.open_speech_sockets += 1;
        number = counters.speech_sockets;
    });
    let _open = Counted::new(meter, |_| {}, |counters| counters.open_speech_sockets -= 1);
    let (stream, read) = connection.upgraded();
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX));
    let config = Some(config);
    let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, config).await;
    let (sink, stream) = socket.split();
    let (jobs, due) = mpsc::channel(JOBS_MAX);
    let mut output = Output::new(sink, shared, &script, fails, format);
    let mut hearing = Hearing {
        shared,
        stream,
        input: Input::new(request, unmet_key(shared, request)),
        patience: shared
            .elevenlabs
            .input_timeout()
            .unwrap_or_else(|| inactivity(request)),
        socket: number,
    };
    let ending = tokio::select! {
        biased;
        ending = output.work(due) => ending?,
        // The client has left, in order or not.
        heard = hearing.listen(jobs) => return heard.map(|()| Next::Close),
    };
    match ending {
        Ending::Severed(next) => Ok(next),
        Ending::Closed => {
            // Bytes left unread would turn the end of the connection into a reset.
            let leaving = timeout(CLOSING_MAX, hearing.drain());
            leaving.await.unwrap_or_default();
            Ok(Next::Close)
        }
    }
}

/// Finds the format that a handshake asks for, or what it is refused with.
fn look(shared: &Shared, request: &Request) -> Result<AudioFormat, Answer> {
    let wanted = request.header("upgrade").map(str::to_ascii_lowercase);
    if wanted.as_deref() != Some("websocket") || request.header("sec-websocket-key").is_none() {
        return Err(named("not_found"));
    }
    let given = request.header("xi-api-key");
    if given.is_some()
        && let Some(refusal) = refusal(shared, request)
    {
        return Err(refusal);
    }
    match query(request, "output_format") {
        None => Ok(AudioFormat::DEFAULT),
        Some(name) => {
            AudioFormat::offered(&name, Delivery::Socket).ok_or_else(|| unknown_format(&name))
        }
    }
}

/// Returns the key that the first message must bring, if the handshake has not.
fn unmet_key(shared: &Shared, request: &Request) -> Option<String> {
    let given = query(request, "authorization");
    let key = shared.elevenlabs.key()?;
    let met = request.header("xi-api-key") == Some(key.as_str())
        || given.is_some_and(|given| given.trim_start_matches("Bearer ") == key);
    (!met).then_some(key)
}

fn inactivity(request: &Request) -> Duration {
    let asked = query(request, "inactivity_timeout").and_then(|value| value.parse().ok());
    asked.map_or(INACTIVITY, |seconds| {
        Duration::from_secs(seconds).min(INACTIVITY_MAX)
    })
}

/// The half that reads.
struct Hearing<'s, 'c> {
    shared: &'s Shared,
    stream: SplitStream<WebSocketStream<&'c mut TcpStream>>,
    input: Input,
    /// The longest time without a message.
    patience: Duration,
    /// Which socket this is, counted from 1.
    socket: u64,
}

impl Hearing<'_, '_> {
    /// Reads until the client leaves.
    async fn listen(&mut self, jobs: mpsc::Sender<Job>) -> Result<(), Gone> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.stream.next() => message,
                () = sleep(self.patience), if self.input.is_open() => {
                    // Jobs are taken for as long as this half lives.
                    let told = jobs.send(self.input.time_out(self.patience)).await;
                    told.map_err(|_| Gone)?;
                    continue;
                }
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                None | Some(Err(Error::ConnectionClosed)) => return Ok(()),
                Some(Err(_)) => return Err(Gone),
                // A close too: what answers it is sent by reading on.
                Some(Ok(_)) => continue,
            };
            self.shared
                .elevenlabs
                .keep_message(self.socket, text.as_str());
            self.shared
                .meter
                .change(|counters| counters.socket_messages += 1);
            for job in self.input.take(text.as_str()) {
                jobs.send(job).await.map_err(|_| Gone)?;
            }
        }
    }

    /// Reads and drops what still comes.
    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

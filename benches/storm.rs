//! How long it takes 5,000 sockets to come back at once, each in the midst of a reply that it
//! watches: from the first handshake to the last `resumed`.
//!
//! `cargo bench -p idol-router --bench storm`. Server, clients and simulator share the machine and
//! one process. The aim is a second.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt, stream};
use idol_simulator::{Script, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

mod support;

const CLIENTS: usize = 5_000;
const CONVERSATIONS: usize = 50;
/// Handshakes under way at once.
const AT_ONCE: usize = 1_000;
const ROUNDS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One client that comes back: its socket, the place that it is told, and how long that took.
async fn resume(
    address: SocketAddr,
    client: usize,
    cursor: Option<&str>,
) -> (Socket, String, Duration) {
    let start = Instant::now();
    let (mut socket, _) = connect_async(format!("ws://{address}/ws/chat"))
        .await
        .unwrap();
    let conversation = format!("c{}", client % CONVERSATIONS);
    let mut wants = json!({"type": "resume", "conversation_id": conversation});
    if let Some(cursor) = cursor {
        wants["cursor"] = cursor.into();
    }
    let wants = Message::text(wants.to_string());
    socket.send(wants).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    let told: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(told["type"], "resumed", "{told}");
    assert!(told["turn"].is_object(), "in the midst of a reply: {told}");
    let cursor = told["cursor"].as_str().unwrap().to_owned();
    (socket, cursor, start.elapsed())
}

#[tokio::main]
async fn main() {
    // A run of the test harness only asks whether this can be run.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let files = idol_router::open_files::raise();
    assert!(
        files.is_none_or(|files| files > 2 * CLIENTS as u64 + 1_000),
        "this machine allows {files:?} open files: raise its hard limit (ulimit -Hn)"
    );
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    let (address, _directory) = support::serve(&simulator);
    let http = reqwest::Client::new();
    let mut running = Vec::new();
    for number in 0..CONVERSATIONS {
        simulator.script(Script::from("tokens=9").hold_at(4, &gate));
        let body = json!({
            "conversation_id": format!("c{number}"),
            "messages": [{"role": "user", "content": "Tell me a story"}],
        });
        let request = http.post(format!("http://{address}/chat/stream"));
        running.push(request.json(&body).send().await.unwrap());
    }
    gate.reached(CONVERSATIONS as u64, DEADLINE).await.unwrap();
    let mut places: Vec<Option<String>> = vec![None; CLIENTS];
    for round in 0..=ROUNDS {
        let start = Instant::now();
        let back: Vec<_> = stream::iter(places.iter().enumerate())
            .map(|(client, place)| resume(address, client, place.as_deref()))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let all = start.elapsed();
        let mut waits: Vec<f64> = back.iter().map(|it| it.2.as_secs_f64() * 1000.0).collect();
        waits.sort_by(f64::total_cmp);
        // The first time they have no place yet.
        if round > 0 {
            println!(
                "{CLIENTS} clients are back after {:.2} s; one waits {:.0} ms (median), {:.0} ms (99th of 100)",
                all.as_secs_f64(),
                waits[CLIENTS / 2],
                waits[CLIENTS * 99 / 100],
            );
        }
        places = back.into_iter().map(|it| Some(it.1)).collect();
    }
    gate.open();
    drop(running);
}

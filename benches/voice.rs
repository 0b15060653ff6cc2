//! What the server adds to a spoken reply: the time from the first phrase to the first sound, that
//! from a client that speaks up to silence, and the memory of a voice.
//!
//! `cargo bench -p idol-router --bench voice`. Server, clients and simulator share the machine; but
//! for the memory, one process. What the simulator takes by itself, asked the same by as many
//! clients directly, is measured, told, and taken off. With many voices at once the figures are
//! mostly of how long they wait for a core.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command},
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt, future::join_all};
use idol_simulator::{Gate, Script, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

mod support;

/// Replies one after the other, and rounds of many at once.
const ROUNDS: usize = 200;
const ROUNDS_AT_ONCE: usize = 5;
const VOICES: usize = 100;
const DEADLINE: Duration = Duration::from_secs(60);

const PHRASE: &str = "The morning came quietly over the river.";
const REPLY: &str = "The morning came quietly over the river. We walked along the water.";
/// Words of the phrase: the next one tells that it is over.
const PHRASE_WORDS: usize = 7;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connected(address: SocketAddr) -> Socket {
    let connect = connect_async(format!("ws://{address}/ws/chat"));
    connect.await.unwrap().0
}

async fn send(socket: &mut Socket, message: Value) {
    let message = Message::text(message.to_string());
    socket.send(message).await.unwrap();
}

/// Asks for a spoken reply.
async fn ask(socket: &mut Socket, conversation: &str) {
    let message = json!({
        "type": "message", "conversation_id": conversation, "message": "hi",
        "voice": {"format": "mp3_44100_128"},
    });
    send(socket, message).await;
}

/// Reads up to a message of this type.
async fn until(socket: &mut Socket, kind: &str) {
    let read = async {
        loop {
            let frame = socket.next().await.unwrap().unwrap();
            let Message::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            assert_ne!(message["type"], "audio_error", "{message}");
            assert_ne!(message["type"], "error", "{message}");
            if message["type"] == kind {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap();
}

/// Median and the 99th of 100, in milliseconds.
fn figures(times: &mut [Duration]) -> (f64, f64) {
    times.sort();
    let at = |hundredth: usize| times[times.len() * hundredth / 100].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// A reply that waits before the word behind its first phrase.
fn held(simulator: &Simulator) -> Gate {
    let gate = simulator.gate();
    simulator.set_default(Script::new().text(REPLY).hold_at(PHRASE_WORDS, &gate));
    gate
}

/// From the word that ends the first phrase to the first sound, for so many replies at once.
async fn first_sounds(
    simulator: &Simulator,
    address: SocketAddr,
    (round, voices): (usize, usize),
) -> Vec<Duration> {
    let gate = held(simulator);
    let mut sockets = join_all((0..voices).map(|_| connected(address))).await;
    let asking = sockets.iter_mut().enumerate();
    join_all(asking.map(async |(number, socket)| {
        ask(socket, &format!("first-{voices}-{round}-{number}")).await;
    }))
    .await;
    gate.reached(voices as u64, DEADLINE).await.unwrap();
    let start = Instant::now();
    gate.open();
    let times = join_all(sockets.iter_mut().map(async |socket| {
        until(socket, "audio").await;
        start.elapsed()
    }))
    .await;
    join_all(
        sockets
            .iter_mut()
            .map(|socket| until(socket, "audio_complete")),
    )
    .await;
    times
}

/// The same asked of the simulator alone: a word, then the first sound of a phrase.
async fn simulated_sounds(simulator: &Simulator, voices: usize) -> Vec<Duration> {
    let gate = held(simulator);
    let http = reqwest::Client::new();
    let chat = format!("{}/chat/completions", simulator.base_url());
    let body = json!({"model": "m", "stream": true, "messages": []});
    let mut replies = join_all((0..voices).map(async |_| {
        let mut reply = http.post(&chat).json(&body).send().await.unwrap();
        reply.chunk().await.unwrap();
        reply
    }))
    .await;
    gate.reached(voices as u64, DEADLINE).await.unwrap();
    let voice = format!(
        "{}/text-to-speech/v/stream/with-timestamps?output_format=mp3_44100_128",
        simulator.elevenlabs_url()
    );
    let start = Instant::now();
    gate.open();
    join_all(replies.iter_mut().map(async |reply| {
        // Words before it may have come in pieces.
        while let Some(bytes) = reply.chunk().await.unwrap() {
            if String::from_utf8_lossy(&bytes).contains("We") {
                break;
            }
        }
        let body = json!({"text": PHRASE, "model_id": "eleven_turbo_v2_5"});
        let mut speech = http.post(&voice).json(&body).send().await.unwrap();
        assert_eq!(speech.status(), 200);
        speech.chunk().await.unwrap();
        start.elapsed()
    }))
    .await
}

async fn first_sound(simulator: &Simulator, address: SocketAddr) {
    for (rounds, voices) in [(ROUNDS, 1), (ROUNDS_AT_ONCE, VOICES)] {
        let (mut told, mut simulated) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            told.extend(first_sounds(simulator, address, (round, voices)).await);
            simulated.extend(simulated_sounds(simulator, voices).await);
        }
        let (median, most) = figures(&mut told);
        let (median_simulated, most_simulated) = figures(&mut simulated);
        println!(
            "{voices} voices at once: from the end of the first phrase to the first sound {median:.1} ms \
             (median), {most:.1} ms (99th of 100); of that the simulator {median_simulated:.1} and \
             {most_simulated:.1} ms, the server {:.1} and {:.1} ms",
            median - median_simulated,
            most - most_simulated,
        );
    }
}

/// From what a client that speaks up sends to `audio_stop`, and to the end of both upstream calls.
async fn barge_in(simulator: &Simulator, address: SocketAddr) {
    let (mut stops, mut ends) = (Vec::new(), Vec::new());
    // Without an end, both of them.
    let gate = simulator.gate();
    let long = Script::new().text(REPLY).with("gap=1");
    simulator.set_default(long.hold_at(PHRASE_WORDS + 2, &gate));
    simulator
        .elevenlabs()
        .set_default(Script::new().hold_at(20, &gate));
    let mut socket = connected(address).await;
    for round in 0..ROUNDS {
        let conversation = format!("barge-in-{round}");
        ask(&mut socket, &conversation).await;
        until(&mut socket, "audio").await;
        let under_way = simulator.wait_for(
            "both upstream calls",
            |counters| counters.active_generations > 0 && counters.active_streams > 0,
            DEADLINE,
        );
        under_way.await.unwrap();
        let start = Instant::now();
        send(
            &mut socket,
            json!({"type": "cancel", "conversation_id": conversation}),
        )
        .await;
        let closed = simulator.wait_for(
            "the end of both upstream calls",
            |counters| counters.active_generations == 0 && counters.active_streams == 0,
            DEADLINE,
        );
        let ((), ()) = futures::join!(
            async {
                until(&mut socket, "audio_stop").await;
                stops.push(start.elapsed());
            },
            async {
                closed.await.unwrap();
                ends.push(start.elapsed());
            }
        );
        until(&mut socket, "response_complete").await;
    }
    let ((stop, stop_most), (end, end_most)) = (figures(&mut stops), figures(&mut ends));
    println!(
        "speaking up: audio_stop comes {stop:.1} ms (median), {stop_most:.1} ms (99th of 100) after it \
         is sent; both upstream calls are closed after {end:.1} and {end_most:.1} ms"
    );
}

/// A server in a process of its own.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Process {
    /// Resident memory in KiB.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }
}

/// Resident memory for each of many voices under way, beside the memory of as many written replies.
async fn memory(simulator: &Simulator) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = Process(
        Command::new(env!("CARGO_BIN_EXE_idol-router"))
            .env_clear()
            .envs(support::settings(simulator))
            .env("PORT", address.port().to_string())
            .env("DATA_DIR", directory.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    let ready = async { while TcpStream::connect(address).await.is_err() {} };
    tokio::time::timeout(DEADLINE, ready).await.unwrap();
    let gate = simulator.gate();
    let script = Script::new().text(REPLY);
    simulator.set_default(script.hold_at(PHRASE_WORDS + 2, &gate));
    simulator
        .elevenlabs()
        .set_default(Script::new().hold_at(20, &gate));
    let mut residents = vec![server.resident()];
    let mut kept = Vec::new();
    for spoken in ["warm-up", "written", "spoken"] {
        let mut sockets = join_all((0..VOICES).map(|_| connected(address))).await;
        let asking = sockets.iter_mut().enumerate();
        join_all(asking.map(async |(number, socket)| {
            let conversation = format!("{spoken}-{number}");
            if spoken == "written" {
                let message = json!({
                    "type": "message", "conversation_id": conversation, "message": "hi",
                });
                send(socket, message).await;
                until(socket, "chunk").await;
            } else {
                ask(socket, &conversation).await;
                until(socket, "audio").await;
            }
        }))
        .await;
        residents.push(server.resident());
        if spoken != "warm-up" {
            // Each is compared with what was there before it.
            kept.push(sockets);
        }
    }
    let of = |number: usize| (residents[number + 1] - residents[number]) / VOICES as f64;
    println!(
        "memory: {:.0} KiB for a spoken reply under way, {:.0} KiB for one that is written, sockets and \
         conversations included; {:.1} MiB in all with {VOICES} of each",
        of(2),
        of(1),
        residents[3] / 1024.0,
    );
    gate.open();
}

#[tokio::main]
async fn main() {
    // A run of the test harness only asks whether this can be run.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let simulator = Simulator::start().unwrap();
    let (address, _directory) = support::serve(&simulator);
    first_sound(&simulator, address).await;
    barge_in(&simulator, address).await;
    memory(&simulator).await;
}

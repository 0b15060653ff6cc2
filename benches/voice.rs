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
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async, connect_async_with_config, tungstenite::Message,
};

mod support;

/// Replies one after the other, and rounds of many at once.
const ROUNDS: usize = 200;
const ROUNDS_AT_ONCE: usize = 5;
const VOICES: usize = 100;
/// Between two first phrases where many voices are under way.
const STAGGER: Duration = Duration::from_millis(10);
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

/// A reply that waits before its first word: of one that waited further on, the voice would not wait for
/// the end of its phrase.
fn held(simulator: &Simulator) -> Gate {
    let gate = simulator.gate();
    simulator.set_default(Script::new().text(REPLY).hold_at(0, &gate));
    gate
}

/// From the first phrase to the first sound, for so many replies at once.
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
    let mut replies = join_all((0..voices).map(|_| chat(&http, simulator))).await;
    gate.reached(voices as u64, DEADLINE).await.unwrap();
    let start = Instant::now();
    gate.open();
    join_all(replies.iter_mut().map(async |reply| {
        until_we(reply).await;
        let mut speech = speech(&http, simulator).await;
        speech.chunk().await.unwrap();
        start.elapsed()
    }))
    .await
}

/// A reply of the simulator, begun.
async fn chat(http: &reqwest::Client, simulator: &Simulator) -> reqwest::Response {
    let url = format!("{}/chat/completions", simulator.base_url());
    let body = json!({"model": "m", "stream": true, "messages": []});
    http.post(url).json(&body).send().await.unwrap()
}

/// Reads a reply up to the word behind its first phrase; what is before it may come in pieces.
async fn until_we(reply: &mut reqwest::Response) {
    while let Some(bytes) = reply.chunk().await.unwrap() {
        if String::from_utf8_lossy(&bytes).contains("We") {
            return;
        }
    }
}

/// The first phrase, spoken by the simulator.
async fn speech(http: &reqwest::Client, simulator: &Simulator) -> reqwest::Response {
    let url = format!(
        "{}/text-to-speech/v/stream/with-timestamps?output_format=mp3_44100_128",
        simulator.elevenlabs_url()
    );
    let body = json!({"text": PHRASE, "model_id": "eleven_turbo_v2_5"});
    let speech = http.post(url).json(&body).send().await.unwrap();
    assert_eq!(speech.status(), 200);
    speech
}

fn print_sounds(what: &str, (told, simulated): (&mut [Duration], &mut [Duration])) {
    let (median, most) = figures(told);
    let (median_simulated, most_simulated) = figures(simulated);
    println!(
        "{what}: from the first phrase to the first sound {median:.1} ms (median), {most:.1} ms \
         (99th of 100); the simulator by itself {median_simulated:.1} and {most_simulated:.1} ms, what the \
         server adds {:.1} and {:.1} ms",
        median - median_simulated,
        most - most_simulated,
    );
}

async fn first_sound(simulator: &Simulator, address: SocketAddr) {
    for (rounds, voices) in [(ROUNDS, 1), (ROUNDS_AT_ONCE, VOICES)] {
        let (mut told, mut simulated) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            told.extend(first_sounds(simulator, address, (round, voices)).await);
            simulated.extend(simulated_sounds(simulator, voices).await);
        }
        let what = format!("{voices} first phrases in one moment");
        print_sounds(&what, (&mut told, &mut simulated));
    }
}

/// From the first phrase to the first sound, for replies whose phrases come one
/// behind the other while all the others are under way.
async fn staggered_sounds(simulator: &Simulator, address: SocketAddr) -> Vec<Duration> {
    let mut sockets = join_all((0..VOICES).map(|_| connected(address))).await;
    let mut gates = Vec::new();
    for (number, socket) in sockets.iter_mut().enumerate() {
        // In this order, so that each has the gate that is meant for it.
        let gate = simulator.gate();
        simulator.script(under_way().hold_at(0, &gate));
        ask(socket, &format!("staggered-{number}")).await;
        gate.reached(1, DEADLINE).await.unwrap();
        gates.push(gate);
    }
    let voices = sockets.iter_mut().zip(gates).enumerate();
    join_all(voices.map(async |(number, (socket, gate))| {
        tokio::time::sleep(STAGGER * u32::try_from(number).unwrap()).await;
        let start = Instant::now();
        gate.open();
        until(socket, "audio").await;
        let told = start.elapsed();
        until(socket, "audio_complete").await;
        told
    }))
    .await
}

/// The same asked of the simulator alone.
async fn staggered_simulated(simulator: &Simulator) -> Vec<Duration> {
    let http = reqwest::Client::new();
    let mut replies = Vec::new();
    for _ in 0..VOICES {
        let gate = simulator.gate();
        simulator.script(under_way().hold_at(0, &gate));
        replies.push((chat(&http, simulator).await, gate.clone()));
        gate.reached(1, DEADLINE).await.unwrap();
    }
    let voices = replies.into_iter().enumerate();
    join_all(voices.map(async |(number, (mut reply, gate))| {
        tokio::time::sleep(STAGGER * u32::try_from(number).unwrap()).await;
        let start = Instant::now();
        gate.open();
        until_we(&mut reply).await;
        let mut speech = speech(&http, simulator).await;
        speech.chunk().await.unwrap();
        let told = start.elapsed();
        while speech.chunk().await.unwrap().is_some() {}
        while reply.chunk().await.unwrap().is_some() {}
        told
    }))
    .await
}

/// A reply that goes on for some seconds behind its first phrase.
fn under_way() -> Script {
    let more = "We walked along the water and said nothing. ".repeat(4);
    Script::new().text(&format!("{PHRASE} {more}"))
}

async fn staggered(simulator: &Simulator, address: SocketAddr) {
    simulator.elevenlabs().set_default("gap=5,batch=20");
    let (mut told, mut simulated) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS_AT_ONCE {
        told.extend(staggered_sounds(simulator, address).await);
        simulated.extend(staggered_simulated(simulator).await);
    }
    simulator.elevenlabs().set_default(Script::new());
    print_sounds(
        &format!("{VOICES} voices under way, a first phrase each {STAGGER:?}"),
        (&mut told, &mut simulated),
    );
}

/// What the two ways to speech take on warm connections: a request, and a flush of a context that is
/// open on a socket. The simulator's voice takes no time: it is the way alone.
async fn ways(simulator: &Simulator) {
    let http = reqwest::Client::new();
    let url = simulator.elevenlabs_url().replace("http:", "ws:");
    let url = format!("{url}/text-to-speech/v/multi-stream-input?output_format=mp3_44100_128");
    // Small messages each way: they must not wait for one another.
    let (mut socket, _) = connect_async_with_config(url, None, true).await.unwrap();
    let (mut requests, mut flushes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let start = Instant::now();
        let mut speech = speech(&http, simulator).await;
        speech.chunk().await.unwrap();
        requests.push(start.elapsed());
        while speech.chunk().await.unwrap().is_some() {}

        let context = format!("c{round}");
        send(&mut socket, json!({"text": " ", "context_id": context})).await;
        let start = Instant::now();
        let text = format!("{PHRASE} ");
        let flush = json!({"text": text, "context_id": context, "flush": true});
        send(&mut socket, flush).await;
        sound_of(&mut socket).await;
        flushes.push(start.elapsed());
        let close = json!({"context_id": context, "close_context": true});
        send(&mut socket, close).await;
        while !sound_of(&mut socket).await {}
    }
    let ((request, request_most), (flush, flush_most)) =
        (figures(&mut requests), figures(&mut flushes));
    println!(
        "the way to speech and back, without the server: a request {request:.2} ms (median), \
         {request_most:.2} ms (99th of 100); a flush of an open socket {flush:.2} and {flush_most:.2} ms"
    );
}

/// Reads a message of the speech socket; true if it is a context's last.
async fn sound_of(socket: &mut Socket) -> bool {
    let read = async {
        loop {
            let frame = socket.next().await.unwrap().unwrap();
            let Message::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            assert!(message.get("error").is_none(), "{message}");
            return message["isFinal"] == true || message["is_final"] == true;
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap()
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
    ways(&simulator).await;
    first_sound(&simulator, address).await;
    staggered(&simulator, address).await;
    barge_in(&simulator, address).await;
    memory(&simulator).await;
}

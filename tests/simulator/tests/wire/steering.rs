//! How a behaviour is chosen, from inside and from another process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use idol_simulator::{ErrorCase, Fault, ModelCard, Options, Route, Script, Simulator, reply_text};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::{DEADLINE, body, connect, exchange, send, stream};

#[tokio::test]
async fn queue_before_model_before_default() {
    let simulator = Simulator::start().unwrap();
    simulator.set_default("tokens=1,seed=1");
    simulator.script("tokens=1,seed=2");
    simulator.script("tokens=1,seed=3");
    assert_eq!(simulator.scripts_left(), 2);
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(stream(&simulator, "sim/tokens=1,seed=4").await.text());
    }
    texts.push(stream(&simulator, "example/model-1").await.text());
    assert_eq!(texts, [2, 3, 4, 1].map(|seed| reply_text(seed, 1)));
    assert_eq!(simulator.scripts_left(), 0);
}

#[tokio::test]
async fn failing_so_many_times_and_then_succeeding() {
    let simulator = Simulator::start().unwrap();
    let mut statuses = Vec::new();
    simulator.script(Script::fail_times(
        2,
        Fault::Answer(ErrorCase::of_status(503)),
    ));
    for _ in 0..4 {
        statuses.push(
            stream(&simulator, "sim/fault=status:429,fail=1,key=a")
                .await
                .status(),
        );
    }
    statuses.push(
        stream(&simulator, "sim/fault=status:429,fail=1,key=a")
            .await
            .status(),
    );
    assert_eq!(statuses, [503, 503, 200, 429, 200]);

    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(
            stream(&simulator, "sim/fault=status:500,nth=3")
                .await
                .status(),
        );
    }
    assert_eq!(statuses, [200, 200, 500, 200, 200, 500]);
}

#[tokio::test]
async fn models_have_context_lengths_and_can_fail() {
    let simulator = Simulator::start().unwrap();
    simulator.add_model(ModelCard::new("test/small", 1));
    simulator.add_model(ModelCard::new("test/small", 4096));
    simulator.script_on(Route::Models, "fault=status:503");
    assert_eq!(
        exchange(&simulator, "/api/v1/models", "").await.status(),
        503
    );
    let models = exchange(&simulator, "/api/v1/models", "").await.json();
    let lengths: Vec<(&str, Option<u64>)> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            (
                model["id"].as_str().unwrap(),
                model["context_length"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        lengths,
        [
            ("example/model-1", Some(131_072)),
            ("example/odd:free", None),
            ("test/small", Some(4096))
        ]
    );
    let key = exchange(&simulator, "/api/v1/key", "").await.json();
    assert!(key["data"]["usage"].is_number());
}

#[tokio::test]
async fn another_process_steers_over_http() {
    let simulator = Simulator::start().unwrap();
    assert_eq!(
        exchange(&simulator, "/_sim/default", "tokens=2,seed=8")
            .await
            .status(),
        200
    );
    assert_eq!(
        exchange(&simulator, "/_sim/script", "tokens=3,seed=9")
            .await
            .status(),
        200
    );
    let mistaken = exchange(&simulator, "/_sim/default", "explode").await;
    assert_eq!(mistaken.status(), 400);
    assert!(
        mistaken.json()["error"]
            .as_str()
            .unwrap()
            .contains("explode")
    );
    assert_eq!(stream(&simulator, "m").await.text(), reply_text(9, 3));
    assert_eq!(stream(&simulator, "m").await.text(), reply_text(8, 2));

    let counters = exchange(&simulator, "/_sim/counters", "").await.json();
    assert_eq!(
        (
            counters["requests"].as_u64(),
            counters["streams_completed"].as_u64()
        ),
        (Some(2), Some(2))
    );
    let requests = exchange(&simulator, "/_sim/requests", "").await.json();
    assert_eq!(requests.as_array().unwrap().len(), 2);
    assert!(requests[0]["body"].as_str().unwrap().contains("messages"));
    for nothing in [
        "/_sim/nothing",
        "/_sim/script/nothing",
        "/_sim/nothing/speech",
    ] {
        assert_eq!(exchange(&simulator, nothing, "x").await.status(), 404);
    }
}

#[tokio::test]
async fn another_process_steers_every_route() {
    let simulator = Simulator::start().unwrap();
    for (path, body) in [
        ("elevenlabs/key", "k"),
        ("elevenlabs/limit", "3"),
        ("whisper/key", "k"),
        ("script/speech_models", "fault=status:503"),
        ("default/speech_models", "fault=status:500"),
    ] {
        let told = exchange(&simulator, &format!("/_sim/{path}"), body).await;
        assert_eq!(told.status(), 200, "{path}");
    }
    let limit = exchange(&simulator, "/_sim/elevenlabs/limit", "x").await;
    assert_eq!(limit.status(), 400);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let answer = exchange(&simulator, "/elevenlabs/v1/models", "").await;
        statuses.push(answer.status());
    }
    assert_eq!(statuses, [503, 500]);
}

#[tokio::test]
async fn the_binary_listens_and_ends_when_told() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_idol-simulator"))
        .args(["--quiet", "--default", "tokens=2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let base = line.trim().strip_prefix("listening on ").unwrap();
    assert!(base.ends_with("/api/v1"));
    let answer = reqwest::get(format!("{base}/models")).await.unwrap();
    assert!(answer.json::<Value>().await.unwrap()["data"].is_array());
    assert!(
        Command::new("kill")
            .arg(process.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_simulator_can_be_dropped_anywhere_and_its_port_taken_again() {
    let simulator = Simulator::start().unwrap();
    let port = simulator.address().port();
    drop(simulator);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            let simulator = Simulator::start_with(Options {
                port,
                ..Options::default()
            })
            .unwrap();
            let idle = connect(simulator.address()).await;
            assert_eq!(stream(&simulator, "m").await.status(), 200);
            drop(simulator);
            drop(idle);
            let refused = TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_end_a_wait() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    simulator.script(Script::new().hold_at(1, &gate));
    let asked = tokio::spawn(exchange_owned(simulator.address()));
    gate.reached(1, DEADLINE).await.unwrap();
    gate.open();
    let ended = simulator.wait_for("end", |counters| counters.streams_completed == 1, DEADLINE);
    ended.await.unwrap();
    asked.abort();
}

async fn exchange_owned(address: std::net::SocketAddr) {
    let mut socket = connect(address).await;
    send(
        &mut socket,
        "/v1/chat/completions",
        &body("m", true).to_string(),
    )
    .await;
    std::future::pending::<()>().await;
}

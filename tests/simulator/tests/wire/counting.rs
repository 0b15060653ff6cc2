//! Counters and recorded requests.

use idol_simulator::{Script, Simulator};
use serde_json::{Value, json};

use crate::client::{DEADLINE, body, complete, connect, exchange, read_until, send, stream};

const CHAT: &str = "/api/v1/chat/completions";

#[tokio::test]
async fn replies_and_connections_are_counted() {
    let simulator = Simulator::start().unwrap();
    stream(&simulator, "sim/tokens=2").await;
    stream(&simulator, "sim/tokens=2,fault=end,after=1").await;
    complete(&simulator, "sim/tokens=2").await;
    exchange(&simulator, "/api/v1/models", "").await;
    let idle = simulator.wait_for("idle", |counters| counters.open_connections == 0, DEADLINE);
    let counters = idle.await.unwrap();
    assert_eq!((counters.requests, counters.chat_requests), (4, 3));
    assert_eq!(counters.accepted_connections, 4);
    assert_eq!(counters.streams_completed, 1);
    assert_eq!(counters.faults_played, 1);
    assert_eq!((counters.active_requests, counters.active_streams), (0, 0));
    assert_eq!(counters.client_disconnects, 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_once_wherever_the_reply_was() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    let scripts = [
        Script::new().hold_headers(&gate),
        Script::from("tokens=9").hold_at(4, &gate),
        Script::from("first=60s"),
        Script::from("tokens=9,gap=60s"),
        Script::from("headers=60s"),
        Script::from("tokens=4096,size=65536"),
    ];
    for (index, script) in scripts.into_iter().enumerate() {
        simulator.script(script);
        let mut socket = connect(simulator.address()).await;
        send(&mut socket, CHAT, &body("m", true).to_string()).await;
        let wanted = index as u64 + 1;
        let begun = simulator.wait_for(
            "stream",
            |counters| counters.chat_requests == wanted,
            DEADLINE,
        );
        begun.await.unwrap();
        drop(socket);
        let left = simulator.wait_for(
            "disconnect",
            |counters| counters.client_disconnects == wanted && counters.open_connections == 0,
            DEADLINE,
        );
        let counters = left.await.unwrap();
        assert_eq!(
            (counters.active_streams, counters.streams_completed),
            (0, 0)
        );
    }
}

#[tokio::test]
async fn an_idle_client_that_closes_is_no_disconnect() {
    let simulator = Simulator::start().unwrap();
    let mut socket = connect(simulator.address()).await;
    send(&mut socket, CHAT, &body("sim/tokens=2", true).to_string()).await;
    read_until(&mut socket, "0\r\n\r\n").await;
    drop(socket);
    let left = simulator.wait_for("close", |counters| counters.open_connections == 0, DEADLINE);
    assert_eq!(left.await.unwrap().client_disconnects, 0);
}

#[tokio::test]
async fn requests_are_kept_for_assertions() {
    let simulator = Simulator::start().unwrap();
    let client = reqwest::Client::new();
    let url = format!("{}/chat/completions?x=1", simulator.base_url());
    let sent = body("sim/tokens=1", true);
    let answer = client
        .post(url)
        .bearer_auth("k")
        .json(&sent)
        .send()
        .await
        .unwrap();
    answer.bytes().await.unwrap();
    exchange(&simulator, "/api/v1/key", "").await;

    let requests = simulator.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path()),
        ("POST", CHAT)
    );
    assert_eq!(requests[0].target, "/api/v1/chat/completions?x=1");
    assert_eq!(requests[0].header("authorization"), Some("Bearer k"));
    assert_eq!(requests[0].json().unwrap(), sent);
    assert_eq!(simulator.chat_requests().len(), 1);
    assert_eq!(simulator.take_requests().len(), 2);
    assert!(simulator.requests().is_empty());
}

#[tokio::test]
async fn chunked_and_large_request_bodies_are_read() {
    let simulator = Simulator::start().unwrap();
    let url = format!("{}/chat/completions", simulator.base_url());
    let text = "ü".repeat(2_000_000);
    let request = json!({"model": "sim/echo", "messages": [{"role": "user", "content": text}]});
    let bytes = request.to_string().into_bytes();
    let client = reqwest::Client::new();
    let whole = client.post(&url).body(bytes.clone()).send().await.unwrap();
    let whole: Value = whole.json().await.unwrap();
    assert!(whole["choices"][0]["message"]["content"] == text.as_str());

    let mut socket = connect(simulator.address()).await;
    let (first, rest) = bytes.split_at(1_000_001);
    let mut request =
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in [first, rest, b""] {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    tokio::io::AsyncWriteExt::write_all(&mut socket, &request)
        .await
        .unwrap();
    read_until(&mut socket, "200 OK").await;
    assert!(simulator.requests()[1].body == bytes);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let simulator = Simulator::start().unwrap();
    for (request, status) in [
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
            "413",
        ),
        (
            format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(70_000)),
            "431",
        ),
    ] {
        let mut socket = connect(simulator.address()).await;
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
            .await
            .unwrap();
        read_until(&mut socket, &format!("HTTP/1.1 {status}")).await;
    }
    assert_eq!(simulator.counters().requests, 0);
}

//! Clients that leave in the midst of a turn: it goes on, and its reply is saved whole.

use idol_simulator::{Gate, Script, reply_text};
use serde_json::json;

use crate::helpers::{DEADLINE, TestApp, say, until, within};

fn held(gate: &Gate) -> Script {
    Script::from("tokens=9,seed=4").hold_at(3, gate)
}

/// Opens the gate that holds the reply, and waits until the reply is saved whole.
async fn expect_saved_whole(app: &TestApp, gate: &Gate) {
    gate.open();
    let reply = until("the reply in the document", async || {
        // The client may have left before its message was in the log.
        let response = app.get("/conversation/c1").await;
        let document: serde_json::Value = response.json().await.unwrap();
        document["messages"].get(1).cloned()
    });
    let reply = reply.await;
    assert_eq!(reply["content"], reply_text(4, 9));
    assert_eq!(reply["finish_reason"], "stop");
    app.assert_nothing_left().await;
    assert_eq!(app.simulator.counters().client_disconnects, 0);
    let next = app.chat("c1", "are you there?").await;
    assert_eq!(next["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_saved_whole() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(held(&gate));
    let mut events = app.stream(say("c1", "hello")).await;
    until("text", async || {
        let event = events.next().await.unwrap();
        event["choices"][0]["delta"]["content"].as_str().map(drop)
    })
    .await;

    drop(events);

    expect_saved_whole(&app, &gate).await;
}

#[tokio::test]
async fn a_chat_whose_client_leaves_amid_the_reply_is_saved_whole() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(held(&gate));
    let request = app.http.post(app.url("/chat")).json(&say("c1", "hello"));
    let request = tokio::spawn(request.send());
    gate.reached(1, DEADLINE).await.unwrap();

    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());

    expect_saved_whole(&app, &gate).await;
}

#[tokio::test]
async fn a_chat_whose_client_leaves_before_the_upstream_answers_is_saved_whole() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9,seed=4").hold_headers(&gate));
    let request = app.http.post(app.url("/chat")).json(&say("c1", "hello"));
    let request = tokio::spawn(request.send());
    gate.reached(1, DEADLINE).await.unwrap();

    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());

    expect_saved_whole(&app, &gate).await;
}

#[tokio::test]
async fn a_turn_whose_socket_is_cut_is_saved_whole() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(held(&gate));
    let mut socket = app.socket().await;
    let message = json!({"type": "message", "conversation_id": "c1", "message": "hello"});
    socket.send(message).await;
    socket.until("chunk").await;

    drop(socket);
    until("the end of the socket", async || {
        app.sockets.is_empty().then_some(())
    })
    .await;

    expect_saved_whole(&app, &gate).await;
}

#[tokio::test]
async fn a_turn_waiting_behind_a_client_that_left_is_answered() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(held(&gate));
    app.simulator.script("tokens=2,seed=5");
    let first = app.stream(say("c1", "first")).await;
    let second = app.stream(say("c1", "second")).await;

    drop(first);
    gate.open();

    let events = within("the second reply", second.all()).await;
    assert_eq!(events.last().unwrap()["type"], "done");
    let texts: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(
        texts,
        ["first", &reply_text(4, 9), "second", &reply_text(5, 2)]
    );
}

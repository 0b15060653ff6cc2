//! `ABANDON_AFTER_SECS`: replies that nobody listens to.
//!
//! The clients that leave are sockets where nothing is on its way: that a plain request was left is
//! seen when something is written to it.

use idol_simulator::{Gate, Script};
use serde_json::{Value, json};

use crate::helpers::{DEADLINE, Setup, Socket, TestApp, say, text_of, until};

async fn impatient() -> TestApp {
    Setup::new().set("ABANDON_AFTER_SECS", "1").start().await
}

/// A reply that stands still after its first word.
fn hold(app: &TestApp) -> Gate {
    let gate = app.simulator.gate();
    let script = Script::new().text("one two three").hold_at(1, &gate);
    app.simulator.script(script);
    gate
}

fn start(conversation: &str) -> Value {
    json!({"type": "start_conversation", "conversation_id": conversation, "character_id": "nova"})
}

/// A socket that has said something.
async fn saying(app: &TestApp, conversation: &str, text: &str) -> Socket {
    let mut socket = app.socket().await;
    let mut start = start(conversation);
    start["message"] = text.into();
    start["client_message_id"] = "a-message-of-a-patient-client".into();
    socket.send(start).await;
    socket.until("message_received").await;
    socket
}

/// Waits until no upstream call is under way.
async fn closed(app: &TestApp) {
    let closed = app.simulator.wait_for(
        "the end of the upstream call",
        |counters| counters.active_requests == 0,
        DEADLINE,
    );
    closed.await.unwrap();
}

/// Waits until so many replies were given up, and their ends are in the log.
async fn given_up(app: &TestApp, replies: usize) {
    let line = format!("turns_total{{end=\"abandoned\"}} {replies}\n");
    until("a reply to be given up", async || {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reply_that_nobody_listens_to_is_given_up_and_what_there_is_of_it_stays() {
    let app = impatient().await;
    app.simulator.script("tokens=3000,gap=20ms");
    let mut events = app.stream(say("c1", "Tell me a story")).await;
    let mut seen = Vec::new();
    while text_of(&seen).is_empty() {
        seen.push(events.next().await.unwrap());
    }

    drop(events);

    closed(&app).await;
    given_up(&app, 1).await;
    let reply = app.document("c1").await["messages"][1].clone();
    assert_eq!(reply["finish_reason"], "abandoned");
    let kept = reply["content"].as_str().unwrap();
    assert!(kept.starts_with(&text_of(&seen)));
    app.chat("c1", "Go on").await;
}

#[tokio::test]
async fn a_watcher_or_a_client_that_waits_keeps_a_reply_alive() {
    let app = impatient().await;
    let gate = hold(&app);
    let mut watcher = app.socket().await;
    let mut watch = start("c1");
    watch["watch"] = true.into();
    watcher.send(watch).await;
    watcher.until("conversation_started").await;
    let asked = saying(&app, "c1", "Tell me a story").await;
    gate.reached(1, DEADLINE).await.unwrap();
    drop(asked);
    // Another reply, of which the end alone is awaited.
    let second = hold(&app);
    let request = app.http.post(app.url("/chat")).json(&say("c2", "hi"));
    let answer = tokio::spawn(request.send());
    second.reached(1, DEADLINE).await.unwrap();
    // A third one has nobody: that it is given up shows that the time of the others has passed, too.
    let third = hold(&app);
    let asked = saying(&app, "c3", "hi").await;
    third.reached(1, DEADLINE).await.unwrap();
    drop(asked);
    given_up(&app, 1).await;

    gate.open();
    second.open();

    let end = watcher.until("response_complete").await.pop().unwrap();
    assert_eq!(end["finish_reason"], "stop");
    let answer: Value = answer.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_turn_that_waits_runs_although_its_client_is_gone() {
    let app = Setup::new().set("ABANDON_AFTER_SECS", "60").start().await;
    let gate = hold(&app);
    let mut first = saying(&app, "c1", "first").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut second = app.socket().await;
    second
        .send(json!({"type": "message", "conversation_id": "c1", "message": "second"}))
        .await;
    second.until("message_received").await;
    drop(second);
    until("the second socket's end", async || {
        (app.sockets.len() == 1).then_some(())
    })
    .await;

    gate.open();

    let end = first.until("response_complete").await.pop().unwrap();
    assert_eq!(end["finish_reason"], "stop");
    let reply = until("the second reply", async || {
        app.document("c1").await["messages"].get(3).cloned()
    })
    .await;
    assert_eq!(reply["finish_reason"], "stop");
}

#[tokio::test]
async fn one_that_was_given_up_before_a_word_runs_again_when_its_client_asks_again() {
    let app = impatient().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    let socket = saying(&app, "c1", "hi").await;
    gate.reached(1, DEADLINE).await.unwrap();
    drop(socket);
    closed(&app).await;
    given_up(&app, 1).await;

    let mut again = saying(&app, "c1", "hi").await;

    let end = again.until("response_complete").await.pop().unwrap();
    assert_eq!(end["finish_reason"], "stop");
    assert_eq!(app.said("c1").await.len(), 2);
    assert_eq!(app.simulator.chat_requests().len(), 2);
}

//! `cancel` on a socket.

use idol_actors::limits::OWN_TURNS_MAX;
use idol_simulator::{Gate, Script, Simulator};
use serde_json::{Value, json};

use super::{assert_silent, begun, content_of, course, message, watching};
use crate::{
    helpers::{DEADLINE, Setup, Socket, TestApp, prompt, say, until},
    resilience::Commits,
};

fn cancel(conversation: &str) -> Value {
    json!({"type": "cancel", "conversation_id": conversation})
}

/// A reply that stands still after its first word.
fn hold(app: &TestApp) -> Gate {
    let gate = app.simulator.gate();
    let script = Script::new().text("one two three").hold_at(1, &gate);
    app.simulator.script(script);
    gate
}

/// Waits until no upstream call is under way.
async fn closed(simulator: &Simulator) {
    let closed = simulator.wait_for(
        "the end of the upstream call",
        |counters| counters.active_requests == 0,
        DEADLINE,
    );
    closed.await.unwrap();
}

/// Says something, and hears the reply begin.
async fn heard(socket: &mut Socket, text: &str) -> Vec<Value> {
    socket.send(message("c1", text)).await;
    socket.until("chunk").await
}

#[tokio::test]
async fn a_stop_closes_the_call_keeps_the_text_and_is_told_to_every_device() {
    let app = TestApp::start().await;
    let gate = hold(&app);
    let mut phone = begun(&app, "c1").await;
    let mut laptop = watching(&app, "c1").await;
    let mut seen = heard(&mut phone, "Tell me a story").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut watched = laptop.until("chunk").await;

    laptop.send(cancel("c1")).await;

    seen.extend(phone.until("response_complete").await);
    watched.extend(laptop.until("response_complete").await);
    closed(&app.simulator).await;
    let document = app.document("c1").await;
    let reply = &document["messages"][1];
    assert_eq!(reply["finish_reason"], "cancelled");
    for told in [&seen, &watched] {
        let last = told.last().unwrap();
        assert_eq!(last["finish_reason"], "cancelled");
        assert_eq!(last["turn_id"], reply["turn_id"]);
        assert_eq!(last["message_id"], reply["id"]);
        assert_eq!(content_of(told), reply["content"].as_str().unwrap());
    }
    // The companion knows what it had said.
    phone.send(message("c1", "Go on")).await;
    phone.until("response_complete").await;
    let asked = prompt(app.simulator.chat_requests().last().unwrap());
    assert_eq!(asked[1]["role"], "assistant");
    assert_eq!(asked[1]["content"], reply["content"]);
    assert_eq!(asked[2]["content"], "Go on");
}

#[tokio::test]
async fn without_a_turn_the_running_and_the_waiting_are_stopped_and_with_one_it_alone() {
    let app = TestApp::start().await;
    let gate = hold(&app);
    let mut socket = begun(&app, "c1").await;
    let first = heard(&mut socket, "first").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut others = Vec::new();
    for text in ["second", "third"] {
        let mut other = begun(&app, "c1").await;
        other.send(message("c1", text)).await;
        let received = other.next().await;
        assert_eq!(received["type"], "message_received");
        others.push((other, received["turn_id"].clone()));
    }

    // One that waits, by its id; it is over before the one that runs.
    let (second, turn) = &mut others[0];
    socket
        .send(json!({"type": "cancel", "turn_id": turn}))
        .await;
    let ended = second.next().await;
    assert_eq!(ended["type"], "response_complete");
    assert_eq!(
        (&ended["finish_reason"], &ended["turn_id"]),
        (&json!("cancelled"), &*turn)
    );
    assert_silent(&mut socket).await;
    // Then all that is left.
    socket.send(cancel("c1")).await;
    let end = socket.until("response_complete").await.pop().unwrap();
    assert_eq!(end["finish_reason"], "cancelled");
    assert_eq!(end["turn_id"], first[0]["turn_id"]);
    let third = others[1].0.until("response_complete").await;
    assert_eq!(course(&third), ["response_complete"]);
    assert_eq!(third[0]["finish_reason"], "cancelled");

    // They are over: nothing is left to be stopped, and nothing is said about it.
    socket.send(cancel("c1")).await;
    socket
        .send(json!({"type": "cancel", "turn_id": first[0]["turn_id"]}))
        .await;
    assert_silent(&mut socket).await;
    assert_eq!(app.simulator.chat_requests().len(), 1);
    app.chat("c1", "fourth").await;
}

#[tokio::test]
async fn what_cannot_be_stopped_is_an_error_and_the_socket_goes_on() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    socket.send(json!({"type": "cancel"})).await;
    let error = socket.next().await;
    assert_eq!(
        error["error"],
        "conversation_id is required. Send start_conversation first."
    );
    socket.send(cancel("nobody")).await;
    let error = socket.next().await;
    assert_eq!(
        (&error["code"], &error["conversation_id"]),
        (&json!("conversation_not_found"), &json!("nobody"))
    );
    socket
        .send(json!({"type": "cancel", "conversation_id": "c1", "turn_id": "x"}))
        .await;
    assert_eq!(socket.next().await["code"], "invalid_request");
    socket.send(cancel("no id")).await;
    assert_eq!(socket.next().await["code"], "invalid_id");
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn a_stop_right_behind_a_message_closes_its_call_before_the_log_has_the_message() {
    let commits = Commits::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.log.before_commit = Some(commits.failpoint()))
        .start()
        .await;
    let mut socket = begun(&app, "c1").await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    commits.hold();
    socket.send(message("c1", "Tell me a story")).await;
    until("the upstream call", async || {
        (app.simulator.counters().active_requests == 1).then_some(())
    })
    .await;

    socket.send(json!({"type": "cancel"})).await;

    closed(&app.simulator).await;
    assert_silent(&mut socket).await;
    commits.release();
    let told = socket.until("response_complete").await;
    assert_eq!(told[0]["type"], "message_received");
    assert_eq!(told.last().unwrap()["finish_reason"], "cancelled");
    let document = app.document("c1").await;
    assert_eq!(document["messages"].as_array().unwrap().len(), 1);
    socket.send(message("c1", "And now?")).await;
    let end = socket.until("response_complete").await.pop().unwrap();
    assert_eq!(end["finish_reason"], "stop");
}

#[tokio::test]
async fn a_closed_socket_is_not_a_stop() {
    let app = TestApp::start().await;
    let gate = hold(&app);
    let mut socket = begun(&app, "c1").await;
    heard(&mut socket, "Tell me a story").await;
    gate.reached(1, DEADLINE).await.unwrap();
    drop(socket);
    until("the end of the socket", async || {
        app.sockets.is_empty().then_some(())
    })
    .await;

    gate.open();

    let reply = until("the reply", async || {
        app.document("c1").await["messages"].get(1).cloned()
    })
    .await;
    assert_eq!(reply["finish_reason"], "stop");
    assert_eq!(reply["content"], "one two three");
    // Somebody who only looks at the conversation hears nothing of what is over.
    let mut other = begun(&app, "c1").await;
    assert_silent(&mut other).await;
    assert_eq!(app.post("/chat", say("c1", "Go on")).await.status(), 200);
}

#[tokio::test]
async fn a_socket_with_as_many_turns_as_it_may_have_can_still_stop_one() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let mut socket = app.socket().await;
    for number in 0..OWN_TURNS_MAX {
        app.simulator.script(Script::new().hold_headers(&gate));
        socket.send(message(&format!("c{number}"), "hi")).await;
    }
    gate.reached(OWN_TURNS_MAX as u64, DEADLINE).await.unwrap();

    socket.send(cancel("c0")).await;

    let end = socket.until("response_complete").await.pop().unwrap();
    assert_eq!(
        (&end["finish_reason"], &end["conversation_id"]),
        (&json!("cancelled"), &json!("c0"))
    );
}

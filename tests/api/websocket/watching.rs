//! `watch`: all events of a conversation, other devices' included.

use idol_simulator::Script;
use serde_json::Value;

use super::{TURN, assert_silent, begun, content_of, course, message, start, watching, with};
use crate::helpers::{DEADLINE, TestApp, within};

/// What a watcher sees of somebody else's turn.
const SEEN: [&str; 4] = [
    "user_message",
    "response_start",
    "chunk",
    "response_complete",
];

fn without_chunks(messages: &[Value]) -> Vec<&Value> {
    messages.iter().filter(|it| it["type"] != "chunk").collect()
}

#[tokio::test]
async fn two_devices_see_the_same_turns_in_the_same_order() {
    let app = TestApp::start().await;
    let (mut phone, mut laptop) = (watching(&app, "c1").await, watching(&app, "c1").await);

    phone
        .send(with(
            message("c1", "from the phone"),
            "client_message_id",
            "m-1",
        ))
        .await;
    let own = phone.until("response_complete").await;
    let seen = laptop.until("response_complete").await;
    laptop.send(message("c1", "from the laptop")).await;
    let answer = laptop.until("response_complete").await;
    let seen_back = phone.until("response_complete").await;

    assert_eq!(course(&own), TURN);
    assert_eq!(course(&seen), SEEN);
    assert_eq!(course(&answer), TURN);
    assert_eq!(course(&seen_back), SEEN);
    for (said, heard) in [(&own, &seen), (&answer, &seen_back)] {
        assert_eq!(without_chunks(&said[1..]), without_chunks(&heard[1..]));
        assert_eq!(content_of(said), content_of(heard));
        assert_eq!(said[0]["message_id"], heard[0]["message_id"]);
        assert_eq!(said[0]["turn_id"], heard[0]["turn_id"]);
    }
    let document = app.document("c1").await;
    assert_eq!(seen[0]["content"], "from the phone");
    assert_eq!(seen[0]["timestamp"], document["messages"][0]["timestamp"]);
}

#[tokio::test]
async fn a_turn_begun_over_http_is_seen_by_watchers_alone() {
    let app = TestApp::start().await;
    let mut watcher = watching(&app, "c1").await;
    let mut other = begun(&app, "c1").await;

    let answer = app.chat("c1", "from a script").await;
    let seen = watcher.until("response_complete").await;

    assert_eq!(course(&seen), SEEN);
    assert_eq!(seen[0]["content"], "from a script");
    assert_eq!(seen[0]["turn_id"], answer["turn_id"]);
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        content_of(&seen)
    );
    assert_silent(&mut other).await;
    other.send(message("c1", "mine")).await;
    assert_eq!(course(&other.until("response_complete").await), TURN);
}

#[tokio::test]
async fn a_watcher_that_comes_late_sees_the_turn_under_way_from_its_beginning() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut speaker = begun(&app, "c1").await;
    speaker.send(message("c1", "hi")).await;
    speaker.until("chunk").await;

    let mut watcher = watching(&app, "c1").await;
    let mut seen = watcher.until("chunk").await;
    gate.open();
    seen.extend(watcher.until("response_complete").await);

    assert_eq!(course(&seen), SEEN);
    assert_eq!(content_of(&seen), "one two");
}

#[tokio::test]
async fn watching_from_the_middle_of_an_own_turn_tells_nothing_twice() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    let mut own = socket.until("chunk").await;

    socket.send(with(start("c1"), "watch", true)).await;
    assert_eq!(socket.next().await["type"], "conversation_started");
    gate.open();
    own.extend(socket.until("response_complete").await);
    let answer = app.chat("c1", "from a script").await;
    let seen = socket.until("response_complete").await;

    assert_eq!(course(&own), TURN);
    assert_eq!(content_of(&own), "one two");
    assert_eq!(course(&seen), SEEN);
    assert_eq!(seen[0]["turn_id"], answer["turn_id"]);
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn leaving_ends_the_watch() {
    let app = TestApp::start().await;
    let mut socket = watching(&app, "c1").await;

    socket
        .send(serde_json::json!({"type": "leave", "conversation_id": "c1"}))
        .await;
    assert_silent(&mut socket).await;
    app.chat("c1", "from a script").await;

    assert_silent(&mut socket).await;
    socket.send(message("c1", "mine")).await;
    assert_eq!(course(&socket.until("response_complete").await), TURN);
}

#[tokio::test]
async fn leaving_does_not_cut_an_own_turn_nor_hold_up_the_next() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = watching(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    let mut first = socket.until("chunk").await;

    socket
        .send(serde_json::json!({"type": "leave", "conversation_id": "c1"}))
        .await;
    socket.send(message("c2", "elsewhere")).await;
    assert_silent(&mut socket).await;
    gate.open();
    first.extend(socket.until("response_complete").await);
    let second = socket.until("response_complete").await;

    assert_eq!(course(&first), TURN);
    assert_eq!(content_of(&first), "one two");
    assert_eq!(course(&second), TURN);
    app.chat("c1", "from a script").await;
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn watching_twice_tells_nothing_twice() {
    let app = TestApp::start().await;
    let mut socket = watching(&app, "c1").await;
    socket.send(with(start("c1"), "watch", true)).await;
    assert_eq!(socket.next().await["type"], "conversation_started");

    app.chat("c1", "from a script").await;
    let seen = socket.until("response_complete").await;

    assert_eq!(course(&seen), SEEN);
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn a_watcher_of_too_many_conversations_is_told_so() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    let mut refused = None;
    for number in 0..100 {
        let id = format!("c{number}");
        socket.send(with(start(&id), "watch", true)).await;
        let answer = socket.next().await;
        if answer["type"] == "error" {
            refused = Some(answer);
            break;
        }
    }

    assert_eq!(refused.unwrap()["code"], "rate_limited");
    socket
        .send(serde_json::json!({"type": "leave", "conversation_id": "c0"}))
        .await;
    socket.send(with(start("another"), "watch", true)).await;
    assert_eq!(socket.next().await["type"], "conversation_started");
}

#[tokio::test]
async fn a_watcher_that_leaves_is_forgotten_by_the_conversation() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let (watcher, mut other) = (watching(&app, "c1").await, watching(&app, "c1").await);
    other.send(message("c1", "hi")).await;
    within("the gate", gate.reached(1, DEADLINE)).await.unwrap();

    drop(watcher);
    gate.open();

    assert_eq!(course(&other.until("response_complete").await), TURN);
    drop(other);
    app.assert_nothing_left().await;
}

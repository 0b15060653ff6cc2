//! `client_message_id`: a message that comes again is answered once, and told again from its beginning.

use idol_simulator::{Script, reply_text};
use serde_json::{Value, json};

use super::{TURN, assert_silent, begun, content_of, course, message, start, watching, with};
use crate::helpers::{DEADLINE, Setup, Socket, TestApp};

/// A message with an id.
fn named(conversation: &str, text: &str, id: &str) -> Value {
    with(message(conversation, text), "client_message_id", id)
}

/// A turn told to its end; checks its course.
async fn turn(socket: &mut Socket, id: &str) -> Vec<Value> {
    let told = socket.until("response_complete").await;
    assert_eq!(course(&told), TURN, "{told:?}");
    assert_eq!(told[0]["client_message_id"], id);
    told
}

fn assert_same(one: &[Value], two: &[Value]) {
    assert_eq!(content_of(one), content_of(two));
    for (name, of) in [("turn_id", 0), ("message_id", 0), ("message_id", 1)] {
        assert_eq!(one[of][name], two[of][name], "{name}");
    }
    let ends = [one, two].map(|told| told.last().unwrap().clone());
    for name in [
        "turn_id",
        "message_id",
        "finish_reason",
        "timestamp",
        "usage",
        "model",
    ] {
        assert_eq!(ends[0][name], ends[1][name], "{name}");
    }
}

#[tokio::test]
async fn a_repeat_after_the_end_is_told_the_whole_turn_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    let mut socket = begun(&app, "c1").await;
    socket.send(named("c1", "hi", "m")).await;
    let first = turn(&mut socket, "m").await;
    app.chat("c1", "between").await;

    socket.send(named("c1", "hi", "m")).await;
    assert_same(&first, &turn(&mut socket, "m").await);
    let mut other = app.socket().await;
    other.send(named("c1", "hi", "m")).await;
    assert_same(&first, &turn(&mut other, "m").await);
    assert_silent(&mut socket).await;
    assert_eq!(app.simulator.chat_requests().len(), 2);
    drop((socket, other));
    app.stop().await;
    let app = setup().start().await;
    let mut socket = app.socket().await;
    socket.send(named("c1", "hi", "m")).await;

    assert_same(&first, &turn(&mut socket, "m").await);
    assert_eq!(app.said("c1").await.len(), 4);
    assert_eq!(app.simulator.chat_requests().len(), 0);
}

#[tokio::test]
async fn a_repeat_over_a_second_socket_attaches_to_the_turn_under_way() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let mut first = app.socket().await;
    first.send(named("c1", "hi", "m")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut told = first.until("chunk").await;

    let mut second = app.socket().await;
    second.send(named("c1", "hi", "m")).await;
    let mut again = second.until("chunk").await;
    gate.open();
    told.extend(first.until("response_complete").await);
    again.extend(second.until("response_complete").await);

    assert_eq!(course(&again), TURN);
    assert_same(&told, &again);
    assert_eq!(content_of(&again), reply_text(0, 6));
    assert_eq!(app.simulator.chat_requests().len(), 1);
    assert_eq!(app.said("c1").await.len(), 2);
}

#[tokio::test]
async fn two_sockets_at_the_same_moment_are_one_turn() {
    let app = TestApp::start().await;
    let (mut one, mut two) = (app.socket().await, app.socket().await);
    for round in 0..20 {
        let message = named(&format!("c{round}"), "hi", "m");
        futures::join!(one.send(message.clone()), two.send(message));
        let (first, second) = futures::join!(turn(&mut one, "m"), turn(&mut two, "m"));
        assert_same(&first, &second);
    }
    assert_eq!(app.simulator.chat_requests().len(), 20);
}

#[tokio::test]
async fn a_message_in_a_watched_conversation_that_failed_is_tried_again_as_its_senders() {
    let app = Setup::new().asking_once().start().await;
    let mut socket = watching(&app, "c1").await;
    for round in 0..10 {
        let id = format!("m{round}");
        app.simulator.script(Script::from("fault=status:503"));
        socket.send(named("c1", &id, &id)).await;
        socket.until("error").await;
        socket.send(named("c1", &id, &id)).await;

        // The watch may have begun to tell it before it was known whose it is.
        while socket.next().await["type"] != "message_received" {}
        let rest = socket.until("response_complete").await;

        assert_eq!(course(&rest), TURN[1..]);
        assert_silent(&mut socket).await;
    }
    assert_eq!(app.said("c1").await.len(), 20);
}

#[tokio::test]
async fn a_message_sent_twice_at_once_is_told_twice_in_turn() {
    let app = TestApp::start().await;
    for watched in [false, true] {
        let id = format!("c-{watched}");
        let mut socket = match watched {
            false => begun(&app, &id).await,
            true => watching(&app, &id).await,
        };
        for text in ["hi", "hi", "ho"] {
            socket.send(named(&id, text, text)).await;
        }

        let first = turn(&mut socket, "hi").await;
        let mut rest = socket.until("response_complete").await;
        rest.extend(socket.until("response_complete").await);
        // What a watch tells comes when it happens, the repeat when it is its turn.
        let again = |told: &Value| told["turn_id"] == first[0]["turn_id"];
        let (again, other): (Vec<_>, Vec<_>) = rest.into_iter().partition(again);
        for told in [&again, &other] {
            assert_eq!(course(told), TURN, "{told:?}");
        }
        assert_same(&first, &again);
        assert_eq!(other[0]["client_message_id"], "ho");
        assert_silent(&mut socket).await;
        assert_eq!(app.said(&id).await.len(), 4);
    }
    assert_eq!(app.simulator.chat_requests().len(), 4);
}

#[tokio::test]
async fn a_repeat_in_a_watched_conversation_is_told_to_its_sender_alone_and_once() {
    let app = TestApp::start().await;
    let (mut sender, mut watcher) = (watching(&app, "c1").await, watching(&app, "c1").await);
    sender.send(named("c1", "hi", "m")).await;
    let first = turn(&mut sender, "m").await;
    watcher.until("response_complete").await;
    app.chat("c1", "between").await;
    for socket in [&mut sender, &mut watcher] {
        socket.until("response_complete").await;
    }

    for _ in 0..3 {
        sender.send(named("c1", "hi", "m")).await;
        assert_same(&first, &turn(&mut sender, "m").await);
    }

    // What comes next is told to both, and is the first thing that the other one hears.
    app.chat("c1", "after").await;
    for socket in [&mut sender, &mut watcher] {
        let told = socket.until("response_complete").await;
        assert_eq!(told[0]["content"], "after");
        assert_silent(socket).await;
    }
}

#[tokio::test]
async fn a_repeat_of_what_the_watch_is_telling_takes_over_from_the_watch() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let mut phone = app.socket().await;
    phone.send(named("c1", "hi", "m")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    phone.until("chunk").await;
    let mut laptop = watching(&app, "c1").await;
    let seen = laptop.until("chunk").await;
    assert_eq!(seen[0]["type"], "user_message");

    laptop.send(named("c1", "hi", "m")).await;
    let mut told = laptop.until("chunk").await;
    // More of the watch may have come before the repeat was read.
    told.drain(
        ..told
            .iter()
            .position(|it| it["type"] == "message_received")
            .unwrap_or(0),
    );
    gate.open();
    told.extend(laptop.until("response_complete").await);

    assert_eq!(course(&told), TURN);
    assert_eq!(content_of(&told), reply_text(0, 6));
    assert_silent(&mut laptop).await;
    app.chat("c1", "after").await;
    assert_eq!(
        laptop.until("response_complete").await[0]["content"],
        "after"
    );
}

#[tokio::test]
async fn the_same_id_with_another_message_is_refused() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "c1").await;
    socket.send(named("c1", "hi", "m")).await;
    turn(&mut socket, "m").await;

    for other in [
        named("c1", "ho", "m"),
        with(named("c1", "hi", "m"), "model", "sim/tokens=2"),
        with(named("c1", "hi", "m"), "system_prompt", "Be brief."),
    ] {
        socket.send(other).await;
        let error = socket.next().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!("idempotency_mismatch"))
        );
        assert_eq!(error["conversation_id"], "c1");
    }
    socket.send(named("c2", "ho", "m")).await;
    turn(&mut socket, "m").await;
    assert_eq!(app.said("c1").await.len(), 2);
}

#[tokio::test]
async fn a_message_that_failed_without_text_is_tried_again_and_one_with_text_is_told() {
    let app = Setup::new().asking_once().start().await;
    let mut socket = begun(&app, "c1").await;
    app.simulator.script(Script::from("fault=status:503"));
    socket.send(named("c1", "hi", "m")).await;
    let failed = socket.until("error").await;
    socket.send(named("c1", "hi", "m")).await;
    let told = turn(&mut socket, "m").await;
    assert_eq!(told[0]["turn_id"], failed[0]["turn_id"]);
    assert_eq!(app.said("c1").await.len(), 2);

    app.simulator
        .script(Script::from("tokens=9,fault=cut,after=4"));
    socket.send(named("c1", "more", "n")).await;
    socket.until("error").await;
    for mut socket in [socket, watching(&app, "c1").await] {
        socket.send(named("c1", "more", "n")).await;
        let told = turn(&mut socket, "n").await;
        assert_eq!(content_of(&told), reply_text(0, 4));
        assert_eq!(told.last().unwrap()["finish_reason"], "error");
        assert_silent(&mut socket).await;
    }
    assert_eq!(app.simulator.chat_requests().len(), 3);
}

#[tokio::test]
async fn a_first_message_with_an_id_names_its_conversation() {
    let app = TestApp::start().await;
    let first = json!({
        "type": "start_conversation",
        "character_id": "character",
        "message": "hi",
        "client_message_id": "sixteen-characters-or-more",
    });
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut socket = app.socket().await;
        socket.send(first.clone()).await;
        let started = socket.next().await;
        assert_eq!(started["type"], "conversation_started");
        told.push((
            started,
            turn(&mut socket, "sixteen-characters-or-more").await,
        ));
    }

    assert_eq!(told[0].0, told[1].0);
    assert_same(&told[0].1, &told[1].1);
    let id = told[0].0["conversation_id"].as_str().unwrap();
    assert_eq!(app.said(id).await.len(), 2);
    assert_eq!(app.simulator.chat_requests().len(), 1);

    let mut socket = app.socket().await;
    socket
        .send(with(first.clone(), "client_message_id", "too-short"))
        .await;
    let error = socket.next().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!("invalid_request"))
    );
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .starts_with("client_message_id"),
        "{error}"
    );
    // With a conversation any id will do, and so it does without a message.
    socket
        .send(with(
            with(start("c1"), "message", "hi"),
            "client_message_id",
            "m",
        ))
        .await;
    assert_eq!(socket.next().await["type"], "conversation_started");
    turn(&mut socket, "m").await;
    let mut empty = with(start("c1"), "client_message_id", "m");
    empty["conversation_id"] = Value::Null;
    socket.send(empty).await;
    assert_eq!(socket.next().await["type"], "conversation_started");
}

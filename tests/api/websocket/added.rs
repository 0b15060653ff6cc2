//! What was added to the ancestor's messages.

use idol_simulator::Script;
use serde_json::json;

use super::{TURN, assert_silent, begun, content_of, course, message, start, with};
use crate::helpers::{DEADLINE, Setup, TestApp, types, within};

#[tokio::test]
async fn every_event_of_a_turn_names_the_turn_and_the_messages_of_the_document() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "c1").await;

    socket.send(message("c1", "hi")).await;
    let messages = socket.until("response_complete").await;

    let document = app.document("c1").await;
    let (said, reply) = (&document["messages"][0], &document["messages"][1]);
    assert!(said["turn_id"].is_string());
    assert!(messages.iter().all(|it| it["turn_id"] == said["turn_id"]));
    assert_eq!(messages[0]["message_id"], said["id"]);
    assert_eq!(messages[1]["message_id"], reply["id"]);
    let complete = messages.last().unwrap();
    assert_eq!(complete["message_id"], reply["id"]);
    assert_eq!(complete["finish_reason"], "stop");
    assert_eq!(complete["timestamp"], reply["timestamp"]);
    assert_eq!(complete["model"], reply["model"]);
    assert_eq!(complete["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn a_chunk_tells_where_it_stands_in_utf8_bytes() {
    let app = TestApp::start().await;
    let pieces = ["Grüße ", "🚀", "\n\"東京\"", " e\u{301}"];
    let gates: Vec<_> = pieces.iter().map(|_| app.simulator.gate()).collect();
    let mut script = Script::new().tokens(pieces);
    for (index, gate) in gates.iter().enumerate() {
        script = script.hold_at(index + 1, gate);
    }
    app.simulator.script(script);
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;

    let (mut offset, mut cursors) = (0, Vec::new());
    for (piece, gate) in pieces.iter().zip(&gates) {
        let chunk = socket.until("chunk").await.pop().unwrap();
        assert_eq!(chunk["content"], *piece);
        assert_eq!(chunk["offset"], offset);
        offset += piece.len();
        cursors.push(chunk["cursor"].as_str().unwrap().to_owned());
        gate.open();
    }

    cursors.dedup();
    assert_eq!(cursors.len(), pieces.len(), "each place has its cursor");
    socket.until("response_complete").await;
}

#[tokio::test]
async fn a_failed_turn_says_why_and_the_next_one_works() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "c1").await;

    let failing = "sim/fault=status:402";
    socket
        .send(with(message("c1", "hi"), "model", failing))
        .await;
    let failed = socket.until("error").await;
    socket.send(message("c1", "again")).await;
    let next = socket.until("response_complete").await;

    assert_eq!(
        types(&failed),
        ["message_received", "response_start", "error"]
    );
    let error = failed.last().unwrap();
    assert_eq!(error["code"], "upstream_credits");
    assert_eq!(error["conversation_id"], "c1");
    assert_eq!(error["turn_id"], failed[0]["turn_id"]);
    assert!(!error["error"].as_str().unwrap().is_empty());
    assert_eq!(course(&next), TURN);
}

#[tokio::test]
async fn a_reply_that_is_cut_ends_in_an_error_after_its_text() {
    let app = Setup::new().asking_once().start().await;
    let mut socket = begun(&app, "c1").await;

    let cut = "sim/tokens=9,fault=reset,after=4";
    socket.send(with(message("c1", "hi"), "model", cut)).await;
    let messages = socket.until("error").await;

    let text = idol_simulator::reply_text(0, 4);
    assert_eq!(content_of(&messages), text);
    assert_eq!(messages.last().unwrap()["code"], "upstream_failed");
    assert_eq!(app.said("c1").await[1].1, text);
}

#[tokio::test]
async fn a_client_recognizes_its_own_message() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    let first = with(
        with(start("c1"), "message", "one"),
        "client_message_id",
        "m-1",
    );
    socket.send(first).await;
    let first = socket.until("response_complete").await;
    socket
        .send(with(message("c1", "two"), "client_message_id", "m-2"))
        .await;
    let second = socket.until("response_complete").await;
    socket.send(message("c1", "three")).await;
    let third = socket.until("response_complete").await;

    assert_eq!(first[1]["type"], "message_received");
    assert_eq!(first[1]["client_message_id"], "m-1");
    assert_eq!(second[0]["client_message_id"], "m-2");
    assert!(third.iter().all(|it| it["client_message_id"].is_null()));
}

#[tokio::test]
async fn reasoning_is_shown_to_those_who_ask() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "c1").await;
    let thinking = with(message("c1", "hi"), "model", "sim/reasoning=3,tokens=2");

    socket.send(thinking.clone()).await;
    let hidden = socket.until("response_complete").await;
    socket.send(with(thinking, "reasoning", "yes")).await;
    let shown = socket.until("response_complete").await;

    assert_eq!(course(&hidden), TURN);
    let reasoning: String = shown
        .iter()
        .filter(|it| it["type"] == "reasoning")
        .map(|it| it["content"].as_str().unwrap())
        .collect();
    assert_eq!(reasoning, idol_simulator::reasoning_text(0, 3));
    assert_eq!(content_of(&shown), idol_simulator::reply_text(0, 2));
}

#[tokio::test]
async fn text_in_any_script_arrives_and_is_kept_byte_for_byte() {
    let app = TestApp::start().await;
    let said = "\u{0}\u{1f} \"quoted\" back\\slash\n\t 👩‍👩‍👧 مرحبا \u{2028} </script>";
    let mut socket = begun(&app, "c1").await;

    socket
        .send(with(message("c1", said), "model", "sim/echo"))
        .await;
    let messages = socket.until("response_complete").await;

    assert_eq!(content_of(&messages), said);
    let kept: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(kept, [said, said]);
}

#[tokio::test]
async fn a_second_socket_works_while_the_first_waits_for_its_reply() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("held").hold_at(0, &gate));
    let (mut first, mut second) = (begun(&app, "c1").await, begun(&app, "c2").await);
    first.send(message("c1", "hi")).await;
    within("the gate", gate.reached(1, DEADLINE)).await.unwrap();

    second.send(message("c2", "hi")).await;
    let turn = second.until("response_complete").await;

    assert_eq!(course(&turn), TURN);
    assert_silent(&mut second).await;
    gate.open();
    first.until("response_complete").await;
    assert_eq!(
        app.document("c1").await["messages"][1]["content"],
        json!("held")
    );
}

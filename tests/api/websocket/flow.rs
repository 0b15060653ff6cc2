//! What clients of the ancestor rely on.

use idol_simulator::Script;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{TURN, assert_silent, begun, content_of, course, message, start, with};
use crate::helpers::{DEADLINE, TestApp, within};

#[tokio::test]
async fn a_conversation_that_has_started_is_there_and_empty() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    socket
        .send(json!({"type": "start_conversation", "character_id": "c"}))
        .await;
    let started = socket.next().await;

    let id = started["conversation_id"].as_str().unwrap();
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    assert_eq!(
        started,
        json!({"type": "conversation_started", "conversation_id": id})
    );
    assert_eq!(app.document(id).await["messages"], json!([]));
}

#[tokio::test]
async fn a_start_with_a_message_is_a_turn_in_order() {
    let app = TestApp::start().await;
    app.simulator
        .script(Script::new().text("Hello, dear Alice!"));
    let mut socket = app.socket().await;

    socket
        .send(with(start("c1"), "message", "I am Alice"))
        .await;
    let messages = socket.until("response_complete").await;

    assert_eq!(messages[0]["type"], "conversation_started");
    assert_eq!(course(&messages[1..]), TURN);
    assert!(messages.iter().all(|it| it["conversation_id"] == "c1"));
    assert_eq!(content_of(&messages), "Hello, dear Alice!");
    assert_eq!(
        app.said("c1").await,
        [
            ("user".to_owned(), "I am Alice".to_owned()),
            ("assistant".to_owned(), "Hello, dear Alice!".to_owned()),
        ]
    );
    drop(socket);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn an_error_has_the_ancestors_text_and_leaves_the_socket_open() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    for (sent, sentence) in [
        ("{", "Invalid JSON format"),
        ("[1]", "Invalid JSON format"),
        ("", "Invalid JSON format"),
        (
            r#"{"type":"start_conversation"}"#,
            "character_id is required",
        ),
        (
            r#"{"type":"start_conversation","character_id":""}"#,
            "character_id is required",
        ),
        (
            r#"{"type":"start_conversation","character_id":null}"#,
            "character_id is required",
        ),
        (
            r#"{"type":"message","conversation_id":"c"}"#,
            "message is required",
        ),
        (r#"{"type":"message","message":""}"#, "message is required"),
        (
            r#"{"type":"message","message":"hi"}"#,
            "conversation_id is required. Send start_conversation first.",
        ),
        (
            r#"{"type":"message","message":"hi","conversation_id":""}"#,
            "conversation_id is required. Send start_conversation first.",
        ),
        (r#"{"type":"dance"}"#, "Unknown message type: dance"),
        (r#"{"type":null}"#, "Unknown message type: None"),
        ("{}", "Unknown message type: None"),
    ] {
        socket.send_raw(Message::text(sent)).await;
        assert_eq!(
            socket.next().await,
            json!({"type": "error", "error": sentence, "code": "invalid_request"}),
            "{sent}"
        );
    }
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn a_conversation_id_is_checked_and_a_blank_one_is_absent() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    for bad in ["../x", "a b", "ü", &"x".repeat(129)] {
        for sent in [start(bad), message(bad, "hi")] {
            socket.send(sent).await;
            let error = socket.next().await;
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!("error"), &json!("invalid_id"))
            );
        }
    }
    for blank in [json!(""), Value::Null] {
        socket.send(with(start(""), "conversation_id", blank)).await;
        let started = socket.next().await;
        let id = started["conversation_id"].as_str().unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    }
    for wrong in ["conversation_id", "character_id", "user_id"] {
        socket.send(with(start("c1"), wrong, json!({}))).await;
        let error = socket.next().await;
        assert_eq!(error["code"], "invalid_request", "{wrong}");
        assert!(error["error"].as_str().unwrap().contains(wrong), "{error}");
    }
    assert_silent(&mut socket).await;
    assert_eq!(app.simulator.counters().chat_requests, 0);
}

#[tokio::test]
async fn a_message_that_names_its_conversation_needs_no_start() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    socket.send(message("c1", "hello")).await;
    let messages = socket.until("response_complete").await;

    assert_eq!(course(&messages), TURN);
    assert_eq!(app.said("c1").await[0].1, "hello");
}

#[tokio::test]
async fn ids_that_a_message_leaves_out_are_those_named_last() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "first").await;
    socket.send(with(start("second"), "user_id", "alice")).await;
    let unnamed = json!({"type": "message", "message": "hi"});

    // The last start wins; naming another conversation moves on to it.
    for sent in [unnamed.clone(), message("third", "hi"), unnamed] {
        socket.send(sent).await;
    }
    let mut turns = Vec::new();
    for _ in 0..3 {
        let messages = socket.until("response_complete").await;
        turns.push(messages.last().unwrap()["conversation_id"].clone());
    }

    assert_eq!(turns, ["second", "third", "third"]);
    let third = app.document("third").await;
    assert_eq!(third["user_id"], "alice");
    assert_eq!(third["character_id"], "character");
}

#[tokio::test]
async fn an_empty_message_in_a_start_is_no_turn() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;

    for (id, empty) in [("c1", json!("")), ("c2", Value::Null)] {
        socket.send(with(start(id), "message", empty)).await;
        assert_eq!(socket.next().await["type"], "conversation_started");
        assert_silent(&mut socket).await;
        assert_eq!(app.document(id).await["messages"], json!([]));
    }

    assert_eq!(app.simulator.counters().chat_requests, 0);
}

#[tokio::test]
async fn a_ping_is_answered_in_the_middle_of_a_reply() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    socket.until("chunk").await;

    assert_silent(&mut socket).await;

    gate.open();
    let rest = socket.until("response_complete").await;
    assert_eq!(content_of(&rest), " two");
}

#[tokio::test]
async fn a_system_prompt_and_a_model_hold_for_one_message() {
    let app = TestApp::start().await;
    let mut socket = begun(&app, "c1").await;
    let special = with(message("c1", "one"), "system_prompt", "Be brief.");

    socket.send(with(special, "model", "sim/echo")).await;
    let echoed = socket.until("response_complete").await;
    socket.send(message("c1", "two")).await;
    socket.until("response_complete").await;

    assert_eq!(content_of(&echoed), "one");
    let requests = app.simulator.chat_requests();
    let asked = |index: usize| {
        let body = requests[index].json().unwrap();
        (
            body["model"].clone(),
            body["messages"][0]["content"].clone(),
        )
    };
    assert_eq!(asked(0), (json!("sim/echo"), json!("Be brief.")));
    let (model, system) = asked(1);
    assert_eq!(model, "sim/tokens=5");
    assert!(system.as_str().unwrap().contains("companion"), "{system}");
}

#[tokio::test]
async fn an_id_is_echoed_as_it_was_spelled_and_means_the_same_in_any_case() {
    let app = TestApp::start().await;
    let upper = "71D20E34-C2AE-48E1-812B-18CFE7E3C4AB";
    let mut socket = begun(&app, upper).await;

    socket.send(message(upper, "one")).await;
    let shouted = socket.until("response_complete").await;
    socket.send(message(&upper.to_lowercase(), "two")).await;
    let said = socket.until("response_complete").await;

    assert!(shouted.iter().all(|it| it["conversation_id"] == upper));
    let lower = upper.to_lowercase();
    assert!(said.iter().all(|it| it["conversation_id"] == lower));
    assert_eq!(app.said(&lower).await.len(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_reply_finds_it_whole() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("said to the end").hold_at(1, &gate));
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    socket.until("chunk").await;

    drop(socket);
    crate::helpers::until("the end of the socket", async || {
        app.sockets.is_empty().then_some(())
    })
    .await;
    within("the gate", gate.reached(1, DEADLINE)).await.unwrap();
    gate.open();

    crate::helpers::until("the reply in the document", async || {
        let said = app.said("c1").await;
        (said.len() == 2).then(|| assert_eq!(said[1].1, "said to the end"))
    })
    .await;
    app.assert_nothing_left().await;
}

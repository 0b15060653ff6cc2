//! `regenerate` and `edit` on a socket, and what watchers are told.

use idol_simulator::Script;
use serde_json::{Value, json};

use super::{others, talked, texts};
use crate::helpers::{Socket, TestApp, types};

async fn watching(app: &TestApp) -> Socket {
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1",
        "character_id": "x", "watch": true});
    socket.send(start).await;
    socket.until("conversation_started").await;
    socket
}

fn course(messages: &[Value]) -> Vec<&str> {
    let mut course = types(messages);
    course.dedup();
    course
}

#[tokio::test]
async fn everybody_is_told_what_goes_before_an_ordinary_turn_that_names_what_it_replaces() {
    let app = talked(2).await;
    let before = app.document("c1").await;
    let id = |index: usize| &before["messages"][index]["id"];
    let (mut watcher, mut asker) = (watching(&app).await, app.socket().await);
    app.simulator.script(Script::new().text("better"));
    let ask = json!({"type": "regenerate", "conversation_id": "c1", "message_id": id(1),
        "client_message_id": "m-1"});

    asker.send(ask).await;
    let own = asker.until("response_complete").await;
    let seen = watcher.until("response_complete").await;

    assert_eq!(
        course(&own),
        [
            "history_truncated",
            "message_received",
            "response_start",
            "chunk",
            "response_complete"
        ]
    );
    assert_eq!(
        course(&seen),
        [
            "history_truncated",
            "response_start",
            "chunk",
            "response_complete"
        ],
        "nobody said anything"
    );
    for told in [&own[0], &seen[0]] {
        assert_eq!(told["turn_id"], own[1]["turn_id"]);
        assert_eq!(&told["after"], id(0));
    }
    // Its place is that of the last frame of the event.
    assert_eq!(seen[0]["cursor"], own[1]["cursor"]);
    assert_eq!(&own[1]["message_id"], id(0));
    assert_eq!(own[1]["client_message_id"], "m-1");
    assert_eq!(&own[2]["replaces"], id(1));
    assert_eq!(own[2], seen[1]);
    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1", "better"]);
    assert_eq!(
        own.last().unwrap()["message_id"],
        after["messages"][1]["id"]
    );
}

#[tokio::test]
async fn an_edit_is_told_as_the_new_message_and_its_reply() {
    let app = talked(2).await;
    let first = app.document("c1").await["messages"][0]["id"].clone();
    let (mut asker, mut watcher) = (watching(&app).await, watching(&app).await);
    app.simulator.script(Script::new().text("new"));
    let ask =
        json!({"type": "edit", "conversation_id": "c1", "message_id": first, "message": "m1!"});

    asker.send(ask).await;
    let own = asker.until("response_complete").await;
    let seen = watcher.until("response_complete").await;

    assert_eq!(
        course(&own),
        [
            "history_truncated",
            "message_received",
            "response_start",
            "chunk",
            "response_complete"
        ]
    );
    assert_eq!(
        course(&seen),
        [
            "history_truncated",
            "user_message",
            "response_start",
            "chunk",
            "response_complete"
        ]
    );
    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1!", "new"]);
    assert_eq!(own[0]["after"], Value::Null);
    assert_eq!(own[1]["message_id"], after["messages"][0]["id"]);
    assert_eq!(own[2]["replaces"], first);
    assert_eq!(seen[1]["content"], "m1!");
    assert_eq!(seen[1]["message_id"], after["messages"][0]["id"]);
    // The part of the history after the old message begins with the new one.
    let history = json!({"type": "history", "conversation_id": "c1", "after": first});
    asker.send(history).await;
    let history = asker.next().await;
    assert_eq!(texts(&history), ["m1!", "new"]);
    assert_eq!(others(&history["messages"][0]), ["m1"]);
}

#[tokio::test]
async fn what_a_waiting_one_replaces_is_told_as_it_is_when_its_turn_comes() {
    let app = talked(1).await;
    let mut watcher = watching(&app).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("r2").hold_headers(&gate));
    let running = app.stream(crate::helpers::say("c1", "m2")).await;
    gate.reached(1, crate::helpers::DEADLINE).await.unwrap();
    app.simulator.script(Script::new().text("again"));
    let again = super::post(&app, "c1", "regenerate", json!({})).await;

    gate.open();
    let first = watcher.until("response_complete").await;
    let second = watcher.until("response_complete").await;

    running.all().await;
    super::events(again).await;
    let replaced = &first.last().unwrap()["message_id"];
    assert!(replaced.is_string());
    assert_eq!(&second[1]["replaces"], replaced);
    assert_eq!(second[0]["after"], first[0]["message_id"]);
}

#[tokio::test]
async fn what_cannot_be_replaced_is_refused_and_the_socket_goes_on() {
    let app = talked(1).await;
    let mut socket = app.socket().await;
    for (ask, code) in [
        (json!({"type": "regenerate"}), "invalid_request"),
        (
            json!({"type": "regenerate", "conversation_id": "c1", "message_id": "x"}),
            "invalid_request",
        ),
        (
            json!({"type": "edit", "conversation_id": "c1", "message": "x"}),
            "invalid_request",
        ),
        (
            json!({"type": "edit", "conversation_id": "c1",
                "message_id": "0192f0c1-2345-7abc-8def-0123456789ab"}),
            "invalid_request",
        ),
        (
            json!({"type": "regenerate", "conversation_id": "c1",
                "message_id": "0192f0c1-2345-7abc-8def-0123456789ab"}),
            "invalid_request",
        ),
        (
            json!({"type": "regenerate", "conversation_id": "nobody"}),
            "conversation_not_found",
        ),
    ] {
        socket.send(ask.clone()).await;
        let answer = socket.next().await;
        assert_eq!(answer["type"], "error", "{ask}: {answer}");
        assert_eq!(answer["code"], code, "{ask}: {answer}");
    }
    assert_eq!(app.get("/conversation/nobody").await.status(), 404);

    socket
        .send(json!({"type": "regenerate", "conversation_id": "c1"}))
        .await;

    socket.until("response_complete").await;
    let repeat = json!({"type": "edit", "conversation_id": "c1", "client_message_id": "e-1",
        "message_id": app.document("c1").await["messages"][0]["id"], "message": "hello"});
    socket.send(repeat.clone()).await;
    let first = socket.until("response_complete").await;
    socket.send(repeat).await;
    let again = socket.until("response_complete").await;
    assert_eq!(first.last(), again.last());
    assert_eq!(app.said("c1").await.len(), 2);
}

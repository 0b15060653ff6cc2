//! `history`: a part of a conversation's messages over the socket.

use serde_json::{Value, json};

use super::{assert_silent, begun};
use crate::helpers::{Socket, TestApp};

async fn ask(socket: &mut Socket, mut wanted: Value) -> Value {
    wanted["type"] = json!("history");
    socket.send(wanted).await;
    socket.next().await
}

#[tokio::test]
async fn history_is_a_part_of_the_document() {
    let app = TestApp::start().await;
    app.chat("c1", "one").await;
    app.chat("c1", "two").await;
    let document = app.document("c1").await;
    let all = document["messages"].as_array().unwrap();
    let mut socket = app.socket().await;

    let after = &all[0]["id"];
    for (wanted, range, more) in [
        (json!({"conversation_id": "c1"}), 0..4, false),
        (json!({"conversation_id": "c1", "limit": 3}), 0..3, true),
        (
            json!({"conversation_id": "c1", "after": after, "limit": "2"}),
            1..3,
            true,
        ),
        (
            json!({"conversation_id": "c1", "after": all[3]["id"]}),
            4..4,
            false,
        ),
    ] {
        let told = ask(&mut socket, wanted).await;
        let expected = json!({
            "type": "history",
            "conversation_id": "c1",
            "messages": all[range],
            "has_more": more,
        });
        assert_eq!(told, expected);
    }
    // A socket that has named a conversation means that one.
    let mut begun = begun(&app, "c1").await;
    assert_eq!(
        ask(&mut begun, json!({})).await["messages"],
        document["messages"]
    );
}

#[tokio::test]
async fn what_makes_no_history_is_refused_and_the_socket_goes_on() {
    let app = TestApp::start().await;
    app.chat("c1", "one").await;
    let mut socket = app.socket().await;
    for (wanted, code, begins) in [
        (json!({}), "invalid_request", "conversation_id is required"),
        (
            json!({"conversation_id": "nobody"}),
            "conversation_not_found",
            "Conversation not found",
        ),
        (
            json!({"conversation_id": "no id"}),
            "invalid_id",
            "conversation_id",
        ),
        (
            json!({"conversation_id": "c1", "after": "x"}),
            "invalid_request",
            "after",
        ),
        (
            json!({"conversation_id": "c1", "limit": 0}),
            "invalid_request",
            "limit",
        ),
        (
            json!({"conversation_id": "c1", "limit": 1001}),
            "invalid_request",
            "limit",
        ),
    ] {
        let error = ask(&mut socket, wanted).await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code))
        );
        assert!(
            error["error"].as_str().unwrap().starts_with(begins),
            "{error}"
        );
    }
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn a_walk_gives_every_message_once_in_frames_of_bounded_size() {
    let app = TestApp::start().await;
    // Five messages of 400 kB, and their replies: at most two fit into a frame.
    for number in 0..5 {
        app.chat("c1", &format!("{number}{}", "x".repeat(400_000)))
            .await;
    }
    let document = app.document("c1").await;
    let mut socket = app.socket().await;

    let (mut walked, mut after, mut frames) = (Vec::new(), Value::Null, 0);
    loop {
        let told = ask(
            &mut socket,
            json!({"conversation_id": "c1", "after": after}),
        )
        .await;
        assert!(told.to_string().len() < (1 << 20) + 1_024);
        frames += 1;
        walked.extend(told["messages"].as_array().unwrap().clone());
        if told["has_more"] == false {
            break;
        }
        after = walked.last().unwrap()["id"].clone();
    }

    assert_eq!(Value::from(walked), document["messages"]);
    assert!(frames >= 3, "{frames}");
}

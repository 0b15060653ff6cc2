//! What cannot be replaced is refused with its reason, over HTTP.

use serde_json::{Value, json};

use super::{post, talked};
use crate::helpers::{TestApp, refused};

fn at_message_id(body: &Value) -> bool {
    body["detail"][0]["loc"] == json!(["body", "message_id"])
}

#[tokio::test]
async fn what_cannot_be_replaced_is_named() {
    let app = talked(1).await;
    let document = app.document("c1").await;
    let (said, reply) = (
        &document["messages"][0]["id"],
        &document["messages"][1]["id"],
    );
    let nobody = "0192f0c1-2345-7abc-8def-0123456789ab";
    for (what, body) in [
        ("regenerate", json!({"message_id": nobody})),
        ("regenerate", json!({"message_id": "x"})),
        ("regenerate", json!({"message_id": 7})),
        ("edit", json!({"message_id": nobody, "message": "x"})),
        ("edit", json!({"message_id": reply, "message": "x"})),
        ("edit", json!({"message": "x"})),
    ] {
        let body = refused(post(&app, "c1", what, body).await, 422, "invalid_request").await;
        assert!(at_message_id(&body), "{what}: {body}");
        assert_eq!(body["detail"].as_array().unwrap().len(), 1, "{body}");
    }
    for text in [json!(null), json!(""), json!({"text": "x"})] {
        let body = json!({"message_id": said, "message": text});
        let body = refused(post(&app, "c1", "edit", body).await, 422, "invalid_request").await;
        assert_eq!(body["detail"][0]["loc"], json!(["body", "message"]));
        assert_eq!(body["detail"].as_array().unwrap().len(), 1, "{body}");
    }
    assert_eq!(app.document("c1").await, document);
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_conversation_that_is_not_there_is_not_begun() {
    let app = TestApp::start().await;
    for (what, body) in [
        ("regenerate", json!({})),
        (
            "edit",
            json!({"message_id": "0192f0c1-2345-7abc-8def-0123456789ab", "message": "x"}),
        ),
    ] {
        let answer = post(&app, "nobody", what, body).await;
        let body = refused(answer, 404, "conversation_not_found").await;
        assert_eq!(body["detail"]["conversation_id"], "nobody");
    }
    assert_eq!(app.get("/conversation/nobody").await.status(), 404);
}

#[tokio::test]
async fn an_empty_conversation_has_nothing_to_answer() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1", "character_id": "x"});
    socket.send(start).await;
    socket.until("conversation_started").await;

    let answer = post(&app, "c1", "regenerate", json!({})).await;

    assert!(at_message_id(
        &refused(answer, 422, "invalid_request").await
    ));
}

#[tokio::test]
async fn a_body_may_be_left_out_and_may_hold_the_parameters_of_a_chat() {
    let app = talked(1).await;
    let path = app.url("/conversation/c1/regenerate/");
    let bare = app.http.post(path).send().await.unwrap();
    assert_eq!(bare.status(), 200);
    assert_eq!(bare.headers()["content-type"], "text/event-stream");
    assert_eq!(bare.headers()["x-conversation-id"], "c1");
    super::events(bare).await;

    let body = json!({"system_prompt": "Be a pirate.", "temperature": 0, "max_tokens": 7});
    super::regenerate(&app, "c1", body).await;

    let request = app
        .simulator
        .chat_requests()
        .last()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(request["messages"][0]["content"], "Be a pirate.");
    assert_eq!(
        (&request["temperature"], &request["max_tokens"]),
        (&json!(0), &json!(7))
    );
}

//! Which keys there are, and what they count for.

use serde_json::json;

use super::{KEY, chat, content, essence, post};
use crate::helpers::{TestApp, refused, say};

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_named() {
    let app = TestApp::start().await;
    for path in ["/chat", "/chat/stream"] {
        for key in [
            "",
            "fifteen-chars-x",
            &"x".repeat(256),
            "sixteen and blanks",
        ] {
            let response = post(&app, path, key, &say("c1", "hi")).await;

            let body = refused(response, 422, "invalid_request").await;
            assert_eq!(
                body["detail"][0]["loc"],
                json!(["header", "Idempotency-Key"])
            );
            assert!(
                body["error"]
                    .as_str()
                    .unwrap()
                    .starts_with("Idempotency-Key")
            );
        }
    }
    assert_eq!(app.simulator.chat_requests().len(), 0);
    for key in ["x".repeat(16), "~".repeat(255)] {
        chat(&app, &key, &say("c1", &key)).await;
    }
    assert_eq!(app.said("c1").await.len(), 4);
}

#[tokio::test]
async fn a_key_that_comes_with_another_body_is_refused() {
    let app = TestApp::start().await;
    chat(&app, KEY, &say("c1", "hi")).await;
    for path in ["/chat", "/chat/stream"] {
        let response = post(&app, path, KEY, &say("c1", "something else")).await;

        let body = refused(response, 422, "idempotency_mismatch").await;
        assert_eq!(body["conversation_id"], "c1");
        assert_eq!(
            body["detail"][0]["loc"],
            json!(["header", "Idempotency-Key"])
        );
    }
    assert_eq!(app.said("c1").await.len(), 2);
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_key_counts_within_its_conversation() {
    let app = TestApp::start().await;
    let first = chat(&app, KEY, &say("c1", "hi")).await;
    let other = chat(&app, KEY, &say("c2", "hi")).await;

    assert_ne!(first["turn_id"], other["turn_id"]);
    assert_eq!(app.simulator.chat_requests().len(), 2);
}

#[tokio::test]
async fn without_a_conversation_id_the_key_names_the_conversation() {
    let app = TestApp::start().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});

    let first = chat(&app, KEY, &body).await;
    let again = chat(&app, KEY, &body).await;
    let other = chat(&app, "another-key-of-the-client", &body).await;
    let keyless = app.post("/chat", body.clone()).await;

    assert_eq!(essence(&again), essence(&first));
    let id = first["conversation_id"].as_str().unwrap();
    assert_eq!(uuid::Uuid::try_parse(id).unwrap().get_version_num(), 5);
    assert_ne!(other["conversation_id"], id);
    let keyless: serde_json::Value = keyless.json().await.unwrap();
    assert_ne!(keyless["conversation_id"], id);
    assert_eq!(app.said(id).await[1].1, content(&first));
    assert_eq!(app.simulator.chat_requests().len(), 3);
    // A key of another body would name the same conversation, and is refused there.
    let other = json!({"messages": [{"role": "user", "content": "ho"}]});
    let response = post(&app, "/chat", KEY, &other).await;
    refused(response, 422, "idempotency_mismatch").await;
}

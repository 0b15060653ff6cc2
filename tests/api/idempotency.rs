//! `Idempotency-Key`: a request that comes again is carried out once.

use serde_json::Value;

use crate::helpers::{Events, TestApp, within};

mod hammer;
mod keys;
mod repeats;

const KEY: &str = "key-of-sixteen-or-more";

async fn post(app: &TestApp, path: &str, key: &str, body: &Value) -> reqwest::Response {
    let request = app.http.post(app.url(path)).header("Idempotency-Key", key);
    within("an answer", request.json(body).send())
        .await
        .unwrap()
}

/// `POST /chat` with a key; the answer's JSON.
async fn chat(app: &TestApp, key: &str, body: &Value) -> Value {
    let response = post(app, "/chat", key, body).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

/// `POST /chat/stream` with a key; its events as they come.
async fn stream(app: &TestApp, key: &str, body: &Value) -> Events {
    let response = post(app, "/chat/stream", key, body).await;
    assert_eq!(response.status(), 200);
    Events::of(response)
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// What a repeat must have in common with the first answer.
fn essence(answer: &Value) -> [&Value; 6] {
    let choice = &answer["choices"][0];
    [
        &answer["conversation_id"],
        &answer["turn_id"],
        &answer["message_id"],
        &answer["model"],
        &choice["message"]["content"],
        &choice["finish_reason"],
    ]
}

//! Regenerate and edit: what was said is replaced once the new reply is there, and nothing is lost.

use idol_simulator::Script;
use serde_json::{Value, json};

use crate::helpers::{Events, Setup, TestApp, within};

mod copies;
mod crashes;
mod doors;
mod edited;
mod imported;
mod killed;
mod queued;
mod regenerated;
mod sockets;

/// `POST /conversation/{id}/{what}`.
async fn post(app: &TestApp, id: &str, what: &str, body: Value) -> reqwest::Response {
    app.post(&format!("/conversation/{id}/{what}"), body).await
}

/// The same, with a key.
async fn keyed(app: &TestApp, id: &str, what: &str, key: &str, body: &Value) -> reqwest::Response {
    let url = app.url(&format!("/conversation/{id}/{what}"));
    let request = app.http.post(url).header("Idempotency-Key", key);
    within("an answer", request.json(body).send())
        .await
        .unwrap()
}

async fn events(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    Events::of(response).all().await
}

/// Regenerates; the events of the new turn.
async fn regenerate(app: &TestApp, id: &str, body: Value) -> Vec<Value> {
    events(post(app, id, "regenerate", body).await).await
}

/// Edits; the events of the new turn.
async fn edit(app: &TestApp, id: &str, message: &Value, text: &str) -> Vec<Value> {
    let body = json!({"message_id": message, "message": text});
    events(post(app, id, "edit", body).await).await
}

/// A server with a conversation of so many turns: `m1`, `r1`, `m2`, …
async fn talked(turns: usize) -> TestApp {
    let app = Setup::new().start().await;
    talk(&app, "c1", turns).await;
    app
}

async fn talk(app: &TestApp, id: &str, turns: usize) {
    for turn in 1..=turns {
        app.simulator
            .script(Script::new().text(&format!("r{turn}")));
        app.chat(id, &format!("m{turn}")).await;
    }
}

/// What the messages of a document say.
fn texts(document: &Value) -> Vec<&str> {
    let messages = document["messages"].as_array().unwrap().iter();
    messages.map(|it| it["content"].as_str().unwrap()).collect()
}

/// What the alternatives of a message say.
fn others(message: &Value) -> Vec<&str> {
    let Some(others) = message["alternatives"].as_array() else {
        return Vec::new();
    };
    let texts = others.iter().map(|it| it["content"].as_str().unwrap());
    texts.collect()
}

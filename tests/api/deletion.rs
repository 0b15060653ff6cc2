//! `DELETE /conversation/{id}`, and what becomes of those who listen.

use idol_simulator::Script;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::helpers::{DEADLINE, Setup, TestApp, refused, say, text_of};

pub async fn delete(app: &TestApp, conversation: &str) -> reqwest::Response {
    let path = format!("/conversation/{conversation}");
    let request = app.http.delete(app.url(&path));
    crate::helpers::within("the deletion", request.send())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_from_every_view_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    app.chat("c1", "a secret").await;
    app.chat("c2", "hi").await;
    let gone = async |app: &TestApp| {
        let missing = app.get("/conversation/c1").await;
        refused(missing, 404, "conversation_not_found").await;
        let list: Value = app.get("/conversations").await.json().await.unwrap();
        assert_eq!(list["conversations"].as_array().unwrap().len(), 1);
        assert_eq!(list["conversations"][0]["id"], "c2");
        let again = refused(delete(app, "c1").await, 404, "conversation_not_found").await;
        assert_eq!(
            again["detail"],
            json!({"error": "Conversation not found", "conversation_id": "c1"})
        );
    };

    let response = delete(&app, "c1").await;

    assert_eq!(response.status(), 204);
    assert_eq!(response.bytes().await.unwrap(), "");
    gone(&app).await;
    app.stop().await;
    let app = setup().start().await;
    gone(&app).await;
    // The id is free: what begins under it knows nothing of before.
    let tag = async || app.get("/conversation/c1").await.headers()["etag"].clone();
    app.chat("c1", "anew").await;
    assert_eq!(app.said("c1").await[0].1, "anew");
    assert_eq!(app.said("c1").await.len(), 2);
    assert!(!tag().await.is_empty());
}

#[tokio::test]
async fn what_is_no_conversation_cannot_be_deleted() {
    let app = TestApp::start().await;
    for id in ["nobody", "no%20id", "%F0%9F%9A%80"] {
        let body = refused(delete(&app, id).await, 404, "conversation_not_found").await;
        assert_eq!(body["detail"]["error"], "Conversation not found");
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_delete_and_send_a_key() {
    let app = TestApp::start().await;
    let preflight = app
        .http
        .request(Method::OPTIONS, app.url("/conversation/c1"))
        .header(header::ORIGIN, "http://localhost:3000")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "DELETE")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "idempotency-key");

    let response = preflight.send().await.unwrap();

    assert_eq!(response.status(), 200);
    let list = |name| {
        response.headers()[name]
            .to_str()
            .unwrap()
            .to_ascii_lowercase()
    };
    assert!(list(header::ACCESS_CONTROL_ALLOW_METHODS).contains("delete"));
    assert_eq!(
        list(header::ACCESS_CONTROL_ALLOW_HEADERS),
        "idempotency-key"
    );
}

#[tokio::test]
async fn a_stream_and_a_waiting_post_of_a_deleted_conversation_end_as_cancelled() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two three").hold_at(1, &gate));
    let mut running = app.stream(say("c1", "first")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut seen = vec![running.next().await.unwrap(), running.next().await.unwrap()];
    let mut waiting = app.stream(say("c1", "second")).await;
    waiting.next().await.unwrap();
    let request = app.http.post(app.url("/chat")).json(&say("c1", "third"));
    let post = tokio::spawn(request.send());
    let logged = crate::helpers::until("the third message", async || {
        (app.said("c1").await.len() == 3).then_some(())
    });
    logged.await;

    assert_eq!(delete(&app, "c1").await.status(), 204);

    seen.extend(running.all().await);
    assert_eq!(text_of(&seen), "one");
    for events in [seen, waiting.all().await] {
        let last = events.last().unwrap();
        assert_eq!(
            (&last["type"], &last["finish_reason"]),
            (&json!("done"), &json!("cancelled"))
        );
    }
    let post = post.await.unwrap().unwrap();
    assert_eq!(post.status(), 200);
    let post: Value = post.json().await.unwrap();
    assert_eq!(post["choices"][0]["finish_reason"], "cancelled");
    refused(
        app.get("/conversation/c1").await,
        404,
        "conversation_not_found",
    )
    .await;
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_stream_whose_reader_is_behind_ends_with_an_event_all_the_same() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    // More than the connection's buffers hold: the session has no credit when the end comes.
    let (tokens, size) = (400, 64_000);
    let reply = format!("tokens={tokens},size={size}");
    app.simulator
        .script(Script::from(reply.as_str()).hold_at(tokens - 1, &gate));
    let response = app.post("/chat/stream", say("c1", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();

    assert_eq!(delete(&app, "c1").await.status(), 204);

    let events = crate::helpers::Events::of(response).all().await;
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["code"]),
        (&json!("error"), &json!("conversation_not_found"))
    );
    assert!(text_of(&events).len() < (tokens - 1) * size);
    app.assert_nothing_left().await;
}

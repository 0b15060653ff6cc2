//! `POST /conversation/{id}/cancel`: stopping turns.

use idol_actors::shared::Failpoint;
use idol_simulator::Script;
use serde_json::{Value, json};

use crate::{
    helpers::{DEADLINE, Events, Setup, TestApp, prompt, refused, say, text_of, until},
    resilience::{Commits, Watch, held},
};

async fn cancel(app: &TestApp, conversation: &str, body: Value) -> Value {
    let path = format!("/conversation/{conversation}/cancel");
    let response = app.post(&path, body).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// A stream that has begun: its turn, and the rest.
async fn begun(app: &TestApp, text: &str) -> (Value, Events) {
    let mut events = app.stream(say("c1", text)).await;
    let start = events.next().await.unwrap();
    assert_eq!(start["type"], "conversation_start");
    (start["turn_id"].clone(), events)
}

#[tokio::test]
async fn the_turn_that_runs_is_stopped_with_the_text_it_has() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two three").hold_at(1, &gate));
    let (turn, mut events) = begun(&app, "hi").await;
    let first = events.next().await.unwrap();

    let answer = cancel(&app, "c1", json!({ "turn_id": turn })).await;

    assert_eq!(answer, json!({"turn_id": turn, "cancelled": true}));
    let rest = events.all().await;
    let done = rest.last().unwrap();
    assert_eq!(
        (&done["type"], &done["finish_reason"]),
        (&json!("done"), &json!("cancelled"))
    );
    let text = text_of(&[&[first], &rest[..]].concat());
    let document = app.document("c1").await;
    assert_eq!(document["messages"][1]["content"], text);
    assert_eq!(document["messages"][1]["finish_reason"], "cancelled");
    // It is over: nothing is left to be stopped.
    let again = cancel(&app, "c1", json!({ "turn_id": turn })).await;
    assert_eq!(again, json!({"turn_id": turn, "cancelled": false}));
    app.assert_nothing_left().await;
    // The companion knows what it had said.
    app.chat("c1", "Go on").await;
    let asked = prompt(app.simulator.chat_requests().last().unwrap());
    assert_eq!(asked[1]["role"], "assistant");
    assert_eq!(asked[1]["content"], text);
}

#[tokio::test]
async fn where_no_turn_is_named_the_running_one_and_all_that_wait_are_stopped() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let (running, first) = begun(&app, "first").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let (waiting, second) = begun(&app, "second").await;

    let response = app
        .http
        .post(app.url("/conversation/c1/cancel"))
        .send()
        .await;

    let answer: Value = response.unwrap().json().await.unwrap();
    assert_eq!(
        answer,
        json!({"turn_id": running, "cancelled": true, "turn_ids": [running, waiting]})
    );
    for events in [first, second] {
        let events = events.all().await;
        assert_eq!(events.last().unwrap()["finish_reason"], "cancelled");
    }
    let none = cancel(&app, "c1", json!({"turn_id": null})).await;
    assert_eq!(none, json!({"turn_id": null, "cancelled": false}));
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_turn_that_waits_is_stopped_alone_and_a_waiting_post_is_answered() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let (_, first) = begun(&app, "first").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let request = app.http.post(app.url("/chat")).json(&say("c1", "second"));
    let second = tokio::spawn(request.send());
    let logged = until("the second message", async || {
        let document = app.document("c1").await;
        let message = document["messages"].as_array().unwrap().get(1)?;
        Some(message["turn_id"].clone())
    });
    let waiting = logged.await;

    let answer = cancel(&app, "c1", json!({ "turn_id": waiting })).await;
    gate.open();

    assert_eq!(answer, json!({"turn_id": waiting, "cancelled": true}));
    let second: Value = second.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(second["choices"][0]["finish_reason"], "cancelled");
    assert_eq!(second["turn_id"], waiting);
    assert_eq!(first.all().await.last().unwrap()["finish_reason"], "stop");
}

#[tokio::test]
async fn what_cannot_be_stopped_is_refused_in_the_one_shape() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    for id in ["nobody", "no%20id"] {
        let path = format!("/conversation/{id}/cancel");
        let body = refused(
            app.post(&path, json!({})).await,
            404,
            "conversation_not_found",
        )
        .await;
        assert_eq!(body["detail"]["error"], "Conversation not found");
    }
    let response = app
        .post("/conversation/c1/cancel", json!({"turn_id": "x"}))
        .await;
    let body = refused(response, 422, "invalid_request").await;
    assert_eq!(body["detail"][0]["loc"], json!(["body", "turn_id"]));
    let response = app.post("/conversation/c1/cancel", json!([])).await;
    refused(response, 422, "invalid_request").await;
}

#[tokio::test]
async fn a_turn_whose_end_is_on_its_way_to_the_log_ends_as_it_was() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = held(&commits, &watch).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let (turn, events) = begun(&app, "hi").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let appends = watch.count(Failpoint::BeforeAppend, "c1");
    commits.hold();
    gate.open();
    watch
        .reached(Failpoint::BeforeAppend, "c1", appends + 1)
        .await;

    let answer = cancel(&app, "c1", json!({ "turn_id": turn })).await;
    commits.release();

    assert_eq!(answer, json!({"turn_id": turn, "cancelled": false}));
    let events = events.all().await;
    assert_eq!(text_of(&events), "one two");
    assert_eq!(events.last().unwrap()["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stop_closes_the_call_while_the_log_is_held_and_is_told_when_it_is_not() {
    let commits = Commits::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.log.before_commit = Some(commits.failpoint()))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let (turn, events) = begun(&app, "hi").await;
    gate.reached(1, DEADLINE).await.unwrap();
    commits.hold();

    let answer = cancel(&app, "c1", json!({ "turn_id": turn })).await;

    assert_eq!(answer["cancelled"], true);
    let closed = app.simulator.wait_for(
        "the end of the upstream call",
        |counters| counters.active_requests == 0,
        DEADLINE,
    );
    closed.await.unwrap();
    assert_eq!(app.document("c1").await["messages"].get(1), None);
    commits.release();
    let events = events.all().await;
    assert_eq!(events.last().unwrap()["finish_reason"], "cancelled");
    let reply = app.document("c1").await["messages"][1].clone();
    assert_eq!(reply["content"], text_of(&events));
}

//! Regenerate and edit beside turns that run and wait.

use idol_simulator::Script;
use serde_json::json;

use super::{events, others, post, talked, texts};
use crate::helpers::{DEADLINE, Events, TestApp, refused, say};

async fn start_of(app: &TestApp, body: serde_json::Value) -> Events {
    let mut stream = app.stream(body).await;
    assert_eq!(stream.next().await.unwrap()["type"], "conversation_start");
    stream
}

#[tokio::test]
async fn a_reply_under_way_is_waited_for_and_what_was_said_since_stays_behind_the_new_one() {
    let app = talked(1).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("r2").hold_headers(&gate));
    let running = start_of(&app, say("c1", "m2")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    app.simulator.script(Script::new().text("r2 again"));
    let again = post(&app, "c1", "regenerate", json!({})).await;
    app.simulator.script(Script::new().text("r3"));
    let behind = start_of(&app, say("c1", "m3")).await;

    gate.open();
    running.all().await;
    events(again).await;
    behind.all().await;

    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "r1", "m2", "r2 again", "m3", "r3"]);
    assert_eq!(others(&document["messages"][3]), ["r2"]);
}

#[tokio::test]
async fn a_turn_under_way_that_fails_is_answered_by_the_one_that_waits() {
    let app = talked(1).await;
    let gate = app.simulator.gate();
    let fails = Script::from("fault=status:unknown_model").hold_headers(&gate);
    app.simulator.script(fails);
    let running = start_of(&app, say("c1", "m2")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    app.simulator.script(Script::new().text("r2"));
    let again = post(&app, "c1", "regenerate", json!({})).await;

    gate.open();
    running.all().await;
    let told = events(again).await;

    assert_eq!(told.last().unwrap()["type"], "done");
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "r1", "m2", "r2"]);
    assert!(others(&document["messages"][3]).is_empty());
}

#[tokio::test]
async fn several_at_once_replace_one_after_the_other() {
    let app = talked(1).await;
    let document = app.document("c1").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one").hold_headers(&gate));
    let one = post(&app, "c1", "regenerate", json!({})).await;
    gate.reached(1, DEADLINE).await.unwrap();
    app.simulator.script(Script::new().text("two"));
    let edit = json!({"message_id": document["messages"][0]["id"], "message": "edited"});
    let two = post(&app, "c1", "edit", edit).await;
    app.simulator.script(Script::new().text("three"));
    let three = post(&app, "c1", "regenerate", json!({})).await;

    gate.open();
    for answer in [one, two, three] {
        assert_eq!(events(answer).await.last().unwrap()["type"], "done");
    }

    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["edited", "three"]);
    assert_eq!(others(&document["messages"][0]), ["m1"]);
    assert_eq!(others(&document["messages"][1]), ["two"]);
}

#[tokio::test]
async fn a_waiting_one_that_is_stopped_replaces_nothing() {
    let app = talked(1).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("r2").hold_headers(&gate));
    let running = start_of(&app, say("c1", "m2")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut waits = Events::of(post(&app, "c1", "regenerate", json!({})).await);
    let start = waits.next().await.unwrap();

    app.post(
        "/conversation/c1/cancel",
        json!({"turn_id": start["turn_id"]}),
    )
    .await;
    gate.open();

    assert_eq!(
        waits.all().await.last().unwrap()["finish_reason"],
        "cancelled"
    );
    running.all().await;
    assert_eq!(texts(&app.document("c1").await), ["m1", "r1", "m2", "r2"]);
}

#[tokio::test]
async fn the_repeat_of_a_failed_request_that_is_answered_anew_waits_and_gets_that_answer() {
    let app = talked(1).await;
    let key = "the-key-of-a-failed-request";
    let ask = || {
        let request = app.http.post(app.url("/chat"));
        let request = request.header("Idempotency-Key", key);
        request.json(&say("c1", "m2")).send()
    };
    app.simulator.script("fault=status:unknown_model");
    refused(ask().await.unwrap(), 400, "upstream_rejected").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("r2").hold_headers(&gate));
    let again = post(&app, "c1", "regenerate", json!({})).await;
    gate.reached(1, DEADLINE).await.unwrap();

    refused(ask().await.unwrap(), 429, "conversation_busy").await;

    gate.open();
    let told = events(again).await;
    let answer: serde_json::Value = ask().await.unwrap().json().await.unwrap();
    assert_eq!(answer["turn_id"], told[0]["turn_id"]);
    assert_eq!(answer["choices"][0]["message"]["content"], "r2");
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "r1", "m2", "r2"]);
}

//! A conversation that is deleted while sockets listen to it.

use idol_simulator::Script;
use serde_json::json;

use super::{assert_silent, begun, message, watching};
use crate::{
    deletion::delete,
    helpers::{DEADLINE, TestApp},
};

#[tokio::test]
async fn those_who_watch_are_told_and_watch_it_no_more() {
    let app = TestApp::start().await;
    let mut watcher = watching(&app, "C-1").await;
    let mut other = begun(&app, "C-1").await;
    app.chat("C-1", "hi").await;
    watcher.until("response_complete").await;

    assert_eq!(delete(&app, "C-1").await.status(), 204);

    let told = watcher.next().await;
    assert_eq!(
        told,
        json!({"type": "conversation_deleted", "conversation_id": "C-1"})
    );
    app.chat("C-1", "anew").await;
    assert_silent(&mut watcher).await;
    assert_silent(&mut other).await;
    // A message begins it anew.
    watcher.send(message("C-1", "hello")).await;
    watcher.until("response_complete").await;
    assert_eq!(app.said("C-1").await.len(), 4);
}

#[tokio::test]
async fn own_turns_under_way_end_and_then_the_watch_does() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut watcher = watching(&app, "c1").await;
    let mut owner = begun(&app, "c1").await;
    owner.send(message("c1", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    owner.until("chunk").await;
    watcher.until("chunk").await;
    watcher.send(message("c1", "and then?")).await;
    crate::helpers::until("the second message", async || {
        (app.said("c1").await.len() == 2).then_some(())
    })
    .await;

    assert_eq!(delete(&app, "c1").await.status(), 204);

    let end = owner.next().await;
    assert_eq!(
        (&end["type"], &end["finish_reason"]),
        (&json!("response_complete"), &json!("cancelled"))
    );
    assert_silent(&mut owner).await;
    let told = watcher.until("conversation_deleted").await;
    let ends = told.iter().filter(|it| it["type"] == "response_complete");
    let reasons: Vec<_> = ends.map(|end| &end["finish_reason"]).collect();
    assert_eq!(reasons, ["cancelled", "cancelled"]);
    assert_silent(&mut watcher).await;
}

#[tokio::test]
async fn an_own_turn_that_was_not_told_yet_ends_with_an_error() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = begun(&app, "slow").await;
    socket.send(message("slow", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    socket.until("chunk").await;
    // Its events are held back until the slow one's turn is told.
    socket.send(message("gone", "hi")).await;
    crate::helpers::until("the reply", async || {
        let response = app.get("/conversation/gone").await;
        let document: serde_json::Value = response.json().await.unwrap();
        (document["messages"].as_array()?.len() == 2).then_some(())
    })
    .await;

    assert_eq!(delete(&app, "gone").await.status(), 204);
    assert_silent(&mut socket).await;
    gate.open();

    let first = socket.until("response_complete").await;
    assert!(first.iter().all(|it| it["conversation_id"] == "slow"));
    let error = socket.next().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!("conversation_not_found"))
    );
    assert_eq!(error["conversation_id"], "gone");
    assert!(error["turn_id"].is_string());
    assert_silent(&mut socket).await;
}

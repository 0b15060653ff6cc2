//! Conversations leave memory and come back, byte for byte.

use std::collections::BTreeMap;

use serde_json::json;

use super::raw;
use crate::helpers::{Setup, say, until};

/// A reply of 200 kB.
const LONG: &str = "sim/tokens=1,size=200000";

#[tokio::test]
async fn conversations_that_left_memory_come_back_byte_for_byte() {
    let app = Setup::new()
        .set("CONVERSATION_IDLE_SECS", "1")
        .set("DEFAULT_MODEL", "sim/tokens=3,reasoning=2")
        .start()
        .await;
    let odd = "quotes \" and \\ and \u{0} and \u{1F680} and \u{e9}";
    let mut before = BTreeMap::new();
    for number in 0..40 {
        let id = format!("c{number}");
        app.chat(&id, odd).await;
        app.chat(&id, &format!("message of {id}")).await;
        before.insert(id.clone(), raw(&app, &id).await);
    }
    assert!(app.engine.observe().resident_bytes > 0);

    until("every conversation to leave memory", async || {
        let observed = app.engine.observe();
        (observed.conversations == 0).then_some(())
    })
    .await;

    assert_eq!(app.engine.observe().resident_bytes, 0);
    for (id, before) in &before {
        assert_eq!(&raw(&app, id).await, before, "{id}");
    }
    assert_eq!(app.engine.observe().conversations, 40);
    app.chat("c7", "one more").await;
    assert_eq!(app.said("c7").await.len(), 6);
}

#[tokio::test]
async fn a_conversation_whose_history_was_dropped_keeps_its_watchers() {
    let app = Setup::new()
        .set("RESIDENT_HISTORY_MB", "1")
        .set("DEFAULT_CONTEXT_TOKENS", "1000000")
        .start()
        .await;
    let mut watcher = app.socket().await;
    let mut before = Vec::new();
    for number in 0..8 {
        let id = format!("c{number}");
        let start = json!({"type": "start_conversation", "conversation_id": id,
            "character_id": "nova", "watch": true});
        watcher.send(start).await;
        watcher.until("conversation_started").await;
        let mut body = say(&id, "I am Alice");
        body["model"] = LONG.into();
        assert_eq!(app.post("/chat", body).await.status(), 200);
        watcher.until("response_complete").await;
        before.push(raw(&app, &id).await);
    }

    until("histories to be dropped", async || {
        (app.engine.observe().resident_bytes <= 1 << 20).then_some(())
    })
    .await;

    assert_eq!(app.engine.observe().conversations, 8, "watched: they stay");
    // The first one was unused longest: its history is gone, its watcher is not.
    app.chat("c0", "And now?").await;
    let mut seen = watcher.until("user_message").await;
    assert_eq!(seen.pop().unwrap()["content"], "And now?");
    let complete = watcher.until("response_complete").await.pop().unwrap();
    assert_eq!(complete["conversation_id"], "c0");
    let prompt = app.simulator.chat_requests().pop().unwrap().json().unwrap();
    let prompt = prompt["messages"].as_array().unwrap();
    assert_eq!(prompt[1]["content"], "I am Alice");
    assert_eq!(prompt[2]["content"].as_str().unwrap().len(), 200_000);
    for (number, before) in before.iter().enumerate().skip(1) {
        assert_eq!(&raw(&app, &format!("c{number}")).await, before);
    }
}

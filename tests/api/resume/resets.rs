//! Places that cannot be gone on from, and why: over sockets and streams of events.

use idol_simulator::Script;
use serde_json::{Value, json};

use super::{
    event_source::EventSource, long_document, resume, sockets::watcher, streams::events,
    take_until_the_end,
};
use crate::helpers::{Setup, TestApp, say};

/// What a client is told that says what it has: the `reset`, and the `resumed` behind it. Over a
/// socket, and over a stream of events, alike.
async fn reset(app: &TestApp, name: &str, has: &Value) -> (Value, Value) {
    let mut socket = app.socket().await;
    socket.send(resume("c1", &[(name, has)])).await;
    let told = (socket.next().await, socket.next().await);
    let name = name.replace("cursor", "last_event_id");
    let url = app.url(&format!(
        "/conversation/c1/events?{name}={}",
        has.as_str().unwrap()
    ));
    let mut source = EventSource::connect(&app.http, &url, None).await;
    let told_as_events = (source.next().await.unwrap(), source.next().await.unwrap());
    assert_eq!(told, told_as_events);
    assert_eq!(told.0["type"], "reset", "{told:?}");
    assert_eq!(told.1["type"], "resumed", "{told:?}");
    told
}

#[tokio::test]
async fn a_place_in_what_was_replaced_is_none() {
    let app = TestApp::start().await;
    let (mut socket, mut picture) = watcher(&app, "c1").await;
    app.chat("c1", "hi").await;
    let told = take_until_the_end(&mut socket, &mut picture).await;
    let chunk = told.iter().rfind(|it| it["type"] == "chunk").unwrap();
    let place = chunk["cursor"].clone();
    let replaced = app.document("c1").await["messages"][1]["id"].clone();
    let again = app.post("/conversation/c1/regenerate", json!({})).await;
    again.text().await.unwrap();
    // Of the turn that was replaced nothing is kept for showing behind this one.
    app.chat("c1", "more").await;

    for (name, has) in [("cursor", &place), ("after", &replaced)] {
        let (reset, told) = reset(&app, name, has).await;

        assert_eq!(reset["reason"], "replaced", "{reset}");
        assert!(reset.get("turn_id").is_none(), "none of it holds: {reset}");
        assert_eq!(told["messages"], app.document("c1").await["messages"]);
    }
}

#[tokio::test]
async fn a_place_among_tool_calls_that_are_told_in_other_pieces_holds_none_of_the_reply() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    app.chat("c1", "before").await;
    app.simulator.script(Script::from("tokens=3,tools=1"));
    let body = say("c1", "hi");
    let request = app.http.post(app.url("/chat/stream?ids=1")).json(&body);
    let mut source = EventSource::of(request.send().await.unwrap(), None);
    let place = loop {
        let event = source.next().await.unwrap();
        if event["choices"][0]["delta"]["tool_calls"].is_array() {
            break json!(source.last_event_id.clone().unwrap());
        }
    };
    source.until("done").await;
    // In the same pieces it is a place to go on from.
    let url = app.url("/conversation/c1/events");
    let mut source = EventSource::connect(&app.http, &url, place.as_str()).await;
    assert_eq!(source.next().await.unwrap()["type"], "response_complete");
    app.stop().await;
    let app = setup().start().await;

    let (reset, told) = reset(&app, "cursor", &place).await;

    let document = app.document("c1").await;
    let reply = &document["messages"][3];
    assert_eq!(reset["reason"], "retold", "{reset}");
    assert_eq!(reset["turn_id"], reply["turn_id"]);
    assert_eq!(reset["offset"], 0);
    assert_eq!(told["messages"], json!([reply]));
}

#[tokio::test]
async fn who_missed_more_messages_than_are_told_at_once_is_told_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    long_document(directory.path(), 1_200);
    let app = Setup::new().data_dir(directory.path()).start().await;
    let document = app.document("c1").await;
    let messages = document["messages"].as_array().unwrap();

    // As many as are told are told whole.
    let near = resume("c1", &[("after", &messages[199]["id"])]);
    let mut socket = app.socket().await;
    socket.send(near).await;
    assert_eq!(socket.next().await["messages"], json!(messages[200..]));
    let (reset, told) = reset(&app, "after", &messages[198]["id"]).await;

    assert_eq!(reset["reason"], "too_far_behind", "{reset}");
    assert_eq!(told["messages"], json!(messages[1_100..]));
    assert_eq!(told["has_earlier"], true);
}

#[tokio::test]
async fn who_missed_more_turns_than_are_told_as_events_is_told_messages() {
    const TURNS: usize = 104;
    let app = TestApp::start().await;
    let (mut socket, mut picture) = watcher(&app, "c1").await;
    let mut places = Vec::new();
    for number in 0..TURNS {
        app.chat("c1", &format!("message {number}")).await;
        take_until_the_end(&mut socket, &mut picture).await;
        places.push(picture.cursor.clone().unwrap());
    }
    let connect = async |place: &Value| events(&app, "c1", place.as_str()).await;

    let (mut near, mut far) = (connect(&places[4]).await, connect(&places[0]).await);

    assert_eq!(near.next().await.unwrap()["content"], "message 5");
    let reset = far.next().await.unwrap();
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("reset"), &json!("too_far_behind"))
    );
    let told = far.next().await.unwrap();
    let document = app.document("c1").await;
    let newest = &document["messages"].as_array().unwrap()[2 * TURNS - 100..];
    assert_eq!(told["messages"], json!(newest));
    assert_eq!(told["has_earlier"], true);
}

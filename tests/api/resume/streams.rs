//! `GET /conversation/{id}/events`, and `Last-Event-ID` on a repeated request.

use idol_simulator::{Script, reply_text};
use serde_json::{Value, json};

use super::{Picture, again::keyed, assert_whole, cuts::parse, event_source::EventSource};
use crate::helpers::{DEADLINE, Setup, TestApp, refused, say, text_of, until};

pub(super) async fn events(app: &TestApp, conversation: &str, last: Option<&str>) -> EventSource {
    let url = app.url(&format!("/conversation/{conversation}/events"));
    EventSource::connect(&app.http, &url, last).await
}

#[tokio::test]
async fn a_stream_begins_with_the_conversation_as_it_stands_and_goes_on_live() {
    let app = TestApp::start().await;
    app.chat("c1", "first").await;

    let mut source = events(&app, "c1", None).await;
    let mut picture = Picture::default();
    picture.take(&source.next().await.unwrap());
    assert_whole(&app, "c1", &picture).await;
    assert!((500..=10_000).contains(&source.retry.unwrap()));
    app.chat("c1", "second").await;
    for told in source.until("response_complete").await {
        picture.take(&told);
    }

    assert_whole(&app, "c1", &picture).await;
    assert_eq!(source.last_event_id.map(Value::from), picture.cursor);
}

#[tokio::test]
async fn a_place_that_cannot_be_gone_on_from_is_reset_and_all_is_told() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let url = app.url("/conversation/c1/events");
    let unknown = format!("{}.1.1.0.0.1", uuid::Uuid::now_v7().simple());
    for (last, query, reason) in [
        (Some("garbage"), "", "not_a_cursor"),
        (Some(unknown.as_str()), "", "unknown_turn"),
        (None, "?last_event_id=garbage", "not_a_cursor"),
        (None, "?after=garbage", "unknown_message"),
    ] {
        let mut source = EventSource::connect(&app.http, &format!("{url}{query}"), last).await;
        let reset = source.next().await.unwrap();
        let told = source.next().await.unwrap();

        assert_eq!(reset["type"], "reset");
        assert_eq!(reset["reason"], reason);
        assert_eq!(told["messages"].as_array().unwrap().len(), 2);
        // Its id is a place from which a browser goes on.
        let last = source.last_event_id.clone().unwrap();
        app.chat("c1", "more").await;
        let mut source = events(&app, "c1", Some(&last)).await;
        let more = source.until("response_complete").await;
        assert_eq!(more[0]["content"], "more");
        assert_eq!(
            app.http
                .delete(app.url("/conversation/c1"))
                .send()
                .await
                .unwrap()
                .status(),
            204
        );
        assert_eq!(source.next().await.unwrap()["type"], "conversation_deleted");
        assert!(source.next().await.is_none());
        app.chat("c1", "hi").await;
    }
}

#[tokio::test]
async fn the_header_wins_and_an_empty_one_is_none() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let url = app.url("/conversation/c1/events");
    let mut source = EventSource::connect(&app.http, &url, Some("")).await;
    let told = source.next().await.unwrap();
    assert_eq!(told["type"], "resumed");
    let place = told["cursor"].as_str().unwrap();
    app.chat("c1", "more").await;

    let garbled = format!("{url}?last_event_id=garbage");
    let mut source = EventSource::connect(&app.http, &garbled, Some(place)).await;

    assert_eq!(source.next().await.unwrap()["content"], "more");
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let missing = app.get("/conversation/nowhere/events").await;
    refused(missing, 404, "conversation_not_found").await;
    let missing = app.get("/conversation/no%20id/events").await;
    refused(missing, 404, "conversation_not_found").await;
    let nonsense = app.get("/conversation/c1/events?reasoning=perhaps").await;
    refused(nonsense, 422, "invalid_request").await;
    let wrong = app.post("/conversation/c1/events", json!({})).await;
    refused(wrong, 405, "method_not_allowed").await;
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_and_tells_when_to_come_back() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let running = app.stream(say("c1", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut source = events(&app, "c1", None).await;
    source.next().await.unwrap();
    app.chat("idle", "hi").await;
    let mut idle = events(&app, "idle", None).await;
    idle.next().await.unwrap();
    let (http, late) = (app.http.clone(), app.url("/conversation/idle/events"));
    let simulator_gate = gate.clone();
    let drains = app.engine.clone();

    let stopping = tokio::spawn(app.stop());
    until("the server to drain", async || {
        drains.observe().draining.then_some(())
    })
    .await;
    // While it drains, a browser that connects is not turned away for good.
    let mut refused = EventSource::connect(&http, &late, None).await;
    assert!(refused.next().await.is_none());
    assert!(refused.retry.unwrap() >= 1_000);
    simulator_gate.open();

    // The turn under way is told to its end.
    let told = source.until("response_complete").await;
    assert_eq!(told.last().unwrap()["finish_reason"], "stop");
    let first = source.retry;
    assert!(source.next().await.is_none());
    assert!(source.retry.unwrap() >= 1_000, "{first:?}");
    assert!(idle.next().await.is_none());
    assert_eq!(running.all().await.last().unwrap()["type"], "done");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_goes_on_behind_the_event_that_was_seen_last() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    let post = async |app: &TestApp, last: Option<&str>| {
        let request = app
            .http
            .post(app.url("/chat/stream?ids=1"))
            .json(&say("c1", "hi"));
        let request = request.header("Idempotency-Key", "a-key-of-sixteen-characters");
        let request = match last {
            Some(last) => request.header("Last-Event-ID", last),
            None => request,
        };
        let mut response = request.send().await.unwrap();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.unwrap() {
            body.extend_from_slice(&piece);
        }
        body
    };
    app.simulator.script("tokens=9");
    let first = post(&app, None).await;
    let ids: Vec<String> = String::from_utf8(first.clone())
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        .collect();
    let (whole, _) = parse(&first);
    assert_eq!(ids.len(), whole.len(), "every event has its place");
    let check = async |app: &TestApp| {
        for (index, id) in ids.iter().enumerate() {
            let (rest, _) = parse(&post(app, Some(id)).await);
            let again = format!("{}{}", text_of(&whole[..=index]), text_of(&rest));
            assert_eq!(again, reply_text(0, 9));
            assert_eq!(rest.last().unwrap()["type"], "done");
            assert!(
                rest.iter()
                    .all(|event| event["type"] != "conversation_start")
            );
        }
        let (all, _) = parse(&post(app, Some("garbage")).await);
        assert_eq!(all[0]["type"], "conversation_start");
        assert_eq!(text_of(&all), reply_text(0, 9));
    };

    check(&app).await;
    app.stop().await;
    check(&setup().start().await).await;
}

#[tokio::test]
async fn turns_are_told_in_the_order_in_which_they_ran_also_where_one_ran_again() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path()).asking_once();
    let app = setup().start().await;
    app.chat("c1", "before").await;
    let mut source = events(&app, "c1", None).await;
    let start = source.next().await.unwrap();
    let start = start["cursor"].as_str().unwrap().to_owned();
    // The first fails without a word, the second is answered, then the first is asked again.
    app.simulator.script(Script::from("fault=status:503"));
    assert!(keyed(&app, "first").await.is_server_error());
    app.chat("c1", "second").await;
    assert_eq!(keyed(&app, "first").await, 200);
    source.until("response_complete").await;
    source.until("response_complete").await;
    let place = source.last_event_id.clone().unwrap();

    // Who missed all of it is told every message once.
    let mut late = events(&app, "c1", Some(&start)).await;
    let mut picture = Picture::default();
    while picture.ended.len() < 2 {
        picture.take(&late.next().await.unwrap());
    }
    let mut told = picture.said();
    let mut said = app.said("c1").await.split_off(2);
    told.sort();
    said.sort();
    assert_eq!(told, said);

    // Who saw the end of the one that ran again has seen what came between, also after a restart.
    app.stop().await;
    let app = setup().start().await;
    app.chat("c1", "third").await;
    let mut source = events(&app, "c1", Some(&place)).await;
    assert_eq!(source.next().await.unwrap()["content"], "third");
}

//! Coming back to turns that ran again, that waited, or that ended without a word.

use idol_simulator::{Script, reply_text};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    Picture, assert_whole, event_source::EventSource, long_document, resume, resumed,
    sockets::watcher, take_until_the_end,
};
use crate::{
    helpers::{DEADLINE, Setup, TestApp, content_of, say, text_of, until},
    resilience::{answered, sent},
};

const KEY: &str = "a-key-of-sixteen-characters";

pub(super) async fn keyed(app: &TestApp, text: &str) -> reqwest::StatusCode {
    let request = app.http.post(app.url("/chat")).json(&say("c1", text));
    let answer = request.header("Idempotency-Key", KEY).send().await;
    answer.unwrap().status()
}

/// A place given out at the end of a run that failed, and what was seen until there.
async fn failed_once(app: &TestApp) -> Picture {
    let (mut socket, mut picture) = watcher(app, "c1").await;
    app.simulator.script(Script::from("fault=status:503"));
    assert!(keyed(app, "first").await.is_server_error());
    for told in socket.until("error").await {
        picture.take(&told);
    }
    picture
}

/// Goes on over a socket until it has as many messages as the document.
async fn over_a_socket(app: &TestApp, mut picture: Picture) -> Picture {
    let cursor = picture.cursor.clone().unwrap();
    let mut socket = app.socket().await;
    socket.send(resume("c1", &[("cursor", &cursor)])).await;
    let wanted = app.said("c1").await.len();
    while picture.messages.len() < wanted {
        picture.take(&socket.next().await);
    }
    picture
}

/// The same over a stream of events.
async fn over_events(app: &TestApp, mut picture: Picture) -> Picture {
    let cursor = picture.cursor.clone().unwrap();
    let url = app.url("/conversation/c1/events");
    let mut source = EventSource::connect(&app.http, &url, cursor.as_str()).await;
    let (wanted, last) = (app.said("c1").await.len(), picture.ended.len());
    while picture.messages.len() < wanted || picture.ended.len() == last {
        picture.take(&source.next().await.unwrap());
    }
    picture
}

fn sorted(mut said: Vec<(String, String)>) -> Vec<(String, String)> {
    said.sort();
    said
}

#[tokio::test]
async fn who_saw_a_turn_fail_is_told_its_next_run_and_what_came_between() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path()).asking_once();
    for between in [0, 2] {
        let app = setup().start().await;
        let deleted = app.http.delete(app.url("/conversation/c1")).send().await;
        deleted.unwrap();
        let seen = failed_once(&app).await;
        for number in 0..between {
            app.chat("c1", &format!("between {number}")).await;
        }
        assert_eq!(keyed(&app, "first").await, 200);
        let check = async |app: &TestApp| {
            for has in [
                over_a_socket(app, seen.clone()).await,
                over_events(app, seen.clone()).await,
            ] {
                let said = app.said("c1").await;
                assert_eq!(sorted(has.said()), sorted(said), "{between} between");
            }
        };
        check(&app).await;
        // And again when nothing of it is kept for showing any more.
        app.stop().await;
        let app = setup().start().await;
        check(&app).await;
        app.stop().await;
    }
}

#[tokio::test]
async fn a_repeat_that_saw_the_first_run_fail_is_told_the_second_one_whole() {
    let app = Setup::new().asking_once().start().await;
    let post = async |last: Option<&str>| -> (Vec<String>, String) {
        let request = app.http.post(app.url("/chat/stream?ids=1"));
        let mut request = request
            .json(&say("c1", "first"))
            .header("Idempotency-Key", KEY);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let body = request.send().await.unwrap().text().await.unwrap();
        let ids = body.lines().filter_map(|line| line.strip_prefix("id: "));
        (ids.map(str::to_owned).collect(), body)
    };
    // It fails when its stream has begun.
    app.simulator
        .script(Script::from("tokens=3,fault=reset,after=0"));
    let (ids, failed) = post(None).await;
    assert!(failed.contains("\"type\":\"error\""), "{failed}");
    // A repeat runs it again, but its answer gets lost on the way.
    app.simulator.script(Script::from("tokens=9"));
    post(ids.last().map(String::as_str)).await;

    let (_, told) = post(ids.last().map(String::as_str)).await;

    let said = app.said("c1").await;
    let data = told.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(text_of(&events), said[1].1, "{told}");
}

/// A turn that is being told, and one that waits behind it; opens the gate when it is dropped.
async fn one_runs_and_one_waits(
    app: &TestApp,
    gate: &idol_simulator::Gate,
) -> Vec<JoinHandle<Response>> {
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, gate));
    let mut posted = vec![sent(app, "/chat", say("c1", "runs"))];
    gate.reached(1, DEADLINE).await.unwrap();
    until("the conversation to be there", async || {
        (app.get("/conversation/c1").await.status() == 200).then_some(())
    })
    .await;
    posted.push(sent(app, "/chat", say("c1", "waits")));
    until("both messages to be there", async || {
        (app.said("c1").await.len() == 2).then_some(())
    })
    .await;
    posted
}

#[tokio::test]
async fn a_message_that_waits_is_a_place_to_go_on_from() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let posted = one_runs_and_one_waits(&app, &gate).await;
    let document = app.document("c1").await;
    let last = &document["messages"][1]["id"];

    let (mut socket, told) = resumed(&app, "c1", &[("after", last)]).await;

    assert_eq!(told["messages"], json!([]), "{told}");
    assert_eq!(
        told["turn"]["message_id"].as_str().map(str::len),
        Some(36),
        "{told}"
    );
    gate.open();
    socket.until("response_complete").await;
    socket.until("response_complete").await;
    for answer in posted {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_turn_that_was_stopped_while_it_waited_is_told_once() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let posted = one_runs_and_one_waits(&app, &gate).await;
    let document = app.document("c1").await;
    let turn = &document["messages"][1]["turn_id"];
    let stop = json!({ "turn_id": turn });
    let stopped = app.post("/conversation/c1/cancel", stop).await;
    assert_eq!(stopped.status(), 200);

    let (mut socket, told) = resumed(&app, "c1", &[]).await;
    let mut picture = Picture::default();
    picture.take(&told);
    gate.open();
    while picture.ended.is_empty() || picture.messages.len() < 3 {
        picture.take(&socket.next().await);
    }

    assert_eq!(
        sorted(picture.said()),
        sorted(app.said("c1").await),
        "{told}"
    );
    for answer in posted {
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn who_comes_late_is_told_the_message_of_a_turn_that_waits_to_run_again() {
    let app = Setup::new().asking_once().start().await;
    let mut seen = failed_once(&app).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let runs = sent(&app, "/chat", say("c1", "second"));
    gate.reached(1, DEADLINE).await.unwrap();
    // It is accepted when its answer begins.
    let request = app.http.post(app.url("/chat/stream"));
    let request = request.json(&say("c1", "first"));
    let again = request.header("Idempotency-Key", KEY).send().await.unwrap();

    let (mut late, told) = resumed(&app, "c1", &[]).await;
    let mut picture = Picture::default();
    picture.take(&told);
    let cursor = seen.cursor.clone().unwrap();
    let mut socket = app.socket().await;
    socket.send(resume("c1", &[("cursor", &cursor)])).await;
    seen.take(&socket.next().await);
    gate.open();
    while seen.ended.len() < 2 {
        seen.take(&socket.next().await);
    }
    while picture.ended.len() < 2 {
        picture.take(&late.next().await);
    }

    assert_eq!(runs.await.unwrap().status(), 200);
    assert_eq!(again.status(), 200);
    for has in [seen, picture] {
        assert_eq!(sorted(has.said()), sorted(app.said("c1").await));
    }
}

#[tokio::test]
async fn a_conversation_of_another_server_is_told_once_however_long_it_is() {
    let directory = tempfile::tempdir().unwrap();
    long_document(directory.path(), 1_200);
    let app = Setup::new().data_dir(directory.path()).start().await;
    let (_, told) = resumed(&app, "c1", &[]).await;
    assert_eq!(told["messages"].as_array().unwrap().len(), 100);

    let (_, again) = resumed(&app, "c1", &[("cursor", &told["cursor"])]).await;

    assert_eq!(again["messages"], json!([]));
    app.chat("c1", "and now?").await;
    let mut picture = Picture {
        cursor: Some(told["cursor"].clone()),
        ..Picture::default()
    };
    let cursor = picture.cursor.clone().unwrap();
    let url = app.url("/conversation/c1/events");
    let mut source = EventSource::connect(&app.http, &url, cursor.as_str()).await;
    while picture.ended.is_empty() {
        picture.take(&source.next().await.unwrap());
    }
    assert_eq!(picture.said(), app.said("c1").await[1_200..]);
}

#[tokio::test]
async fn the_end_of_a_turn_that_was_missed_is_told_also_where_it_said_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    for (id, words, stops) in [
        ("said-all", 4, None),
        ("stopped", 4, Some(json!({}))),
        ("stopped-early", 0, Some(json!({}))),
    ] {
        let app = setup().start().await;
        let (mut socket, _) = watcher(&app, id).await;
        let gate = app.simulator.gate();
        app.simulator
            .script(Script::from("tokens=9").hold_at(words, &gate));
        let answer = sent(&app, "/chat", say(id, "hi"));
        let start = socket.until("response_start").await.pop().unwrap();
        let mut cursor = start["cursor"].clone();
        if words > 0 {
            let told = socket.until_text(reply_text(0, words).len()).await;
            cursor = told.last().unwrap()["cursor"].clone();
        }
        drop(socket);
        if let Some(stop) = &stops {
            let path = format!("/conversation/{id}/cancel");
            assert_eq!(app.post(&path, stop.clone()).await.status(), 200);
        }
        gate.open();
        answered(answer).await;
        let check = async |app: &TestApp| {
            let (mut socket, told) = resumed(app, id, &[("cursor", &cursor)]).await;
            let end = socket.next().await;
            assert_eq!(end["type"], "response_complete", "{told}");
            assert_eq!(end["turn_id"], start["turn_id"]);
            assert!(
                end.get("cursor").is_none(),
                "that of resumed is the newest: {end}"
            );
            let reason = if stops.is_some() { "cancelled" } else { "stop" };
            assert_eq!(end["finish_reason"], reason);
            assert_eq!(end["usage"].is_object(), stops.is_none(), "{end}");
            assert_eq!(
                told["messages"].as_array().unwrap().len(),
                usize::from(words > 0)
            );
            // It is told once.
            let (mut socket, _) = resumed(app, id, &[("cursor", &told["cursor"])]).await;
            socket.send(json!({"type": "ping"})).await;
            assert_eq!(socket.next().await["type"], "pong");
        };
        check(&app).await;
        app.stop().await;
        let app = setup().start().await;
        check(&app).await;
        app.stop().await;
    }
}

#[tokio::test]
async fn an_own_turn_that_was_begun_before_the_watch_has_its_places_too() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let mut socket = app.socket().await;
    let mine = json!({"type": "message", "conversation_id": "c1", "message": "mine",
        "client_message_id": "m-1"});
    socket.send(mine).await;
    let mut picture = Picture::default();
    let told = socket.until_text(reply_text(0, 4).len()).await;
    picture.add("user", &told[0]["message_id"], "mine");
    for told in &told[1..] {
        picture.take(told);
    }
    let cursor = picture.cursor.clone().unwrap();
    socket.send(resume("c1", &[("cursor", &cursor)])).await;
    loop {
        let told = socket.next().await;
        picture.take(&told);
        if told["type"] == "resumed" {
            break;
        }
    }

    gate.open();

    let rest = take_until_the_end(&mut socket, &mut picture).await;
    assert!(rest.iter().all(|it| it["cursor"].is_string()), "{rest:?}");
    assert!(!content_of(&rest).is_empty());
    assert_whole(&app, "c1", &picture).await;
}

#[tokio::test]
async fn each_message_of_a_turn_of_several_has_its_place() {
    let app = TestApp::start().await;
    app.chat("c1", "before").await;
    let (_, told) = resumed(&app, "c1", &[]).await;
    let start = told["cursor"].as_str().unwrap().to_owned();
    let several = json!({"conversation_id": "c1", "messages": [
        {"role": "user", "content": "one"}, {"role": "user", "content": "two"},
        {"role": "user", "content": "three"}]});
    assert_eq!(app.post("/chat", several).await.status(), 200);
    let url = app.url("/conversation/c1/events");
    let mut last = start;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|it| it != "response_complete") {
        let mut source = EventSource::connect(&app.http, &url, Some(&last)).await;
        let event = source.next().await.unwrap();
        seen.push(match event["type"].as_str().unwrap() {
            "user_message" => event["content"].as_str().unwrap().to_owned(),
            other => other.to_owned(),
        });
        assert_eq!(event["cursor"], source.last_event_id.clone().unwrap());
        assert_ne!(source.last_event_id.as_deref(), Some(&*last), "{event}");
        last = source.last_event_id.unwrap();
    }
    seen.dedup_by(|next, before| next == before && next == "chunk");
    assert_eq!(
        seen,
        [
            "one",
            "two",
            "three",
            "response_start",
            "chunk",
            "response_complete"
        ]
    );
}

#[tokio::test]
async fn what_a_regenerated_reply_answers_is_told_also_where_that_reply_alone_is_kept() {
    let app = TestApp::start().await;
    app.chat("c1", "before").await;
    let (_, told) = resumed(&app, "c1", &[]).await;
    let mut seen = Picture::default();
    seen.take(&told);
    app.chat("c1", "asked").await;
    let again = app.post("/conversation/c1/regenerate", json!({})).await;
    assert_eq!(again.status(), 200);

    for has in [
        over_a_socket(&app, seen.clone()).await,
        over_events(&app, seen.clone()).await,
    ] {
        assert_eq!(has.said(), app.said("c1").await);
    }
}

#[tokio::test]
async fn what_a_regenerated_reply_answers_is_told_before_what_it_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    app.chat("c1", "before").await;
    let (_, told) = resumed(&app, "c1", &[]).await;
    app.chat("c1", "asked").await;
    let again = app.post("/conversation/c1/regenerate", json!({})).await;
    assert_eq!(again.status(), 200);
    app.stop().await;
    let app = setup().start().await;
    let url = app.url("/conversation/c1/events");

    let mut source = EventSource::connect(&app.http, &url, told["cursor"].as_str()).await;

    let events = source.until("response_complete").await;
    let asked = &app.document("c1").await["messages"][2]["id"];
    assert_eq!(events[0]["type"], "user_message", "{events:?}");
    assert_eq!(events[0]["message_id"], *asked);
    assert_eq!(events[1]["type"], "history_truncated");
    assert_eq!(events[1]["after"], *asked);
}

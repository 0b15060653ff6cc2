//! What a repeat is answered, whenever it comes.

use idol_simulator::{Script, reply_text};
use serde_json::{Value, json};

use super::{KEY, chat, content, essence, post, stream};
use crate::helpers::{DEADLINE, Events, Setup, TestApp, refused, say, text_of, until};

/// An event without its place, which is another one in text that is told again.
fn unplaced(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("cursor");
    event
}

/// The events of a stream but its chunks, which may be cut in any way.
fn frame(events: &[Value]) -> Vec<&Value> {
    let framing = |event: &&Value| event["type"].is_string();
    events.iter().filter(framing).collect()
}

#[tokio::test]
async fn two_at_the_same_moment_are_one_turn() {
    let app = TestApp::start().await;
    for round in 0..20 {
        let id = format!("c{round}");
        let body = say(&id, "hi");
        let (one, two) = futures::join!(chat(&app, KEY, &body), chat(&app, KEY, &body));
        let (three, four) = futures::join!(stream(&app, KEY, &body), stream(&app, KEY, &body));

        assert_eq!(essence(&one), essence(&two));
        let (three, four) = (three.all().await, four.all().await);
        for events in [&three, &four] {
            assert_eq!(text_of(events), content(&one));
            assert_eq!(events[0]["turn_id"], one["turn_id"]);
        }
        assert_eq!(app.said(&id).await.len(), 2);
    }
    assert_eq!(app.simulator.chat_requests().len(), 20);
}

#[tokio::test]
async fn two_streams_at_the_same_moment_begin_alike() {
    let app = TestApp::start().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let (one, two) = futures::join!(stream(&app, KEY, &body), stream(&app, KEY, &body));
    let (one, two) = (one.all().await, two.all().await);

    assert_eq!(frame(&one), frame(&two));
    assert_eq!(text_of(&one), text_of(&two));
    assert_eq!(one[0]["type"], "conversation_start");
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_repeat_attaches_to_the_turn_under_way_and_sees_all_of_it() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let body = say("c1", "hi");
    let mut first = stream(&app, KEY, &body).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut seen = vec![first.next().await.unwrap(), first.next().await.unwrap()];

    let mut again = stream(&app, KEY, &body).await;
    let mut seen_again = vec![again.next().await.unwrap(), again.next().await.unwrap()];
    let path = app.url("/chat");
    let request = app.http.post(path).header("Idempotency-Key", KEY);
    let whole = tokio::spawn(request.json(&body).send());
    gate.open();
    seen.extend(first.all().await);
    seen_again.extend(again.all().await);
    let whole: Value = whole.await.unwrap().unwrap().json().await.unwrap();

    assert_eq!(frame(&seen), frame(&seen_again));
    assert_eq!(text_of(&seen_again), reply_text(0, 9));
    assert_eq!(text_of(&seen), reply_text(0, 9));
    assert_eq!(content(&whole), reply_text(0, 9));
    assert_eq!(whole["turn_id"], seen[0]["turn_id"]);
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_repeat_after_the_end_and_after_a_restart_is_answered_alike() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    let body = say("c1", "hi");
    let first = chat(&app, KEY, &body).await;
    app.chat("c1", "something else").await;
    app.chat("c1", "and more").await;
    let check = async |app: &TestApp| {
        let again = chat(app, KEY, &body).await;
        assert_eq!(essence(&again), essence(&first));
        assert!(
            again["created"].as_i64().unwrap() > 1_000_000_000,
            "{again}"
        );
        assert!(!again["id"].as_str().unwrap().is_empty());
        let events = stream(app, KEY, &body).await.all().await;
        let [start, done] = [events.first().unwrap(), events.last().unwrap()];
        assert_eq!(start["type"], "conversation_start");
        assert_eq!(start["turn_id"], first["turn_id"]);
        assert_eq!(text_of(&events), content(&first));
        let finish = |event: &&Value| event["choices"][0]["finish_reason"] == "stop";
        assert!(events.iter().any(|event| finish(&event)), "{events:?}");
        assert_eq!(done["type"], "done");
        assert_eq!(done["message_id"], first["message_id"]);
        assert_eq!(done["finish_reason"], "stop");
        assert_eq!(app.said("c1").await.len(), 6);
    };

    check(&app).await;
    assert_eq!(app.simulator.chat_requests().len(), 3);
    app.stop().await;
    let app = setup().start().await;
    check(&app).await;

    assert_eq!(app.simulator.chat_requests().len(), 0);
}

#[tokio::test]
async fn a_repeat_sees_the_tool_calls_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    app.simulator.script(Script::from("tools=2"));
    let body = say("c1", "hi");
    let first = chat(&app, KEY, &body).await;
    let calls = first["choices"][0]["message"]["tool_calls"].clone();
    assert_eq!(calls.as_array().unwrap().len(), 2);
    app.stop().await;
    let app = setup().start().await;

    let again = chat(&app, KEY, &body).await;
    let events = stream(&app, KEY, &body).await.all().await;

    assert_eq!(again["choices"][0]["message"]["tool_calls"], calls);
    let delta = |event: &Value| {
        event["choices"][0]["delta"]["tool_calls"]
            .as_array()
            .cloned()
    };
    let mut streamed: Vec<Value> = events.iter().filter_map(delta).flatten().collect();
    for (index, call) in streamed.iter_mut().enumerate() {
        assert_eq!(call["index"], index);
        call.as_object_mut().unwrap().remove("index");
    }
    assert_eq!(Value::from(streamed), calls);
}

#[tokio::test]
async fn a_turn_that_failed_before_any_text_runs_again() {
    let app = Setup::new().asking_once().start().await;
    let body = say("c1", "hi");
    for fault in ["fault=status:503", "fault=reset_early"] {
        app.simulator.script(Script::from(fault));
        let failed = post(&app, "/chat", KEY, &body).await;
        assert!(failed.status().is_server_error(), "{fault}");
    }
    let failed_at = app.document("c1").await["messages"][0]["turn_id"].clone();

    let answer = chat(&app, KEY, &body).await;
    let again = stream(&app, KEY, &body).await.all().await;

    assert_eq!(answer["turn_id"], failed_at);
    assert_eq!(text_of(&again), content(&answer));
    let said = app.said("c1").await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1].1, content(&answer));
    assert_eq!(app.simulator.chat_requests().len(), 3);
}

#[tokio::test]
async fn a_turn_that_broke_off_with_some_text_is_returned_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().asking_once().data_dir(directory.path());
    let app = setup().start().await;
    let body = say("c1", "hi");
    app.simulator
        .script(Script::from("tokens=9,fault=cut,after=4"));
    let broken = stream(&app, KEY, &body).await.all().await;
    assert_eq!(broken.last().unwrap()["type"], "error");
    let turn = &broken[0]["turn_id"];
    let check = async |app: &TestApp| {
        let answer = chat(app, KEY, &body).await;
        assert_eq!(answer["turn_id"], *turn);
        assert_eq!(content(&answer), reply_text(0, 4));
        assert_eq!(answer["choices"][0]["finish_reason"], "error");
        let events = stream(app, KEY, &body).await.all().await;
        assert_eq!(unplaced(&events[0]), unplaced(&broken[0]));
        assert_eq!(text_of(&events), reply_text(0, 4));
        let done = events.last().unwrap();
        assert_eq!(
            (&done["type"], &done["finish_reason"]),
            (&json!("done"), &json!("error"))
        );
        assert_eq!(app.said("c1").await.len(), 2);
    };

    check(&app).await;
    assert_eq!(app.simulator.chat_requests().len(), 1);
    app.stop().await;
    let app = setup().start().await;
    check(&app).await;
    assert_eq!(app.simulator.chat_requests().len(), 0);
}

#[tokio::test]
async fn a_turn_that_the_servers_stop_cut_is_returned_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().set("SHUTDOWN_GRACE_SECS", "0").start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let body = say("c1", "hi");
    let mut first: Events = stream(&app, KEY, &body).await;
    while text_of(&[first.next().await.unwrap()]).is_empty() {}
    app.stop().await;
    let app = setup().start().await;

    let answer = chat(&app, KEY, &body).await;

    assert_eq!(answer["choices"][0]["finish_reason"], "interrupted");
    assert!(reply_text(0, 9).starts_with(content(&answer)) && !content(&answer).is_empty());
    assert_eq!(app.simulator.chat_requests().len(), 0);
}

#[tokio::test]
async fn a_client_that_left_gets_its_reply_by_asking_again() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let mut left = stream(&app, KEY, &body).await;
    let start = left.next().await.unwrap();
    drop(left);
    gate.open();

    let answer = chat(&app, KEY, &body).await;

    assert_eq!(answer["conversation_id"], start["conversation_id"]);
    assert_eq!(answer["turn_id"], start["turn_id"]);
    assert_eq!(content(&answer), reply_text(0, 9));
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[tokio::test]
async fn after_a_deletion_the_key_is_new() {
    let app = TestApp::start().await;
    let body = say("c1", "hi");
    let first = chat(&app, KEY, &body).await;
    assert_eq!(crate::deletion::delete(&app, "c1").await.status(), 204);
    until("the conversation's end", async || {
        (app.get("/conversation/c1").await.status() == 404).then_some(())
    })
    .await;

    let second = chat(&app, KEY, &body).await;

    assert_ne!(second["turn_id"], first["turn_id"]);
    assert_eq!(app.said("c1").await.len(), 2);
    let other = post(&app, "/chat", KEY, &say("c1", "ho")).await;
    refused(other, 422, "idempotency_mismatch").await;
}

//! A conversation that panics harms itself alone, and comes back with everything that was acknowledged.

use idol_actors::shared::{Failpoint, Placement};
use idol_simulator::{Script, reply_text};
use serde_json::json;

use super::{Watch, assert_refused, assistant, raw, sent, user};
use crate::helpers::{DEADLINE, Setup, TestApp, say, text_of};

/// A server whose conversations all share one thread.
async fn on_one_thread(watch: &Watch) -> TestApp {
    Setup::new()
        .tuning(|tuning| {
            tuning.placement = Some(Placement::Engine(1));
            tuning.failpoints = Some(watch.failpoints());
        })
        .start()
        .await
}

#[tokio::test]
async fn a_panic_ends_the_turn_of_its_conversation_and_no_other() {
    let watch = Watch::default();
    let app = on_one_thread(&watch).await;
    app.chat("victim", "first").await;
    let kept = app.said("victim").await;
    let gate = app.simulator.gate();
    let held = || Script::from("tokens=6").hold_at(3, &gate);
    let mut neighbour = {
        app.simulator.script(held());
        app.stream(say("neighbour", "I am Bob")).await
    };
    app.simulator.script(held());
    let mut victim = app.stream(say("victim", "second")).await;
    app.simulator.script(held());
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "victim-2",
        "character_id": "nova", "message": "I am Carol"});
    socket.send(start).await;
    socket.until("chunk").await;
    gate.reached(3, DEADLINE).await.unwrap();
    for events in [&mut neighbour, &mut victim] {
        assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
    }
    for id in ["victim", "victim-2"] {
        watch.panic_at(Failpoint::Progress, id, 1);
    }

    gate.open();

    let victim = victim.all().await;
    let last = victim.last().unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(last["code"], "conversation_restarted");
    assert!(last["retry_after"].as_u64().unwrap() >= 1);
    let told = socket.until("error").await.pop().unwrap();
    assert_eq!(told["code"], "conversation_restarted");
    assert_eq!(told["conversation_id"], "victim-2");
    let neighbour = neighbour.all().await;
    assert_eq!(text_of(&neighbour), reply_text(0, 6));
    assert_eq!(neighbour.last().unwrap()["type"], "done");
    // What was acknowledged is there; the socket is as good as before.
    let said = app.said("victim").await;
    assert!(
        said.starts_with(&[&kept[..], &[user("second")]].concat()),
        "{said:?}"
    );
    socket
        .send(json!({"type": "message", "message": "Are you there?"}))
        .await;
    socket.until("response_complete").await;
    assert_eq!(app.said("victim-2").await[0], user("I am Carol"));
    app.chat("victim", "third").await;
    drop(socket);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_message_that_a_panic_left_without_an_answer_is_there_once_after_a_retry() {
    for failpoint in [Failpoint::Committed, Failpoint::Progress] {
        let watch = Watch::default();
        let app = on_one_thread(&watch).await;
        app.chat("c1", "first").await;
        watch.panic_at(failpoint, "c1", 1);
        let refused = app.post("/chat", say("c1", "second")).await;
        assert_refused(refused, 503, "conversation_restarted").await;

        app.chat("c1", "second").await;

        let reply = assistant(&reply_text(0, 5));
        let said = [user("first"), reply.clone(), user("second"), reply];
        assert_eq!(app.said("c1").await, said, "{failpoint:?}");
        let prompt = app.simulator.chat_requests().pop().unwrap().json().unwrap();
        let prompt = prompt["messages"].as_array().unwrap();
        assert_eq!(prompt.len(), 4, "system and three: {prompt:?}");
    }
}

#[tokio::test]
async fn a_message_that_the_conversation_had_not_taken_when_it_died_is_answered_by_the_next() {
    let watch = Watch::default();
    let app = on_one_thread(&watch).await;
    app.chat("c1", "first").await;
    watch.panic_at(Failpoint::BeforeAppend, "c1", 1);

    app.chat("c1", "second").await;

    let reply = assistant(&reply_text(0, 5));
    let said = [user("first"), reply.clone(), user("second"), reply];
    assert_eq!(app.said("c1").await, said);
}

#[tokio::test]
async fn turns_that_wait_behind_a_panic_are_told_and_kept() {
    let watch = Watch::default();
    let app = on_one_thread(&watch).await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_at(2, &gate));
    let running = app.stream(say("c1", "first")).await;
    let second = app.stream(say("c1", "second")).await;
    let third = sent(&app, "/chat", say("c1", "third"));
    watch.reached(Failpoint::Committed, "c1", 3).await;
    watch.panic_at(Failpoint::Progress, "c1", 1);

    gate.open();

    for events in [running, second] {
        let last = events.all().await.pop().unwrap();
        assert_eq!(last["code"], "conversation_restarted");
    }
    assert_refused(super::answered(third).await, 503, "conversation_restarted").await;
    // Of the first one's reply there may be what was kept before the panic.
    let users = async || -> Vec<_> {
        let said = app.said("c1").await;
        said.into_iter().filter(|it| it.0 == "user").collect()
    };
    let told = [user("first"), user("second"), user("third")];
    assert_eq!(users().await, told);
    app.chat("c1", "fourth").await;
    assert_eq!(users().await, [&told[..], &[user("fourth")]].concat());
}

#[tokio::test]
async fn a_conversation_that_keeps_panicking_is_refused_for_a_while_and_others_are_not() {
    let watch = Watch::default();
    let app = on_one_thread(&watch).await;
    app.chat("c1", "first").await;
    app.chat("neighbour", "first").await;
    let before = raw(&app, "neighbour").await;
    watch.panic_at(Failpoint::BeforeAppend, "c1", usize::MAX);
    for _ in 0..idol_actors::limits::RESTARTS_MAX {
        let refused = app.post("/chat", say("c1", "second")).await;
        assert_refused(refused, 503, "conversation_restarted").await;
    }
    let tried = watch.count(Failpoint::BeforeAppend, "c1");

    let refused = app.post("/chat", say("c1", "second")).await;

    assert_refused(refused, 503, "conversation_restarted").await;
    assert_refused(
        app.get("/conversation/c1").await,
        503,
        "conversation_restarted",
    )
    .await;
    assert_eq!(
        watch.count(Failpoint::BeforeAppend, "c1"),
        tried,
        "it was started once more"
    );
    assert_eq!(raw(&app, "neighbour").await, before);
    app.chat("neighbour", "second").await;
}

//! Turns of one client come one after the other, and none of its messages is lost.

use idol_simulator::{Script, sized_reply_text};
use serde_json::{Value, json};

use super::{TURN, assert_silent, begun, content_of, course, message, with};
use crate::{
    helpers::{Setup, TestApp, types, until},
    resilience::Commits,
};

#[tokio::test]
async fn two_messages_at_once_in_one_conversation_are_answered_one_after_the_other() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("the first").hold_at(1, &gate));
    app.simulator.script(Script::new().text("the second"));
    let mut socket = begun(&app, "c1").await;

    socket.send(message("c1", "one")).await;
    socket.send(message("c1", "two")).await;
    until("both messages in the log", async || {
        (app.said("c1").await.len() == 2).then_some(())
    })
    .await;
    gate.open();
    let first = socket.until("response_complete").await;
    let second = socket.until("response_complete").await;

    assert_eq!(course(&first), TURN);
    assert_eq!(course(&second), TURN);
    assert_eq!(content_of(&first), "the first");
    assert_eq!(content_of(&second), "the second");
    let said: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(said, ["one", "the first", "two", "the second"]);
}

#[tokio::test]
async fn turns_of_two_conversations_are_not_interleaved() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("held back").hold_at(1, &gate));
    app.simulator.script("tokens=64,size=4096");
    let mut socket = begun(&app, "slow").await;
    socket.send(message("slow", "one")).await;
    let mut slow = socket.until("chunk").await;

    socket.send(message("quick", "two")).await;
    until("the quick reply in the log", async || {
        let answer = app.get("/conversation/quick").await;
        (answer.status() == 200 && app.said("quick").await.len() == 2).then_some(())
    })
    .await;
    assert_silent(&mut socket).await;
    gate.open();
    slow.extend(socket.until("response_complete").await);
    let quick = socket.until("response_complete").await;

    assert_eq!(course(&slow), TURN);
    assert_eq!(content_of(&slow), "held back");
    assert_eq!(course(&quick), TURN);
    assert!(quick.iter().all(|it| it["conversation_id"] == "quick"));
    assert_eq!(content_of(&quick), sized_reply_text(0, 64, 4096));
}

#[tokio::test]
async fn of_many_messages_at_once_each_is_answered_or_refused() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("ok").hold_at(0, &gate));
    let mut socket = begun(&app, "c1").await;

    for number in 0..80 {
        let numbered = with(message("c1", "hi"), "client_message_id", number.to_string());
        socket.send(numbered).await;
    }
    // All have been read once the ping behind them is answered; the first turn still runs.
    socket.send(json!({"type": "ping"})).await;
    let mut messages = socket.until("pong").await;
    gate.open();
    let over = |it: &Value| it["type"] == "response_complete" || it["type"] == "error";
    while messages.iter().filter(|it| over(it)).count() < 80 {
        messages.push(socket.next().await);
    }

    assert_silent(&mut socket).await;
    let errors: Vec<_> = messages.iter().filter(|it| it["type"] == "error").collect();
    assert!(
        errors.iter().all(|it| it["code"] == "conversation_busy"),
        "{errors:?}"
    );
    assert!(
        errors.iter().all(|it| it["retry_after"].is_u64()),
        "{errors:?}"
    );
    // One turn runs and eight wait in the conversation; what is refused before it was read has
    // no turn.
    assert!(errors.iter().any(|it| it["turn_id"].is_null()));
    let answered = types(&messages)
        .iter()
        .filter(|kind| **kind == "message_received")
        .count();
    assert!(answered >= 9, "{answered}");
    assert_eq!(answered + errors.len(), 80);
    assert_eq!(app.said("c1").await.len(), 2 * answered);
}

#[tokio::test]
async fn a_refused_message_does_not_seem_to_end_the_turn_before_it() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    let mut first = socket.until("chunk").await;

    // Eight wait; the ninth is refused with an error that names the conversation.
    for _ in 0..9 {
        socket.send(message("c1", "more")).await;
    }
    until("the messages in the log", async || {
        (app.said("c1").await.len() == 9).then_some(())
    })
    .await;
    assert_silent(&mut socket).await;
    gate.open();
    first.extend(socket.until("response_complete").await);

    assert_eq!(course(&first), TURN);
    let rest = socket.until("error").await;
    assert_eq!(rest.last().unwrap()["code"], "conversation_busy");
    let completed = types(&rest)
        .iter()
        .filter(|kind| **kind == "response_complete")
        .count();
    assert_eq!(completed, 8, "the refusal stands in its place");
}

#[tokio::test]
async fn what_a_turn_sent_before_its_start_was_answered_costs_no_credit() {
    let commits = Commits::default();
    let setup = Setup::new();
    let app = setup
        .tuning(|tuning| tuning.log.before_commit = Some(commits.failpoint()))
        .start()
        .await;
    let gates = [app.simulator.gate(), app.simulator.gate()];
    let script = Script::from("tokens=3,size=65536");
    app.simulator
        .script(script.hold_at(1, &gates[0]).hold_at(2, &gates[1]));
    let mut socket = begun(&app, "c1").await;

    // The reply is here before its message is synced: a whole window of events goes out at once.
    commits.hold();
    socket.send(message("c1", "hi")).await;
    until_deltas(&app, 1).await;
    gates[0].open();
    until_deltas(&app, 2).await;
    commits.release();

    // All that came before the gate arrives, without the help of the deadline for stalled clients.
    let mut messages = vec![socket.next().await];
    while content_of(&messages).len() < 2 * 65_536 {
        messages.push(socket.next().await);
    }
    gates[1].open();
    messages.extend(socket.until("response_complete").await);
    assert_eq!(course(&messages), TURN);
    assert!(content_of(&messages) == sized_reply_text(0, 3, 65_536));
}

/// Waits until so many pieces of replies have come to conversations.
async fn until_deltas(app: &TestApp, deltas: u64) {
    until("a piece of the reply", async || {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("idol_router_reply_deltas_total "));
        (line?.parse::<u64>().unwrap() >= deltas).then_some(())
    })
    .await;
}

//! Turns that end before their upstream does, and upstreams that are not there.

use idol_actors::{caller::Caller, conversation::command::CancelTurn, id::ConversationId};
use idol_simulator::{Options, Script, Simulator, reply_text, sized_reply_text};
use serde_json::json;

use super::doors::{Client, DOORS};
use crate::helpers::{DEADLINE, Setup, TestApp, say, text_of, until};

async fn cancel(app: &TestApp, conversation: &str) -> usize {
    let id = ConversationId::parse(conversation).unwrap();
    let command = CancelTurn {
        caller: Caller::Anonymous,
        turn: None,
    };
    let cancelled = app.engine.conversation(id, None).cancel(command).await;
    cancelled.unwrap().turns.len()
}

/// Fails unless the upstream has noticed that its client hung up.
async fn expect_hung_up(app: &TestApp) {
    let left = app.simulator.wait_for(
        "the end of the upstream call by its client",
        |counters| counters.client_disconnects == 1 && counters.active_requests == 0,
        DEADLINE,
    );
    left.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_turn_hangs_up_upstream_and_keeps_its_text() {
    let app = TestApp::start().await;
    // Never opened: only hanging up ends the call.
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let mut watcher = app.stream(say("c1", "hello")).await;
    let mut shown = String::new();
    while shown != reply_text(0, 4) {
        shown += &text_of(&[watcher.next().await.unwrap()]);
    }

    assert_eq!(cancel(&app, "c1").await, 1);

    expect_hung_up(&app).await;
    let events = watcher.all().await;
    let done = events.last().unwrap();
    assert_eq!(done["type"], "done");
    assert_eq!(done["finish_reason"], "cancelled");
    let document = app.document("c1").await;
    let reply = &document["messages"][1];
    assert_eq!(reply["content"], reply_text(0, 4));
    assert_eq!(reply["finish_reason"], "cancelled");
    assert_eq!(reply["id"], done["message_id"]);
    app.assert_nothing_left().await;
    app.chat("c1", "and now?").await;
    assert_eq!(app.said("c1").await.len(), 4);
}

#[tokio::test]
async fn a_turn_cancelled_before_its_upstream_answers_keeps_the_message_alone() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    let mut socket = app.socket().await;
    let message = json!({"type": "message", "conversation_id": "c1", "message": "hello"});
    socket.send(message).await;
    socket.until("response_start").await;
    gate.reached(1, DEADLINE).await.unwrap();

    assert_eq!(cancel(&app, "c1").await, 1);

    expect_hung_up(&app).await;
    let complete = socket.next().await;
    assert_eq!(complete["type"], "response_complete");
    assert_eq!(complete["finish_reason"], "cancelled");
    let hello = ("user".to_owned(), "hello".to_owned());
    assert_eq!(app.said("c1").await, [hello]);
    assert_eq!(cancel(&app, "c1").await, 0, "the turn is over");
}

#[tokio::test]
async fn a_cancelled_chat_answers_with_what_there_is() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let chat = tokio::spawn(
        app.http
            .post(app.url("/chat"))
            .json(&say("c1", "hi"))
            .send(),
    );
    gate.reached(1, DEADLINE).await.unwrap();
    until("the message in the log", async || {
        let response = app.get("/conversation/c1").await;
        (response.status() == 200).then_some(())
    })
    .await;

    assert_eq!(cancel(&app, "c1").await, 1);

    let answer = chat.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "cancelled");
    let told = choice["message"]["content"].as_str().unwrap();
    assert!(reply_text(0, 4).starts_with(told), "{told:?}");
    let said = app.said("c1").await;
    assert_eq!(said.get(1).map_or("", |reply| &reply.1), told);
    expect_hung_up(&app).await;
}

#[tokio::test]
async fn the_turn_behind_a_failed_one_is_answered() {
    let app = Setup::new().asking_once().start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9,fault=reset,after=4").hold_at(3, &gate));
    app.simulator.script("tokens=2,seed=5");
    let first = app.stream(say("c1", "first")).await;
    let second = app.stream(say("c1", "second")).await;

    gate.open();

    let (first, second) = tokio::join!(first.all(), second.all());
    assert_eq!(first.last().unwrap()["code"], "upstream_failed");
    assert_eq!(second.last().unwrap()["type"], "done");
    let texts: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(
        texts,
        ["first", &reply_text(0, 4), "second", &reply_text(5, 2)]
    );
}

#[tokio::test]
async fn a_reply_beyond_the_largest_size_is_cut_and_its_upstream_hung_up_on() {
    let app = Setup::new().set("MAX_REPLY_BYTES", "1024").start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=20,size=100").hold_at(15, &gate));

    let events = app.stream(say("c1", "talk")).await.all().await;

    let done = events.last().unwrap();
    assert_eq!(done["type"], "done", "{done}");
    assert_eq!(done["finish_reason"], "length");
    let text = text_of(&events);
    assert_eq!(text, sized_reply_text(0, 20, 100)[..1024]);
    expect_hung_up(&app).await;
    assert_eq!(app.said("c1").await[1].1, text);
    app.chat("c1", "go on").await;
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_failure_at_every_door_until_it_is_back() {
    let mut app = Setup::new().asking_once().start().await;
    let port = app.simulator.address().port();
    app.chat("warm", "so that a connection is kept").await;
    drop(std::mem::replace(
        &mut app.simulator,
        Simulator::start().unwrap(),
    ));
    let mut clients = Vec::new();
    for door in DOORS {
        let mut client = Client::new(&app, door).await;
        let told = client.ask(&format!("{door:?}"), "hello", "sim/").await;
        assert_eq!(told.error()["code"], "upstream_failed", "{told:?}");
        assert!(
            told.status
                .is_none_or(|status| status == 200 || status == 502)
        );
        clients.push((door, client));
    }

    let back = Simulator::start_with(Options {
        port,
        ..Options::default()
    });
    let back = back.unwrap();

    for (door, mut client) in clients {
        let conversation = format!("{door:?}");
        let told = client.ask(&conversation, "hello", "sim/tokens=3").await;
        assert_eq!(told.text, reply_text(0, 3), "{told:?}");
        assert_eq!(app.said(&conversation).await.len(), 2);
    }
    assert_eq!(back.counters().chat_requests, 3);
}

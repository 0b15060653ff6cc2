//! Messages that are kept without a reply.

use idol_actors::{
    conversation::{
        command::{At, RequestKey, StartTurn, Took},
        event::EventBody,
    },
    error::EngineError,
    id::MessageId,
    shared::Failpoint,
};
use idol_simulator::Script;
use serde_json::{Value, json};

use super::{ID, conversation, keeping, saying, start};
use crate::{
    helpers::{DEADLINE, Setup, TestApp, prompt, types, within},
    observability::without_upstream,
    resilience::Watch,
};

fn contents(messages: &[Value]) -> Vec<&str> {
    let text = messages.iter().map(|it| it["content"].as_str());
    text.map(Option::unwrap).collect()
}

/// The texts of the document.
async fn texts(app: &TestApp) -> Vec<String> {
    let said = app.said(ID).await;
    said.into_iter().map(|(_, text)| text).collect()
}

#[actix::test]
async fn the_message_is_durable_and_the_turn_over_without_a_word_to_the_upstream() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;

    let mut heard = start(&app, keeping("I am Alice")).await;

    assert_eq!(heard.until_the_end().await, ["received", "unanswered"]);
    let document = app.document(ID).await;
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(contents(messages), ["I am Alice"]);
    let id = heard.started.message.unwrap().to_string();
    assert_eq!(messages[0]["id"], id);
    assert_eq!(app.simulator.chat_requests().len(), 0);
    let appends = watch.count(Failpoint::BeforeAppend, ID);
    assert_eq!(appends, 1, "one sync for the message and the turn's end");
    // Said once more, it is another message: nobody answered the first.
    let mut again = start(&app, keeping("I am Alice")).await;
    assert_eq!(again.until_the_end().await, ["received", "unanswered"]);
    app.chat(ID, "Who am I?").await;
    let asked = prompt(&app.simulator.chat_requests()[0]);
    assert_eq!(contents(&asked), ["I am Alice", "I am Alice", "Who am I?"]);
}

#[actix::test]
async fn no_provider_is_needed() {
    let app = without_upstream()
        .set("ELEVENLABS_API_KEY", "k")
        .start()
        .await;
    let refused = conversation(&app).start_turn(saying("hi"), None).await;
    assert!(matches!(refused, Err(EngineError::Upstream(_))));

    let mut heard = start(&app, keeping("I am Alice")).await;

    assert_eq!(heard.until_the_end().await, ["received", "unanswered"]);
    assert_eq!(texts(&app).await, ["I am Alice"]);
}

#[actix::test]
async fn it_keeps_its_place_among_turns_that_run_and_wait() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut first = start(&app, saying("first")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut kept = start(&app, keeping("kept")).await;
    let mut last = start(&app, saying("last")).await;
    let events = kept.next().await;
    assert!(!events.is_last(), "it waits for its turn");
    gate.open();

    assert_eq!(kept.until_the_end().await, ["unanswered"]);
    for answered in [&mut first, &mut last] {
        assert_eq!(answered.until_the_end().await.last().unwrap(), "stop");
    }
    assert_eq!(texts(&app).await[..4], ["first", "one two", "kept", "last"]);
    let asked = prompt(&app.simulator.chat_requests()[1]);
    assert_eq!(contents(&asked), ["first", "one two", "kept", "last"]);
}

#[actix::test]
async fn watchers_are_told_the_message_and_an_end_without_a_reply() {
    let data = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(data.path()).start().await;
    let mut watcher = app.socket().await;
    let watch = json!({"type": "start_conversation", "conversation_id": ID,
        "character_id": "nova", "watch": true});
    watcher.send(watch).await;
    watcher.until("conversation_started").await;

    let mut heard = start(&app, keeping("I am Alice")).await;
    heard.until_the_end().await;

    let told = watcher.until("response_complete").await;
    assert_eq!(types(&told), ["user_message", "response_complete"]);
    assert_eq!(told[0]["content"], "I am Alice");
    assert_eq!(told[1]["finish_reason"], "unanswered");
    assert!(told[1].get("message_id").is_none());
    // Whoever has seen the message alone, or all, goes on from there; also when it is told anew.
    app.stop().await;
    let app = Setup::new().data_dir(data.path()).start().await;
    for (cursor, missed) in [
        (&told[0]["cursor"], &["response_complete", "pong"][..]),
        (&told[1]["cursor"], &["pong"]),
    ] {
        let mut socket = app.socket().await;
        let resume = json!({"type": "resume", "conversation_id": ID, "cursor": cursor});
        socket.send(resume).await;
        let resumed = socket.next().await;
        assert_eq!(resumed["type"], "resumed");
        assert_eq!(resumed["messages"], json!([]));
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(types(&socket.until("pong").await), missed);
    }
}

#[actix::test]
async fn a_repeat_with_its_key_is_the_same_turn() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let keyed = || StartTurn {
        key: Some(RequestKey::new("a key of this request".into(), b"body")),
        ..keeping("I am Alice")
    };
    let mut first = start(&app, keyed()).await;
    first.until_the_end().await;

    let mut again = start(&app, keyed()).await;

    assert_eq!(again.started.took, Took::Repeat);
    assert_eq!(again.started.turn, first.started.turn);
    assert_eq!(again.until_the_end().await, ["received", "unanswered"]);
    watch.panic_at(Failpoint::Progress, ID, 1);
    assert_eq!(
        app.post("/chat", crate::helpers::say(ID, "x"))
            .await
            .status(),
        503
    );
    let mut out_of_the_log = start(&app, keyed()).await;
    assert_eq!(out_of_the_log.started.turn, first.started.turn);
    assert_eq!(
        out_of_the_log.until_the_end().await,
        ["received", "unanswered"]
    );
    assert_eq!(texts(&app).await, ["I am Alice", "x"]);
}

#[actix::test]
async fn one_that_waited_when_its_actor_died_is_over_all_the_same() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut runs = start(&app, saying("first")).await;
    while !matches!(runs.next().await.body, EventBody::Text { .. }) {}
    let command = StartTurn {
        key: Some(RequestKey::new("a key of this request".into(), b"body")),
        ..keeping("kept")
    };
    let _waits = start(&app, command.clone()).await;
    let pieces = watch.count(Failpoint::Progress, ID);
    watch.panic_at(Failpoint::Progress, ID, 1);
    gate.open();
    watch.reached(Failpoint::Progress, ID, pieces + 1).await;

    let mut again = start(&app, command).await;

    assert_eq!(again.until_the_end().await, ["received", "unanswered"]);
    assert_eq!(texts(&app).await.last().unwrap(), "kept");
    assert_eq!(app.simulator.chat_requests().len(), 1);
}

#[actix::test]
async fn a_server_that_stops_ends_one_that_waits_as_what_it_is() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let _runs = start(&app, saying("first")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut waits = start(&app, keeping("kept")).await;

    let stopped = tokio::spawn(app.stop());

    assert_eq!(waits.until_the_end().await, ["received", "unanswered"]);
    gate.open();
    within("the stop", stopped).await.unwrap();
}

#[actix::test]
async fn nothing_is_replaced_by_a_message_without_a_reply() {
    let app = TestApp::start().await;
    app.chat(ID, "hi").await;
    let before = app.document(ID).await;
    let message: MessageId = MessageId(
        before["messages"][0]["id"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
    );

    for at in [At::Message(message), At::Reply(None)] {
        let command = StartTurn {
            at,
            ..keeping("hello")
        };
        let refused = conversation(&app).start_turn(command, None).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })));
    }
    assert_eq!(app.document(ID).await, before);
}

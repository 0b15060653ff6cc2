//! `resume` over a socket.

use idol_simulator::{Gate, Script, reply_text};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Picture, assert_whole, resume, resumed, take_until_the_end};
use crate::{
    helpers::{DEADLINE, Setup, Socket, TestApp, content_of, say, types},
    resilience::{answered, sent},
};

/// A client that watches a conversation, and what it has.
pub(super) async fn watcher(app: &TestApp, conversation: &str) -> (Socket, Picture) {
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": conversation,
        "character_id": "nova", "watch": true});
    socket.send(start).await;
    let mut picture = Picture::default();
    picture.take(&socket.next().await);
    (socket, picture)
}

/// Goes on at a picture's place, and takes what it is told at once.
async fn goes_on(app: &TestApp, conversation: &str, picture: &mut Picture) -> Socket {
    let cursor = picture.cursor.clone().unwrap();
    let mut socket = app.socket().await;
    socket
        .send(resume(conversation, &[("cursor", &cursor)]))
        .await;
    loop {
        let told = socket.next().await;
        picture.take(&told);
        if told["type"] == "resumed" {
            return socket;
        }
    }
}

/// A client that watches, and has been told the beginning of a reply that another asked for; the
/// rest comes when the gate opens.
async fn told_in_part(app: &TestApp, text: &str) -> (Socket, Picture, Gate, JoinHandle<Response>) {
    let (mut socket, mut picture) = watcher(app, "c1").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let answer = sent(app, "/chat", say("c1", text));
    for told in socket.until_text(reply_text(0, 4).len()).await {
        picture.take(&told);
    }
    (socket, picture, gate, answer)
}

#[tokio::test]
async fn a_client_that_drops_anywhere_in_a_turn_goes_on_at_its_byte() {
    let app = TestApp::start().await;
    // As many times as the turn has events: two, one for each token, and the last.
    const TOKENS: usize = 8;
    for cut in 1..=2 + TOKENS + 1 {
        let id = format!("c{cut}");
        let gates: Vec<_> = (0..TOKENS).map(|_| app.simulator.gate()).collect();
        let hold = |script: Script, (at, gate)| script.hold_at(at, gate);
        let script = Script::from("tokens=8");
        app.simulator
            .script(gates.iter().enumerate().fold(script, hold));
        let (mut socket, mut picture) = watcher(&app, &id).await;
        let answer = sent(&app, "/chat", say(&id, "hi"));
        for event in 0..cut {
            if let Some(gate) = event.checked_sub(2).and_then(|token| gates.get(token)) {
                gate.open();
            }
            picture.take(&socket.next().await);
        }
        drop(socket);

        let mut socket = goes_on(&app, &id, &mut picture).await;

        gates.iter().for_each(|gate| gate.open());
        answered(answer).await;
        if picture.ended.is_empty() {
            take_until_the_end(&mut socket, &mut picture).await;
        }
        assert_whole(&app, &id, &picture).await;
        assert_eq!(picture.ended.len(), 1, "{picture:?}");
        assert_eq!(picture.ended[0].1, "stop");
    }
}

#[tokio::test]
async fn who_comes_late_is_brought_up_to_date_with_one_message() {
    let app = TestApp::start().await;
    app.chat("c1", "first").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let (mut socket, _) = watcher(&app, "c1").await;
    socket
        .send(json!({"type": "message", "message": "second"}))
        .await;
    socket.until_text(reply_text(0, 4).len()).await;

    let (mut late, told) = resumed(&app, "c1", &[]).await;

    let mut picture = Picture::default();
    picture.take(&told);
    assert_eq!(told["messages"].as_array().unwrap().len(), 3);
    assert_eq!(told["has_earlier"], false);
    assert_eq!(told["turn"]["content"], reply_text(0, 4));
    assert_eq!(told["turn"]["offset"], 0);
    assert_eq!(told["turn"]["cursor"], told["cursor"]);
    gate.open();
    let rest = take_until_the_end(&mut late, &mut picture).await;
    assert_eq!(types(&rest)[0], "chunk", "it has begun already");
    assert_whole(&app, "c1", &picture).await;
}

#[tokio::test]
async fn what_comes_behind_a_message_is_told_and_no_more() {
    let app = TestApp::start().await;
    for text in ["first", "second", "third"] {
        app.chat("c1", text).await;
    }
    let document = app.document("c1").await;
    let messages = document["messages"].as_array().unwrap();
    for (index, message) in messages.iter().enumerate() {
        let (_, told) = resumed(&app, "c1", &[("after", &message["id"])]).await;
        assert_eq!(told["messages"], Value::from(&messages[index + 1..]));
        assert!(told.get("turn").is_none(), "{told}");
        assert_eq!(told["has_earlier"], true);
    }
}

#[tokio::test]
async fn turns_that_came_since_are_told_with_the_rest_of_the_one_that_was_seen() {
    let app = TestApp::start().await;
    let (socket, mut picture, gate, answer) = told_in_part(&app, "first").await;
    drop(socket);
    gate.open();
    answered(answer).await;
    for text in ["second", "third"] {
        app.chat("c1", text).await;
    }

    goes_on(&app, "c1", &mut picture).await;

    assert_whole(&app, "c1", &picture).await;
    assert_eq!(picture.ended.len(), 3);
}

#[tokio::test]
async fn after_a_restart_a_client_goes_on_in_what_the_log_has() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    let (socket, mut picture, gate, answer) = told_in_part(&app, "first").await;
    drop(socket);
    gate.open();
    answered(answer).await;
    app.stop().await;
    let app = setup().start().await;

    let mut socket = goes_on(&app, "c1", &mut picture).await;

    assert_whole(&app, "c1", &picture).await;
    let end = socket.next().await;
    assert_eq!(end["finish_reason"], "stop", "{end}");
    app.chat("c1", "second").await;
    take_until_the_end(&mut socket, &mut picture).await;
    assert_whole(&app, "c1", &picture).await;
}

#[tokio::test]
async fn a_place_that_cannot_be_is_said_to_be_none_and_all_is_told() {
    let app = TestApp::start().await;
    let (mut socket, mut picture) = watcher(&app, "c1").await;
    app.chat("c1", "hi").await;
    take_until_the_end(&mut socket, &mut picture).await;
    let cursor = picture.cursor.clone().unwrap();
    let cursor = cursor.as_str().unwrap();
    let turn = cursor.split('.').next().unwrap();
    let other = uuid::Uuid::nil().simple().to_string().replace('0', "7");
    let unknown = json!(uuid::Uuid::now_v7());
    for (name, place, reason) in [
        ("cursor", json!("garbage"), "not_a_cursor"),
        (
            "cursor",
            json!(cursor.replace(turn, &other)),
            "unknown_turn",
        ),
        (
            "cursor",
            json!(format!("{turn}.80000000.63.0.fff.2")),
            "beyond_text",
        ),
        (
            "cursor",
            json!(format!("{turn}.1.63.0.fff.2")),
            "beyond_text",
        ),
        ("after", json!("garbage"), "unknown_message"),
        ("after", unknown, "unknown_message"),
    ] {
        let mut socket = app.socket().await;
        socket.send(resume("c1", &[(name, &place)])).await;
        let reset = socket.next().await;
        let told = socket.next().await;

        assert_eq!(reset["type"], "reset", "{reset}");
        assert_eq!(reset["reason"], reason, "{reset}");
        assert_eq!(reset["conversation_id"], "c1");
        assert_eq!(told["type"], "resumed", "{told}");
        let document = app.document("c1").await;
        let messages = document["messages"].as_array().unwrap();
        if reason == "beyond_text" {
            assert_eq!(reset["turn_id"], messages[0]["turn_id"]);
            assert_eq!(
                reset["offset"],
                messages[1]["content"].as_str().unwrap().len()
            );
            assert_eq!(
                told["messages"],
                Value::from(&messages[1..]),
                "from the reply on"
            );
            let end = socket.next().await;
            assert_eq!(end["type"], "response_complete", "{end}");
            assert_eq!(end["turn_id"], messages[0]["turn_id"]);
        } else {
            assert_eq!(told["messages"], document["messages"]);
        }
        // And from there on all is told.
        app.chat("c1", "and now?").await;
        let mut live = Picture::default();
        take_until_the_end(&mut socket, &mut live).await;
        assert_eq!(live.said(), app.said("c1").await[messages.len()..]);
    }
}

#[tokio::test]
async fn a_conversation_that_is_not_there_cannot_be_resumed() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    socket.send(resume("nowhere", &[])).await;

    let error = socket.next().await;

    assert_eq!(error["type"], "error");
    assert_eq!(error["code"], "conversation_not_found");
    assert_eq!(error["conversation_id"], "nowhere");
    let mut fresh = app.socket().await;
    fresh.send(json!({"type": "resume"})).await;
    let error = fresh.next().await;
    assert_eq!(error["code"], "invalid_request", "{error}");
}

#[tokio::test]
async fn resuming_twice_tells_nothing_twice() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let (mut socket, mut picture) = watcher(&app, "c1").await;
    socket
        .send(json!({"type": "message", "message": "mine"}))
        .await;
    let before = socket.until_text(reply_text(0, 4).len()).await;
    assert_eq!(before[0]["type"], "message_received");
    for told in &before[1..] {
        picture.take(told);
    }
    for _ in 0..3 {
        let cursor = picture.cursor.clone().unwrap();
        socket.send(resume("c1", &[("cursor", &cursor)])).await;
        let told = socket.next().await;
        assert_eq!(told["type"], "resumed");
        assert_eq!(told["messages"], json!([]));
        assert_eq!(told["turn"]["content"], "");
        picture.take(&told);
    }

    gate.open();

    let rest = take_until_the_end(&mut socket, &mut picture).await;
    assert_eq!(
        format!("{}{}", content_of(&before), content_of(&rest)),
        reply_text(0, 9)
    );
    // And the next turn comes once, too.
    app.chat("c1", "next").await;
    let next = take_until_the_end(&mut socket, &mut picture).await;
    assert_eq!(
        types(&next)
            .iter()
            .filter(|it| **it == "user_message")
            .count(),
        1
    );
    assert_eq!(content_of(&next), app.said("c1").await[3].1);
}

#[tokio::test]
async fn reasoning_is_told_to_who_wants_it_and_lost_to_nobody() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(
        Script::new()
            .reasoning(["think ", "hard"])
            .tokens(["one ", "two ", "three"])
            .hold_at(1, &gate),
    );
    let mut answer = app.stream(say("c1", "hi")).await;
    answer.next().await.unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    let (mut plain, told) = resumed(&app, "c1", &[]).await;
    assert!(told["turn"]["content"].is_string());
    let (mut curious, mut seen) = resumed(&app, "c1", &[("reasoning", &json!(true))]).await;

    gate.open();

    answer.all().await;
    let plain = plain.until("response_complete").await;
    assert!(!types(&plain).contains(&"reasoning"));
    let curious = curious.until("response_complete").await;
    let thought: String = curious
        .iter()
        .filter(|it| it["type"] == "reasoning")
        .map(|it| it["content"].as_str().unwrap())
        .collect();
    assert_eq!(thought, "think hard");
    let said = seen["turn"]["content"].take();
    assert_eq!(
        format!("{}{}", said.as_str().unwrap(), content_of(&curious)),
        "one two three"
    );
}

#[tokio::test]
async fn two_devices_see_the_same_events_in_the_same_order_with_the_same_cursors() {
    let app = TestApp::start().await;
    let (mut phone, _) = watcher(&app, "c1").await;
    let (mut laptop, _) = resumed(&app, "c1", &[]).await;
    let keyed = json!({"type": "message", "message": "from a third", "conversation_id": "c1",
        "client_message_id": "m-1"});
    let mut third = app.socket().await;
    third.send(keyed).await;

    let (seen, seen_too) = (
        phone.until("response_complete").await,
        laptop.until("response_complete").await,
    );

    assert_eq!(seen[0]["client_message_id"], "m-1");
    assert!(
        seen.iter().all(|told| told["cursor"].is_string()),
        "{seen:?}"
    );
    let places = |told: &[Value]| -> Vec<(Value, Value)> {
        let place = |it: &Value| (it["type"].clone(), it["cursor"].clone());
        told.iter()
            .filter(|it| it["type"] != "chunk")
            .map(place)
            .collect()
    };
    assert_eq!(places(&seen), places(&seen_too));
    assert_eq!(content_of(&seen), content_of(&seen_too));
    // The one that asked is told its own turn, and nothing of other turns.
    assert_eq!(
        third.until("response_complete").await[0]["type"],
        "message_received"
    );
    app.chat("c1", "more").await;
    third.send(json!({"type": "ping"})).await;
    assert_eq!(third.next().await["type"], "pong");
}

#[tokio::test]
async fn an_own_message_that_comes_again_leads_no_client_past_what_it_watches() {
    let app = TestApp::start().await;
    let mine = json!({"type": "message", "conversation_id": "c1", "message": "mine",
        "client_message_id": "m-1"});
    let (mut socket, mut picture, gate, others) = told_in_part(&app, "another's").await;
    socket.send(mine.clone()).await;
    crate::helpers::until("the message to be there", async || {
        (app.said("c1").await.len() == 2).then_some(())
    })
    .await;
    drop(socket);

    // The client does not know that it arrived: it is told so while another's turn is told.
    let mut socket = goes_on(&app, "c1", &mut picture).await;
    socket.send(mine).await;
    let received = socket.next().await;
    assert_eq!(received["type"], "message_received");
    assert!(received.get("cursor").is_none(), "{received}");
    // Its place in the conversation is yet to come.
    drop(socket);

    // From where the watch was, everything else comes.
    let mut socket = goes_on(&app, "c1", &mut picture).await;
    gate.open();
    answered(others).await;
    while picture.ended.len() < 2 {
        take_until_the_end(&mut socket, &mut picture).await;
    }
    let (mut told, mut said) = (picture.said(), app.said("c1").await);
    told.sort();
    said.sort();
    assert_eq!(told, said);
}

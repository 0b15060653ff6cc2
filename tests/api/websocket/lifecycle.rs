//! Sockets that die, servers that stop, conversations that fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use idol_actors::{
    id::ConversationId,
    shared::{Failpoint, Failpoints},
};
use idol_router::application::Ended;
use idol_simulator::{Script, sized_reply_text};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    TURN, assert_silent, begun, content_of, course, message,
    raw::{self, FIN, PING, PONG, Raw, frame},
    start, watching, with,
};
use crate::helpers::{Setup, Socket, TestApp, until, within};

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_dropped_and_one_that_does_stays() {
    let app = Setup::new().set("WS_PING_SECS", "1").start().await;
    let mut dead = Raw::connect(app.address).await;
    let mut living = app.socket().await;
    until("both sockets", async || {
        (app.sockets.len() == 2).then_some(())
    })
    .await;

    // Reading is answering, for the library; the other one reads, but answers nothing.
    let alive = tokio::spawn(async move {
        let message = living.next().await;
        (living, message)
    });
    while dead.next().await.is_some() {}

    until("the end of the dead socket", async || {
        (app.sockets.len() == 1).then_some(())
    })
    .await;
    app.chat("c1", "the server is well").await;
    assert!(!alive.is_finished());
    alive.abort();
}

/// The next frame that is no ping; pings are answered. None at the end of the connection.
async fn living(raw: &mut Raw, pings: &mut usize) -> Option<raw::Frame> {
    loop {
        let next = raw.next().await?;
        if next.opcode != PING {
            return Some(next);
        }
        *pings += 1;
        raw.send(&frame(FIN | PONG, &next.payload)).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_again_after_many_pings_is_not_taken_for_dead() {
    let app = Setup::new().set("WS_PING_SECS", "1").start().await;
    // More than the kernel takes for a client that does not read.
    app.simulator.script(Script::from("tokens=256,size=65536"));
    let mut slow = Raw::connect(app.address).await;
    let start = json!({"type": "start_conversation", "character_id": "nova", "message": "hi"});
    slow.send_text(&start.to_string()).await;

    // Another one tells how many would have come.
    let (mut other, mut pings) = (Raw::connect(app.address).await, 0);
    while pings < 5 {
        let ping = within("a ping", other.next()).await.unwrap();
        assert_eq!(ping.opcode, PING);
        other.send(&frame(FIN | PONG, &ping.payload)).await;
        pings += 1;
    }

    let mut answered = 0;
    loop {
        let next = within("the rest", living(&mut slow, &mut answered)).await;
        let next = next.expect("a connection that is not closed");
        let told: serde_json::Value = serde_json::from_slice(&next.payload).unwrap();
        if told["type"] == "response_complete" {
            break;
        }
    }
    app.chat("c1", "and the server is well").await;
}

/// Reads up to the close; the messages before it, and its code.
async fn to_the_close(socket: &mut Socket) -> (Vec<serde_json::Value>, Option<CloseCode>) {
    let mut messages = Vec::new();
    loop {
        match socket.next_or_close().await {
            Ok(message) => messages.push(message),
            Err(close) => return (messages, close.map(|frame| frame.code)),
        }
    }
}

async fn draining(engine: &idol_actors::engine::Engine) {
    until("the beginning of the end", async || {
        engine.observe().draining.then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_shutdown_the_turn_under_way_is_delivered_whole_before_the_close() {
    let app = TestApp::start().await;
    let (gate, engine) = (app.simulator.gate(), app.engine.clone());
    // After the gate the text comes faster than any client reads.
    app.simulator
        .script(Script::from("tokens=64,size=65536").hold_at(1, &gate));
    let text = sized_reply_text(0, 64, 65_536);
    let mut socket = begun(&app, "c1").await;
    let mut watcher = watching(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    let mut own = socket.until_text(65_536).await;
    let mut seen = watcher.until_text(65_536).await;

    let stopping = tokio::spawn(app.stop());
    draining(&engine).await;
    socket.send(message("c2", "too late")).await;
    assert_silent(&mut socket).await;
    gate.open();
    let ((rest, code), (seen_rest, watcher_code)) =
        tokio::join!(to_the_close(&mut socket), to_the_close(&mut watcher));
    own.extend(rest);
    seen.extend(seen_rest);

    let refused = own.pop().unwrap();
    assert_eq!(course(&own), TURN);
    assert!(content_of(&own) == text, "the speaker's text is whole");
    assert_eq!(refused["code"], "shutting_down");
    assert_eq!(refused["conversation_id"], "c2");
    assert!(refused["retry_after"].as_u64().unwrap() > 0);
    assert_eq!(code, Some(CloseCode::Away));

    // Only a client that used an added message is told when to come back.
    let going = seen.pop().unwrap();
    assert_eq!(going["type"], "going_away");
    assert!(going["retry_after"].as_u64().unwrap() > 0);
    assert_eq!(seen.last().unwrap()["type"], "response_complete");
    assert!(content_of(&seen) == text, "the watcher's text is whole");
    assert_eq!(watcher_code, Some(CloseCode::Away));
    assert_eq!(stopping.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_turn_that_outlives_the_grace_ends_in_an_error_before_the_close() {
    let app = Setup::new().set("SHUTDOWN_GRACE_SECS", "1").start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = begun(&app, "c1").await;
    socket.send(message("c1", "hi")).await;
    let mut messages = socket.until("chunk").await;

    let stopping = tokio::spawn(app.stop());
    let (rest, code) = to_the_close(&mut socket).await;
    messages.extend(rest);

    let error = messages.pop().unwrap();
    assert_eq!(error["code"], "shutting_down");
    assert_eq!(error["turn_id"], messages[0]["turn_id"]);
    assert_eq!(content_of(&messages), "one");
    assert_eq!(code, Some(CloseCode::Away));
    assert_eq!(stopping.await.unwrap(), Ended::Stopped);
}

/// A server where the conversation `fragile` panics at the next piece of a reply, when armed.
async fn with_a_fragile_conversation() -> (TestApp, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(false));
    let hook = {
        let armed = armed.clone();
        move |failpoint: Failpoint, id: &ConversationId| {
            if failpoint == Failpoint::Progress
                && id.as_str() == "fragile"
                && armed.swap(false, Ordering::SeqCst)
            {
                panic!("a test wants this conversation to die");
            }
        }
    };
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(Failpoints::new(hook)))
        .start()
        .await;
    (app, armed)
}

#[tokio::test]
async fn a_conversation_that_dies_ends_its_turn_and_nothing_else() {
    let (app, armed) = with_a_fragile_conversation().await;
    let mut socket = begun(&app, "fragile").await;
    let mut watcher = watching(&app, "fragile").await;

    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_at(0, &gate));
    socket.send(message("fragile", "die")).await;
    socket.until("message_received").await;
    socket.send(message("sturdy", "live")).await;
    armed.store(true, Ordering::SeqCst);
    gate.open();
    let died = socket.until("error").await;
    let lived = socket.until("response_complete").await;
    let told = watcher.until("response_complete").await;
    socket.send(message("fragile", "and again")).await;
    let again = socket.until("response_complete").await;
    let seen = watcher.until("response_complete").await;

    let error = died.last().unwrap();
    assert_eq!(error["code"], "conversation_restarted");
    assert_eq!(error["conversation_id"], "fragile");
    assert!(error["turn_id"].is_string());
    assert!(error["retry_after"].is_u64());
    let told = told.last().unwrap();
    assert_eq!(told["finish_reason"], "interrupted");
    assert!(told.get("message_id").is_none(), "no word of it came");
    assert_eq!(told["conversation_id"], "fragile");
    assert_eq!(told["turn_id"], error["turn_id"]);
    assert_eq!(course(&lived), TURN);
    assert_eq!(course(&again), TURN);
    assert_eq!(seen[0]["content"], "and again");
    assert_eq!(content_of(&seen), content_of(&again));
    let said: Vec<_> = app
        .said("fragile")
        .await
        .into_iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(said, ["die", "and again", &content_of(&again)]);
    drop((socket, watcher));
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_watchers_own_turn_that_dies_is_told_once_and_holds_up_no_other() {
    let (app, armed) = with_a_fragile_conversation().await;
    let mut watcher = watching(&app, "fragile").await;

    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_at(0, &gate));
    watcher.send(message("fragile", "die")).await;
    let mut died = watcher.until("message_received").await;
    watcher.send(message("sturdy", "live")).await;
    armed.store(true, Ordering::SeqCst);
    gate.open();
    died.extend(watcher.until("response_complete").await);
    let lived = watcher.until("response_complete").await;
    watcher.send(message("fragile", "and again")).await;
    let again = watcher.until("response_complete").await;

    // The two may come in either order: what a watch tells comes when it happens.
    let (died, lived) = match died.last().unwrap()["turn_id"] == died[0]["turn_id"] {
        true => (died, lived),
        false => {
            let (start, lived_first) = died.split_at(1);
            ([start, &lived].concat(), lived_first.to_vec())
        }
    };
    assert_eq!(died.last().unwrap()["finish_reason"], "interrupted");
    assert_eq!(died.last().unwrap()["turn_id"], died[0]["turn_id"]);
    assert_eq!(course(&lived), TURN);
    assert_eq!(course(&again), TURN);
    assert_silent(&mut watcher).await;
}

#[tokio::test]
async fn a_socket_that_is_closed_is_answered_and_forgotten() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    socket.send(with(start("c1"), "watch", true)).await;
    socket.next().await;

    within("the close", socket.stream.close(None))
        .await
        .unwrap();

    assert_eq!(to_the_close(&mut socket).await.1, None);
    app.assert_nothing_left().await;
}

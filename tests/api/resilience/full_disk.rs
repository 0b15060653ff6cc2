//! A log that refuses to write: new turns are refused, and the end of a turn is held until it is there.

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::poll;
use idol_actors::{
    caller::Caller,
    conversation::command::{CancelTurn, Delete},
    error::EngineError,
    id::{ConversationId, TurnId},
    shared::Failpoint,
};
use idol_simulator::{Script, reply_text};

use super::{Commits, Watch, answered, assert_refused, assistant, command, sent, user};
use crate::helpers::{DEADLINE, Setup, TestApp, say, text_of, until, within};

/// Waits until so many jobs wait for the log's writer, which is held.
async fn queued(app: &TestApp, jobs: u64) {
    until("the log's queue to fill", async || {
        let ready: serde_json::Value = app.get("/ready").await.json().await.unwrap();
        (ready["log"]["queued"].as_u64().unwrap() >= jobs).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_refuses_turns_cancels_their_calls_and_leaves_everything_readable() {
    refuses_turns_cancels_their_calls_and_leaves_everything_readable().await;
}

/// Also for tests that want a disk of their own, where there can be none.
pub async fn refuses_turns_cancels_their_calls_and_leaves_everything_readable() {
    let app = Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| tuning.log.page_count_max = Some(60))
        .start()
        .await;
    app.chat("early", "I am Alice").await;
    let long = "x".repeat(20_000);
    let mut taken = 0;
    let gate = app.simulator.gate();

    // No reply is begun for the message that finds no room, and none of its call is left.
    let refused = loop {
        app.simulator.script(Script::new().hold_headers(&gate));
        let id = format!("c{taken}");
        let response = app.post("/chat/stream", say(&id, &long)).await;
        if response.status() != 200 {
            break response;
        }
        taken += 1;
        assert!(taken < 50, "the disk never fills");
    };

    assert_refused(refused, 503, "storage_unavailable").await;
    let only_the_taken = app.simulator.wait_for(
        "the end of the refused turn's call",
        |counters| counters.active_requests == taken,
        DEADLINE,
    );
    only_the_taken.await.unwrap();
    let missing = app.get(&format!("/conversation/c{taken}")).await;
    assert_eq!(missing.status(), 404, "what is not in the log is not shown");
    let said = [user("I am Alice"), assistant(&reply_text(0, 5))];
    assert_eq!(app.said("early").await, said);
    for id in 0..taken {
        assert_eq!(app.said(&format!("c{id}")).await, [user(&long)]);
    }
    let ready = app.get("/ready").await;
    assert_eq!(ready.status(), 200, "a full disk is no reason to be killed");
}

/// A server that waits for no turn when it stops.
fn hasty(directory: &Path) -> Setup {
    let setup = Setup::new().data_dir(directory);
    setup.set("SHUTDOWN_GRACE_SECS", "0")
}

/// With a log that has no room for a long reply.
fn tiny(setup: Setup, watch: &Watch) -> Setup {
    setup.tuning(|tuning| {
        tuning.log.page_count_max = Some(40);
        tuning.failpoints = Some(watch.failpoints());
    })
}

#[tokio::test]
async fn the_end_of_a_turn_that_finds_no_room_is_held_and_ended_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let setup = || hasty(directory.path());
    let mut app = tiny(setup(), &watch).start().await;
    let script = Script::from("tokens=4,size=100000");
    let whole = script.expected_text().unwrap();
    app.simulator.script(script);
    let answer = sent(&app, "/chat", say("c1", "I am Alice"));

    // The message, its reply, and the reply again.
    watch.reached(Failpoint::BeforeAppend, "c1", 3).await;

    assert_eq!(app.said("c1").await, [user("I am Alice")]);
    assert!(!answer.is_finished());
    answer.abort();
    app.http = crate::helpers::client();
    app.stop().await;
    // There is room again.
    let app = setup().start().await;
    let document = app.document("c1").await;
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages[0]["content"], "I am Alice");
    // How much of the reply found room depends on how its bytes came.
    if let Some(reply) = messages.get(1) {
        let kept = reply["content"].as_str().unwrap();
        assert!(whole.starts_with(kept) && kept.len() < whole.len());
        assert_eq!(reply["finish_reason"], "interrupted");
    }
    let before = messages.len();
    app.chat("c1", "Are you there?").await;
    assert_eq!(app.said("c1").await.len(), before + 2);
}

#[tokio::test]
async fn a_turn_whose_end_the_log_refuses_is_told_to_be_over_once_the_log_takes_it() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.log.queue_bytes = 20_000;
            tuning.log.before_commit = Some(commits.failpoint());
            tuning.failpoints = Some(watch.failpoints());
        })
        .start()
        .await;
    let gate = app.simulator.gate();
    let script = Script::from("tokens=3,size=10000").hold_at(0, &gate);
    let text = script.expected_text().unwrap();
    app.simulator.script(script);
    let mut events = app.stream(say("c1", "I am Alice")).await;
    assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
    app.chat("other", "first").await;
    // While a commit is held, the log has no room for a long reply.
    commits.hold();
    let other = sent(&app, "/chat", say("other", "second"));
    commits.reached().await;

    gate.open();

    watch.reached(Failpoint::BeforeAppend, "c1", 3).await;
    let mut received = Vec::new();
    while text_of(&received).len() < text.len() {
        received.push(events.next().await.unwrap());
    }
    let mut rest = pin!(events.all());
    assert!(poll!(&mut rest).is_pending());
    // Meanwhile another turn of this conversation is refused, and says so.
    assert_refused(
        app.post("/chat", say("c1", &"y".repeat(20_000))).await,
        503,
        "storage_unavailable",
    )
    .await;
    commits.release();
    assert_eq!(rest.await.last().unwrap()["type"], "done");
    assert_eq!(answered(other).await.status(), 200);
    let said = [user("I am Alice"), assistant(&text)];
    assert_eq!(app.said("c1").await, said);
    app.chat("c1", "And now?").await;
}

#[tokio::test]
async fn a_cancelled_turn_that_the_log_refused_is_gone_and_holds_up_no_other() {
    let commits = Commits::default();
    let app = Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.log.queue_bytes = 14_000;
            tuning.log.before_commit = Some(commits.failpoint());
        })
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=4").hold_at(2, &gate));
    let mut running = app.stream(say("c1", "first")).await;
    while text_of(&[running.next().await.unwrap()]).is_empty() {}
    app.chat("other", "first").await;
    commits.hold();
    // The second turn is being synced, another conversation's is behind it in the log's queue.
    let second = sent(&app, "/chat", say("c1", "second"));
    commits.reached().await;
    let other = sent(&app, "/chat", say("other", &"x".repeat(5_000)));
    queued(&app, 1).await;
    // The third waits in the conversation until the second is synced. Then all are cancelled.
    let conversation = app
        .engine
        .conversation(ConversationId::parse("c1").unwrap(), None);
    let third = command(TurnId::now(), &"y".repeat(10_000));
    let mut third = pin!(conversation.start_turn(third, None));
    assert!(poll!(&mut third).is_pending());
    let everything = CancelTurn {
        caller: Caller::Anonymous,
        turn: None,
    };
    let cancelled = conversation.cancel(everything).await.unwrap();
    assert_eq!(cancelled.turns.len(), 3);

    // The second is taken; for the third there is no room behind the other conversation's.
    commits.let_one_through();

    assert_eq!(third.await.unwrap_err(), EngineError::StorageUnavailable);
    commits.release();
    let last = running.all().await.pop().unwrap();
    assert_eq!(
        (&last["type"], &last["finish_reason"]),
        (&"done".into(), &"cancelled".into())
    );
    assert_eq!(answered(second).await.status(), 200);
    assert_eq!(answered(other).await.status(), 200);
    let users = [user("first"), user("second")];
    let said = app.said("c1").await;
    assert_eq!([said[0].clone(), said[2].clone()], users);
    assert_eq!(said.len(), 3);
    app.chat("c1", "fourth").await;
}

#[tokio::test]
async fn below_the_floor_nothing_begins_and_what_runs_ends() {
    begins_nothing_below_the_floor_and_ends_what_runs().await;
}

/// Also for tests that want a disk of their own, where there can be none.
pub async fn begins_nothing_below_the_floor_and_ends_what_runs() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let probe = {
        let free = free.clone();
        Arc::new(move || Ok(free.load(Ordering::Relaxed)))
    };
    let app = Setup::new()
        .set("MIN_FREE_MB", "64")
        .tuning(|tuning| tuning.free_space = Some(probe))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let events = app.stream(say("c1", "I am Alice")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let ballast = app.data_dir().join("ballast");
    assert!(ballast.exists());

    free.store(1 << 20, Ordering::Relaxed);
    until("the ballast to be given up", async || {
        (!ballast.exists()).then_some(())
    })
    .await;

    let ready = app.get("/ready").await;
    assert_eq!(ready.status(), 503);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(ready["disk"]["state"], "low");
    assert_eq!(ready["disk"]["free_bytes"], 1 << 20);
    for id in ["c1", "new"] {
        let refused = app.post("/chat", say(id, "more")).await;
        assert_refused(refused, 503, "storage_unavailable").await;
    }
    assert_eq!(
        app.simulator.chat_requests().len(),
        1,
        "no early upstream call"
    );
    gate.open();
    assert_eq!(events.all().await.last().unwrap()["type"], "done");
    assert_eq!(app.said("c1").await[1], assistant(&reply_text(0, 6)));
    // The mirror leaves the room that there is to the log.
    let file = app.data_dir().join("conversations/c1.json");
    let shown = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(!shown.contains("assistant"), "{shown}");

    free.store(u64::MAX, Ordering::Relaxed);
    until("service to resume", async || {
        let answer = app.post("/chat", say("c1", "again")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    until("the mirror to go on", async || {
        let shown = std::fs::read_to_string(&file).unwrap_or_default();
        shown.contains("assistant").then_some(())
    })
    .await;
    assert_eq!(app.get("/ready").await.status(), 200);
    until("the ballast", async || ballast.exists().then_some(())).await;
}

#[tokio::test]
async fn a_deletion_behind_a_beginning_that_finds_no_room_is_answered_and_the_id_is_free() {
    let commits = Commits::default();
    let app = Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.log.page_count_max = Some(60);
            tuning.log.before_commit = Some(commits.failpoint());
        })
        .start()
        .await;
    let long = "x".repeat(20_000);
    for taken in 0.. {
        assert!(taken < 50, "the disk never fills");
        let id = format!("c{taken}");
        if app.post("/chat", say(&id, &long)).await.status() != 200 {
            break;
        }
    }
    // The writer is held with somebody else's append, so that what is asked next waits for it.
    commits.hold();
    let other = sent(&app, "/chat", say("c0", "hi"));
    commits.reached().await;
    let refused = sent(&app, "/chat", say("victim", &long));
    queued(&app, 1).await;
    let conversation = app
        .engine
        .conversation(ConversationId::parse("victim").unwrap(), None);
    let delete = Delete {
        caller: Caller::Anonymous,
    };
    let mut deletion = pin!(conversation.delete(delete.clone()));
    assert!(poll!(&mut deletion).is_pending());

    commits.release();

    answered(other).await;
    assert_refused(answered(refused).await, 503, "storage_unavailable").await;
    let deleted = within("the deletion's answer", deletion).await;
    assert_eq!(deleted, Err(EngineError::NotFound));
    // It is not locked up: what is asked next is answered.
    let again = within("an answer", conversation.delete(delete)).await;
    assert_eq!(again, Err(EngineError::NotFound));
    assert_eq!(app.get("/conversation/victim").await.status(), 404);
}

#[tokio::test]
async fn a_reply_that_finds_no_room_replaces_nothing_before_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let setup = || hasty(directory.path());
    let mut app = tiny(setup(), &watch).start().await;
    app.chat("c1", "I am Alice").await;
    let before = app.document("c1").await["messages"].clone();
    let script = Script::from("tokens=4,size=100000");
    let whole = script.expected_text().unwrap();
    app.simulator.script(script);
    let body = serde_json::json!({});
    let answer = sent(&app, "/conversation/c1/regenerate", body);

    // The turn of before; then the acceptance, its reply, and the reply again.
    watch.reached(Failpoint::BeforeAppend, "c1", 5).await;

    assert_eq!(app.document("c1").await["messages"], before);
    answer.abort();
    app.http = crate::helpers::client();
    app.stop().await;
    // There is room again.
    let app = setup().start().await;
    let document = app.document("c1").await;
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], before[0]);
    // How much of the reply found room depends on how its bytes came.
    if messages[1] != before[1] {
        let kept = messages[1]["content"].as_str().unwrap();
        assert!(whole.starts_with(kept) && kept.len() < whole.len());
        assert_eq!(messages[1]["finish_reason"], "interrupted");
        assert_eq!(messages[1]["alternatives"][0], before[1]);
    }
}

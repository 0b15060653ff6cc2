//! A start on a disk without room for the ends of the turns that the last run left open.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use idol_actors::{
    log::sqlite::{Failpoint as LogFailpoint, Injected},
    shared::{Failpoint, Placement},
};
use idol_simulator::{Script, reply_text};
use serde_json::Value;

use super::{Watch, assert_refused, assistant, user};
use crate::helpers::{DEADLINE, Setup, TestApp, say, until};

/// A disk that a test fills and clears.
#[derive(Clone, Default)]
struct Room(Arc<AtomicBool>);

impl Room {
    /// For [`idol_actors::log::sqlite::SqliteOptions`].
    fn failpoint(&self) -> LogFailpoint {
        let full = self.0.clone();
        Arc::new(move || match full.load(Ordering::SeqCst) {
            true => Injected::DiskFull,
            false => Injected::Nothing,
        })
    }

    fn fill(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_start_without_room_for_the_ends_of_open_turns_reads_and_serves_again_by_itself() {
    reads_and_serves_again_by_itself(Placement::Engine(2)).await;
}

#[tokio::test]
async fn the_same_where_conversations_live_with_their_callers() {
    reads_and_serves_again_by_itself(Placement::Caller).await;
}

/// Also for a test that wants a disk of its own, where there can be none.
pub async fn reads_and_serves_again_by_itself(placement: Placement) {
    let directory = tempfile::tempdir().unwrap();
    let (room, watch) = (Room::default(), Watch::default());
    let start = || {
        Setup::new()
            .data_dir(directory.path())
            .set("SHUTDOWN_GRACE_SECS", "0")
            .tuning(|tuning| {
                tuning.placement = Some(placement);
                tuning.log.before_commit = Some(room.failpoint());
                tuning.failpoints = Some(watch.failpoints());
            })
            .start()
    };
    leave_open_turns(start().await, &watch, &room).await;

    let app = start().await;

    let ready = app.get("/ready").await;
    assert_eq!(ready.status(), 503);
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["disk"]["state"], "low");
    for id in ["running", "early", "new"] {
        assert_refused(
            app.post("/chat", say(id, "more")).await,
            503,
            "storage_unavailable",
        )
        .await;
    }
    assert_eq!(
        app.simulator.chat_requests().len(),
        0,
        "no early upstream call"
    );
    let answered = [user("I am Alice"), assistant(&reply_text(0, 5))];
    assert_eq!(app.said("early").await, answered);
    let asked = [user("Tell me a story"), user("And another")];
    assert_eq!(
        app.said("running").await,
        asked,
        "open turns are shown as they are"
    );
    assert_eq!(app.get("/conversation/new").await.status(), 404);

    room.clear();

    until("service to resume", async || {
        let answer = app.post("/chat", say("new", "hi")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    assert_eq!(app.get("/ready").await.status(), 200);
    let document = app.document("running").await;
    let messages = document["messages"].as_array().unwrap();
    let kept = messages[1]["content"].as_str().unwrap();
    assert!(
        !kept.is_empty() && reply_text(0, 6).starts_with(kept),
        "{kept}"
    );
    assert_eq!(messages[1]["finish_reason"], "interrupted");
    let said = [asked[0].clone(), assistant(kept), asked[1].clone()];
    assert_eq!(app.said("running").await, said, "each turn was ended once");
    app.chat("running", "Go on").await;
}

/// Stops a server so that the disk has no room for the ends of a turn that runs and one that waits.
async fn leave_open_turns(mut app: TestApp, watch: &Watch, room: &Room) {
    app.chat("early", "I am Alice").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(4, &gate));
    let running = app.stream(say("running", "Tell me a story")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut waiting = app.stream(say("running", "And another")).await;
    assert_eq!(waiting.next().await.unwrap()["type"], "conversation_start");
    watch.reached(Failpoint::Kept, "running", 1).await;
    room.fill();
    drop((running, waiting));
    app.http = crate::helpers::client();
    app.stop().await;
}

//! Going on while turns that were stopped are on their way to the log.

use idol_actors::shared::Failpoint;
use idol_simulator::Script;
use serde_json::{Value, json};

use super::{assert_whole, resumed, sockets::watcher};
use crate::{
    helpers::{DEADLINE, say, until},
    resilience::{Commits, Watch, answered, held, sent},
};

#[tokio::test]
async fn a_turn_that_was_stopped_before_it_was_in_the_log_is_told_to_whoever_comes_back() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = held(&commits, &watch).await;
    let (mut socket, mut picture) = watcher(&app, "c1").await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one").hold_at(0, &gate));
    let first = sent(&app, "/chat", say("c1", "first"));
    picture.take(&socket.next().await);
    gate.reached(1, DEADLINE).await.unwrap();
    let appends = watch.count(Failpoint::BeforeAppend, "c1");
    commits.hold();
    gate.open();
    watch
        .reached(Failpoint::BeforeAppend, "c1", appends + 1)
        .await;
    // The end of the first is held in the log; the second waits behind it, and is stopped.
    let second = sent(&app, "/chat", say("c1", "second"));
    until("the second to be stopped", async || {
        let path = "/conversation/c1/cancel";
        let stopped: Value = app.post(path, json!({})).await.json().await.ok()?;
        (stopped["cancelled"] == true).then_some(())
    })
    .await;
    drop(socket);
    commits
        .let_through_until("the beginning of the second on its way", || {
            watch.count(Failpoint::BeforeAppend, "c1") >= appends + 2
        })
        .await;
    assert_eq!(answered(first).await.status(), 200);

    let cursor = picture.cursor.clone().unwrap();
    let (mut socket, told) = resumed(&app, "c1", &[("cursor", &cursor)]).await;
    picture.take(&told);
    let early = picture.clone();
    commits.release();
    assert_eq!(answered(second).await.status(), 200);
    app.chat("c1", "third").await;

    // As one that goes on listening, and as one that is gone again at once.
    let document = app.document("c1").await;
    let last = document["messages"].as_array().unwrap().last().unwrap();
    loop {
        let told = socket.next().await;
        picture.take(&told);
        if told["type"] == "response_complete" && told["message_id"] == last["id"] {
            break;
        }
    }
    assert_whole(&app, "c1", &picture).await;
    let cursor = early.cursor.clone().unwrap();
    let (_socket, told) = resumed(&app, "c1", &[("cursor", &cursor)]).await;
    let mut again = early;
    again.take(&told);
    assert_whole(&app, "c1", &again).await;
}

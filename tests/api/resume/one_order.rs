//! All who listen to a conversation are told the same, in the same order.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{joined, resumed, sockets::watcher, streams::events};
use crate::helpers::{Events, Setup, TestApp, say, types};

/// Each with a turn from every door.
const ROUNDS: usize = 3;

/// Turns of a round.
const DOORS: usize = 5;

async fn whole(app: &TestApp, round: usize) {
    app.chat("c1", &format!("whole {round}")).await;
}

async fn streamed(app: &TestApp, round: usize) {
    let said = say("c1", &format!("streamed {round}"));
    app.stream(said).await.all().await;
}

async fn spoken(app: &TestApp, round: usize) {
    let mut socket = app.socket().await;
    let message = json!({"type": "message", "conversation_id": "c1",
        "message": format!("spoken {round}"), "client_message_id": format!("m-{round}")});
    socket.send(message).await;
    socket.until("response_complete").await;
}

async fn made_again(app: &TestApp) {
    let answer = app.post("/conversation/c1/regenerate", json!({})).await;
    assert_eq!(answer.status(), 200);
    Events::of(answer).all().await;
}

/// Stopped while it waits, or behind its first words.
async fn stopped(app: &TestApp, round: usize) {
    let mut said = say("c1", &format!("stopped {round}"));
    said["model"] = "sim/tokens=100000,gap=5".into();
    let mut events = app.stream(said).await;
    let start = events.next().await.unwrap();
    if round > 0 {
        events.next().await.unwrap();
    }
    let stop = json!({"turn_id": start["turn_id"]});
    let answer = app.post("/conversation/c1/cancel", stop).await;
    assert_eq!(answer.status(), 200);
    events.all().await;
}

/// Listens until all turns have ended.
async fn listen(mut next: impl AsyncFnMut() -> Value) -> Vec<Value> {
    let (mut told, mut ended) = (Vec::new(), 0);
    while ended < ROUNDS * DOORS {
        let event = next().await;
        ended += usize::from(event["type"] == "response_complete");
        told.push(event);
    }
    told
}

#[tokio::test]
async fn all_who_listen_are_told_the_same_in_the_same_order_whatever_door_it_came_through() {
    let setup = Setup::new().set("DEFAULT_MODEL", "sim/tokens=20,gap=1");
    let app = setup.start().await;
    app.chat("c1", "before").await;
    let (mut watches, _) = watcher(&app, "c1").await;
    let (mut resumes, _) = resumed(&app, "c1", &[]).await;
    let mut source = events(&app, "c1", None).await;
    assert_eq!(source.next().await.unwrap()["type"], "resumed");

    let talk = async {
        for round in 0..ROUNDS {
            tokio::join!(
                whole(&app, round),
                streamed(&app, round),
                spoken(&app, round),
                made_again(&app),
                stopped(&app, round),
            );
        }
    };
    let (watched, resumed, streamed, ()) = tokio::join!(
        listen(async || watches.next().await),
        listen(async || resumes.next().await),
        listen(async || source.next().await.unwrap()),
        talk,
    );

    let watched = joined(&watched);
    assert_eq!(joined(&resumed), watched);
    assert_eq!(joined(&streamed), watched);
    let turns: HashSet<_> = watched.iter().map(|it| it["turn_id"].as_str()).collect();
    assert_eq!(turns.len(), ROUNDS * DOORS, "every turn is told");
    let told = |kind: &str| types(&watched).iter().filter(|it| **it == kind).count();
    assert_eq!(told("user_message"), ROUNDS * (DOORS - 1));
    assert_eq!(told("history_truncated"), ROUNDS);
    let cancelled = watched
        .iter()
        .filter(|it| it["finish_reason"] == "cancelled");
    assert_eq!(cancelled.count(), ROUNDS);
}

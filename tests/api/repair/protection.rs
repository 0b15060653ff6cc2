//! Models that fail are left alone, and no upstream gets more calls at once than it may.

use std::time::Duration;

use idol_simulator::{Script, reply_text};
use serde_json::Value;

use super::turn;
use crate::{
    faults::doors::{DOORS, Door},
    helpers::{DEADLINE, Setup, TestApp, refused, say, until},
};

async fn openrouter(app: &TestApp) -> Value {
    let ready: Value = app.get("/ready").await.json().await.unwrap();
    assert_eq!(ready["status"], "ready", "{ready}");
    ready["openrouter"].clone()
}

/// Each reply is asked for once, unless the model fails too often.
fn asking_once() -> Setup {
    Setup::new().set("OPENROUTER_ATTEMPTS", "1")
}

#[tokio::test]
async fn a_model_that_fails_is_left_alone_until_a_probe_succeeds() {
    let app = asking_once()
        .tuning(|tuning| tuning.breaker_open = Some(Duration::from_secs(2)))
        .start()
        .await;
    let model = "sim/tokens=3,fault=status:500,fail=10";
    for number in 0..10 {
        let seen = turn(&app, Door::Chat, &format!("c{number}"), &[model]).await;
        assert_eq!(seen.error()["code"], "upstream_failed");
    }
    let made = app.simulator.counters().chat_requests;
    for door in DOORS {
        let seen = turn(&app, door, &format!("{door:?}"), &[model]).await;
        assert_eq!(seen.error()["code"], "upstream_unavailable", "{seen:?}");
        assert!(seen.error()["retry_after"].as_u64().unwrap() >= 1);
    }
    let mut body = say("refused", "hello");
    body["model"] = model.into();
    refused(app.post("/chat", body).await, 503, "upstream_unavailable").await;
    assert_eq!(app.simulator.counters().chat_requests, made);
    let part = openrouter(&app).await;
    assert_eq!(part["state"], "degraded", "{part}");
    assert_eq!(part["breakers"][model], "open", "{part}");

    // Others are asked, in its place, too, and at once.
    let seen = turn(&app, Door::Stream, "others", &["sim/tokens=2"]).await;
    assert_eq!(seen.text, reply_text(0, 2));
    let seen = turn(
        &app,
        Door::Stream,
        "instead",
        &[model, "sim/tokens=2,seed=4"],
    )
    .await;
    assert_eq!(seen.text, reply_text(4, 2));

    let mut tries = 0;
    until("a reply", async || {
        tries += 1;
        let seen = turn(&app, Door::Chat, &format!("again{tries}"), &[model]).await;
        seen.end.is_ok().then_some(())
    })
    .await;
    let part = openrouter(&app).await;
    assert_eq!(part["state"], "ok", "{part}");
    assert_eq!(part["breakers"], serde_json::json!({}), "{part}");
}

#[tokio::test]
async fn our_own_faults_leave_a_model_as_it_was() {
    let app = asking_once().start().await;
    for fault in ["status:400", "status:401", "status:402", "status:429"] {
        let model = format!("sim/fault={fault}");
        for number in 0..12 {
            let conversation = format!("{}-{number}", fault.replace(':', "-"));
            let seen = turn(&app, Door::Chat, &conversation, &[&model]).await;
            assert_ne!(seen.error()["code"], "upstream_unavailable", "{seen:?}");
        }
    }
    assert_eq!(openrouter(&app).await["state"], "ok");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_left_alone_whatever_the_model() {
    let mut app = asking_once().start().await;
    drop(std::mem::replace(
        &mut app.simulator,
        idol_simulator::Simulator::start().unwrap(),
    ));
    for number in 0..10 {
        let model = format!("sim/key={number}");
        let seen = turn(&app, Door::Chat, &format!("c{number}"), &[&model]).await;
        assert_eq!(seen.error()["code"], "upstream_failed");
    }
    let seen = turn(&app, Door::Chat, "c", &["sim/", "sim/tokens=3"]).await;
    assert_eq!(seen.error()["code"], "upstream_unavailable");
    assert_eq!(openrouter(&app).await["state"], "unreachable");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_in_a_short_queue_and_the_rest_are_refused() {
    let app = Setup::new()
        .asking_once()
        .set("OPENROUTER_CALLS_MAX", "1")
        .set("OPENROUTER_QUEUE_MAX", "1")
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=3").hold_at(1, &gate));
    let first = turn(&app, Door::Stream, "first", &["sim/"]);
    let second = async {
        gate.reached(1, DEADLINE).await.unwrap();
        turn(&app, Door::Socket, "second", &["sim/tokens=3"]).await
    };
    let third = async {
        until("one call and one that waits", async || {
            let part = openrouter(&app).await;
            (part["calls"] == 1 && part["queued"] == 1).then_some(())
        })
        .await;
        for door in DOORS {
            let seen = turn(&app, door, &format!("third-{door:?}"), &["sim/"]).await;
            assert_eq!(seen.error()["code"], "upstream_unavailable", "{seen:?}");
            assert!(seen.error()["retry_after"].as_u64().unwrap() >= 1);
        }
        assert_eq!(app.simulator.counters().chat_requests, 1);
        gate.open();
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    assert_eq!(first.text, reply_text(0, 3));
    assert_eq!(second.text, reply_text(0, 3));
    let part = openrouter(&app).await;
    assert_eq!((&part["calls"], &part["queued"]), (&0.into(), &0.into()));
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("idol_router_upstream_refused_full_total 3"),
        "{metrics}"
    );
}

#[tokio::test]
async fn one_slow_model_leaves_room_for_the_others() {
    let app = Setup::new()
        .asking_once()
        .set("OPENROUTER_MODEL_CALLS_MAX", "1")
        .set("OPENROUTER_QUEUE_MAX", "0")
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=3").hold_at(1, &gate));
    let slow = turn(&app, Door::Stream, "slow", &["sim/slow"]);
    let others = async {
        gate.reached(1, DEADLINE).await.unwrap();
        let seen = turn(&app, Door::Chat, "same", &["sim/slow"]).await;
        assert_eq!(seen.error()["code"], "upstream_unavailable");
        let seen = turn(&app, Door::Chat, "other", &["sim/tokens=3"]).await;
        assert_eq!(seen.text, reply_text(0, 3));
        gate.open();
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow.text, reply_text(0, 3));
}

#[tokio::test]
async fn a_call_that_waits_for_room_too_long_is_refused() {
    let app = Setup::new()
        .asking_once()
        .set("OPENROUTER_CALLS_MAX", "1")
        .tuning(|tuning| tuning.queue_wait = Some(Duration::from_millis(50)))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=3").hold_at(1, &gate));
    let first = turn(&app, Door::Stream, "first", &["sim/"]);
    let second = async {
        gate.reached(1, DEADLINE).await.unwrap();
        let seen = turn(&app, Door::Chat, "second", &["sim/"]).await;
        assert_eq!(
            (seen.status, &seen.error()["code"]),
            (503, &"upstream_unavailable".into())
        );
        gate.open();
    };
    tokio::join!(first, second);
}

#[tokio::test]
async fn replies_of_one_model_that_are_cut_at_once_all_come_to_their_end() {
    const REPLIES: u64 = 12;
    let app = Setup::new()
        .tuning(|tuning| tuning.breaker_open = Some(Duration::from_millis(500)))
        .start()
        .await;
    let gate = app.simulator.gate();
    for _ in 0..REPLIES {
        let cut = Script::from("tokens=20,seed=7,fault=cut,after=9").hold_at(8, &gate);
        app.simulator.script(cut);
    }
    let turns = (0..REPLIES).map(|number| {
        let door = [Door::Stream, Door::Socket][usize::try_from(number % 2).unwrap()];
        let app = &app;
        async move {
            let model = "sim/tokens=20,seed=7,prefix=continue";
            let seen = turn(app, door, &format!("c{number}"), &[model]).await;
            assert_eq!(seen.finish_reason(), "stop", "{seen:?}");
            assert_eq!(seen.text, reply_text(7, 20), "{seen:?}");
        }
    });
    let cut = async {
        gate.reached(REPLIES, DEADLINE).await.unwrap();
        gate.open();
    };
    tokio::join!(futures::future::join_all(turns), cut);
    let state = app.engine.protection().unwrap().state();
    assert_eq!(state.repaired, REPLIES, "{state:?}");
    app.assert_nothing_left().await;
}

//! Failures before the first token: the same model again, then another one.

use std::time::{Duration, Instant};

use idol_actors::{
    caller::Caller, conversation::command::CancelTurn, id::ConversationId,
    provider::attempts::RetryWaits,
};
use idol_simulator::{Options, Script, Simulator, reply_text};

use super::{asked, impatient, keyed, turn};
use crate::{
    faults::doors::{DOORS, Door},
    helpers::{DEADLINE, Setup, TestApp, until},
};

#[tokio::test]
async fn a_failure_that_passes_is_not_seen_at_any_door() {
    let app = impatient()
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    for fault in [
        "fault=status:429,retry_after=0",
        "fault=status:408",
        "fault=status:500",
        "fault=status:502",
        "fault=status:503,retry_after=0",
        "fault=status:504",
        "fault=status:524",
        "fault=status:529",
        "fault=reset_early",
        "fault=close_early",
        "fault=reset",
        "fault=end",
        "fault=error",
        "fault=garbage",
        "fault=ok_error",
        "fault=html",
        "fault=no_headers",
        "fault=stall_comments",
    ] {
        let turns = DOORS.map(|door| {
            let (app, conversation) = (&app, format!("{door:?}-{fault}"));
            let conversation = conversation.replace(['=', ':', ',', '_'], "-");
            async move {
                let model = keyed(&format!("tokens=9,fail=2,{fault}"), door);
                let seen = turn(app, door, &conversation, &[&model]).await;
                assert_eq!(seen.text, reply_text(0, 9), "{seen:?}");
                assert_eq!(seen.finish_reason(), "stop");
                assert!(seen.seams.is_empty(), "{seen:?}");
                assert_eq!(asked(app)[&model], 3, "{model}");
            }
        });
        futures::future::join_all(turns).await;
    }
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn what_a_repeat_cannot_cure_is_asked_once() {
    let app = TestApp::start().await;
    for fault in [
        "status:400",
        "status:401",
        "status:402",
        "status:403",
        "status:413",
    ] {
        let model = format!("sim/fault={fault}");
        let conversation = fault.replace(':', "-");
        let seen = turn(&app, Door::Chat, &conversation, &[&model]).await;
        seen.error();
        assert_eq!(asked(&app)[&model], 1, "{model}");
    }
}

#[tokio::test]
async fn a_failure_that_stays_is_told_after_three_requests() {
    let app = TestApp::start().await;
    for door in DOORS {
        let model = keyed("fault=status:500", door);
        let seen = turn(&app, door, &format!("{door:?}"), &[&model]).await;
        assert_eq!(seen.error()["code"], "upstream_failed");
        assert_eq!(asked(&app)[&model], 3);
    }
}

#[tokio::test]
async fn the_wait_that_an_upstream_asks_for_is_kept_if_a_user_can_wait_so_long() {
    let app = TestApp::start().await;
    let began = Instant::now();
    let model = "sim/tokens=2,fault=status:429,fail=1,retry_after_ms=400";
    let seen = turn(&app, Door::Stream, "c1", &[model]).await;
    assert_eq!(seen.text, reply_text(0, 2));
    assert!(began.elapsed() >= Duration::from_millis(400));

    let model = "sim/fault=status:429,retry_after=3600";
    let seen = turn(&app, Door::Chat, "c2", &[model]).await;
    assert_eq!(seen.status, 429);
    assert_eq!(seen.error()["retry_after"], 3600);
    assert_eq!(asked(&app)[model], 1);
}

#[tokio::test]
async fn an_upstream_that_comes_back_meanwhile_is_reached() {
    let waits = RetryWaits {
        first: Duration::from_secs(2),
        ..RetryWaits::default()
    };
    let setup = Setup::new().tuning(|tuning| tuning.retry_waits = Some(waits));
    let mut app = setup.start().await;
    let port = app.simulator.address().port();
    drop(std::mem::replace(
        &mut app.simulator,
        Simulator::start().unwrap(),
    ));
    let asked = turn(&app, Door::Stream, "c1", &["sim/tokens=3"]);
    let back = async {
        until("the first repeat", async || {
            let state = app.engine.protection().unwrap().state();
            (state.retries == 1).then_some(())
        })
        .await;
        Simulator::start_with(Options {
            port,
            ..Options::default()
        })
    };
    let (seen, back) = tokio::join!(asked, back);
    assert_eq!(seen.text, reply_text(0, 3), "{seen:?}");
    assert_eq!(back.unwrap().counters().chat_requests, 1);
}

#[tokio::test]
async fn the_next_model_answers_for_one_that_fails() {
    let well = "sim/tokens=4,seed=6";
    let app = Setup::new()
        .set("FALLBACK_MODELS", "sim/fault=status:500")
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    for (place, fault) in [
        "status:500",
        "status:400",
        "status:404",
        "status:429,retry_after=999",
    ]
    .into_iter()
    .enumerate()
    {
        for door in [Door::Chat, Door::Stream] {
            let conversation = format!("{door:?}-{place}");
            let bad = keyed(&format!("fault={fault}"), door);
            let seen = turn(&app, door, &conversation, &[&bad, well]).await;
            assert_eq!(seen.text, reply_text(6, 4), "{seen:?}");
            assert!(seen.seams.is_empty());
            let document = app.document(&conversation).await;
            let reply = &document["messages"][1];
            assert_eq!(reply["model"], well, "{reply}");
            assert!(reply.get("models").is_none(), "{reply}");
        }
    }
}

#[tokio::test]
async fn the_operators_fallback_answers_at_every_door() {
    let app = Setup::new()
        .set("FALLBACK_MODELS", "sim/fault=status:502, sim/seed=6")
        .start()
        .await;
    for door in DOORS {
        let bad = keyed("fault=status:500", door);
        let seen = turn(&app, door, &format!("{door:?}"), &[&bad]).await;
        assert_eq!(seen.text, reply_text(6, 16), "{seen:?}");
        assert_eq!(asked(&app)[&bad], 2);
    }
}

#[tokio::test]
async fn a_key_that_is_refused_is_refused_for_every_model() {
    let app = TestApp::start().await;
    let seen = turn(
        &app,
        Door::Chat,
        "c1",
        &["sim/fault=status:401", "sim/seed=6"],
    )
    .await;
    assert_eq!(seen.error()["code"], "upstream_auth");
    assert_eq!(app.simulator.counters().chat_requests, 1);
}

#[tokio::test]
async fn the_failure_that_is_told_is_that_of_the_model_asked_for() {
    let app = TestApp::start().await;
    let models = ["sim/fault=status:context_too_long", "sim/fault=status:500"];
    let seen = turn(&app, Door::Chat, "c1", &models).await;
    assert_eq!(
        (seen.status, &seen.error()["code"]),
        (400, &"upstream_rejected".into())
    );
    assert_eq!(asked(&app)[models[0]], 1);
}

#[tokio::test]
async fn repeats_that_help_nothing_come_to_an_end() {
    let app = Setup::new()
        .set("OPENROUTER_RETRY_BUDGET", "5")
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    for number in 0..20 {
        let conversation = format!("c{number}");
        turn(&app, Door::Chat, &conversation, &["sim/fault=status:500"]).await;
    }
    assert_eq!(app.simulator.counters().chat_requests, 20 + 5);
    let state = app.engine.protection().unwrap().state();
    assert_eq!(state.repeats_left, 0);
    assert!(state.refused_budget > 0);
}

#[tokio::test]
async fn a_request_that_no_model_takes_costs_the_others_nothing() {
    let app = TestApp::start().await;
    let before = app.engine.protection().unwrap().state().repeats_left;
    let models: Vec<String> = (0..16)
        .map(|key| format!("sim/fault=status:400,key={key}"))
        .collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let seen = turn(&app, Door::Chat, "c1", &models).await;
    assert_eq!(seen.error()["code"], "upstream_rejected");
    assert_eq!(app.simulator.counters().chat_requests, 6);
    let state = app.engine.protection().unwrap().state();
    assert_eq!(state.repeats_left, before);
}

#[tokio::test]
async fn a_stop_gives_back_what_was_paid_for_the_repeat_under_way() {
    let app = TestApp::start().await;
    let left = || app.engine.protection().unwrap().state().repeats_left;
    let before = left();
    let gate = app.simulator.gate();
    app.simulator.script("fault=status:500");
    app.simulator.script(Script::new().hold_headers(&gate));
    let asked = turn(&app, Door::Stream, "c1", &["sim/"]);
    let stopped = async {
        gate.reached(1, DEADLINE).await.unwrap();
        assert_eq!(left(), before - 1);
        let id = ConversationId::parse("c1").unwrap();
        let command = CancelTurn {
            caller: Caller::Anonymous,
            turn: None,
        };
        let conversation = app.engine.conversation(id, None);
        conversation.cancel(command).await.unwrap();
    };
    let (seen, ()) = tokio::join!(asked, stopped);
    assert_eq!(seen.finish_reason(), "cancelled");
    until("what was paid", async || (left() == before).then_some(())).await;
}

//! Upstreams that stay silent, each against the deadline that ends the wait.

use idol_simulator::Script;

use super::doors::{Failure, Partial, expect_failures, fails};
use crate::helpers::{Setup, TestApp, say};

const TIMEOUT: &str = "upstream_timeout";

async fn start(deadlines: &[&str]) -> TestApp {
    let setup = deadlines
        .iter()
        .fold(Setup::new().asking_once(), |setup, deadline| {
            setup.set(&format!("OPENROUTER_{deadline}_TIMEOUT_SECS"), "1")
        });
    setup.start().await
}

#[tokio::test]
async fn a_reply_that_does_not_begin_in_time_is_a_timeout_at_every_door() {
    let app = start(&["FIRST_TOKEN"]).await;
    let table: [Failure; 5] = [
        fails("fault=no_headers", 504, TIMEOUT),
        fails("fault=half_headers", 504, TIMEOUT),
        fails("headers=9s", 504, TIMEOUT),
        fails("fault=stall", 504, TIMEOUT),
        fails("fault=stall_comments", 504, TIMEOUT),
    ];
    expect_failures(&app, &table).await;
}

#[tokio::test]
async fn a_reply_that_falls_silent_is_a_timeout_at_every_door_and_its_text_is_kept() {
    let app = start(&["SILENCE"]).await;
    let kept = |options| fails(options, 504, TIMEOUT).keeps(Partial::Tokens(5));
    let table = [
        kept("fault=stall,after=5"),
        kept("fault=stall_comments,after=5"),
        kept("keepalive=data,fault=stall_comments,after=5"),
        kept("fault=stall,after=5,framing=close"),
    ];
    expect_failures(&app, &table).await;
}

#[tokio::test]
async fn a_reply_that_goes_on_for_too_long_is_a_timeout_and_its_text_is_kept() {
    let app = start(&["TOTAL"]).await;
    let row = fails("fault=stall,after=5", 504, TIMEOUT).keeps(Partial::Tokens(5));
    expect_failures(&app, &[row]).await;
}

#[tokio::test]
async fn a_finished_reply_is_whole_though_its_stream_never_ends() {
    let app = start(&["TOTAL"]).await;
    let chunk = |choice: &str| format!("data: {{\"choices\":[{{\"index\":0,{choice}}}]}}\n\n");
    let pieces = [
        chunk(r#""delta":{"content":"whole"}"#),
        chunk(r#""delta":{},"finish_reason":"stop""#),
    ];
    app.simulator
        .script(Script::raw(pieces).with("fault=stall,after=2"));

    let events = app.stream(say("c1", "hi")).await.all().await;

    let done = events.last().unwrap();
    assert_eq!(done["type"], "done", "{events:?}");
    assert_eq!(done["finish_reason"], "stop");
    app.assert_nothing_left().await;
}

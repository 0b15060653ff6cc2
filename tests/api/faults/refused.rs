//! Upstreams that answer with an error in place of a reply.

use idol_simulator::{ErrorCase, Fault, Script};
use serde_json::{Value, json};

use super::doors::{Failure, Partial, Retry, expect_failures, fails};
use crate::helpers::{Setup, say};

/// Each kind of answer that providers really send, under its name in the simulator.
#[rustfmt::skip]
const NAMED: [Failure; 26] = [
    fails("fault=status:unknown_model", 400, "upstream_rejected").saying("No such model: example/nope"),
    fails("fault=status:context_too_long", 400, "upstream_rejected").saying("Context is longer than the model allows"),
    fails("fault=status:bad_key", 502, "upstream_auth"),
    fails("fault=status:no_credit", 503, "upstream_credits"),
    fails("fault=status:moderation", 400, "upstream_rejected").saying("Input was flagged"),
    fails("fault=status:no_endpoints", 502, "upstream_failed").saying("No endpoints match"),
    fails("fault=status:timeout", 504, "upstream_timeout"),
    fails("fault=status:too_large", 400, "upstream_rejected").saying("Payload too large"),
    fails("fault=status:rate_limit", 429, "upstream_rate_limited").retry(Retry::Told),
    fails("fault=status:capacity", 429, "upstream_rate_limited").retry(Retry::After(7)),
    fails("fault=status:provider_raw", 429, "upstream_rate_limited").retry(Retry::Told).saying("slow down"),
    fails("fault=status:provider_down", 502, "upstream_failed"),
    fails("fault=status:overloaded", 502, "upstream_failed").retry(Retry::After(3)),
    fails("fault=status:edge_timeout", 504, "upstream_timeout"),
    fails("fault=status:overloaded_upstream", 502, "upstream_failed"),
    fails("fault=status:error_only", 502, "upstream_failed"),
    fails("fault=status:error_in_choice", 502, "upstream_failed").keeps(Partial::Text("par")),
    fails("fault=status:llamacpp_loading", 502, "upstream_failed"),
    fails("fault=status:llamacpp_context", 400, "upstream_rejected").saying("larger than the context"),
    fails("fault=status:llamacpp_key", 502, "upstream_auth"),
    fails("fault=status:vllm_nested", 400, "upstream_rejected").saying("max_tokens too large"),
    fails("fault=status:vllm_flat", 400, "upstream_rejected").saying("max_tokens too large"),
    fails("fault=status:unprocessable", 400, "upstream_rejected").saying("Unprocessable request"),
    fails("fault=status:server_error", 502, "upstream_failed"),
    fails("fault=status:gateway_timeout", 504, "upstream_timeout"),
    fails("fault=status:empty_body", 502, "upstream_failed"),
];

/// The same by status, with headers that tell of a wait, and with bodies that are spoiled.
#[rustfmt::skip]
const OTHERS: [Failure; 23] = [
    fails("fault=status:400", 400, "upstream_rejected"),
    fails("fault=status:401", 502, "upstream_auth"),
    fails("fault=status:402", 503, "upstream_credits"),
    fails("fault=status:403", 400, "upstream_rejected"),
    fails("fault=status:408", 504, "upstream_timeout"),
    fails("fault=status:418", 400, "upstream_rejected").saying("Status 418"),
    fails("fault=status:524", 504, "upstream_timeout"),
    fails("fault=status:503", 502, "upstream_failed").retry(Retry::After(3)),
    fails("fault=status:302", 502, "upstream_failed").saying("is the base URL right?"),
    fails("fault=ok_error", 502, "upstream_failed"),
    fails("fault=choice_error", 502, "upstream_failed").keeps(Partial::Text("par")),
    fails("fault=html", 502, "upstream_failed"),
    fails("fault=html:200", 502, "upstream_failed").saying("is the base URL right?"),
    fails("fault=html:403", 502, "upstream_auth"),
    fails("fault=html:429", 429, "upstream_rate_limited").retry(Retry::Told),
    fails("fault=status:500,retry_after=11", 502, "upstream_failed").retry(Retry::After(11)),
    fails("fault=status:rate_limit,retry_after=11", 429, "upstream_rate_limited").retry(Retry::After(11)),
    fails("fault=status:rate_limit,retry_after_ms=1500", 429, "upstream_rate_limited").retry(Retry::After(2)),
    fails("fault=status:provider_raw,retry_after=soon", 429, "upstream_rate_limited").retry(Retry::Told),
    fails("fault=status:500,retry_after=999999999", 502, "upstream_failed").retry(Retry::After(3600)),
    fails("fault=status:500,fault=cut", 502, "upstream_failed"),
    fails("fault=status:402,fault=reset", 503, "upstream_credits"),
    fails("fault=status:error_in_choice,fault=cut", 502, "upstream_failed"),
];

#[tokio::test]
async fn each_refusal_of_a_provider_has_its_code_at_every_door() {
    let app = Setup::new().asking_once().start().await;
    expect_failures(&app, &NAMED).await;
}

#[test]
fn no_known_refusal_is_left_out() {
    // Those of the audio APIs have their upstream's name before a colon, and tables of their own.
    for case in ErrorCase::known()
        .iter()
        .filter(|case| !case.name.contains(':'))
    {
        let named = |row: &Failure| row.options.strip_prefix("fault=status:") == Some(&case.name);
        assert!(NAMED.iter().any(named), "{} is in no table", case.name);
    }
}

#[tokio::test]
async fn odd_and_spoiled_refusals_have_their_code_at_every_door() {
    let app = Setup::new().asking_once().start().await;
    expect_failures(&app, &OTHERS).await;
}

#[tokio::test]
async fn only_what_a_retry_may_cure_is_not_marked_as_hopeless() {
    let app = Setup::new().asking_once().start().await;
    for (case, mark) in [
        ("moderation", Some("false")),
        ("bad_key", Some("false")),
        ("no_credit", Some("false")),
        ("capacity", None),
        ("timeout", None),
        ("provider_down", None),
    ] {
        app.simulator
            .script(format!("fault=status:{case}").as_str());

        let response = app.post("/chat", say("marks", "hello")).await;

        let found = response.headers().get("x-should-retry");
        assert_eq!(found.map(|it| it.to_str().unwrap()), mark, "{case}");
    }
}

#[tokio::test]
async fn an_upstream_that_recovers_answers_the_next_turn() {
    let app = Setup::new().asking_once().start().await;
    app.simulator
        .script(Script::from("tokens=4,fault=status:503,fail=2"));
    for _ in 0..2 {
        let response = app.post("/chat", say("c1", "hello?")).await;
        assert_eq!(response.status(), 502);
    }

    let answer = app.chat("c1", "hello?").await;

    let text = idol_simulator::reply_text(0, 4);
    assert_eq!(answer["choices"][0]["message"]["content"], *text);
    // The same words after no answer are a retry, and said once.
    let said = [("user", "hello?"), ("assistant", &text)];
    assert_eq!(
        app.said("c1").await,
        said.map(|(role, text)| (role.to_owned(), text.to_owned()))
    );
    assert_eq!(app.simulator.chat_requests().len(), 3);
}

#[tokio::test]
async fn a_whole_answer_in_place_of_a_stream_is_a_reply() {
    let app = Setup::new().asking_once().start().await;
    let whole = json!({
        "id": "gen-1", "object": "chat.completion", "created": 1, "model": "example/model-1",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    });
    app.simulator.script(Fault::Answer(ErrorCase {
        name: "whole".into(),
        status: 200,
        headers: [("Content-Type".into(), "application/json".into())].into(),
        body: Value::String(format!("\n         \n         {whole}")),
    }));

    let answer = app.chat("c1", "hi").await;

    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 2);
}

//! What errors say, and what they must not say.

use std::collections::BTreeMap;

use idol_simulator::{ErrorCase, Fault, Script};
use serde_json::{Value, json};

use crate::helpers::{Setup, TestApp, say};

/// Not of the shape that gives a key away.
const KEY: &str = "hush-0123456789abcdef";

fn refusal(status: u16, message: &str) -> Script {
    Fault::Answer(ErrorCase {
        name: "words".into(),
        status,
        headers: BTreeMap::new(),
        body: json!({"error": {"code": status, "message": message}}),
    })
    .into()
}

async fn error(app: &TestApp, script: Script) -> Value {
    app.simulator.script(script);
    let response = app.post("/chat", say("c1", "hello")).await;
    assert_ne!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn no_error_ever_shows_the_key() {
    let app = Setup::new()
        .asking_once()
        .set("OPENROUTER_API_KEY", KEY)
        .start()
        .await;
    let long = format!("{} {KEY}", "word ".repeat(98));
    let messages = [format!("Bad key {KEY}!"), format!("key={KEY}"), long];
    for status in [400, 401, 402, 403, 404, 408, 429, 500, 502, 503] {
        for message in &messages {
            let error = error(&app, refusal(status, message)).await;
            let shown = error.to_string();
            assert!(!shown.contains(&KEY[..8]), "{status} {message}: {shown}");
        }
    }
    let chunk = json!({"error": {"code": 500, "message": format!("bad key {KEY}")}});
    let error = error(&app, Script::raw([format!("data: {chunk}\n\n")])).await;
    assert!(!error.to_string().contains(&KEY[..8]), "{error}");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(!metrics.contains(KEY));
}

#[tokio::test]
async fn trouble_with_our_key_is_told_in_our_own_words() {
    let app = Setup::new().asking_once().start().await;
    for status in [401, 402] {
        let error = error(&app, refusal(status, "account alice@example.org is bad")).await;
        assert!(!error.to_string().contains("alice"), "{error}");
    }
}

#[tokio::test]
async fn the_upstreams_own_words_come_whole_where_our_request_is_bad() {
    let app = Setup::new().asking_once().start().await;
    let words = "temperature must be below 2, and \"top_p\" above 0";

    let error = error(&app, refusal(400, words)).await;

    assert_eq!(error["code"], "upstream_rejected");
    assert_eq!(error["error"], words);
    assert_eq!(error["detail"], words);
}

#[tokio::test]
async fn every_other_error_is_a_sentence_of_its_own() {
    let app = Setup::new().asking_once().start().await;
    for options in [
        "fault=status:bad_key",
        "fault=status:no_credit",
        "fault=status:timeout",
        "fault=status:capacity",
        "fault=status:provider_down",
        "fault=status:empty_body",
        "fault=status:302",
        "fault=html:200",
        "fault=close_early",
        "fault=garbage",
        "fault=end,after=2",
        "fault=error,after=2",
        "fault=long_line:8500000",
    ] {
        let error = error(&app, options.into()).await;
        let sentence = error["error"].as_str().unwrap();
        assert!(
            sentence.starts_with(|first: char| first.is_uppercase()),
            "{options}: {sentence:?} has no subject"
        );
    }
}

#[tokio::test]
async fn a_page_of_html_is_never_quoted() {
    let app = Setup::new().asking_once().start().await;
    for options in ["fault=html", "fault=html:400", "fault=html:200"] {
        let error = error(&app, options.into()).await;
        assert!(!error.to_string().contains('<'), "{error}");
    }
}

#[tokio::test]
async fn a_prompt_after_a_failure_has_each_message_once() {
    let app = Setup::new().asking_once().start().await;
    error(&app, "tokens=9,fault=cut,after=4".into()).await;

    app.chat("c1", "go on").await;

    let request = app.simulator.chat_requests().pop().unwrap();
    let body = request.json().unwrap();
    let partial = idol_simulator::reply_text(0, 4);
    assert_eq!(
        body["messages"].as_array().unwrap()[1..],
        [
            json!({"role": "user", "content": "hello"}),
            json!({"role": "assistant", "content": partial}),
            json!({"role": "user", "content": "go on"}),
        ]
    );
}

#[tokio::test]
async fn half_a_tool_call_is_never_kept() {
    let app = Setup::new().asking_once().start().await;
    // After the text, the call's name and the first of three pieces of its arguments.
    error(&app, "tokens=2,tools=1,fault=cut,after=4".into()).await;

    app.chat("c1", "go on").await;

    let document = app.document("c1").await;
    let reply = &document["messages"][1];
    assert_eq!(reply["content"], idol_simulator::reply_text(0, 2));
    assert_eq!(reply["finish_reason"], "error");
    assert!(reply.get("tool_calls").is_none(), "{reply}");
    let request = app.simulator.chat_requests().pop().unwrap();
    assert!(
        request.json().unwrap()["messages"][2]
            .get("tool_calls")
            .is_none()
    );
}

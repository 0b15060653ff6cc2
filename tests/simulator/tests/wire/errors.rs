//! Answers that are errors as a whole.

use idol_simulator::{ErrorCase, Fault, Options, Script, Simulator};
use serde_json::{Value, json};

use crate::client::{End, complete, exchange, stream};

#[tokio::test]
async fn every_known_error_is_sent_as_it_is() {
    let simulator = Simulator::start().unwrap();
    for case in ErrorCase::known() {
        let reply = stream(&simulator, &format!("sim/fault=status:{}", case.name)).await;
        assert_eq!(reply.status(), case.status, "{}", case.name);
        for (name, value) in &case.headers {
            assert_eq!(reply.header(name), Some(value.as_str()), "{}", case.name);
        }
        match &case.body {
            Value::Null => assert!(reply.raw.is_empty()),
            Value::String(text) => assert_eq!(reply.raw, text.as_bytes()),
            body => assert_eq!(reply.json(), *body),
        }
    }
}

#[tokio::test]
async fn a_status_brings_its_retry_after() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/fault=status:429,retry_after=9").await;
    assert_eq!(
        (reply.status(), reply.header("retry-after")),
        (429, Some("9"))
    );
    assert_eq!(reply.json()["error"]["code"], 429);
    let reply = stream(
        &simulator,
        "sim/fault=status:capacity,retry_after=1,retry_after_ms=1500",
    )
    .await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.header("retry-after-ms"), Some("1500"));
    simulator.script(
        Script::from(Fault::Answer(ErrorCase::of_status(503)))
            .header("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),
    );
    let reply = complete(&simulator, "m").await;
    assert_eq!(
        reply.header("retry-after"),
        Some("Fri, 31 Dec 1999 23:59:59 GMT")
    );
}

#[tokio::test]
async fn a_200_may_be_an_error() {
    let simulator = Simulator::start().unwrap();
    for ask in ["sim/fault=ok_error", "sim/fault=choice_error"] {
        let reply = stream(&simulator, ask).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let body = reply.json();
        assert_eq!(body["error"].is_object(), ask.contains("ok"));
        assert_eq!(
            body["choices"][0]["error"].is_object(),
            ask.contains("choice")
        );
    }
}

#[tokio::test]
async fn a_page_of_html_is_no_json() {
    let simulator = Simulator::start().unwrap();
    for (ask, status) in [("sim/fault=html", 502), ("sim/fault=html:200", 200)] {
        let reply = stream(&simulator, ask).await;
        assert_eq!(
            (reply.status(), reply.header("content-type")),
            (status, Some("text/html"))
        );
        assert!(reply.raw.starts_with(b"<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn an_error_body_can_be_split_or_late_like_any_other() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/headers=1,fault=status:400,split=every:1").await;
    assert_eq!(reply.json()["error"]["http_status"], 400);
    let reply = stream(&simulator, "sim/fault=status:400,fault=long_line:100000").await;
    assert_eq!((reply.status(), reply.raw.len() > 100_000), (400, true));
    let reply = stream(&simulator, "sim/fault=status:502,fault=reset").await;
    assert_eq!((reply.status(), reply.end), (502, End::Reset));
}

#[tokio::test]
async fn a_key_is_asked_for() {
    let options = Options {
        key: Some("secret".into()),
        ..Options::default()
    };
    let simulator = Simulator::start_with(options).unwrap();
    let url = format!("{}/chat/completions", simulator.base_url());
    let ask = async |key: Option<&'static str>| {
        let request = reqwest::Client::new()
            .post(&url)
            .json(&json!({"messages": []}));
        let request = key
            .into_iter()
            .fold(request, |request, key| request.bearer_auth(key));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(None).await, 401);
    assert_eq!(ask(Some("wrong")).await, 401);
    assert_eq!(ask(Some("secret")).await, 200);
    simulator.require_key(None);
    assert_eq!(ask(None).await, 200);
}

#[tokio::test]
async fn mistakes_of_the_caller_are_named() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=5,explode").await;
    assert_eq!(reply.status(), 400);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("explode")
    );
    let reply = exchange(&simulator, "/api/v1/chat/completions", "{\"no\":1}").await;
    assert_eq!(reply.status(), 400);
    assert_eq!(
        exchange(&simulator, "/api/v1/nothing", "").await.status(),
        404
    );
    assert_eq!(
        exchange(&simulator, "/api/v1/chat/completions", "")
            .await
            .status(),
        405
    );
}

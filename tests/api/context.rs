//! The model's context: how much of the history is sent, and how it stays cheap.

use idol_simulator::{ErrorCase, Fault, ModelCard, Route, Script, Simulator};
use serde_json::{Value, json};

use crate::{
    helpers::{Setup, TestApp, prompt, refused, say, until},
    process::Launch,
};

/// `POST /chat` with a text of so many bytes, and few tokens for the reply.
fn telling(text: &str, bytes: usize) -> Value {
    json!({
        "conversation_id": "c1", "max_tokens": 10, "system_prompt": "Be brief.",
        "messages": [{"role": "user", "content": format!("{text} {}", "x".repeat(bytes))}],
    })
}

/// A request body up to the end of its messages.
fn beginning(body: &[u8]) -> &[u8] {
    let end = body.windows(2).rposition(|it| it == b"}]").unwrap();
    &body[..=end]
}

#[tokio::test]
async fn prompts_begin_with_the_bytes_of_the_one_before_and_name_one_session() {
    let app = Setup::new()
        .set("DEFAULT_CONTEXT_TOKENS", "2000")
        .start()
        .await;
    for number in 0..40 {
        let body = telling(&number.to_string(), 300);
        assert_eq!(app.post("/chat", body).await.status(), 200);
    }
    app.chat("other", "hi").await;

    let requests = app.simulator.chat_requests();
    let requests: Vec<_> = requests.iter().collect();
    let (other, talk) = requests.split_last().unwrap();
    let pairs = talk.windows(2);
    let parted = pairs.filter(|pair| !pair[1].body.starts_with(beginning(&pair[0].body)));
    // Each cut makes room for several turns.
    let cuts = parted.count();
    assert!((2..=10).contains(&cuts), "{cuts} cuts in 40 turns");
    let session = |request: &idol_simulator::Request| request.json().unwrap()["session_id"].clone();
    let one = session(talk[0]);
    assert!(one.is_string());
    assert!(talk.iter().all(|request| session(request) == one));
    assert_ne!(session(other), one);
}

#[tokio::test]
async fn a_strict_server_is_not_told_of_sessions() {
    let simulator = Simulator::start().unwrap();
    let url = simulator.base_url().replace("/api/v1", "/v1");
    let app = Setup::new()
        .set("OPENROUTER_BASE_URL", &url)
        .start_with(simulator)
        .await;

    app.chat("c1", "hi").await;

    let body = app.simulator.chat_requests()[0].json().unwrap();
    assert_eq!(body.get("session_id"), None);
}

/// An upstream that finds the prompt too long, and says how much it takes.
fn too_long(message: &str) -> Script {
    let body = json!({"error": {"code": 400, "message": message,
        "metadata": {"error_type": "context_length_exceeded"}}});
    let case = ErrorCase {
        name: "context".to_owned(),
        status: 400,
        headers: std::collections::BTreeMap::new(),
        body,
    };
    Script::from(Fault::Answer(case))
}

/// A conversation of several turns, which a larger context has room for.
async fn told(app: &TestApp) -> usize {
    for number in 0..6 {
        let body = telling(&number.to_string(), 400);
        assert_eq!(app.post("/chat", body).await.status(), 200);
    }
    app.simulator.take_requests();
    6
}

#[tokio::test]
async fn a_prompt_that_the_upstream_finds_too_long_is_cut_and_sent_once_more() {
    let app = TestApp::start().await;
    told(&app).await;
    let stated = "This model's maximum context length is 400 tokens. However, you requested 900.";
    app.simulator.script(too_long(stated));

    let answer = app.post("/chat", telling("now", 10)).await;

    assert_eq!(answer.status(), 200);
    let requests = app.simulator.take_requests();
    assert_eq!(requests.len(), 2);
    let sent = [prompt(&requests[0]), prompt(&requests[1])];
    assert!(sent[1].len() < sent[0].len() && sent[0].ends_with(&sent[1]));
    assert!(sent[1].len() > 1, "what has room stays");
    assert_eq!(
        app.document("c1").await["messages"]
            .as_array()
            .unwrap()
            .len(),
        14
    );
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("prompts_cut_total 1"), "{metrics}");
    // The length that was stated is known from now on.
    assert_eq!(app.post("/chat", telling("then", 10)).await.status(), 200);
    let requests = app.simulator.take_requests();
    assert_eq!(requests.len(), 1);
    assert!(prompt(&requests[0]).len() <= sent[1].len() + 2);
}

#[tokio::test]
async fn a_stated_length_that_changes_nothing_is_not_believed() {
    let app = TestApp::start().await;
    told(&app).await;
    // By our estimate the prompt has room in it.
    let stated = "This model's maximum context length is 4000 tokens. However, you requested 4100.";
    app.simulator.script(too_long(stated));

    let answer = app.post("/chat", telling("now", 10)).await;

    assert_eq!(answer.status(), 200);
    let requests = app.simulator.take_requests();
    assert_eq!(requests.len(), 2);
    assert!(prompt(&requests[1]).len() < prompt(&requests[0]).len());
}

#[tokio::test]
async fn a_fallback_with_a_smaller_context_gets_a_prompt_that_fits() {
    let app = TestApp::start().await;
    told(&app).await;
    let stated = "This model's maximum context length is 400 tokens. However, you requested 900.";
    let failed = || Script::from("fault=status:500");
    for script in [failed(), failed(), too_long(stated)] {
        app.simulator.script(script);
    }
    let mut body = telling("now", 10);
    body["model"] = "sim/key=large".into();
    body["models"] = json!(["sim/key=small"]);

    let answer = app.post("/chat", body.clone()).await;

    assert_eq!(answer.status(), 200);
    let requests = app.simulator.take_requests();
    let models = requests
        .iter()
        .map(|it| it.json().unwrap()["model"].clone());
    let models: Vec<_> = models.collect();
    assert_eq!(
        models,
        [
            "sim/key=large",
            "sim/key=large",
            "sim/key=small",
            "sim/key=small"
        ]
    );
    let sent = [prompt(&requests[2]), prompt(&requests[3])];
    assert!(sent[1].len() < sent[0].len() && sent[0].ends_with(&sent[1]));
    assert!(sent[1].len() > 1, "what has room stays");

    // The first one, asked by itself, has the history that it has room for.
    body["messages"][0]["content"] = "then".into();
    assert_eq!(app.post("/chat", body.clone()).await.status(), 200);
    let requests = app.simulator.take_requests();
    assert!(prompt(&requests[0]).len() > sent[1].len());

    // A shorter prompt does not help: what the model that was asked for said is told.
    for script in [
        failed(),
        failed(),
        too_long(stated),
        failed(),
        failed(),
        failed(),
    ] {
        app.simulator.script(script);
    }
    body["messages"][0]["content"] = "again".into();
    body["models"] = json!(["sim/key=other"]);
    refused(app.post("/chat", body).await, 502, "upstream_failed").await;
    assert_eq!(app.simulator.scripts_left(), 0);
}

#[tokio::test]
async fn a_prompt_that_stays_too_long_fails_after_the_second_try() {
    let app = TestApp::start().await;
    told(&app).await;
    let refusal = too_long("Context is longer than the model allows");
    app.simulator.script(refusal.clone());
    app.simulator.script(refusal.clone());

    let answer = app.post("/chat", telling("now", 10)).await;

    refused(answer, 400, "upstream_rejected").await;
    assert_eq!(app.simulator.take_requests().len(), 2);
    // Where there is nothing to be cut, it is not tried again.
    app.simulator.script(refusal);
    let answer = app.post("/chat", say("new", "hi")).await;
    refused(answer, 400, "upstream_rejected").await;
    assert_eq!(app.simulator.take_requests().len(), 1);
}

#[tokio::test]
async fn the_models_that_were_listed_are_known_after_a_restart_without_the_list() {
    let simulator = Simulator::start().unwrap();
    simulator.add_model(ModelCard::new("sim/tokens=5", 300));
    let launch = Launch::with(&simulator);
    let process = launch.start().await;
    let kept = launch.data().join("models.json");
    until("the list to be kept", async || kept.exists().then_some(())).await;
    process.stop().await;
    let gone = ErrorCase::of_status(503);
    simulator.script_on(
        Route::Models,
        Script::fail_times(1_000, Fault::Answer(gone)),
    );

    let process = launch.start().await;

    for number in 0..6 {
        let answer = process
            .post("/chat", &telling(&number.to_string(), 300))
            .await;
        assert_eq!(answer.status(), 200);
    }
    let requests = simulator.chat_requests();
    let sent = prompt(requests.last().unwrap());
    assert!(
        sent.len() < 11,
        "all of the history was sent to a small model"
    );
}

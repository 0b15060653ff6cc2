//! What operators, browsers and probes see.

use std::{collections::BTreeSet, time::Duration};

use idol_actors::provider::embedded::Pace;
use idol_simulator::Script;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};

use crate::helpers::{DEADLINE, Setup, TestApp, refused, say, until, within};

const FRONT_END: &str = "http://localhost:3000";

/// A server with no chat upstream: in demo mode, unless something else is set.
pub(crate) fn without_upstream() -> Setup {
    Setup::new()
        .set("OPENROUTER_API_KEY", "")
        .set("OPENROUTER_BASE_URL", "")
        .tuning(|tuning| tuning.pace = Some(Pace::Fixed(Duration::ZERO)))
}

/// Asks as a browser does for a page of this origin.
async fn ask(app: &TestApp, method: Method, path: &str, body: &str, origin: &str) -> Response {
    let request = app.http.request(method, app.url(path));
    let request = request.header(header::ORIGIN, origin).body(body.to_owned());
    within("an answer", request.send()).await.unwrap()
}

/// The words of a header that is a list, in lower case.
fn words(response: &Response, name: &str) -> BTreeSet<String> {
    response
        .headers()
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap().split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect()
}

fn text<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

/// The value of a metric's sample, given with its labels.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    let mut values = metrics.lines().filter_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        Some(value.parse().unwrap())
    });
    values.next()
}

/// Waits until so many sockets are open.
async fn opened(app: &TestApp, sockets: usize) {
    let opened = until("the sockets' opening", async || {
        (app.sockets.len() == sockets).then_some(())
    });
    opened.await;
}

async fn metrics(app: &TestApp) -> String {
    let response = app.get("/metrics").await;
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

#[tokio::test]
async fn health_says_that_the_process_is_up_and_what_it_is() {
    let app = TestApp::start().await;

    let response = app.get("/health").await;

    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        body,
        json!({"status": "healthy", "version": version, "mode": "live"})
    );
}

#[tokio::test]
async fn ready_tells_the_state_of_each_part() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let _socket = app.socket().await;
    opened(&app, 1).await;

    let response = app.get("/ready").await;

    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], "ready");
    assert_eq!(body["engine"]["state"], "ok");
    assert_eq!(body["engine"]["conversations"], 1);
    assert!(body["engine"]["resident_bytes"].is_u64());
    assert_eq!(body["log"]["state"], "ok");
    assert!(body["log"]["wal_bytes"].is_u64());
    assert!(body["log"]["queued"].is_u64());
    assert_eq!(body["sockets"], 1);
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_and_takes_no_turn_but_is_healthy() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    let mut stream = app.stream(say("c1", "hi")).await;
    stream.next().await.unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    let engine = app.engine.clone();
    let asked = async {
        until("the drain's beginning", async || {
            app.engine.observe().draining.then_some(())
        })
        .await;

        let response = app.get("/ready").await;

        assert_eq!(response.status(), 503);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["status"], "not_ready");
        assert_eq!(body["engine"]["state"], "draining");
        assert_eq!(app.get("/health").await.status(), 200);
        for id in ["c1", "c2"] {
            let response = app.post("/chat", say(id, "more")).await;
            let body = refused(response, 503, "shutting_down").await;
            assert!(body["retry_after"].as_u64().unwrap() >= 1);
        }
        assert_eq!(app.said("c1").await.len(), 1);
        gate.open();
    };
    within(
        "the drain's end",
        futures::future::join(engine.drain(DEADLINE), asked),
    )
    .await;
    let events = stream.all().await;
    assert_eq!(events.last().unwrap()["type"], "done");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let app = TestApp::start().await;
    app.simulator.script("tokens=4,prompt=7");
    app.chat("c1", "hi").await;
    app.chat("c2", "hi").await;
    app.simulator.script("fault=status:unknown_model");
    app.post("/chat", say("c1", "fail")).await;
    let _sockets = [app.socket().await, app.socket().await];
    opened(&app, 2).await;

    let response = app.get("/metrics").await;

    let kind = text(&response, "content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let metrics = response.text().await.unwrap();
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for (name, value) in [
        ("idol_router_turns_total{end=\"complete\"}", 2.0),
        ("idol_router_turns_total{end=\"failed\"}", 1.0),
        ("idol_router_time_to_first_token_seconds_count", 2.0),
        ("idol_router_conversation_actors", 2.0),
        ("idol_router_conversation_restarts_total", 0.0),
        ("idol_router_sessions_stalled_total", 0.0),
        ("idol_router_websockets", 2.0),
    ] {
        assert_eq!(sample(&metrics, name), Some(value), "{name}\n{metrics}");
    }
    for (name, least) in [
        ("idol_router_prompt_tokens_total", 8.0),
        ("idol_router_completion_tokens_total", 9.0),
        ("idol_router_reply_deltas_total", 2.0),
        ("idol_router_log_append_latency_seconds_count", 6.0),
        ("idol_router_log_append_batch_count", 1.0),
        ("idol_router_resident_history_bytes", 0.0),
    ] {
        let value = sample(&metrics, name);
        assert!(
            value.is_some_and(|value| value >= least),
            "{name} {value:?}"
        );
    }
    let failed =
        "idol_router_provider_errors_total{provider=\"OpenRouter\",code=\"upstream_rejected\"}";
    assert_eq!(sample(&metrics, failed), Some(1.0), "{metrics}");
}

#[tokio::test]
async fn metrics_of_a_turn_are_there_when_its_answer_is() {
    let app = TestApp::start().await;
    for turns in 1..=10 {
        app.chat("c1", "hi").await;
        let value = sample(
            &metrics(&app).await,
            "idol_router_turns_total{end=\"complete\"}",
        );
        assert_eq!(value, Some(f64::from(turns)));
    }
}

#[tokio::test]
async fn metrics_answer_nobody_for_whom_a_proxy_speaks() {
    let app = TestApp::start().await;
    for name in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
        let request = app.http.get(app.url("/metrics")).header(name, "127.0.0.1");

        let response = request.send().await.unwrap();

        assert_eq!(text(&response, "www-authenticate"), Some("Bearer"));
        refused(response, 401, "unauthorized").await;
    }
}

#[tokio::test]
async fn open_admin_shows_metrics_to_everybody() {
    let app = Setup::new().set("OPEN_ADMIN", "true").start().await;
    let request = app.http.get(app.url("/metrics"));

    let response = request.header("X-Forwarded-For", "203.0.113.9").send();

    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_id_that_is_given_comes_back() {
    let app = TestApp::start().await;
    for (path, id) in [
        ("/health", "req-1_a.b:c/d"),
        ("/nothing", "x"),
        ("/chat", &*"y".repeat(128)),
    ] {
        let request = app.http.get(app.url(path)).header("X-Request-Id", id);

        let response = request.send().await.unwrap();

        assert_eq!(text(&response, "x-request-id"), Some(id));
    }
}

#[tokio::test]
async fn a_request_without_a_fit_id_gets_a_new_one() {
    let app = TestApp::start().await;
    let too_long = "y".repeat(129);
    let mut seen = BTreeSet::new();
    for given in [
        None,
        None,
        Some("two words"),
        Some(""),
        Some(&*too_long),
        Some("é"),
    ] {
        let mut request = app.http.get(app.url("/health"));
        if let Some(given) = given {
            request = request.header("X-Request-Id", given);
        }

        let response = request.send().await.unwrap();

        let id = text(&response, "x-request-id").unwrap();
        assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert!(seen.insert(id.to_owned()), "{id} was given twice");
    }
}

#[tokio::test]
async fn every_answer_to_an_allowed_origin_may_be_read_by_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let torn = dir.path().join("conversations/torn.json");
    std::fs::create_dir(torn.parent().unwrap()).unwrap();
    std::fs::write(torn, "{").unwrap();
    let app = Setup::new().data_dir(dir.path()).start().await;
    let good = say("c1", "hi").to_string();
    let large = "x".repeat(2 << 20);
    for origin in [FRONT_END, "http://127.0.0.1:3000"] {
        for (method, path, body, status) in [
            (Method::GET, "/health", "", 200),
            (Method::POST, "/chat", &*good, 200),
            (Method::POST, "/chat/stream", &good, 200),
            (Method::GET, "/conversation/c1", "", 200),
            (Method::GET, "/conversation/nobody", "", 404),
            (Method::GET, "/nothing", "", 404),
            (Method::GET, "/chat", "", 405),
            (Method::POST, "/chat", &large, 413),
            (Method::POST, "/chat", "{", 422),
            (Method::GET, "/conversation/torn", "", 500),
            (Method::GET, "/ws/chat", "", 400),
        ] {
            let response = ask(&app, method, path, body, origin).await;

            assert_eq!(response.status(), status, "{path}");
            let allowed = text(&response, "access-control-allow-origin");
            assert_eq!(allowed, Some(origin), "{path} {status}");
            let credentials = text(&response, "access-control-allow-credentials");
            assert_eq!(credentials, Some("true"), "{path} {status}");
            assert!(words(&response, "vary").contains("origin"), "{path}");
            let exposed = words(&response, "access-control-expose-headers");
            let expected = [
                "x-conversation-id",
                "content-disposition",
                "etag",
                "retry-after",
                "x-request-id",
                "x-turn-id",
                "x-speech-model",
                "x-message-id",
            ];
            assert_eq!(exposed, expected.map(str::to_owned).into(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_with_what_it_asks_for() {
    let app = TestApp::start().await;
    let asked = "content-type,x-anything,idempotency-key";
    for (path, method) in [
        ("/chat", "POST"),
        ("/chat/stream", "POST"),
        ("/conversation/c1", "GET"),
        ("/conversation/c1", "DELETE"),
        ("/not/yet/there", "PUT"),
    ] {
        let request = app
            .http
            .request(Method::OPTIONS, app.url(path))
            .header(header::ORIGIN, FRONT_END)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, method)
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, asked);

        let response = request.send().await.unwrap();

        assert!(response.status().is_success(), "{path}");
        let origin = text(&response, "access-control-allow-origin");
        assert_eq!(origin, Some(FRONT_END), "{path}");
        assert_eq!(
            text(&response, "access-control-allow-credentials"),
            Some("true")
        );
        let headers = words(&response, "access-control-allow-headers");
        assert_eq!(headers, asked.split(',').map(str::to_owned).collect());
        let methods = words(&response, "access-control-allow-methods");
        assert!(
            methods.contains(&method.to_ascii_lowercase()),
            "{methods:?}"
        );
        assert!(words(&response, "vary").contains("origin"));
    }
}

#[tokio::test]
async fn another_origin_is_answered_but_its_page_may_not_read_it() {
    let app = TestApp::start().await;
    for origin in [
        "https://evil.example",
        "http://localhost:3001",
        "https://localhost:3000",
        "null",
    ] {
        for (path, status) in [("/health", 200), ("/nothing", 404)] {
            let response = ask(&app, Method::GET, path, "", origin).await;

            assert_eq!(response.status(), status, "{origin}");
            assert_eq!(text(&response, "access-control-allow-origin"), None);
            assert!(words(&response, "vary").contains("origin"), "{origin}");
        }
        let preflight = app
            .http
            .request(Method::OPTIONS, app.url("/chat"))
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        let response = preflight.send().await.unwrap();
        assert_eq!(text(&response, "access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn answers_that_no_page_asked_for_vary_by_origin_too() {
    let app = TestApp::start().await;

    let response = app.get("/health").await;

    assert!(words(&response, "vary").contains("origin"));
    assert_eq!(text(&response, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_star_allows_every_origin_by_its_name() {
    let app = Setup::new().set("ALLOWED_ORIGINS", "*").start().await;
    for origin in ["https://any.example", "http://localhost:1"] {
        let response = ask(&app, Method::GET, "/nothing", "", origin).await;

        assert_eq!(text(&response, "access-control-allow-origin"), Some(origin));
        assert_eq!(
            text(&response, "access-control-allow-credentials"),
            Some("true")
        );
        assert!(words(&response, "vary").contains("origin"));
    }
}

#[tokio::test]
async fn an_operators_origins_take_the_place_of_the_default() {
    let origins = "https://one.example, https://two.example";
    let app = Setup::new().set("ALLOWED_ORIGINS", origins).start().await;
    for (origin, allowed) in [
        ("https://one.example", true),
        ("https://two.example", true),
        (FRONT_END, false),
    ] {
        let response = ask(&app, Method::GET, "/health", "", origin).await;
        let told = text(&response, "access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin));
    }
}

#[tokio::test]
async fn without_a_chat_provider_the_variable_to_set_is_named() {
    let setup = without_upstream().set("ELEVENLABS_API_KEY", "k");
    let app = setup.start().await;
    for path in ["/chat", "/chat/stream"] {
        let response = app.post(path, say("c1", "hi")).await;

        assert_eq!(text(&response, "x-should-retry"), Some("false"));
        let body = refused(response, 503, "provider_not_configured").await;
        assert!(
            body["error"]
                .as_str()
                .unwrap()
                .contains("OPENROUTER_API_KEY")
        );
        assert_eq!(body["detail"], body["error"]);
    }
    assert_eq!(app.get("/conversation/c1").await.status(), 404);
    let health: Value = app.get("/health").await.json().await.unwrap();
    assert_eq!(health["mode"], "live");
}

#[tokio::test]
async fn without_any_key_the_embedded_companion_answers_and_remembers() {
    let app = without_upstream().start().await;
    let health: Value = app.get("/health").await.json().await.unwrap();
    assert_eq!(health["mode"], "demo");

    let first = app.chat("c1", "My name is Alice.").await;
    let second = app.chat("c1", "What is my name?").await;

    for answer in [&first, &second] {
        assert_eq!(answer["model"], "embedded/companion");
        assert_eq!(answer["object"], "chat.completion");
    }
    let reply = &second["choices"][0]["message"]["content"];
    assert!(reply.as_str().unwrap().contains("Alice"), "{reply}");
    let stored = app.document("c1").await;
    assert_eq!(stored["messages"][3]["model"], "embedded/companion");
    assert_eq!(stored["messages"][3]["content"], *reply);
    assert!(app.simulator.requests().is_empty(), "the demo is offline");
}

#[tokio::test]
async fn ready_tells_what_the_json_files_lack() {
    let app = Setup::new().set("MIRROR_IDLE_SECS", "3600").start().await;
    app.chat("c1", "hi").await;

    let lacking = until("the file that is not written yet", async || {
        let ready: Value = app.get("/ready").await.json().await.unwrap();
        (ready["json_files"]["backlog"] == 1).then_some(ready)
    });

    let ready = lacking.await;
    assert!(ready["json_files"]["oldest_secs"].is_u64(), "{ready}");
    assert_eq!(ready["json_files"]["state"], "ok", "{ready}");
    assert_eq!(ready["status"], "ready");
}

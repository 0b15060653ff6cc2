//! Answers of storage, as a real server gave them.
//!
//! `fixtures/supabase_storage.jsonl` holds requests to storage-api 1.70.6 in the order they were
//! made, and its answers. There was no gateway in front of it: here the gateway gets its `apikey`.

use std::collections::BTreeMap;

use chrono::DateTime;
use idol_simulator::Simulator;
use idol_simulator::supabase::ANON_KEY;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::client::Reply;
use crate::supabase_client::{KEY, ask, raw};

const RECORDED: &str = include_str!("../../fixtures/supabase_storage.jsonl");

#[derive(Debug, Deserialize)]
struct Capture {
    id: String,
    request: Sent,
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    method: String,
    path: String,
    headers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    body: Body,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Body {
    Text(String),
    Zeros { zeros: usize },
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Zeros { zeros } => vec![0; *zeros],
        }
    }
}

#[tokio::test]
async fn recorded_requests_get_the_recorded_answers() {
    let simulator = Simulator::start().unwrap();
    simulator.require_service_key(Some(KEY));
    let mut differences = Vec::new();
    let mut replayed = 0;
    for line in RECORDED.lines() {
        let capture: Capture = serde_json::from_str(line).unwrap();
        let reply = replay(&simulator, &capture.request).await;
        differences.extend(compare(&capture, &reply));
        replayed += 1;
        if capture.id == "list.bucket" {
            seed(&simulator).await;
        }
    }
    assert!(replayed > 200, "only {replayed} requests were replayed");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

async fn replay(simulator: &Simulator, sent: &Sent) -> Reply {
    let mut headers = vec![
        ("connection", "close".to_owned()),
        ("apikey", KEY.to_owned()),
    ];
    if !sent.headers.contains_key("authorization") {
        headers.push(("authorization", format!("Bearer {KEY}")));
    }
    for (name, value) in &sent.headers {
        if let Some(value) = value {
            headers.push((name, token(value)));
        }
    }
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let target = format!("/storage/v1{}", sent.path);
    raw(
        simulator,
        &sent.method,
        &target,
        &headers,
        &sent.body.bytes(),
    )
    .await
}

/// Puts a token in the place of its name.
fn token(value: &str) -> String {
    let tokens = [
        ("$SERVICE", KEY),
        ("$ANON", ANON_KEY),
        // A signed-in user without a policy has the rights of anyone: none.
        ("$USER", ANON_KEY),
        ("$WRONGSIG", "header.other.signature"),
        ("$GARBAGE", "garbage"),
    ];
    let replaced = |text: String, (name, token): (&str, &str)| text.replace(name, token);
    tokens.into_iter().fold(value.to_owned(), replaced)
}

/// Uploads what lay in the listed bucket; the tags of its lists tell what the objects held.
async fn seed(simulator: &Simulator) {
    let keys = [
        "a1.txt",
        "a2.txt",
        "b.txt",
        "B.txt",
        "dir/x.txt",
        "dir/y.txt",
        "dir/sub/z.txt",
        "dir2/q.txt",
        "un_der.txt",
        "unXder.txt",
    ];
    for key in keys {
        let target = format!("/storage/v1/object/obs-list/{key}");
        let headers = [("Content-Type", "text/plain")];
        let content = format!("data-{key}");
        let reply = ask(simulator, "POST", &target, &headers, content.as_bytes()).await;
        assert_eq!(reply.status(), 200, "{key}");
    }
}

fn compare(capture: &Capture, reply: &Reply) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |what: &str, expected: String, found: String| {
        if expected != found {
            let id = &capture.id;
            differences.push(format!("{id}: {what} is {found}, recorded was {expected}"));
        }
    };
    expect(
        "status",
        capture.status.to_string(),
        reply.status().to_string(),
    );
    for (name, value) in &capture.headers {
        let found = reply.header(name).unwrap_or("missing");
        expect(name, value.clone(), found.to_owned());
    }
    match &capture.body {
        Some(body) => {
            let found: Value = serde_json::from_slice(&reply.raw).unwrap_or_default();
            expect("body", mask(body).to_string(), mask(&found).to_string());
        }
        None => {
            let found = String::from_utf8_lossy(&reply.raw).into_owned();
            expect("body", capture.text.clone().unwrap_or_default(), found);
        }
    }
    differences
}

/// Puts words in the place of ids and times.
fn mask(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask_text(text)),
        Value::Array(items) => items.iter().map(mask).collect(),
        Value::Object(fields) => {
            let masked = fields
                .iter()
                .map(|(name, value)| (name.clone(), mask(value)));
            Value::Object(masked.collect())
        }
        other => other.clone(),
    }
}

fn mask_text(text: &str) -> String {
    if DateTime::parse_from_rfc3339(text).is_ok() {
        return "time".to_owned();
    }
    let parts = text.split_inclusive(['/', ' ']);
    parts
        .map(|part| match part.get(..36) {
            Some(id) if Uuid::try_parse(id).is_ok() => "id",
            _ => part,
        })
        .collect()
}

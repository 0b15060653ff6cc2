//! Regenerate and edit under SIGKILL at random moments.

use std::time::Duration;

use idol_simulator::{Simulator, reply_text};
use serde_json::{Value, json};

use super::texts;
use crate::{
    helpers::{Events, text_of, within},
    process::{Launch, Process},
};

const ROUNDS: usize = 8;

/// A keyed request that has no answer yet.
struct Asked {
    what: &'static str,
    body: Value,
    key: String,
    /// What the upstream would say, all of it.
    whole: String,
}

/// Sends a request; its events if they came to an end, and the text as far as it was seen.
async fn ask(process: &Process, asked: &Asked) -> (Option<Value>, String) {
    let url = process.url(&format!("/conversation/c1/{}", asked.what));
    let request = process.http.post(url).header("Idempotency-Key", &asked.key);
    let sent = within("an answer", request.json(&asked.body).send()).await;
    let Ok(response) = sent else {
        return (None, String::new());
    };
    assert_eq!(response.status(), 200);
    let events = Events::of(response).all_until_cut().await;
    let end = events.last().filter(|it| it["type"] == "done").cloned();
    (end, text_of(&events))
}

/// What is shown is what was told last, or what a request without an answer has put in its place.
fn assert_shows(document: &Value, told: &(String, String), asked: Option<&Asked>) {
    let messages = document["messages"].as_array().unwrap();
    let [said, reply] = texts(document)[..] else {
        panic!("{document}");
    };
    if (said, reply) == (&*told.0, &*told.1) {
        return;
    }
    let asked = asked.expect("something that was not asked for is shown");
    assert!(
        asked.whole.starts_with(reply) && !reply.is_empty(),
        "{reply}"
    );
    // What was told last is the newest alternative of what took its place.
    let (here, old) = match asked.what {
        "edit" => (&messages[0], &told.0),
        _ => (&messages[1], &told.1),
    };
    let newest = here["alternatives"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["content"], **old);
    if asked.what == "edit" {
        assert_eq!(said, asked.body["message"]);
    } else {
        assert_eq!(said, told.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_leaves_what_was_told_or_what_took_its_place() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "0");
    let mut process = launch.start().await;
    let mut told = ("m".to_owned(), process.chat("c1", "m").await);
    let (mut number, mut cut, mut ended) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let kill = tokio::spawn({
            let (process, wait) = (process.id(), random.u64(30..=900));
            async move {
                // No event is awaited: that the kill comes at no particular moment is the point.
                tokio::time::sleep(Duration::from_millis(wait)).await;
                crate::process::signal(process, "KILL");
            }
        });
        let asked = loop {
            number += 1;
            let document = process.document_if_there("c1").await;
            let message = document.map(|it| it["messages"][0]["id"].clone());
            let tokens = random.usize(3..60);
            let model = format!("sim/tokens={tokens},seed={number},gap=10");
            let what = if random.bool() { "edit" } else { "regenerate" };
            let body = match what {
                "edit" => {
                    json!({"message_id": message, "message": format!("m{number}"), "model": model})
                }
                _ => json!({"model": model}),
            };
            let asked = Asked {
                what,
                body,
                key: format!("key-of-the-request-{number}"),
                whole: reply_text(number, tokens),
            };
            if message.is_none() {
                break None;
            }
            let (end, text) = ask(&process, &asked).await;
            match end {
                Some(_) => {
                    ended += 1;
                    let said = asked.body["message"].as_str().unwrap_or(&told.0);
                    told = (said.to_owned(), text);
                }
                None => break Some(asked),
            }
        };
        within("the kill", kill).await.unwrap();
        process.end().await;
        process = launch.start().await;
        assert_shows(&process.document("c1").await, &told, asked.as_ref());
        if let Some(asked) = asked {
            cut += 1;
            // With its key it is answered in the end, once.
            let (end, text) = ask(&process, &asked).await;
            assert!(end.is_some());
            let said = asked.body["message"].as_str().unwrap_or(&told.0);
            told = (said.to_owned(), text);
            assert_shows(&process.document("c1").await, &told, None);
        }
    }
    let document = process.document("c1").await;
    process.stop().await;
    assert_eq!(launch.json_file("c1"), document);
    let ran = launch.run(&["verify", "--deep"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(cut > 0, "{ended} ended, {cut} cut");
    eprintln!("{ended} ended, {cut} cut by kills");
}

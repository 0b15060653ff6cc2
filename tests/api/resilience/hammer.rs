//! Starting, retiring and panicking together: one owner at a time, and nothing acknowledged is lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use idol_actors::shared::Failpoints;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{assistant, user};
use crate::helpers::{Events, Setup, TestApp, client, mirrored, say, within};

const CONVERSATIONS: usize = 20;
const CLIENTS: usize = 16;
const COMMANDS: usize = 2_000;

/// Panics at any failpoint, now and then; in each conversation fewer times than make it stay down.
fn panics(seed: u64) -> Failpoints {
    let state = Mutex::new((
        fastrand::Rng::with_seed(seed),
        HashMap::<String, usize>::new(),
    ));
    Failpoints::new(move |failpoint, id| {
        let mut state = state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let unlucky = state.0.u32(0..60) == 0;
        let panics = state.1.entry(id.as_str().to_owned()).or_default();
        if unlucky && *panics < idol_actors::limits::RESTARTS_MAX - 1 {
            *panics += 1;
            drop(state);
            panic!("injected at {failpoint:?} in {id}");
        }
    })
}

/// What one client did in one conversation: what it said, and whether it was told that it was heard.
type Said = Vec<(usize, String, Heard)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// It got the whole reply.
    Answered,
    /// It was told that the message was kept, then it left.
    Kept,
    /// It was refused.
    Refused,
}

/// One client: says things to conversations at random, one after the other.
async fn client_at_random(app: Arc<TestApp>, number: usize, mut random: fastrand::Rng) -> Said {
    let mut said = Vec::new();
    for command in 0..COMMANDS / CLIENTS {
        let conversation = random.usize(0..CONVERSATIONS);
        let id = format!("c{conversation}");
        let text = format!(
            "client {number} command {command} {}",
            "x".repeat(random.usize(0..4_000))
        );
        let heard = match random.u32(0..10) {
            0 => {
                let response = app.get(&format!("/conversation/{id}")).await;
                assert!([200, 404, 503].contains(&response.status().as_u16()));
                continue;
            }
            1 => leave_early(&app, &id, &text).await,
            _ => {
                let response = app.post("/chat", say(&id, &text)).await;
                match judge(response).await {
                    Some(answer) => {
                        let reply = &answer["choices"][0]["message"]["content"];
                        assert_eq!(reply, &text, "an answer to something else");
                        Heard::Answered
                    }
                    None => Heard::Refused,
                }
            }
        };
        said.push((conversation, text, heard));
    }
    said
}

/// Begins a streamed turn, and leaves once it is known to be kept.
async fn leave_early(app: &TestApp, id: &str, text: &str) -> Heard {
    let response = app.post("/chat/stream", say(id, text)).await;
    if response.status() != 200 {
        judge(response).await;
        return Heard::Refused;
    }
    match Events::of(response).next().await {
        Some(event) if event["type"] == "conversation_start" => Heard::Kept,
        // The conversation died before its session read anything.
        Some(event) => {
            assert_eq!(event["code"], "conversation_restarted");
            Heard::Refused
        }
        None => panic!("a stream ended without an event"),
    }
}

/// The answer, or nothing if the request was refused as it may be.
async fn judge(response: reqwest::Response) -> Option<Value> {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    if status == 200 {
        return Some(body);
    }
    let refusal = (status.as_u16(), body["code"].as_str().unwrap());
    assert!(
        [(503, "conversation_restarted"), (429, "conversation_busy")].contains(&refusal),
        "{body}"
    );
    None
}

/// Checks one conversation against what one client knows of it.
fn assert_kept(document: &[(String, String)], said: &Said, conversation: usize) {
    let mut last = None;
    for (_, text, heard) in said.iter().filter(|it| it.0 == conversation) {
        let places: Vec<usize> = (0..document.len())
            .filter(|place| document[*place] == user(text))
            .collect();
        assert!(places.len() <= 1, "said {} times: {text}", places.len());
        let Some(place) = places.first() else {
            assert_eq!(*heard, Heard::Refused, "lost: {text}");
            continue;
        };
        assert!(last < Some(*place), "out of order: {text}");
        last = Some(*place);
        if *heard == Heard::Answered {
            assert_eq!(document.get(place + 1), Some(&assistant(text)));
        }
    }
}

#[tokio::test]
async fn whatever_was_acknowledged_amid_starts_retirements_and_panics_is_there_once_and_in_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let setup = || {
        Setup::new()
            .data_dir(directory.path())
            .set("DEFAULT_MODEL", "sim/echo")
            .set("CONVERSATION_IDLE_SECS", "1")
            .set("RESIDENT_HISTORY_MB", "1")
    };
    let app = setup()
        .tuning(|tuning| tuning.failpoints = Some(panics(seed)))
        .start()
        .await;
    let app = Arc::new(app);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number as u64 + 1));
        clients.spawn(client_at_random(app.clone(), number, random));
    }
    let said = within("the end of every client", clients.join_all()).await;

    let answered = said.iter().flatten();
    let answered = answered.filter(|it| it.2 == Heard::Answered).count();
    assert!(answered > COMMANDS / 2, "{answered} answers");
    let check = async |app: &TestApp| {
        for conversation in 0..CONVERSATIONS {
            let document = app.said(&format!("c{conversation}")).await;
            for said in &said {
                assert_kept(&document, said, conversation);
            }
        }
    };
    check(&app).await;
    let Some(mut app) = Arc::into_inner(app) else {
        panic!("a client is left");
    };
    app.assert_nothing_left().await;
    app.http = client();
    app.stop().await;

    // The log and the mirror agree with what the clients know, and with each other.
    let app = setup().start().await;
    check(&app).await;
    for conversation in 0..CONVERSATIONS {
        let id = format!("c{conversation}");
        let file = directory.path().join(format!("conversations/{id}.json"));
        let file = mirrored(&std::fs::read(file).unwrap());
        assert_eq!(file, app.document(&id).await);
    }
}

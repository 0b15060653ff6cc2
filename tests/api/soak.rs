//! Clients that drop and come back, stop and regenerate, while upstreams fail and the server is
//! killed: each ends with exactly what the document holds.
//!
//! `IDOL_SOAK_SECS` sets how long (60), `IDOL_SOAK_SEED` what the clients do. What meets what is
//! left to chance even so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use idol_simulator::{Simulator, reply_text};
use serde_json::Value;
use tokio::sync::watch;

use self::player::{Door, Player};
use crate::{
    helpers::{number, say, within},
    process::{Launch, Process},
};

/// For the turns that wait at the end: each may wait out a breaker several times.
const LAST_DEADLINE: Duration = Duration::from_secs(240);

mod player;

const CONVERSATIONS: usize = 6;
const SECS: u64 = 60;

/// Tokens of every reply. One text for all: a reply that ends in order is this text, whole.
const TOKENS: usize = 24;

/// In a conversation: two that write on sockets, one that writes over HTTP, one that only reads.
const DOORS: [Door; 4] = [Door::Socket, Door::Socket, Door::Stream, Door::Reader];

/// How upstreams fail, one stream in five: at a random token.
const FAULTS: [&str; 6] = ["cut", "error", "garbage", "end", "reset", "stall"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_ends_with_what_the_document_holds() {
    let secs = number("IDOL_SOAK_SECS").unwrap_or(SECS);
    let seed = number("IDOL_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("IDOL_SOAK_SEED={seed} IDOL_SOAK_SECS={secs}");
    let mut random = fastrand::Rng::with_seed(seed);
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator)
        .set("DEFAULT_MODEL", &healthy_model("continue"))
        .set("FALLBACK_MODELS", &healthy_model("continue"))
        .set("OPENROUTER_SILENCE_TIMEOUT_SECS", "1")
        .set("LOG_LEVEL", "warn");
    let mut process = launch.start().await;
    let (address, known) = watch::channel(process.address);
    let ends = Instant::now() + Duration::from_secs(secs);
    let players: Vec<_> = (0..CONVERSATIONS * DOORS.len())
        .map(|number| {
            let conversation = format!("soak-{}", number / DOORS.len());
            let door = DOORS[number % DOORS.len()];
            let player = Player::new(number, conversation, door, random.u64(..));
            tokio::spawn(player.play(known.clone(), ends))
        })
        .collect();

    // At no particular moment: that is the point.
    tokio::time::sleep(Duration::from_millis(random.u64(secs * 300..=secs * 700))).await;
    process.signal("KILL");
    process.end().await;
    process = launch.start().await;
    address.send_replace(process.address);

    let mut all = Vec::new();
    for player in players {
        let deadline = Duration::from_secs(secs + 60);
        let player = tokio::time::timeout(deadline, player).await;
        // A player that failed has told why by its panic.
        all.push(player.expect("every player comes to its end").unwrap());
    }
    for conversation in 0..CONVERSATIONS {
        // Turns are answered in order: behind this one nothing is under way.
        let last = say(&format!("soak-{conversation}"), "the end");
        let deadline = Instant::now() + LAST_DEADLINE;
        loop {
            let last = process.http.post(process.url("/chat")).json(&last);
            let last = last.timeout(LAST_DEADLINE).send().await.unwrap();
            // As many turns may wait as a conversation lets wait.
            if last.status() != 429 || Instant::now() > deadline {
                assert_eq!(last.status(), 200);
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let resting = all.into_iter().map(|player| player.rests(known.clone()));
    let all = futures::future::join_all(resting).await;
    let mut sums = Sums::default();
    for conversation in 0..CONVERSATIONS {
        let id = format!("soak-{conversation}");
        let document = process.document(&id).await;
        let messages = messages_of(&document);
        sums.count(&messages);
        for player in all.iter().filter(|it| it.conversation == id) {
            player.assert_has(&messages);
            for said in &player.acknowledged {
                let path = format!("/conversation/{id}?limit=1&after={said}");
                let found = process.get(&path).await.status();
                assert_eq!(found, 200, "{said} was acknowledged and is lost");
            }
        }
    }
    let sum = |of: fn(&Player) -> u64| -> u64 { all.iter().map(of).sum() };
    eprintln!(
        "soak: {} drops, {} resets, {} messages, {} cancels, {} regenerates; {sums:?}",
        sum(|it| it.drops),
        sum(|it| it.resets),
        all.iter().map(|it| it.acknowledged.len()).sum::<usize>(),
        sum(|it| it.cancels),
        sum(|it| it.regenerates),
    );
    assert!(sums.complete > 0 && sum(|it| it.drops) > 0);
    assert_no_call_is_left(&simulator, &process).await;
}

fn healthy_model(prefix: &str) -> String {
    format!("sim/tokens={TOKENS};gap=4;prefix={prefix}")
}

/// A model for one message: now and then one whose stream breaks.
fn any_model(random: &mut fastrand::Rng) -> String {
    let healthy = healthy_model("continue");
    match random.u8(..5) {
        0 => {
            let fault = FAULTS[random.usize(..FAULTS.len())];
            format!("{healthy};fault={fault};after={}", random.usize(..TOKENS))
        }
        _ => healthy,
    }
}

/// How the replies of the documents ended.
#[derive(Debug, Default)]
struct Sums {
    complete: usize,
    cancelled: usize,
    interrupted: usize,
    failed: usize,
}

impl Sums {
    fn count(&mut self, messages: &[Said]) {
        let whole = reply_text(0, TOKENS);
        for (id, text, finish_reason) in messages {
            match finish_reason.as_deref() {
                None => {}
                Some("stop") => {
                    assert_eq!(*text, whole, "{id} is no whole reply, and is called one");
                    self.complete += 1;
                }
                Some("cancelled") => self.cancelled += 1,
                Some("interrupted") => self.interrupted += 1,
                Some("error") => self.failed += 1,
                Some(other) => panic!("{id} ended as {other}"),
            }
            if finish_reason.is_some() {
                assert!(whole.starts_with(text.as_str()), "{id}: {text:?}");
            }
        }
    }
}

/// A message's id, text and finish reason.
type Said = (Value, String, Option<String>);

/// The messages in order; each id once.
fn messages_of(document: &Value) -> Vec<Said> {
    let messages = document["messages"].as_array().unwrap();
    let mut seen = HashMap::new();
    for message in messages {
        assert_eq!(seen.insert(message["id"].to_string(), ()), None, "twice");
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    messages
        .iter()
        .map(|message| {
            let content = text(&message["content"]).unwrap_or_default();
            (
                message["id"].clone(),
                content,
                text(&message["finish_reason"]),
            )
        })
        .collect()
}

async fn assert_no_call_is_left(simulator: &Simulator, process: &Process) {
    let left = simulator.wait_for(
        "the end of every upstream call",
        |counters| counters.active_requests == 0,
        crate::helpers::DEADLINE,
    );
    left.await.unwrap();
    within("the server to be well", async {
        assert_eq!(process.get("/ready").await.status(), 200);
    })
    .await;
}

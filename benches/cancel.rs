//! How fast an upstream call is closed after a stop: from the moment at which a client sends
//! `POST /conversation/{id}/cancel` to that at which the upstream sees its connection closed.
//!
//! `cargo bench -p idol-router --bench cancel`. The aim is 50 ms.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use idol_simulator::{Script, Simulator};
use serde_json::{Value, json};

mod support;

const STOPS: usize = 200;
/// Replies under way beside the one that is stopped.
const OTHERS: [usize; 2] = [0, 100];
const DEADLINE: Duration = Duration::from_secs(30);

/// A reply under way: its stream, after its first event.
async fn begun(http: &reqwest::Client, url: &str, conversation: &str) -> reqwest::Response {
    let body = json!({
        "conversation_id": conversation,
        "messages": [{"role": "user", "content": "Tell me a story"}],
    });
    let request = http.post(format!("{url}/chat/stream")).json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::main]
async fn main() {
    // A run of the test harness only asks whether this can be run.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    for others in OTHERS {
        let simulator = Simulator::start().unwrap();
        let (address, _directory) = support::serve(&simulator);
        let (http, url) = (reqwest::Client::new(), format!("http://{address}"));
        // Replies that nobody reads to the end: the simulator sends a token every 20 ms.
        let endless = "tokens=3000,gap=20ms";
        let mut streams = Vec::new();
        for number in 0..others {
            simulator.script(Script::from(endless));
            // Held, and not read: what comes of it finds room on the way.
            streams.push(begun(&http, &url, &format!("other{number}")).await);
        }
        let mut waits = Vec::new();
        for number in 0..STOPS {
            simulator.script(Script::from(endless));
            let id = format!("c{number}");
            let mut stream = begun(&http, &url, &id).await;
            stream.chunk().await.unwrap();
            let under_way = others as u64 + 1;
            let running = simulator.wait_for(
                "the upstream call",
                |counters| counters.active_requests == under_way,
                DEADLINE,
            );
            running.await.unwrap();
            let start = Instant::now();
            let cancel = http.post(format!("{url}/conversation/{id}/cancel")).send();
            let closed = simulator.wait_for(
                "the end of the upstream call",
                |counters| counters.active_requests < under_way,
                DEADLINE,
            );
            let (answer, ()) = futures::join!(cancel, async {
                closed.await.unwrap();
                waits.push(start.elapsed().as_secs_f64() * 1000.0);
            });
            let answer: Value = answer.unwrap().json().await.unwrap();
            assert_eq!(answer["cancelled"], true);
        }
        waits.sort_by(f64::total_cmp);
        println!(
            "{others} other replies under way: the upstream call is closed {:.1} ms (median), {:.1} ms \
             (99th of 100), {:.1} ms (most) after the stop is sent",
            waits[STOPS / 2],
            waits[STOPS * 99 / 100],
            waits[STOPS - 1],
        );
        drop(streams);
    }
}

//! Many requests, a third of them repeats, over every way in, some cut off by their clients.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{chat, content, stream};
use crate::helpers::{Events, TestApp, text_of, within};

const KEYS: usize = 700;
const SENDS: usize = 1_000;
const AT_ONCE: usize = 64;
/// So many that no conversation's queue is ever full.
const CONVERSATIONS: usize = 140;
const MODEL: &str = "sim/tokens=3";

/// One request; its repeats are equal.
struct Request {
    key: String,
    conversation: String,
    text: String,
    /// Over a socket the same key is another request.
    over: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Http,
    Socket,
}

impl Request {
    fn number(number: usize) -> Self {
        Self {
            key: format!("key-of-request-number-{number}"),
            conversation: format!("c{}", number % CONVERSATIONS),
            text: format!("text of request {number}"),
            over: match number % 3 {
                0 => Over::Socket,
                _ => Over::Http,
            },
        }
    }

    fn body(&self) -> Value {
        json!({
            "conversation_id": self.conversation,
            "model": MODEL,
            "messages": [{"role": "user", "content": self.text}],
        })
    }
}

/// A turn as one of its requests was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    turn: String,
    reply: String,
    text: String,
}

fn member(event: &Value, name: &str) -> String {
    event[name].as_str().unwrap_or_default().to_owned()
}

async fn over_chat(app: &TestApp, request: &Request) -> Told {
    let answer = chat(app, &request.key, &request.body()).await;
    Told {
        turn: member(&answer, "turn_id"),
        reply: member(&answer, "message_id"),
        text: content(&answer).to_owned(),
    }
}

async fn over_stream(app: &TestApp, request: &Request) -> Told {
    let events = stream(app, &request.key, &request.body()).await.all().await;
    let (start, done) = (&events[0], &events[events.len() - 1]);
    assert_eq!(start["type"], "conversation_start");
    assert_eq!(done["type"], "done", "{done}");
    Told {
        turn: member(start, "turn_id"),
        reply: member(done, "message_id"),
        text: text_of(&events),
    }
}

async fn over_socket(app: &TestApp, request: &Request) -> Told {
    let mut socket = app.socket().await;
    let message = json!({
        "type": "message",
        "conversation_id": request.conversation,
        "message": request.text,
        "model": MODEL,
        "client_message_id": request.key,
    });
    socket.send(message).await;
    let events = socket.until("response_complete").await;
    assert_eq!(events[0]["type"], "message_received", "{events:?}");
    assert_eq!(events[0]["client_message_id"], request.key.as_str());
    assert_eq!(events[1]["type"], "response_start", "{events:?}");
    let chunks = events.iter().filter(|it| it["type"] == "chunk");
    Told {
        turn: member(&events[0], "turn_id"),
        reply: member(&events[events.len() - 1], "message_id"),
        text: chunks.map(|chunk| member(chunk, "content")).collect(),
    }
}

/// Sends a request; over HTTP by one of its two doors, which share their keys.
async fn send(app: Arc<TestApp>, request: Arc<Request>, door: u32) -> Told {
    match (request.over, door % 2) {
        (Over::Socket, _) => over_socket(&app, &request).await,
        (Over::Http, 0) => over_chat(&app, &request).await,
        (Over::Http, _) => over_stream(&app, &request).await,
    }
}

/// Whether the client cut off a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    Yes,
}

/// Sends a request, now and then after a try that the client cuts off at some moment.
async fn client(app: Arc<TestApp>, request: Arc<Request>, seed: u64) -> (Told, Cut) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cut = Cut::No;
    if random.u32(0..4) == 0 {
        let first = tokio::spawn(send(app.clone(), request.clone(), random.u32(..)));
        // Half of them early: on a busy machine a whole turn takes few of these steps.
        let latest = if random.bool() { 40 } else { 400 };
        for _ in 0..random.u32(0..latest) {
            tokio::task::yield_now().await;
        }
        // Its connection is closed with it, unless it had ended.
        first.abort();
        if first.await.is_err() {
            cut = Cut::Yes;
        }
    }
    (send(app, request, random.u32(..)).await, cut)
}

#[tokio::test]
async fn a_thousand_sends_with_repeats_and_cuts_are_one_turn_and_one_call_for_each_key() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = Arc::new(TestApp::start().await);
    let requests: Vec<_> = (0..KEYS).map(|it| Arc::new(Request::number(it))).collect();
    // Each once, and repeats of some: of half of them soon after, when the first is under way.
    let mut order: Vec<usize> = (0..KEYS).collect();
    random.shuffle(&mut order);
    while order.len() < SENDS {
        let place = random.usize(0..order.len());
        let behind = place + random.usize(1..20);
        order.insert(behind.min(order.len()), order[place]);
    }

    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut clients = JoinSet::new();
    for number in order {
        let turn = at_once.clone().acquire_owned().await.unwrap();
        let (app, request, seed) = (app.clone(), requests[number].clone(), random.u64(..));
        clients.spawn(async move {
            let (told, cut) = client(app, request, seed).await;
            drop(turn);
            (number, told, cut)
        });
    }
    let all = within("the end of every client", clients.join_all()).await;

    assert_eq!(all.len(), SENDS);
    let cuts = all.iter().filter(|it| it.2 == Cut::Yes).count();
    assert!(cuts > SENDS / 20, "{cuts} cuts");
    let mut turns = BTreeMap::new();
    for (number, told, _) in all {
        let first = turns.entry(number).or_insert_with(|| told.clone());
        assert_eq!(*first, told, "request {number}");
    }
    assert_eq!(turns.len(), KEYS);
    assert_eq!(app.simulator.counters().chat_requests, KEYS as u64);
    let mut stored = HashMap::new();
    for conversation in 0..CONVERSATIONS {
        let document = app.document(&format!("c{conversation}")).await;
        let messages = document["messages"].as_array().unwrap();
        for pair in messages.chunks(2) {
            let (said, reply) = (&pair[0], &pair[1]);
            let told = Told {
                turn: member(said, "turn_id"),
                reply: member(reply, "id"),
                text: member(reply, "content"),
            };
            let before = stored.insert(member(said, "content"), told);
            assert_eq!(before, None, "said twice: {said}");
        }
    }
    assert_eq!(stored.len(), KEYS);
    for (number, told) in turns {
        assert_eq!(stored[&requests[number].text], told, "request {number}");
    }
    app.assert_nothing_left().await;
}

/// Asks for the newest reply again.
async fn regenerate(app: Arc<TestApp>, conversation: String, key: String) -> Told {
    let url = app.url(&format!("/conversation/{conversation}/regenerate"));
    let request = app.http.post(url).header("Idempotency-Key", key);
    let sent = request.json(&json!({"model": MODEL})).send();
    let response = within("an answer", sent).await.unwrap();
    assert_eq!(response.status(), 200);
    let events = Events::of(response).all().await;
    let (start, done) = (&events[0], &events[events.len() - 1]);
    assert_eq!(done["type"], "done", "{done}");
    Told {
        turn: member(start, "turn_id"),
        reply: member(done, "message_id"),
        text: text_of(&events),
    }
}

#[tokio::test]
async fn regenerates_that_come_again_are_one_turn_and_one_call_for_each_key() {
    const TALKS: usize = 20;
    const KEYS: usize = 3;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = Arc::new(TestApp::start().await);
    let mut clients = JoinSet::new();
    let mut replies = BTreeMap::new();
    for talk in 0..TALKS {
        let conversation = format!("c{talk}");
        let first = app.chat(&conversation, "hello").await;
        replies.insert(talk, vec![member(&first, "message_id")]);
        for send in 0..KEYS * 3 {
            let key = format!("key-of-regenerate-{talk}-{}", send % KEYS);
            let sends = (app.clone(), conversation.clone(), key.clone());
            let (cut, moments) = (random.u32(0..4) == 0, random.u32(0..400));
            clients.spawn(async move {
                let (app, conversation, key) = sends;
                if cut {
                    let first = regenerate(app.clone(), conversation.clone(), key.clone());
                    let first = tokio::spawn(first);
                    for _ in 0..moments {
                        tokio::task::yield_now().await;
                    }
                    first.abort();
                }
                let told = regenerate(app, conversation, key.clone()).await;
                (talk, key, told)
            });
        }
    }

    let all = within("the end of every client", clients.join_all()).await;

    let mut turns = BTreeMap::new();
    for (talk, key, told) in all {
        let first = turns.entry((talk, key)).or_insert_with(|| told.clone());
        assert_eq!(*first, told);
    }
    assert_eq!(turns.len(), TALKS * KEYS);
    let calls = TALKS * (KEYS + 1);
    assert_eq!(app.simulator.counters().chat_requests, calls as u64);
    for ((talk, _), told) in turns {
        replies.entry(talk).or_default().push(told.reply);
    }
    for (talk, mut replies) in replies {
        let document = app.document(&format!("c{talk}")).await;
        let messages = document["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 2, "{document}");
        let others = messages[1]["alternatives"].as_array().unwrap().iter();
        let shown = others.chain([&messages[1]]);
        let mut shown: Vec<_> = shown.map(|it| member(it, "id")).collect();
        shown.sort();
        replies.sort();
        assert_eq!(shown, replies, "each reply is there once");
    }
    app.assert_nothing_left().await;
}

//! Turns of one conversation: one after the other, each message once.

use std::collections::BTreeSet;

use idol_simulator::{ModelCard, Script, Simulator};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::helpers::{DEADLINE, Setup, TestApp, prompt, refused, say, types, until, within};

/// Posts until the conversation has room: once told that it is busy, when another turn has ended.
async fn post_until_taken(app: &TestApp, body: Value, finished: &watch::Sender<usize>) -> Value {
    loop {
        let mut ends = finished.subscribe();
        let response = app.post("/chat", body.clone()).await;
        if response.status() == 200 {
            finished.send_modify(|count| *count += 1);
            return response.json().await.unwrap();
        }
        refused(response, 429, "conversation_busy").await;
        within("the end of another turn", ends.changed())
            .await
            .unwrap();
    }
}

/// What was said, as a client sends it back.
fn as_sent(document: &Value) -> Vec<Value> {
    let messages = document["messages"].as_array().unwrap().iter();
    messages
        .map(|message| json!({"role": message["role"], "content": message["content"]}))
        .collect()
}

#[tokio::test]
async fn fifty_parallel_messages_are_each_answered_and_kept_once() {
    let app = Setup::new().set("DEFAULT_MODEL", "sim/echo").start().await;
    let texts: Vec<String> = (0..50).map(|number| format!("message {number}")).collect();
    let finished = watch::Sender::new(0);
    let posts = texts.iter().map(|text| async {
        let answer = post_until_taken(&app, say("c1", text), &finished).await;
        assert_eq!(answer["choices"][0]["message"]["content"], **text);
    });

    futures::future::join_all(posts).await;

    let document = app.document("c1").await;
    let said = as_sent(&document);
    let answered: BTreeSet<&str> = said
        .chunks(2)
        .map(|pair| {
            assert_eq!([&pair[0]["role"], &pair[1]["role"]], ["user", "assistant"]);
            assert_eq!(
                pair[0]["content"], pair[1]["content"],
                "a reply follows its message"
            );
            pair[0]["content"].as_str().unwrap()
        })
        .collect();
    assert_eq!(said.len(), 100);
    assert_eq!(answered, texts.iter().map(String::as_str).collect());
    let times: Vec<_> = document["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["timestamp"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let requests = app.simulator.chat_requests();
    assert_eq!(requests.len(), 50);
    for (turn, request) in requests.iter().enumerate() {
        assert_eq!(prompt(request), said[..=2 * turn], "turn {turn}");
    }
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_ninth_waiting_turn_is_refused_and_the_others_are_answered() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    let mut streams = Vec::new();
    for number in 0..9 {
        let mut stream = app.stream(say("c1", &format!("message {number}"))).await;
        assert_eq!(stream.next().await.unwrap()["type"], "conversation_start");
        if number == 0 {
            gate.reached(1, DEADLINE).await.unwrap();
        }
        streams.push(stream);
    }

    for path in ["/chat", "/chat/stream"] {
        let response = app.post(path, say("c1", "one too many")).await;
        assert!(response.headers().contains_key("retry-after"));
        let body = refused(response, 429, "conversation_busy").await;
        assert_eq!(body["conversation_id"], "c1");
        assert_eq!(body["detail"], body["error"]);
    }

    gate.open();
    for stream in streams {
        assert_eq!(types(&stream.all().await), ["done"]);
    }
    let said = app.said("c1").await;
    assert_eq!(said.len(), 18);
    for (number, (_, text)) in said.iter().step_by(2).enumerate() {
        assert_eq!(*text, format!("message {number}"));
    }
    app.chat("c1", "there is room again").await;
}

#[tokio::test]
async fn messages_that_wait_are_logged_and_stand_after_the_reply_they_wait_for() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let held = Script::new().text("first reply").hold_headers(&gate);
    app.simulator.script(held);
    app.simulator.script(Script::new().text("second reply"));
    let mut first = app.stream(say("c1", "first")).await;
    first.next().await.unwrap();
    let mut second = app.stream(say("c1", "second")).await;
    second.next().await.unwrap();

    let waiting = app.said("c1").await;
    gate.open();
    first.all().await;
    second.all().await;

    let texts = |said: Vec<(String, String)>| said.into_iter().map(|(_, text)| text);
    let waiting: Vec<_> = texts(waiting).collect();
    assert_eq!(waiting, ["first", "second"]);
    let all: Vec<_> = texts(app.said("c1").await).collect();
    assert_eq!(all, ["first", "first reply", "second", "second reply"]);
}

#[tokio::test]
async fn a_client_that_sends_everything_each_time_is_recognized() {
    let app = Setup::new().set("DEFAULT_MODEL", "sim/echo").start().await;
    let mut kept = Vec::new();
    for text in ["one", "two", "three"] {
        kept.push(json!({"role": "user", "content": text}));
        let mut messages = vec![json!({"role": "system", "content": "rules"})];
        messages.extend(kept.clone());
        let body = json!({"conversation_id": "c1", "messages": messages});

        let answer: Value = app.post("/chat", body).await.json().await.unwrap();

        kept.push(json!({
            "role": "assistant",
            "content": answer["choices"][0]["message"]["content"],
        }));
        assert_eq!(as_sent(&app.document("c1").await), kept);
        let requests = app.simulator.chat_requests();
        assert_eq!(prompt(requests.last().unwrap()), kept[..kept.len() - 1]);
    }
}

#[tokio::test]
async fn the_same_words_said_again_are_a_new_message() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;

    app.chat("c1", "hi").await;

    let said = app.said("c1").await;
    assert_eq!(said.len(), 4);
    assert_eq!(said[0], said[2]);
}

#[tokio::test]
async fn a_retry_of_an_unanswered_message_appends_nothing() {
    let app = TestApp::start().await;
    app.chat("c1", "hello").await;
    let first = as_sent(&app.document("c1").await);
    let new = json!({"role": "user", "content": "are you there?"});
    let whole: Vec<_> = first.iter().chain([&new]).cloned().collect();
    for messages in [vec![new.clone()], whole.clone(), vec![new.clone()]] {
        app.simulator.script("fault=status:unknown_model");
        let body = json!({"conversation_id": "c1", "messages": messages});

        let failed = app.post("/chat", body).await;

        refused(failed, 400, "upstream_rejected").await;
        assert_eq!(as_sent(&app.document("c1").await), whole);
    }

    app.simulator.script(Script::new().text("I am."));
    let body = json!({"conversation_id": "c1", "messages": [new]});
    assert_eq!(app.post("/chat", body).await.status(), 200);

    let mut expected = whole.clone();
    expected.push(json!({"role": "assistant", "content": "I am."}));
    assert_eq!(as_sent(&app.document("c1").await), expected);
    for request in &app.simulator.chat_requests()[1..] {
        assert_eq!(prompt(request), whole);
    }
}

/// Tells one after the other, each a quarter of a kilobyte with its echo; returns the last prompt.
async fn tell_until_cut(app: &TestApp, model: &str) -> Vec<Value> {
    let mut number = 0;
    until("a prompt that is cut", async || {
        number += 1;
        let text = format!("{number} {}", "x".repeat(120));
        let body = json!({
            "conversation_id": "c1", "model": model, "max_tokens": 100,
            "system_prompt": "Be brief.", "messages": [{"role": "user", "content": text}],
        });
        assert_eq!(app.post("/chat", body).await.status(), 200);
        let requests = app.simulator.chat_requests();
        let sent = prompt(requests.last().unwrap());
        (sent.len() < 2 * number - 1).then_some(sent)
    })
    .await
}

/// Fails unless the prompt is the end of the history before its reply, cut at a turn, and more
/// than the newest message.
fn assert_whole_turns(sent: &[Value], document: &Value) {
    let said = as_sent(document);
    let before_reply = &said[..said.len() - 1];
    assert!(before_reply.ends_with(sent));
    assert_eq!(sent[0]["role"], "user");
    assert!(sent.len() >= 3, "{sent:?}");
}

#[tokio::test]
async fn history_is_cut_from_the_oldest_whole_turn_on_where_the_context_is_small() {
    let setup = Setup::new().set("DEFAULT_CONTEXT_TOKENS", "500");
    let app = setup.start().await;

    let sent = tell_until_cut(&app, "sim/echo").await;

    assert_whole_turns(&sent, &app.document("c1").await);
    let requests = app.simulator.chat_requests();
    let body = requests.last().unwrap().json().unwrap();
    assert_eq!(body["messages"][0]["content"], "Be brief.");
    // Estimates are a token for four bytes: what is kept uses the context, and no more.
    let bytes = body["messages"].to_string().len();
    assert!((900..=1_600).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn the_context_of_a_model_is_read_from_the_upstreams_list() {
    let simulator = Simulator::start().unwrap();
    simulator.add_model(ModelCard::new("sim/echo,key=small", 500));
    let app = Setup::new().start_with(simulator).await;

    let sent = tell_until_cut(&app, "sim/echo,key=small").await;

    assert_whole_turns(&sent, &app.document("c1").await);
}

#[tokio::test]
async fn the_newest_message_is_sent_even_where_it_has_no_room() {
    let setup = Setup::new().set("DEFAULT_CONTEXT_TOKENS", "64");
    let app = setup.start().await;
    app.chat("c1", "old").await;
    let long = "word ".repeat(1_000);

    app.chat("c1", &long).await;

    let sent = prompt(&app.simulator.chat_requests()[1]);
    assert_eq!(sent, [json!({"role": "user", "content": long})]);
    assert_eq!(app.said("c1").await.len(), 4, "nothing leaves the document");
}

#[tokio::test]
async fn one_conversation_does_not_wait_for_another() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));
    let mut held = app.stream(say("slow", "hi")).await;
    held.next().await.unwrap();
    gate.reached(1, DEADLINE).await.unwrap();

    for number in 0..10 {
        app.chat(&format!("fast{number}"), "hi").await;
    }

    assert_eq!(app.simulator.counters().active_streams, 1);
    gate.open();
    assert_eq!(held.all().await.last().unwrap()["type"], "done");
}

#[tokio::test]
async fn a_conversation_never_shows_what_was_said_in_another() {
    let app = TestApp::start().await;
    let ids = ["one", "two", "three", "four"];
    let talks = ids.map(|id| {
        let app = &app;
        async move {
            for turn in 0..5 {
                app.chat(id, &format!("{id} {turn}")).await;
            }
        }
    });

    futures::future::join_all(talks).await;

    for request in app.simulator.chat_requests() {
        let sent = prompt(&request);
        let owners: BTreeSet<_> = sent
            .iter()
            .filter(|message| message["role"] == "user")
            .map(|message| message["content"].as_str().unwrap().split(' ').next())
            .collect();
        assert_eq!(owners.len(), 1, "{sent:?}");
    }
    for id in ids {
        assert_eq!(app.said(id).await.len(), 10);
    }
}

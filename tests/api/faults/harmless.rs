//! Odd but correct upstreams: every reply comes whole through every door.

use futures::{StreamExt, stream};
use idol_simulator::reply_text;

use super::doors::{Client, Door, rows};
use crate::helpers::TestApp;

/// What a well-ended reply must be.
struct Whole {
    options: &'static str,
    text: &'static str,
    finish: &'static str,
    /// Tokens of the reply as the upstream counts them; none if it does not.
    tokens: Option<u64>,
}

const fn whole(
    options: &'static str,
    text: &'static str,
    finish: &'static str,
    tokens: Option<u64>,
) -> Whole {
    Whole {
        options,
        text,
        finish,
        tokens,
    }
}

#[rustfmt::skip]
const RECORDED: [Whole; 9] = [
    whole("replay=basic", "Grüße aus 東京 🚀.", "stop", Some(7)),
    whole("replay=usage_empty_choices", "Hi there", "length", Some(7)),
    whole("replay=usage_every_chunk", "ab", "stop", Some(2)),
    whole("replay=reasoning", "4", "stop", Some(7)),
    whole("replay=toolcalls", "", "tool_calls", Some(7)),
    whole("replay=debug_empty_first", "ok", "stop", Some(7)),
    whole("replay=done_without_finish", "No finish reason", "unknown", None),
    whole("replay=llamacpp_ping", "Hi you", "stop", Some(3)),
    whole("replay=ollama", "Hello", "stop", Some(1)),
];

/// Forms on the wire of one and the same reply of 40 tokens, that all end with `stop`.
const FORMS: [&str; 30] = [
    "split=every:1",
    "split=every:7",
    "split=utf8",
    "split=frame",
    "split=random:1",
    "split=random:2",
    "eol=crlf",
    "eol=cr",
    "eol=crlf,split=every:1",
    "eol=crlf,split=frame",
    "eol=cr,split=every:1",
    "space=no",
    "space=no,eol=cr,split=random:3",
    "done=no",
    "done=bare",
    "done=bare,eol=cr",
    "done=no,framing=close",
    "framing=close",
    "framing=close,split=every:1",
    "usage=empty",
    "usage=every",
    "role=first",
    "comments=0",
    "comments=3,between=1",
    "comments=3,between=2,keepalive=colon",
    "comments=3,between=2,keepalive=data",
    "comments=3,between=2,keepalive=colon,eol=crlf,split=every:1",
    "batch=40",
    "newlines=3",
    "fault=long_comment,after=5",
];

/// The first half of a turn through a door: its text, its finish reason, its usage, what is kept.
async fn expect_whole(app: &TestApp, door: Door, conversation: &str, row: &Whole) {
    let mut client = Client::new(app, door).await;
    let model = format!("sim/{}", row.options);

    let told = client.ask(conversation, "hello", &model).await;

    let context = format!("{door:?} {}: {told:?}", row.options);
    assert!(told.end.is_ok(), "{context}");
    assert_eq!(told.text, row.text, "{context}");
    assert_eq!(told.finish_reason(), row.finish, "{context}");
    let tokens = told.usage()["completion_tokens"].as_u64();
    assert_eq!(tokens, row.tokens, "{context}");
    let document = app.document(conversation).await;
    let messages = document["messages"].as_array().unwrap();
    let reply = &messages[1];
    assert_eq!(
        reply["content"].as_str().unwrap_or_default(),
        row.text,
        "{context}"
    );
    assert_eq!(reply["finish_reason"], row.finish, "{context}");
    assert_eq!(reply["id"].as_str(), told.reply.as_deref(), "{context}");
    assert_eq!(reply["turn_id"].as_str(), told.turn.as_deref(), "{context}");
    let next = client
        .ask(conversation, "again", "sim/tokens=3,seed=8")
        .await;
    assert_eq!(next.text, reply_text(8, 3), "{context}");
}

async fn expect_all_whole(app: &TestApp, table: &[Whole]) {
    stream::iter(rows(table))
        .for_each_concurrent(16, |(number, door)| async move {
            expect_whole(app, door, &format!("{door:?}-{number}"), &table[number]).await;
        })
        .await;
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn recorded_replies_come_whole_through_every_door() {
    let app = TestApp::start().await;
    expect_all_whole(&app, &RECORDED).await;
}

#[tokio::test]
async fn a_reply_comes_whole_in_whatever_form_it_is_sent() {
    let app = TestApp::start().await;
    let text: &'static str = reply_text(3, 40).leak();
    let table = FORMS.map(|form| {
        let options: &'static str = format!("tokens=40,seed=3,{form}").leak();
        whole(options, text, "stop", Some(40))
    });
    expect_all_whole(&app, &table).await;
}

#[tokio::test]
async fn finish_reasons_and_missing_usage_are_passed_on() {
    let app = TestApp::start().await;
    let text: &'static str = reply_text(0, 3).leak();
    let table = [
        whole("tokens=3,usage=none", text, "stop", None),
        whole("tokens=3,finish=length", text, "length", Some(3)),
        whole(
            "tokens=3,finish=content_filter",
            text,
            "content_filter",
            Some(3),
        ),
        whole("tokens=3,finish=none", text, "unknown", Some(3)),
        whole("tokens=3,reasoning=2", text, "stop", Some(5)),
    ];
    expect_all_whole(&app, &table).await;
}

#[tokio::test]
async fn a_line_of_4_mib_comes_through_every_door_and_is_kept() {
    let app = TestApp::start().await;
    for door in super::doors::DOORS {
        let mut client = Client::new(&app, door).await;
        let conversation = format!("{door:?}");

        let told = client
            .ask(
                &conversation,
                "hello",
                "sim/tokens=9,fault=long_line,after=5",
            )
            .await;

        assert_eq!(told.finish_reason(), "stop", "{door:?}");
        // No word that the simulator generates has an x in it.
        let xs = told.text.matches('x').count();
        assert!(xs > 4 * 1024 * 1024 - 1024, "{door:?} {xs}");
        let expected =
            reply_text(0, 5) + &"x".repeat(xs) + &reply_text(0, 9)[reply_text(0, 5).len()..];
        assert!(told.text == expected, "{door:?}: the text is not as sent");
        let said = app.said(&conversation).await;
        assert!(
            said[1].1 == expected,
            "{door:?}: the text is not kept as sent"
        );
    }
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_reply_without_text_ends_well_and_adds_no_message() {
    let app = TestApp::start().await;
    for door in super::doors::DOORS {
        let mut client = Client::new(&app, door).await;
        let conversation = format!("{door:?}");

        let told = client.ask(&conversation, "hello", "sim/tokens=0").await;

        assert_eq!(told.finish_reason(), "stop", "{told:?}");
        assert_eq!(told.text, "");
        if door == Door::Chat {
            let message = &told.end.as_ref().unwrap()["choices"][0]["message"];
            assert_eq!(
                *message,
                serde_json::json!({"role": "assistant", "content": ""})
            );
        }
        let hello = ("user".to_owned(), "hello".to_owned());
        assert_eq!(app.said(&conversation).await, [hello], "{door:?}");
        let next = client
            .ask(&conversation, "again", "sim/tokens=3,seed=8")
            .await;
        assert_eq!(next.text, reply_text(8, 3), "{door:?}");
    }
}

#[tokio::test]
async fn tool_calls_are_put_together_and_kept() {
    let app = TestApp::start().await;
    let mut body = crate::helpers::say("c1", "what time is it?");
    body["model"] = "sim/replay=toolcalls".into();

    let answer = app.post("/chat", body).await;

    let answer: serde_json::Value = answer.json().await.unwrap();
    let calls = &answer["choices"][0]["message"]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], r#"{"zone":"UTC"}"#);
    assert_eq!(calls[1]["function"]["name"], "ping");
    let document = app.document("c1").await;
    assert_eq!(document["messages"][1]["tool_calls"], *calls);
    assert!(document["messages"][1]["content"].is_null());
}

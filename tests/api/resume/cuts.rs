//! Streams of events that are cut, at every byte and behind every event.

use std::collections::BTreeMap;

use idol_simulator::Script;
use serde_json::Value;

use super::{Picture, event_source::EventSource, joined, streams::events};
use crate::helpers::{Setup, TestApp, say, types, within};

#[tokio::test]
async fn a_browser_that_is_cut_off_at_any_byte_misses_nothing_and_sees_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::new().data_dir(directory.path());
    let app = setup().start().await;
    let scripts = [
        (
            "text",
            Script::new().tokens(["\"é\n", "🚀", "\\", "plain "]),
        ),
        (
            "reasoning",
            Script::from("tokens=3").reasoning(["hm ", "so"]),
        ),
        ("tools", Script::from("tools=1")),
    ];
    let mut told_in_all = Vec::new();
    for (id, script) in scripts {
        app.chat(id, "before").await;
        let mut source = events(&app, id, None).await;
        let start = source.next().await.unwrap();
        let start = start["cursor"].as_str().unwrap().to_owned();
        app.simulator.script(script);
        app.chat(id, "hi").await;
        let url = app.url(&format!("/conversation/{id}/events?reasoning=true"));
        let body = whole_body(&app, &url, &start, 1).await;
        let whole = parse(&body).0;

        // For each byte: what was dispatched before the cut, and the id that the browser then has.
        let mut places: BTreeMap<Option<String>, Vec<Value>> = BTreeMap::new();
        for cut in 0..=body.len() {
            let (seen, place) = parse(&body[..cut]);
            let known = places.entry(place).or_insert_with(|| seen.clone());
            assert!(seen.len() == known.len(), "an event without a place");
        }
        for (place, seen) in &places {
            let last = place.as_deref().unwrap_or(&start);
            let left = usize::from(!is_over(seen));
            let rest = parse(&whole_body(&app, &url, last, left).await).0;
            let again = [seen.as_slice(), &rest].concat();
            assert!(joined(&again) == joined(&whole), "{id} from {last}");
        }
        assert_eq!(places.len(), whole.len() + 1, "{id}");
        told_in_all.push((id, start, places));
    }
    app.stop().await;

    // Reasoning is no part of the log, so of what is told from there it is none either.
    let app = setup().start().await;
    for (id, start, places) in &told_in_all {
        let url = app.url(&format!("/conversation/{id}/events"));
        for (place, seen) in places {
            let last = place.as_deref().unwrap_or(start);
            let mut picture = Picture::default();
            seen.iter().for_each(|told| picture.take(told));
            let rest = whole_body(&app, &url, last, usize::from(!is_over(seen))).await;
            let rest = parse(&rest).0;
            assert!(
                rest.iter().all(|told| told["type"] != "reset"),
                "{id} from {last}"
            );
            rest.iter().for_each(|told| picture.take(told));
            let mut said = app.said(id).await.split_off(2);
            said.retain(|(_, text)| !text.is_empty());
            assert_eq!(picture.said(), said, "{id} from {last}");
        }
    }
}

fn is_over(events: &[Value]) -> bool {
    types(events).contains(&"response_complete")
}

/// The bytes of the stream from a place on, until so many turns have ended.
async fn whole_body(app: &TestApp, url: &str, last: &str, turns: usize) -> Vec<u8> {
    let request = app.http.get(url).header("Last-Event-ID", last);
    let mut response = request.send().await.unwrap();
    let mut body = Vec::new();
    let ended = |body: &[u8]| {
        let events = parse(body).0;
        types(&events)
            .iter()
            .filter(|it| **it == "response_complete")
            .count()
    };
    while ended(&body) < turns {
        let piece = within("more of the stream", response.chunk()).await;
        body.extend_from_slice(&piece.unwrap().unwrap());
    }
    body
}

/// The events that a browser dispatches, and the id of the last one.
pub(super) fn parse(body: &[u8]) -> (Vec<Value>, Option<String>) {
    let (mut events, mut last) = (Vec::new(), None);
    let mut rest = body;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
        let block = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 2..];
        for line in block.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                last = Some(id.to_owned());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                events.push(serde_json::from_str(data).unwrap());
            }
        }
    }
    (events, last)
}

/// Reasoning; text that breaks off in its middle and is continued; a tool call; usage.
const EVERYTHING: &str = "sim/tokens=12,seed=7,reasoning=2,tools=1,fault=cut,after=6,fail=1,\
    prefix=continue,gap=3";

fn everything(conversation: &str) -> Value {
    let mut body = say(conversation, "hi");
    body["model"] = EVERYTHING.into();
    body
}

/// A client that is cut off behind each event, and goes on at its place: its events, and the place
/// of each.
async fn cut_behind_each(
    mut last: Option<String>,
    end: &str,
    connect: impl AsyncFn(Option<&str>) -> EventSource,
) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    loop {
        let mut source = connect(last.as_deref()).await;
        let event = source.next().await.expect("another event");
        let over = event["type"] == end;
        let place = source.last_event_id.expect("an event with a place");
        assert_ne!(Some(&place), last.as_ref(), "no further: {event}");
        last = Some(place.clone());
        told.push((place, event));
        if over {
            return told;
        }
    }
}

#[tokio::test]
async fn a_client_that_is_cut_off_behind_each_event_of_a_live_turn_has_all_of_it_once() {
    let app = TestApp::start().await;
    app.chat("c1", "before").await;
    let url = app.url("/conversation/c1/events?reasoning=true");
    let connect = async |last: Option<&str>| EventSource::connect(&app.http, &url, last).await;
    let mut uncut = connect(None).await;
    uncut.next().await.unwrap();
    let start = uncut.last_event_id.clone();

    let (answer, whole, told) = tokio::join!(
        app.post("/chat", everything("c1")),
        uncut.until("response_complete"),
        cut_behind_each(start, "response_complete", connect),
    );

    assert_eq!(answer.status(), 200);
    let whole = joined(&whole);
    assert_eq!(
        types(&whole),
        [
            "user_message",
            "response_start",
            "reasoning",
            "chunk",
            "seam",
            "reasoning",
            "chunk",
            "response_complete"
        ]
    );
    let end = whole.last().unwrap();
    assert_eq!(end["finish_reason"], "tool_calls");
    assert!(end["usage"].is_object(), "{end}");
    let (places, told): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    assert_eq!(joined(&told), whole);
    // And from each place when all is over.
    for (index, place) in places.iter().enumerate().rev().skip(1) {
        let rest = connect(Some(place)).await.until("response_complete").await;
        let again = [&told[..=index], &rest].concat();
        assert_eq!(joined(&again), whole, "behind {}", told[index]);
    }
}

/// The member of a chunk that is text.
fn text_member(chunk: &Value) -> Option<&'static str> {
    let delta = &chunk["choices"][0]["delta"];
    // A chunk of reasoning has an empty text as well.
    ["reasoning", "content"]
        .into_iter()
        .find(|member| delta[*member].is_string())
}

/// Like [`joined`], for chunks of `POST /chat/stream`. Which of the upstream's answers a text is of
/// is told while it is new.
fn joined_chunks(events: &[Value]) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for event in events {
        let mut event = event.clone();
        for member in ["cursor", "id", "created"] {
            event.as_object_mut().unwrap().remove(member);
        }
        let member = text_member(&event);
        match (joined.last_mut(), member) {
            (Some(last), Some(member)) if text_member(last) == Some(member) => {
                let text = |it: &Value| {
                    let text = it["choices"][0]["delta"][member].as_str();
                    text.unwrap().to_owned()
                };
                last["choices"][0]["delta"][member] = (text(last) + &text(&event)).into();
            }
            _ => joined.push(event),
        }
    }
    joined
}

#[tokio::test]
async fn a_request_that_is_cut_off_behind_each_event_and_comes_again_is_told_all_of_it_once() {
    let app = TestApp::start().await;
    let connect = async |last: Option<&str>| {
        let request = app.http.post(app.url("/chat/stream?ids=1"));
        let mut request = request
            .json(&everything("c1"))
            .header("Idempotency-Key", "a-key-of-sixteen-characters");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        EventSource::of(within("an answer", request.send()).await.unwrap(), last)
    };
    let uncut = connect(None).await;

    let (whole, told) = tokio::join!(
        async {
            let mut uncut = uncut;
            uncut.until("done").await
        },
        cut_behind_each(None, "done", connect),
    );

    let whole = joined_chunks(&whole);
    let tools = |event: &&Value| event["choices"][0]["delta"]["tool_calls"].is_array();
    assert!(whole.iter().any(|event| tools(&event)), "{whole:?}");
    let (places, told): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    assert_eq!(joined_chunks(&told), whole);
    for (index, place) in places.iter().enumerate().rev().skip(1) {
        let rest = connect(Some(place)).await.until("done").await;
        let again = [&told[..=index], &rest].concat();
        assert_eq!(joined_chunks(&again), whole, "behind {}", told[index]);
    }
    assert_eq!(
        app.simulator.chat_requests().len(),
        2,
        "asked, and continued"
    );
}

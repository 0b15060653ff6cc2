//! `POST /chat/stream`, to the byte.

use idol_simulator::{Script, ToolCall, reply_text};
use serde_json::{Value, json};

use crate::helpers::{DEADLINE, TestApp, refused, say, text_of, until, within};

/// All bytes of a stream.
async fn raw(app: &TestApp, path: &str, body: Value) -> String {
    let response = app.post(path, body).await;
    assert_eq!(response.status(), 200);
    within("the stream's end", response.text()).await.unwrap()
}

/// A stream's events, split as a page of the ancestor splits them, each checked to be one line.
fn events(raw: &str) -> Vec<Value> {
    let blocks = raw.strip_suffix("\n\n").unwrap().split("\n\n");
    let event = |block: &str| {
        let json = block.strip_prefix("data: ").unwrap();
        assert!(!json.contains(['\n', '\r']), "{block:?}");
        serde_json::from_str(json).unwrap()
    };
    blocks.map(event).collect()
}

#[tokio::test]
async fn every_event_is_one_data_line_and_a_blank_line() {
    let app = TestApp::start().await;
    let tokens = ["one\n\ntwo\r\n", "\r", "data: ", "\u{2028}\u{85}\0", "\"}"];
    let script = Script::new()
        .tokens(tokens)
        .reasoning(["a\nb\n\n", "c\r"])
        .with("tools=1");
    app.simulator.script(script);

    let raw = raw(&app, "/chat/stream", say("c1", "hi\n\nthere")).await;

    assert!(!raw.contains('\r'));
    assert_eq!(text_of(&events(&raw)), tokens.concat());
}

#[tokio::test]
async fn the_first_and_the_last_event_have_the_ancestors_members_in_its_order() {
    let app = TestApp::start().await;
    app.simulator.script("tokens=2,prompt=3");

    let raw = raw(&app, "/chat/stream", say("c1", "hi")).await;

    let document = app.document("c1").await;
    let (said, reply) = (&document["messages"][0], &document["messages"][1]);
    let (turn, said, reply) = (&said["turn_id"], &said["id"], &reply["id"]);
    let first = format!(
        r#"data: {{"conversation_id":"c1","type":"conversation_start","turn_id":{turn},"message_id":{said},"cursor":""#
    );
    assert!(raw.starts_with(&first), "{raw}");
    let last = raw.strip_suffix("\n\n").unwrap().rsplit("\n\n").next();
    let last = last.unwrap();
    let start = r#"data: {"conversation_id":"c1","type":"done","#;
    assert!(last.starts_with(start), "{last}");
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["message_id"], *reply);
    assert_eq!(last["finish_reason"], "stop");
    assert_eq!(last["usage"]["total_tokens"], 5);
}

#[tokio::test]
async fn the_headers_keep_proxies_from_holding_events_back() {
    let app = TestApp::start().await;

    let response = app.post("/chat/stream", say("c1", "hi")).await;

    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["x-conversation-id"], "c1");
    assert!(!headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_page_that_splits_on_blank_lines_gets_exactly_the_upstreams_text() {
    let app = TestApp::start().await;
    for (seed, wire) in [
        (1, ""),
        (2, "split=every:1,eol=crlf"),
        (3, "split=utf8"),
        (4, "batch=7,space=no"),
    ] {
        let model = format!("sim/tokens=300,seed={seed},{wire}");
        let id = format!("c{seed}");
        let mut body = say(&id, "hi");
        body["model"] = json!(model);

        let events = events(&raw(&app, "/chat/stream", body).await);

        let expected = reply_text(seed, 300);
        assert_eq!(text_of(&events), expected, "{wire}");
        assert_eq!(app.said(&id).await[1].1, expected);
    }
}

#[tokio::test]
async fn chunks_have_the_providers_shape_with_turn_and_cursor_added() {
    let app = TestApp::start().await;
    app.simulator.script("tokens=3");

    let events = events(&raw(&app, "/chat/stream", say("c1", "hi")).await);

    let chunks = &events[1..events.len() - 1];
    assert!(!chunks.is_empty());
    let mut cursors = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], "sim/tokens=5");
        assert_eq!(chunk["provider"], "SimulatedHost");
        assert!(chunk["id"].as_str().unwrap().starts_with("gen-"));
        assert!(chunk["created"].as_i64().unwrap() > 0);
        assert_eq!(chunk["turn_id"], events[0]["turn_id"]);
        assert!(chunk["choices"].is_array());
        assert!(chunk.get("type").is_none());
        cursors.push(chunk["cursor"].as_str().unwrap());
    }
    let count = cursors.len();
    cursors.sort_unstable();
    cursors.dedup();
    assert_eq!(cursors.len(), count, "each cursor is another place");
    let text = &chunks[0]["choices"][0];
    assert_eq!(text["index"], 0);
    assert_eq!(text["delta"]["role"], "assistant");
    assert_eq!(text["finish_reason"], Value::Null);
}

#[tokio::test]
async fn reasoning_tool_calls_finish_reason_and_usage_pass_through_in_order() {
    let app = TestApp::start().await;
    let call = ToolCall {
        id: "call_a".into(),
        name: "get_time".into(),
        arguments: vec!["{\"zone\":".into(), "\"UTC\"}".into()],
    };
    let script = Script::new()
        .reasoning(["Let me", " think"])
        .text("It is")
        .tool_call(call)
        .with("prompt=9");
    app.simulator.script(script);

    let events = events(&raw(&app, "/chat/stream", say("c1", "hi")).await);

    let deltas: Vec<_> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"])
        .collect();
    let text = |member: &str| -> String {
        deltas
            .iter()
            .filter_map(|delta| delta[member].as_str())
            .collect()
    };
    assert_eq!(text("reasoning"), "Let me think");
    assert_eq!(text("content"), "It is");
    let fragments: Vec<_> = deltas
        .iter()
        .filter_map(|delta| delta["tool_calls"].get(0))
        .collect();
    assert_eq!(fragments[0]["id"], "call_a");
    assert_eq!(fragments[0]["function"]["name"], "get_time");
    let arguments: String = fragments
        .iter()
        .filter_map(|fragment| fragment["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, "{\"zone\":\"UTC\"}");
    let place = |what: &dyn Fn(&Value) -> bool| events.iter().position(what).unwrap();
    let order = [
        place(&|event| event["choices"][0]["delta"]["reasoning"].is_string()),
        place(&|event| {
            event["choices"][0]["delta"]["content"] == "It"
                || event["choices"][0]["delta"]["content"] == "It is"
        }),
        place(&|event| event["choices"][0]["delta"]["tool_calls"].is_array()),
        place(&|event| event["choices"][0]["finish_reason"] == "tool_calls"),
        place(&|event| event["object"].is_string() && event["usage"]["prompt_tokens"] == 9),
        place(&|event| event["type"] == "done"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(events[order[5]]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn ids_are_written_only_when_asked_for_and_are_the_cursors() {
    let app = TestApp::start().await;
    app.simulator.script("tokens=4");

    let raw = raw(&app, "/chat/stream?ids=1", say("c1", "hi")).await;

    let mut with_id = 0;
    for block in raw.strip_suffix("\n\n").unwrap().split("\n\n") {
        let (ids, data): (Vec<_>, Vec<_>) =
            block.lines().partition(|line| line.starts_with("id: "));
        let [data] = data[..] else {
            panic!("{block}");
        };
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        if let Some(cursor) = event["cursor"].as_str() {
            assert_eq!(ids, [format!("id: {cursor}")]);
            with_id += 1;
        }
    }
    assert!(with_id > 0, "{raw}");
}

#[tokio::test]
async fn the_conversation_starts_before_the_upstream_answers() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().hold_headers(&gate));

    let mut events = app.stream(say("c1", "hi")).await;

    let first = events.next().await.unwrap();
    assert_eq!(first["type"], "conversation_start");
    let said = app.document("c1").await["messages"].clone();
    assert_eq!(said.as_array().unwrap().len(), 1);
    assert_eq!(said[0]["id"], first["message_id"]);
    assert_eq!(said[0]["turn_id"], first["turn_id"]);
    gate.reached(1, DEADLINE).await.unwrap();
    gate.open();
    let rest = events.all().await;
    assert_eq!(rest.last().unwrap()["type"], "done");
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn tokens_come_as_the_upstream_sends_them() {
    let app = TestApp::start().await;
    let gates = [(1, app.simulator.gate()), (3, app.simulator.gate())];
    let script = Script::from("tokens=9,seed=8")
        .hold_at(1, &gates[0].1)
        .hold_at(3, &gates[1].1);
    app.simulator.script(script);
    let mut stream = app.stream(say("c1", "hi")).await;
    let mut seen = Vec::new();
    for (tokens, gate) in gates {
        gate.reached(1, DEADLINE).await.unwrap();
        while text_of(&seen) != reply_text(8, tokens) {
            seen.push(stream.next().await.unwrap());
            assert!(reply_text(8, tokens).starts_with(&text_of(&seen)));
        }
        gate.open();
    }
    seen.extend(stream.all().await);
    assert_eq!(text_of(&seen), reply_text(8, 9));
}

#[tokio::test]
async fn the_turn_goes_on_when_its_client_leaves() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let script = Script::from("tokens=9,seed=8").hold_at(2, &gate);
    app.simulator.script(script);
    let mut stream = app.stream(say("c1", "hi")).await;
    while text_of(&[stream.next().await.unwrap()]).is_empty() {}

    drop(stream);
    gate.open();

    let reply = until("the reply in the document", async || {
        app.said("c1").await.into_iter().nth(1)
    });
    assert_eq!(reply.await, ("assistant".to_owned(), reply_text(8, 9)));
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_request_that_begins_no_turn_fails_with_a_status() {
    let app = TestApp::start().await;

    let response = app.post("/chat/stream", json!({"messages": []})).await;

    refused(response, 422, "invalid_request").await;
}

#[tokio::test]
async fn a_stream_without_an_id_says_which_conversation_it_began() {
    let app = TestApp::start().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": false});

    let response = app.post("/chat/stream", body).await;

    let header = response.headers()["x-conversation-id"].clone();
    let events = events(&response.text().await.unwrap());
    let id = events[0]["conversation_id"].as_str().unwrap();
    assert_eq!(header, *id);
    assert_eq!(events.last().unwrap()["conversation_id"], *id);
    assert_eq!(app.said(id).await.len(), 2);
}

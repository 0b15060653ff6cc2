//! Replies without faults.

use idol_simulator::{
    Script, Simulator, ToolCall, reasoning_text, recorded_stream, reply_text, sized_reply_text,
};
use serde_json::{Value, json};

use crate::client::{self, End, body, joined, stream};

#[tokio::test]
async fn a_plain_stream_is_openrouters() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=20,seed=5").await;
    assert_eq!((reply.status(), reply.end), (200, End::Fin));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert!(reply.chunks().terminated);
    let body = reply.body();
    assert!(body.starts_with(": OPENROUTER PROCESSING\n\ndata: {"));
    assert!(body.ends_with("\n\ndata: [DONE]\n\n"));

    let payloads = reply.payloads();
    assert_eq!(client::text(&payloads), reply_text(5, 20));
    assert_eq!(payloads.len(), 1 + 20 + 1 + 1);
    for chunk in &payloads {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], "sim/tokens=20,seed=5");
        assert_eq!(chunk["id"], reply.header("x-generation-id").unwrap());
        assert!(chunk["id"].as_str().unwrap().starts_with("gen-"));
        assert!(chunk["provider"].is_string() && chunk["created"].is_u64());
        assert_eq!(chunk["choices"][0]["delta"]["role"], "assistant");
    }
    assert_eq!(payloads[0]["choices"][0]["delta"]["content"], "");
    assert_eq!(payloads[21]["choices"][0]["finish_reason"], "stop");
    assert_eq!(payloads[22]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(payloads[22]["usage"]["completion_tokens"], 20);
    assert!(payloads[22]["usage"]["cost"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn usage_rides_where_it_is_told_to() {
    let simulator = Simulator::start().unwrap();
    let empty = stream(&simulator, "sim/tokens=3,usage=empty,prompt=9,cost=0.5")
        .await
        .payloads();
    let last = empty.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], 12);
    assert_eq!(last["usage"]["cost"], 0.5);

    let every = stream(&simulator, "sim/tokens=3,usage=every")
        .await
        .payloads();
    let counts = every
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(counts.collect::<Vec<_>>(), [0, 1, 2, 3, 3]);

    let none = stream(&simulator, "sim/tokens=3,usage=none")
        .await
        .payloads();
    assert!(none.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn the_form_on_the_wire_can_be_odd() {
    let simulator = Simulator::start().unwrap();
    let body = stream(&simulator, "sim/tokens=4,eol=crlf,space=no")
        .await
        .body();
    assert!(body.starts_with(": OPENROUTER PROCESSING\r\n\r\ndata:{"));
    assert!(body.ends_with("\r\n\r\ndata:[DONE]\r\n\r\n"));
    assert!(!body.replace("\r\n", "").contains('\n'));

    let body = stream(&simulator, "sim/tokens=4,eol=cr").await.body();
    assert!(body.ends_with("\r\rdata: [DONE]\r\r") && !body.contains('\n'));

    let body = stream(
        &simulator,
        "sim/tokens=4,done=no,keepalive=colon,comments=2",
    )
    .await
    .body();
    assert!(body.starts_with(":\n\n:\n\ndata: {") && !body.contains("[DONE]"));

    let body = stream(&simulator, "sim/tokens=4,done=bare,comments=0")
        .await
        .body();
    assert!(body.starts_with("data: {") && body.ends_with("\n\ndata: [DONE]\n"));

    let body = stream(
        &simulator,
        "sim/tokens=6,between=2,comments=0,keepalive=data",
    )
    .await
    .body();
    assert_eq!(body.matches("data:\n\n").count(), 2);

    let payloads = stream(&simulator, "sim/tokens=4,role=first")
        .await
        .payloads();
    let roles = payloads[..6]
        .iter()
        .filter(|chunk| chunk["choices"][0]["delta"]["role"].is_string());
    assert_eq!(roles.count(), 1);

    let payloads = stream(&simulator, "sim/tokens=4,finish=none,usage=none")
        .await
        .payloads();
    assert!(
        payloads
            .iter()
            .all(|chunk| chunk["choices"][0]["finish_reason"].is_null())
    );
    let payloads = stream(&simulator, "sim/tokens=4,finish=length")
        .await
        .payloads();
    assert_eq!(payloads[5]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_body_may_end_with_the_connection() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=4,framing=close").await;
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!(reply.header("connection"), Some("close"));
    let body = String::from_utf8(reply.raw).unwrap();
    assert_eq!(client::text(&client::payloads(&body)), reply_text(0, 4));
}

#[tokio::test]
async fn exact_text_arrives_exactly() {
    let simulator = Simulator::start().unwrap();
    let told = "Grüße,\n\"東京\" \\ 🚀\u{0} e\u{301} </script>";
    simulator.script(Script::new().text(told));
    assert_eq!(stream(&simulator, "m").await.text(), told);
    simulator.script(Script::new().tokens(["a", "", "b\r\n"]));
    assert_eq!(stream(&simulator, "m").await.text(), "ab\r\n");
}

#[tokio::test]
async fn echo_repeats_the_last_user_message() {
    let simulator = Simulator::start().unwrap();
    assert_eq!(stream(&simulator, "sim/echo").await.text(), "héllo you");
    let completion = client::complete(&simulator, "sim/echo").await.json();
    assert_eq!(completion["choices"][0]["message"]["content"], "héllo you");
}

#[tokio::test]
async fn reasoning_comes_before_the_text() {
    let simulator = Simulator::start().unwrap();
    let payloads = stream(&simulator, "sim/tokens=5,reasoning=7,seed=3")
        .await
        .payloads();
    assert_eq!(joined(&payloads, "reasoning"), reasoning_text(3, 7));
    assert_eq!(client::text(&payloads), reply_text(3, 5));
    assert!(payloads[7]["choices"][0]["delta"]["reasoning_details"].is_array());
    assert!(
        payloads[8]["choices"][0]["delta"]
            .get("reasoning")
            .is_none()
    );
    let usage = &payloads.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 7);
}

#[tokio::test]
async fn tool_calls_come_in_fragments() {
    let simulator = Simulator::start().unwrap();
    simulator.script(
        Script::new()
            .tokens(Vec::<String>::new())
            .tool_call(ToolCall {
                id: "call_a".into(),
                name: "get_time".into(),
                arguments: vec!["{\"zone\":".into(), "\"UTC\"}".into()],
            }),
    );
    let payloads = stream(&simulator, "m").await.payloads();
    let calls: Vec<&Value> = payloads
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0]["function"]["name"], "get_time");
    assert!(calls[1].get("id").is_none());
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, "{\"zone\":\"UTC\"}");
    let reasons = payloads
        .iter()
        .filter(|chunk| chunk["choices"][0]["finish_reason"] == "tool_calls");
    assert_eq!(reasons.count(), 1);

    let payloads = stream(&simulator, "sim/tools=2").await.payloads();
    assert_eq!(client::text(&payloads), "");
}

#[tokio::test]
async fn recorded_bytes_are_replayed_unchanged() {
    let simulator = Simulator::start().unwrap();
    let recorded = recorded_stream("sse_torture").unwrap();
    let reply = stream(&simulator, "sim/replay=sse_torture").await;
    assert_eq!(reply.chunks().pieces.concat(), recorded);

    simulator.script(Script::raw([
        &b"data: \xF0"[..],
        &b"\x9F"[..],
        &b"\x9A\x80\n\n"[..],
    ]));
    let pieces = stream(&simulator, "m").await.chunks().pieces;
    assert_eq!(
        pieces,
        [&b"data: \xF0"[..], &b"\x9F"[..], &b"\x9A\x80\n\n"[..]]
    );
}

#[tokio::test]
async fn a_huge_reply_is_whole() {
    let simulator = Simulator::start().unwrap();
    let text = stream(&simulator, "sim/tokens=256,size=65536,batch=4")
        .await
        .text();
    assert_eq!(text.len(), 16 * 1024 * 1024);
    assert!(text == sized_reply_text(0, 256, 65_536));
}

#[tokio::test]
async fn a_completion_is_one_object() {
    let simulator = Simulator::start().unwrap();
    let reply = client::complete(&simulator, "sim/tokens=9,reasoning=2,newlines=3").await;
    assert!(reply.raw.starts_with(b"\n         \n"));
    assert_eq!(
        reply.header("content-length").unwrap(),
        reply.raw.len().to_string()
    );
    let completion = reply.json();
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(
        completion["choices"][0]["message"]["content"],
        reply_text(0, 9)
    );
    assert_eq!(
        completion["choices"][0]["message"]["reasoning"],
        reasoning_text(0, 2)
    );
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
    assert_eq!(completion["usage"]["completion_tokens"], 11);
}

#[tokio::test]
async fn a_connection_is_kept_and_other_prefixes_serve_too() {
    let simulator = Simulator::start().unwrap();
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(1)
        .build()
        .unwrap();
    let base = format!("http://{}", simulator.address());
    for prefix in ["/api/v1", "/v1", ""] {
        for streamed in [true, false] {
            let url = format!("{base}{prefix}/chat/completions");
            let sent = client
                .post(url)
                .json(&body("sim/tokens=3", streamed))
                .send();
            let answer = sent.await.unwrap().error_for_status().unwrap();
            assert!(!answer.text().await.unwrap().is_empty());
        }
    }
    let counters = simulator.counters();
    assert_eq!(
        (counters.accepted_connections, counters.chat_requests),
        (1, 6)
    );
}

use std::path::Path;

use base64::Engine as _;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{json_text::unescape, provider::UpstreamErrorKind};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(folder.join(name)).unwrap()
}

#[derive(Debug, Default, PartialEq)]
struct Reply {
    text: String,
    reasoning: String,
    finish: Vec<String>,
    usage: Option<String>,
    tool_calls: Vec<Value>,
    others: usize,
    error: Option<(UpstreamErrorKind, String)>,
}

fn gather<'r>(reads: impl IntoIterator<Item = &'r [u8]>) -> Reply {
    let mut reader = ReplyReader::new(1 << 20);
    let mut all = Vec::new();
    let mut end = None;
    for read in reads {
        // As the caller does it: one list for each read.
        let mut deltas = Vec::new();
        end = reader.read(read, &mut deltas);
        all.extend(deltas);
        if end.is_some() {
            break;
        }
    }
    let end = end.unwrap_or_else(|| reader.close("end of stream", &mut all));
    let mut reply = Reply::default();
    for delta in all {
        match delta {
            Delta::Head(_) | Delta::Seam { .. } => {}
            Delta::Text(text) => reply.text.push_str(&unescape(text.as_escaped())),
            Delta::Reasoning(text) => reply.reasoning.push_str(&unescape(text.as_escaped())),
            Delta::ToolCalls(raw) => reply
                .tool_calls
                .push(serde_json::from_str(raw.get()).unwrap()),
            Delta::Other(_) => reply.others += 1,
            Delta::Finish { reason, .. } => reply.finish.push(reason),
            Delta::Usage(raw) => reply.usage = Some(raw.get().to_owned()),
        }
    }
    reply.error = end.err().map(|error| (error.kind, error.message));
    reply
}

/// What the table of the fixtures' README says of one file.
#[track_caller]
fn check(file: &str, text: &str, reasoning: &str, end: Result<&str, (UpstreamErrorKind, &str)>) {
    let stream = fixture(file);
    let reply = gather([&stream[..]]);
    assert_eq!(
        (reply.text.as_str(), reply.reasoning.as_str()),
        (text, reasoning),
        "{file}"
    );
    match end {
        Ok(finish) => assert_eq!(
            (&reply.finish[..], &reply.error),
            (&[finish.to_owned()][..], &None)
        ),
        Err((kind, words)) => {
            let (found, message) = reply.error.clone().unwrap();
            assert_eq!((&reply.finish[..], found), (&[][..], kind), "{file}");
            assert!(message.contains(words), "{message}");
        }
    }
    let mut split = gather(stream.chunks(1));
    // Usage sent with each chunk arrives once a read.
    assert_eq!(split, reply, "{file} byte by byte");
    split = gather(stream.chunks(7));
    assert_eq!(split, reply, "{file} in sevens");
}

#[test]
fn every_fixture_reads_as_its_table_says() {
    use UpstreamErrorKind::{Failed, RateLimited};
    let broke_off = "broke off";
    check(
        "openrouter_stream_basic.sse",
        "Grüße aus 東京 🚀.",
        "",
        Ok("stop"),
    );
    check(
        "openrouter_stream_usage_empty_choices.sse",
        "Hi there",
        "",
        Ok("length"),
    );
    check(
        "openrouter_stream_reasoning.sse",
        "4",
        "First, add.",
        Ok("stop"),
    );
    check("openrouter_stream_toolcalls.sse", "", "", Ok("tool_calls"));
    check(
        "openrouter_midstream_error.sse",
        "Partial answ",
        "",
        Err((RateLimited, "Rate limit exceeded upstream")),
    );
    check(
        "openrouter_midstream_error_string_code.sse",
        "Half a sen",
        "",
        Err((Failed, "Provider disconnected")),
    );
    check(
        "openrouter_midstream_error_only.sse",
        "",
        "",
        Err((Failed, "Upstream went away")),
    );
    check(
        "openrouter_stream_no_done.sse",
        "Cut here",
        "",
        Err((Failed, broke_off)),
    );
    check(
        "openrouter_stream_done_without_finish.sse",
        "No finish reason",
        "",
        Ok("unknown"),
    );
    check(
        "openrouter_stream_usage_every_chunk.sse",
        "ab",
        "",
        Ok("stop"),
    );
    check(
        "openrouter_stream_debug_empty_first.sse",
        "ok",
        "",
        Ok("stop"),
    );
    check(
        "sse_framing_torture.sse",
        "one two three four five",
        "",
        Err((Failed, broke_off)),
    );
    check("llamacpp_stream_ping.sse", "Hi you", "hm", Ok("stop"));
    check(
        "llamacpp_legacy_error_line.sse",
        "Some",
        "",
        Err((Failed, "decode failed")),
    );
    check(
        "vllm_midstream_error.sse",
        "Pa",
        "so ",
        Err((Failed, "engine died")),
    );
    check("ollama_stream.sse", "Hello", "think", Ok("stop"));
    check(
        "lmstudio_midstream_error.sse",
        "He",
        "",
        Err((Failed, "The model has crashed")),
    );
}

#[test]
fn usage_and_tool_calls_of_the_fixtures_come_through() {
    let usage = |file: &str| -> Value {
        serde_json::from_str(&gather([&fixture(file)[..]]).usage.unwrap()).unwrap()
    };
    assert_eq!(usage("openrouter_stream_basic.sse")["total_tokens"], 19);
    assert_eq!(
        usage("openrouter_stream_usage_empty_choices.sse")["total_tokens"],
        19
    );
    assert_eq!(
        usage("openrouter_stream_usage_every_chunk.sse")["completion_tokens"],
        2
    );
    assert_eq!(usage("ollama_stream.sse")["total_tokens"], 5);
    let reply = gather([&fixture("openrouter_stream_toolcalls.sse")[..]]);
    let mut arguments = [String::new(), String::new()];
    for call in reply
        .tool_calls
        .iter()
        .flat_map(|calls| calls.as_array().unwrap())
    {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
    }
    assert_eq!(arguments, ["{\"zone\":\"UTC\"}", "{}"]);
    assert_eq!(
        gather([&fixture("openrouter_stream_reasoning.sse")[..]]).others,
        3
    );
}

#[test]
fn characters_split_between_reads_are_whole() {
    let case: Value = serde_json::from_slice(&fixture("sse_split_reads.json")).unwrap();
    let decode = |piece: &Value| {
        let standard = base64::engine::general_purpose::STANDARD;
        standard.decode(piece.as_str().unwrap()).unwrap()
    };
    let reads: Vec<Vec<u8>> = case["chunks_base64"]
        .as_array()
        .unwrap()
        .iter()
        .map(decode)
        .collect();
    let reply = gather(reads.iter().map(Vec::as_slice));
    assert_eq!(Value::from(reply.text), case["expected_text"]);
    assert_eq!(
        (reply.finish, reply.error),
        (vec!["unknown".to_owned()], None)
    );
}

#[test]
fn an_answer_that_was_not_streamed_is_understood() {
    let mut reader = ReplyReader::new(1000);
    let mut deltas = Vec::new();
    let body = fixture("openrouter_nonstream_leading_newlines.txt");
    assert_eq!(reader.read_whole(&body, &mut deltas), Ok(()));
    let [
        Delta::Head(head),
        Delta::Text(text),
        Delta::Finish { reason, native },
        Delta::Usage(_),
    ] = &deltas[..]
    else {
        panic!("{deltas:?}");
    };
    assert_eq!(
        (head.model.as_str(), text.as_escaped()),
        ("example/model-1", "Hello")
    );
    assert_eq!((reason.as_str(), native.as_deref()), ("stop", Some("STOP")));
}

#[test]
fn an_answer_that_was_not_streamed_may_be_an_error() {
    let read = |body: &str| {
        let mut deltas = Vec::new();
        let end = ReplyReader::new(1000).read_whole(body.as_bytes(), &mut deltas);
        (deltas.len(), end.unwrap_err().message)
    };
    for body in [
        r#"{"error":{"code":502,"message":"Upstream failed"},"user_id":"user_test"}"#,
        r#"{"error":"Upstream failed"}"#,
    ] {
        assert_eq!(
            read(body),
            (
                0,
                "The model provider failed (mid-reply): Upstream failed".to_owned()
            )
        );
    }
    let in_choice = r#"{"id":"g","choices":[{"message":{"content":"par"},"finish_reason":"error","error":{"code":502,"message":"x"}}]}"#;
    assert_eq!(
        read(in_choice),
        (2, "The model provider failed (mid-reply): x".to_owned())
    );
    assert!(read("{}").1.contains("without a reply"));
    assert!(read("<html>").1.contains("malformed"));
}

#[test]
fn a_finished_reply_is_whole_however_the_stream_ends() {
    let finished =
        b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}";
    for tail in [&b"\n\n"[..], b"", b"\n\ndata: {\"usa"] {
        let reply = gather([&finished[..], tail]);
        assert_eq!(
            (reply.text.as_str(), &reply.error),
            ("a", &None),
            "{tail:?}"
        );
    }
    let cut = gather([&finished[..50]]);
    assert_eq!(
        (cut.text.as_str(), cut.error.unwrap().0),
        ("", UpstreamErrorKind::Failed)
    );
}

#[test]
fn what_comes_behind_the_finish_reason_cannot_make_the_reply_fail() {
    let finished =
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
    for tail in [
        "data: {\"error\":{\"code\":500,\"message\":\"no\"}}\n\n",
        "error: {\"message\":\"no\"}\n\n",
        "data: {\"choi\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
    ] {
        let reply = gather([finished.as_bytes(), tail.as_bytes()]);
        assert_eq!(reply.error, None, "{tail}");
        assert_eq!(
            (reply.text.as_str(), &reply.finish[..]),
            ("a", &["stop".to_owned()][..])
        );
    }
}

#[test]
fn one_bad_line_among_good_ones_ends_the_reply() {
    let good = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let reply = gather([format!("{good}data: {{\"choi\n\n{good}").as_bytes()]);
    assert_eq!(reply.text, "a");
    assert!(reply.error.unwrap().1.contains("malformed"));
}

#[test]
fn a_reply_that_is_too_long_ends_with_length() {
    let mut reader = ReplyReader::new(3);
    let mut deltas = Vec::new();
    let chunk = b"data: {\"choices\":[{\"delta\":{\"content\":\"abcd\"}}]}\n\n";
    assert_eq!(reader.read(chunk, &mut deltas), Some(Ok(())));
    let finish = Delta::Finish {
        reason: "length".into(),
        native: None,
    };
    assert_eq!(deltas.last(), Some(&finish));
}

#[test]
fn phases_follow_the_reply_not_the_keep_alives() {
    let mut reader = ReplyReader::new(100);
    let mut phase = |bytes: &str| {
        reader.read(bytes.as_bytes(), &mut Vec::new());
        (reader.phase(), reader.events_seen())
    };
    let chunk = |inside: &str| format!("data: {{\"choices\":[{{{inside}}}]}}\n\n");
    assert_eq!(phase(": OPENROUTER PROCESSING\n\n"), (Phase::Waiting, 0));
    assert_eq!(
        phase(&chunk("\"delta\":{\"content\":\"\"}")),
        (Phase::Waiting, 1)
    );
    assert_eq!(
        phase(&chunk("\"delta\":{\"content\":\"a\"}")),
        (Phase::Flowing, 2)
    );
    assert_eq!(phase(":\n\n"), (Phase::Flowing, 2));
    assert_eq!(
        phase(&chunk("\"finish_reason\":\"stop\"")),
        (Phase::Finished, 3)
    );
}

/// A JSON string in one of the spellings that servers use.
fn spelled(text: &str, escape_all: usize) -> String {
    if escape_all == 0 {
        return serde_json::to_string(text).unwrap();
    }
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
    format!("\"{}\"", units.collect::<String>())
}

proptest! {
    #[test]
    fn any_text_comes_through_in_any_spelling_and_any_reads(
        texts in prop::collection::vec((any::<String>(), 0usize..2), 1..8),
        size in 1usize..200,
    ) {
        let mut stream = String::new();
        for (text, escape_all) in &texts {
            let content = spelled(text, *escape_all);
            stream += &format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{content}}}}}]}}\r\n\r\n");
        }
        stream += "data: [DONE]";
        let reply = gather(stream.as_bytes().chunks(size));
        let expected: String = texts.iter().map(|(text, _)| text.as_str()).collect();
        prop_assert_eq!((reply.text, reply.error), (expected, None));
    }

    #[test]
    fn whatever_comes_there_is_an_end_and_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        json in "data: \\{\"(choices|error|usage|id)\":[\\[\\]{}\":a-z0-9\\\\]{0,40}\\}\n\n",
    ) {
        gather([&bytes[..]]);
        gather([json.as_bytes(), &bytes]);
        ReplyReader::new(5).read_whole(&bytes, &mut Vec::new()).ok();
    }
}

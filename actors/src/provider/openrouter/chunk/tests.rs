use proptest::prelude::*;

use super::*;
use crate::provider::UpstreamErrorKind;

fn read_all(payloads: &[&str]) -> (Vec<Delta>, Result<(), UpstreamError>) {
    let mut reader = ChunkReader::new(1 << 20);
    let mut deltas = Vec::new();
    let result = payloads
        .iter()
        .try_for_each(|payload| reader.read(payload.as_bytes(), &mut deltas));
    reader.take_usage(&mut deltas);
    (deltas, result)
}

/// Deltas of these payloads, which are good, without the heads.
fn deltas(payloads: &[&str]) -> Vec<Delta> {
    let (deltas, result) = read_all(payloads);
    result.unwrap();
    deltas
        .into_iter()
        .filter(|delta| !matches!(delta, Delta::Head(_)))
        .collect()
}

fn error(payload: &str) -> UpstreamError {
    read_all(&[payload]).1.unwrap_err()
}

fn of_delta(delta: &str) -> String {
    format!(r#"{{"id":"gen-1","choices":[{{"index":0,"delta":{delta}}}]}}"#)
}

fn text(plain: &str) -> Delta {
    Delta::Text(JsonText::escape(plain))
}

fn reasoning(plain: &str) -> Delta {
    Delta::Reasoning(JsonText::escape(plain))
}

fn raw(json: &str) -> RawJson {
    RawJson(RawValue::from_string(json.to_owned()).unwrap())
}

#[test]
fn adjacent_text_is_one_delta_in_canonical_form() {
    let chunks = [
        r#"{"content":"a"}"#,
        r#"{"content":"\u00e9\/\n"}"#,
        r#"{"content":"b"}"#,
    ];
    let chunks = chunks.map(of_delta);
    let found = deltas(&chunks.each_ref().map(String::as_str));
    assert_eq!(found, [text("aé/\nb")]);
}

#[test]
fn what_says_nothing_gives_nothing() {
    for payload in [
        " \n",
        r#"{"choices":[]}"#,
        r#"{"choices":null}"#,
        r#"{"id":"x"}"#,
        r#"{"choices":[null]}"#,
        r#"{"choices":[{"delta":null,"finish_reason":""}],"usage":null,"error":null}"#,
        r#"{"choices":[{"delta":{"role":"assistant","content":null,"refusal":null}}]}"#,
        r#"{"choices":[{"delta":{"content":"","reasoning":"","tool_calls":[],"annotations":[]}}]}"#,
        r#"{"choices":[{"delta":{"content":7}}]}"#,
        r#"{"choices":[{}],"error":false}"#,
    ] {
        assert_eq!(deltas(&[payload]), [], "{payload}");
    }
}

#[test]
fn both_names_of_reasoning_are_one() {
    assert_eq!(
        deltas(&[&of_delta(r#"{"reasoning":"a"}"#)]),
        [reasoning("a")]
    );
    assert_eq!(
        deltas(&[&of_delta(r#"{"reasoning_content":"a"}"#)]),
        [reasoning("a")]
    );
    let both = of_delta(r#"{"reasoning_content":"a","reasoning":"a","content":"b"}"#);
    assert_eq!(deltas(&[&both]), [reasoning("a"), text("b")]);
}

#[test]
fn a_lone_surrogate_does_not_lose_the_chunk() {
    let chunk = r#"{"id":"\ud83d","choices":[{"delta":{"content":"a\ud83d","tool_calls":[{"x":"\ude00"}]}}]}"#;
    let found = deltas(&[chunk]);
    assert_eq!(
        found,
        [
            text("a\u{fffd}"),
            Delta::ToolCalls(raw("[{\"x\":\"\u{fffd}\"}]"))
        ]
    );
}

#[test]
fn bytes_that_are_no_text_do_not_lose_the_chunk() {
    let mut found = Vec::new();
    let payload = b"{\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}";
    ChunkReader::new(100).read(payload, &mut found).unwrap();
    assert_eq!(found.last(), Some(&text("a\u{fffd}")));
}

#[test]
fn other_members_are_kept_together_on_one_line() {
    let chunk =
        of_delta("{\"refusal\":null,\"audio\":{\n\"id\":1},\"a\\u0062\":[2],\"role\":\"x\"}");
    assert_eq!(
        deltas(&[&chunk]),
        [Delta::Other(raw(r#"{"audio":{ "id":1},"ab":[2]}"#))]
    );
}

#[test]
fn content_in_parts_is_text() {
    let chunk =
        of_delta(r#"{"content":[{"type":"text","text":"a"},{"type":"image"},{"text":"b"}]}"#);
    assert_eq!(deltas(&[&chunk]), [text("ab")]);
}

#[test]
fn content_may_ride_on_the_finish_chunk_and_the_reason_comes_once() {
    let finish = r#"{"choices":[{"delta":{"content":"z"},"finish_reason":"stop","native_finish_reason":"EOS"}]}"#;
    let again = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":1}}"#;
    let expected = [
        text("z"),
        Delta::Finish {
            reason: "stop".into(),
            native: Some("EOS".into()),
        },
        Delta::Usage(raw(r#"{"total_tokens":1}"#)),
    ];
    assert_eq!(deltas(&[finish, again]), expected);
}

#[test]
fn the_head_comes_first_and_again_when_it_changes() {
    let (found, _) = read_all(&[
        r#"{"id":"1","model":"m","created":5,"choices":[]}"#,
        r#"{"id":"1","model":"m","created":6,"choices":[]}"#,
        r#"{"choices":[]}"#,
        r#"{"id":"1","model":"m","provider":"p","created":7.5,"choices":[]}"#,
    ]);
    let head = |provider: Option<&str>, created| {
        Delta::Head(Arc::new(ReplyHead {
            id: "1".into(),
            model: "m".into(),
            provider: provider.map(Into::into),
            created,
        }))
    };
    assert_eq!(found, [head(None, 5), head(Some("p"), 7)]);
}

#[test]
fn an_error_comes_after_the_text_of_its_chunk() {
    for rest in [
        r#"}],"error":{"code":429,"message":"slow"}}"#,
        r#","error":{"code":429,"message":"slow"}}]}"#,
    ] {
        let chunk =
            format!(r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":"error"{rest}"#);
        let (found, result) = read_all(&[&chunk]);
        assert_eq!(found.last(), Some(&text("a")), "{chunk}");
        assert_eq!(
            result.unwrap_err().kind,
            UpstreamErrorKind::RateLimited,
            "{chunk}"
        );
    }
}

#[test]
fn errors_are_known_in_every_shape() {
    for payload in [
        r#"{"error":{"message":"engine died"}}"#,
        r#"{"error":"engine died"}"#,
        r#"{"object":"error","message":"engine died","code":500}"#,
        r#"{"detail":"engine died"}"#,
    ] {
        let error = error(payload);
        assert_eq!(error.kind, UpstreamErrorKind::Failed, "{payload}");
        assert!(error.message.contains("engine died"), "{}", error.message);
        assert_eq!(read_all(&[payload]).0, [], "an error has no head");
    }
    let nameless = r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#;
    assert_eq!(error(nameless).kind, UpstreamErrorKind::Failed);
}

#[test]
fn a_payload_that_is_no_chunk_ends_the_reply() {
    for payload in [
        "{\"choices\":[{\"delta\":{\"content\":\"a",
        "ping",
        "7",
        r#"{"choices":7}"#,
    ] {
        assert!(error(payload).message.contains("malformed"), "{payload}");
    }
}

#[test]
fn a_reply_is_cut_at_its_largest_size() {
    let mut reader = ChunkReader::new(4);
    let mut found = Vec::new();
    for content in [
        r#"{"content":"ab"}"#,
        r#"{"content":"cé\n"}"#,
        r#"{"content":"x"}"#,
    ] {
        reader
            .read(of_delta(content).as_bytes(), &mut found)
            .unwrap();
    }
    // The second byte of é would be the fifth.
    assert_eq!(found[1..], [text("abc")]);
    assert!(reader.is_full());
    let mut reader = ChunkReader::new(4);
    reader
        .read(
            of_delta(r#"{"tool_calls":[{"a":1}],"b":2}"#).as_bytes(),
            &mut found,
        )
        .unwrap();
    assert!(reader.is_full());
}

#[test]
fn a_chunk_like_the_last_one_is_known_by_what_stands_around_its_text() {
    let chunk = |text: &str, rest: &str| {
        format!(r#"{{"id":"a","choices":[{{"delta":{{"content":"{text}"}}{rest}}}]}}"#)
    };
    let mut reader = ChunkReader::new(1 << 20);
    let mut read = |payload: &str| {
        reader.read(payload.as_bytes(), &mut Vec::new()).unwrap();
        let known = |payload: &str| reader.alike.text(payload.as_bytes()).map(str::to_owned);
        [
            " you",
            "",
            "\\n\\u00e9",
            "a\"",
            "\n",
            "\\x",
            "\\u00g0",
            "\\",
        ]
        .map(|text| known(&chunk(text, "")))
    };
    let some = |text: &str| Some(text.to_owned());
    let mut plain = [const { None }; 8];
    plain[..3].clone_from_slice(&[some(" you"), some(""), some("\\n\\u00e9")]);
    assert_eq!(read(&chunk("Hello", "")), plain);
    // One that was known so is no reason to forget what is known.
    assert_eq!(read(&chunk("again", "")), plain);
    assert_eq!(read(&chunk("a\\n", "")), plain);
    let nothing = [const { None }; 8];
    assert_eq!(read(&chunk("Hello", r#","logprobs":1"#)), nothing);
    for rest in [
        r#","finish_reason":"stop""#,
        r#","x":0}],"usage":{"y":1},"z":[{"#,
    ] {
        assert_eq!(read(&chunk("Hello", "")), plain);
        let known = read(&chunk("Hello", rest));
        assert_eq!(known, nothing, "{rest}");
    }
}

/// What stands before and behind the text, or whatever is in its place.
const AROUND: [(&str, &str); 9] = [
    (r#"{"id":"a","choices":[{"delta":{"content":"#, "}}]}"),
    (
        r#"{"id":"b","model":"m","choices":[{"delta":{"content":"#,
        "}}]}",
    ),
    (
        r#"{"id":"a","choices":[{"delta":{"content":"#,
        r#","reasoning":null},"finish_reason":null}],"usage":null}"#,
    ),
    (
        r#"{"id":"a","choices":[{"delta":{"content":"#,
        r#","refusal":"no"}}]}"#,
    ),
    (
        r#"{"id":"a","choices":[{"delta":{"content":"x","content":"#,
        "}}]}",
    ),
    (
        r#"{"id":"a","choices":[{"delta":{"content":"#,
        r#"}}],"usage":{"cost":1}}"#,
    ),
    (
        r#"{"id":"a","choices":[{"delta":{"content":"#,
        r#"},"finish_reason":"stop"}]}"#,
    ),
    (
        r#"{"choices":[{"delta":{"reasoning":"r","content":"#,
        "}}]}",
    ),
    (
        r#"{"choices":[{"delta":{"content":"#,
        r#"}}],"error":{"code":500}}"#,
    ),
];

prop_compose! {
    fn payload()(
        around in prop_oneof![3 => Just(0), 2 => 0..AROUND.len()],
        text in prop_oneof![
            3 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            3 => "[ -~]{0,6}".prop_map(|inside| format!("\"{inside}\"")),
            3 => "a?\\\\[\"\\\\/bfnrtux][0-9a-g]{0,5}".prop_map(|inside| format!("\"{inside}\"")),
            1 => prop::sample::select(vec!["null", "\"\"", "7", "[{\"text\":\"t\"}]", "\"\n\""])
                .prop_map(str::to_owned),
        ],
        broken in prop::option::weighted(0.1, any::<(u8, prop::sample::Index)>()),
    ) -> Vec<u8> {
        let (before, behind) = AROUND[around];
        let mut payload = format!("{before}{text}{behind}").into_bytes();
        if let Some((byte, at)) = broken {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload
    }
}

proptest! {
    #[test]
    fn chunks_that_are_alike_read_as_if_each_came_alone(
        payloads in prop::collection::vec(payload(), 1..12),
        reply_bytes_max in prop_oneof![Just(1 << 20), 0_usize..40],
    ) {
        let [mut reader, mut parser] = [0, 0].map(|_| ChunkReader::new(reply_bytes_max));
        let [mut read, mut parsed] = [Vec::new(), Vec::new()];
        for payload in &payloads {
            let outcome = reader.read(payload, &mut read);
            parser.alike.forget();
            prop_assert_eq!(outcome, parser.read(payload, &mut parsed));
            prop_assert_eq!(&read, &parsed);
            prop_assert_eq!(reader.is_full(), parser.is_full());
        }
        reader.take_usage(&mut read);
        parser.take_usage(&mut parsed);
        prop_assert_eq!(read, parsed);
    }
}

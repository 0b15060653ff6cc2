use std::path::Path;

use reqwest::header::HeaderName;
use serde_json::Value;

use super::*;

/// Just before the reset time in the fixtures.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_040)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

/// Every case of a fixture file as (status, headers, body).
fn cases(file: &str) -> Vec<(u16, HeaderMap, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let pairs = case["headers"].as_object().cloned().unwrap_or_default();
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
                .collect();
            let body = match &case["body"] {
                Value::Null => Vec::new(),
                Value::String(text) => text.clone().into_bytes(),
                body => serde_json::to_vec(body).unwrap(),
            };
            let status = u16::try_from(case["http_status"].as_u64().unwrap()).unwrap();
            (status, headers(&pairs), body)
        })
        .collect()
}

fn classified(file: &str) -> Vec<(UpstreamErrorKind, Option<u64>, String)> {
    cases(file)
        .iter()
        .map(|(status, headers, body)| {
            let error = match status {
                200 => of_payload(Upstream::OpenRouter, body),
                _ => of_response(Upstream::OpenRouter, *status, headers, body, now()),
            };
            (
                error.kind,
                error.retry_after.map(|wait| wait.as_secs()),
                error.message,
            )
        })
        .collect()
}

#[test]
fn openrouters_errors_have_their_kinds() {
    use UpstreamErrorKind as Kind;
    let expected = [
        (Kind::Rejected, None, "No such model: example/nope"),
        (
            Kind::ContextTooLong,
            None,
            "Context is longer than the model allows",
        ),
        (
            Kind::Auth,
            None,
            "The model provider refused the API key (HTTP 401)",
        ),
        (
            Kind::Credits,
            None,
            "The model provider has no credit or quota left for this API key (HTTP 402)",
        ),
        (Kind::Rejected, None, "Input was flagged"),
        (
            Kind::Failed,
            None,
            "The model provider failed (HTTP 404): No endpoints match",
        ),
        (
            Kind::Timeout,
            None,
            "The model provider did not answer in time (HTTP 408): Request timed out",
        ),
        (Kind::Rejected, None, "Payload too large"),
        (
            Kind::RateLimited,
            Some(20),
            "The model provider asks for fewer requests (HTTP 429): Rate limit exceeded: free-models-per-min",
        ),
        (
            Kind::RateLimited,
            Some(7),
            "The model provider asks for fewer requests (HTTP 429): At capacity",
        ),
        (
            Kind::RateLimited,
            None,
            "The model provider asks for fewer requests (HTTP 429): Provider returned error: slow down",
        ),
        (
            Kind::Failed,
            None,
            "The model provider failed (HTTP 502): Provider returned error",
        ),
        (
            Kind::Failed,
            Some(3),
            "The model provider failed (HTTP 503): No provider available",
        ),
        (
            Kind::Timeout,
            None,
            "The model provider did not answer in time (HTTP 524)",
        ),
        (
            Kind::Failed,
            None,
            "The model provider failed (HTTP 529): Provider overloaded",
        ),
        (
            Kind::Failed,
            None,
            "The model provider failed (mid-reply): Upstream failed",
        ),
    ];
    let found = classified("openrouter_errors.jsonl");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(
            (&found.0, found.1, found.2.as_str()),
            (&expected.0, expected.1, expected.2)
        );
    }
    // The last case is a whole answer with an error in its choice; the chunk reader's tests have it.
    assert_eq!(found.len(), expected.len() + 1);
}

#[test]
fn local_servers_errors_have_their_kinds() {
    use UpstreamErrorKind as Kind;
    let kinds = |file| {
        classified(file)
            .into_iter()
            .map(|case| case.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kinds("llamacpp_errors.jsonl"),
        [Kind::Failed, Kind::ContextTooLong, Kind::Auth]
    );
    for (kind, _, message) in classified("vllm_errors.jsonl") {
        assert_eq!(
            (kind, message.as_str()),
            (Kind::Rejected, "max_tokens too large")
        );
    }
}

#[test]
fn a_status_alone_is_enough() {
    use UpstreamErrorKind as Kind;
    for (status, kind) in [
        (302, Kind::Failed),
        (400, Kind::Rejected),
        (401, Kind::Auth),
        (402, Kind::Credits),
        (403, Kind::Auth),
        (404, Kind::Rejected),
        (408, Kind::Timeout),
        (413, Kind::Rejected),
        (422, Kind::Rejected),
        (429, Kind::RateLimited),
        (500, Kind::Failed),
        (502, Kind::Failed),
        (503, Kind::Failed),
        (504, Kind::Timeout),
        (524, Kind::Timeout),
        (529, Kind::Failed),
        (600, Kind::Failed),
    ] {
        for body in ["", "<html><head><title>nginx</title></head></html>"] {
            let error = of_response(
                Upstream::OpenRouter,
                status,
                &HeaderMap::new(),
                body.as_bytes(),
                now(),
            );
            assert_eq!(error.kind, kind, "{status}");
            assert!(
                error.message.contains(&status.to_string()),
                "{}",
                error.message
            );
            assert!(!error.message.contains('<'), "{}", error.message);
        }
    }
}

#[test]
fn a_forbidden_request_is_told_from_a_forbidden_key() {
    use UpstreamErrorKind as Kind;
    for (body, kind) in [
        (
            r#"{"error":{"code":403,"message":"no","metadata":{"error_type":"permission_denied"}}}"#,
            Kind::Auth,
        ),
        (
            r#"{"error":{"code":403,"message":"no","metadata":{"error_type":"refusal"}}}"#,
            Kind::Rejected,
        ),
        (
            r#"{"error":{"code":403,"message":"no","metadata":{"guardrail_id":"g"}}}"#,
            Kind::Rejected,
        ),
        (
            r#"{"error":{"message":"no","availability":{"code":"region_restricted","retryable":false}}}"#,
            Kind::Rejected,
        ),
    ] {
        assert_eq!(
            of_response(
                Upstream::OpenRouter,
                403,
                &HeaderMap::new(),
                body.as_bytes(),
                now()
            )
            .kind,
            kind,
            "{body}"
        );
    }
}

#[test]
fn context_and_quota_are_known_by_their_words() {
    use UpstreamErrorKind as Kind;
    for (status, body, kind) in [
        (
            400,
            r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#,
            Kind::ContextTooLong,
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens."}"#,
            Kind::ContextTooLong,
        ),
        (
            429,
            r#"{"error":{"message":"x","code":"insufficient_quota"}}"#,
            Kind::Credits,
        ),
    ] {
        assert_eq!(
            of_response(
                Upstream::OpenRouter,
                status,
                &HeaderMap::new(),
                body.as_bytes(),
                now()
            )
            .kind,
            kind,
            "{body}"
        );
    }
}

#[test]
fn codes_in_a_stream_may_be_numbers_or_words() {
    use UpstreamErrorKind as Kind;
    for (payload, kind) in [
        (r#"{"code":429,"message":"x"}"#, Kind::RateLimited),
        (r#"{"code":"429","message":"x"}"#, Kind::RateLimited),
        (
            r#"{"code":"rate_limit_exceeded","message":"x"}"#,
            Kind::RateLimited,
        ),
        (r#"{"code":"server_error","message":"x"}"#, Kind::Failed),
        (r#"{"http_status":408,"message":"x"}"#, Kind::Timeout),
        (
            r#"{"metadata":{"error_type":"context_length_exceeded"}}"#,
            Kind::ContextTooLong,
        ),
        (r#""just words""#, Kind::Failed),
        ("no json", Kind::Failed),
        ("", Kind::Failed),
    ] {
        assert_eq!(
            of_payload(Upstream::OpenRouter, payload.as_bytes()).kind,
            kind,
            "{payload}"
        );
    }
}

#[test]
fn a_wait_is_read_from_every_place_and_bounded() {
    let wait = |status, pairs: &[(&str, &str)], body: &str| {
        of_response(
            Upstream::OpenRouter,
            status,
            &headers(pairs),
            body.as_bytes(),
            now(),
        )
        .retry_after
    };
    let availability = r#"{"error":{"availability":{"retry_after":9}}}"#;
    for (pairs, body, expected) in [
        (&[("retry-after", "7")][..], "", Some(7_000)),
        (&[("retry-after", "0.5")], "", Some(500)),
        (
            &[("retry-after-ms", "250"), ("retry-after", "7")],
            "",
            Some(250),
        ),
        (
            &[("retry-after", "Mon, 21 Sep 2026 14:14:10 GMT")],
            "",
            Some(10_000),
        ),
        (
            &[("retry-after", "Mon, 21 Sep 2020 13:34:10 GMT")],
            "",
            Some(0),
        ),
        (&[("retry-after", "86400")], "", Some(3_600_000)),
        (&[("retry-after", "1e300")], "", Some(3_600_000)),
        (&[("retry-after", "-1")], availability, Some(9_000)),
        (&[("retry-after", "NaN")], availability, Some(9_000)),
        (&[("retry-after", "soon")], "", None),
        (&[], availability, Some(9_000)),
        (&[("x-ratelimit-reset", "1790000060000")], "", Some(20_000)),
        (&[("x-ratelimit-reset", "12")], "", None),
        (&[], "", None),
    ] {
        let found = wait(429, pairs, body).map(|wait| wait.as_millis());
        assert_eq!(found, expected, "{pairs:?} {body}");
    }
    assert_eq!(
        wait(503, &[("retry-after", "3")], ""),
        Some(Duration::from_secs(3))
    );
    assert_eq!(
        wait(503, &[("x-ratelimit-reset", "1790000060000")], ""),
        None
    );
}

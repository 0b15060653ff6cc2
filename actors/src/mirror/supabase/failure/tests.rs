use std::{path::Path, time::UNIX_EPOCH};

use reqwest::header::HeaderName;
use secrecy::SecretString;
use serde_json::Value;

use super::{AuthFault::*, Missing::*, SupabaseErrorKind::*, *};

const KEY: &str = "sb_secret_0123456789";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn classified(effect: &Effect, status: u16, pairs: &[(&str, &str)], body: &[u8]) -> SupabaseError {
    let headers = pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, value.parse().unwrap())
        })
        .collect();
    let refusal = Refusal {
        effect,
        status,
        headers: &headers,
        body,
    };
    refusal.classify(&Key::new(SecretString::from(KEY)), now())
}

/// Every case of a fixture file, as the answer to a write.
fn cases(file: &str) -> Vec<(String, SupabaseError)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let body = match &case["body"] {
                Value::Null => Vec::new(),
                Value::String(text) => text.clone().into_bytes(),
                body => serde_json::to_vec(body).unwrap(),
            };
            let status = u16::try_from(case["http_status"].as_u64().unwrap()).unwrap();
            let error = classified(&Effect::Writes, status, &[], &body);
            (case["case"].as_str().unwrap().to_owned(), error)
        })
        .collect()
}

/// Compares every case of a file; those that are not named are plain refusals.
#[track_caller]
fn check(file: &str, named: &[(&str, SupabaseErrorKind)]) {
    let cases = cases(file);
    for (name, _) in named {
        assert!(cases.iter().any(|(case, _)| case == name), "no case {name}");
    }
    for (case, error) in &cases {
        let expected = named.iter().find(|(name, _)| name == case);
        let expected = expected.map_or(Rejected, |(_, kind)| *kind);
        assert_eq!(error.kind, expected, "{case}: {error}");
    }
}

#[test]
fn storage_answers_are_told_apart_by_their_bodies() {
    check(
        "supabase_storage_errors.jsonl",
        &[
            ("object missing", NotFound(Object)),
            ("blob missing behind the row", NotFound(Object)),
            ("bucket missing", NotFound(Bucket)),
            ("duplicate upload", Duplicate),
            ("duplicate bucket", Duplicate),
            ("RLS refusal", Forbidden),
            ("expired token", Auth(Expired)),
            ("key that is not a JWT", Auth(Invalid)),
            ("too large", TooLarge),
            ("bad key name", RejectedName),
            ("bad bucket name", RejectedName),
            ("read-only database: retry", Unavailable),
            ("lock timeout: retry", Unavailable),
            ("locked: retry", Unavailable),
            ("database timeout: real status", Unavailable),
            ("too many connections: real status", RateLimited),
            ("internal", Unavailable),
            ("unknown route: real status", NoRoute),
            ("older body without code", NotFound(Object)),
            (
                "numeric statusCode (not verified, be lenient)",
                NotFound(Object),
            ),
            ("edge error", Unknown),
        ],
    );
}

#[test]
fn postgrest_answers_are_told_apart_by_their_codes() {
    check(
        "postgrest_errors.jsonl",
        &[
            ("table not in cache", MissingTable),
            ("table gone, cache stale", MissingTable),
            ("foreign key", ForeignKey),
            ("unique", Duplicate),
            ("bad uuid", BadUuid),
            ("RLS, signed in", Forbidden),
            ("RLS, anon", Forbidden),
            ("deadlock", Unavailable),
            ("statement timeout", Unavailable),
            ("too many connections", Unavailable),
            ("no database", Unavailable),
            ("pool timeout", Unavailable),
            ("key is not a JWT", Auth(Invalid)),
            ("expired", Auth(Expired)),
            ("clock skew in the gateway: retry once", Auth(NotYetValid)),
        ],
    );
}

#[test]
fn gateways_refuse_keys_in_their_own_words() {
    check(
        "supabase_gateway_401.jsonl",
        &[("no key", Auth(Absent)), ("wrong key", Auth(Invalid))],
    );
}

#[test]
fn recorded_answers_have_their_kinds() {
    check(
        "supabase_recorded_errors.jsonl",
        &[
            ("bucket.get.missing", NotFound(Bucket)),
            ("bucket.create.again", Duplicate),
            ("bucket.create.anon", Forbidden),
            ("bucket.create.badname", RejectedName),
            ("obj.post.again", Duplicate),
            ("obj.get.missing", NotFound(Object)),
            ("obj.get.slashend", RejectedName),
            ("lim.post.1025", TooLarge),
            ("del.anon.one", Forbidden),
            ("auth.get.wrongsig", Auth(Invalid)),
            ("auth.get.expired", Auth(Expired)),
            ("auth.get.unknownrole", Auth(UnknownRole)),
            ("auth.get.none_alg", Auth(Invalid)),
            ("auth.get.sb_secret", Auth(Invalid)),
            ("auth.get.none", Auth(Absent)),
            ("name.post.badutf8", RejectedName),
            ("name.post.badpct", RejectedName),
            ("name.post.len256seg", Unavailable),
            ("route.unknown", NoRoute),
            ("route.method", NoRoute),
            ("move.onto", Duplicate),
            ("sign.get.tampered", Auth(Invalid)),
            ("misc.storage_v1", NoRoute),
            ("rest.insert.duplicate", Duplicate),
            ("rest.insert.badtype", BadUuid),
            ("rest.insert.fk", ForeignKey),
            ("rest.get.missing_table", MissingTable),
            ("rest.rpc.missing", NoRoute),
            ("rest.rpc.badargs", NoRoute),
            ("rest.rls.insert.anon", Forbidden),
            ("rest.auth.wrongsig", Auth(Invalid)),
            ("rest.auth.expired", Auth(Expired)),
            ("rest.auth.unknownrole", Auth(UnknownRole)),
            ("rest.auth.norole", Auth(UnknownRole)),
            ("rest.auth.none_alg", Auth(Invalid)),
            ("rest.auth.garbage", Auth(Invalid)),
        ],
    );
}

#[test]
fn without_a_body_of_the_service_only_a_write_is_uncertain() {
    let kong = br#"{"message":"The upstream server is timing out"}"#;
    for (status, body, read, write) in [
        (500, &b""[..], Unavailable, Unknown),
        (502, b"<html>", Unavailable, Unknown),
        (504, kong, Unavailable, Unknown),
        (524, b"", Unavailable, Unknown),
        (503, b"", Unavailable, Unavailable),
        (522, b"", Unavailable, Unavailable),
        (408, b"", Unavailable, Unavailable),
        (429, b"", RateLimited, RateLimited),
        (413, b"<html>", TooLarge, TooLarge),
        (401, b"", Auth(Invalid), Auth(Invalid)),
        (403, b"", Forbidden, Forbidden),
        // Never "the object is missing": the service did not say so.
        (404, b"<html>", NoRoute, NoRoute),
        (404, br#"{"message":"Object not found"}"#, NoRoute, NoRoute),
        (409, b"", Rejected, Rejected),
        (302, b"", Malformed, Malformed),
    ] {
        let kind = |effect| classified(&effect, status, &[], body).kind;
        let found = (kind(Effect::Reads), kind(Effect::Writes));
        assert_eq!(found, (read, write), "{status}");
    }
}

#[test]
fn only_what_time_may_heal_is_retryable_and_only_lost_writes_are_uncertain() {
    let cases = [
        cases("supabase_storage_errors.jsonl"),
        cases("postgrest_errors.jsonl"),
    ];
    for (case, error) in cases.into_iter().flatten() {
        let heals = matches!(
            error.kind,
            Unavailable | RateLimited | Unknown | Auth(NotYetValid)
        );
        assert_eq!(error.is_retryable(), heals, "{case}");
        assert_eq!(error.outcome_unknown(), case == "edge error", "{case}");
    }
}

#[test]
fn the_server_says_how_long_to_wait() {
    for (value, seconds) in [
        ("7", Some(7)),
        ("999999", Some(3600)),
        ("Mon, 21 Sep 2026 14:13:30 GMT", Some(10)),
        ("Mon, 21 Sep 2020 14:13:30 GMT", Some(0)),
        ("soon", None),
    ] {
        let error = classified(&Effect::Reads, 429, &[("retry-after", value)], b"");
        let found = error.retry_after.map(|wait| wait.as_secs());
        assert_eq!(found, seconds, "{value}");
    }
}

#[test]
fn a_servers_words_are_quoted_without_the_key() {
    let message = |status, body: &str| {
        let body = body.as_bytes();
        classified(&Effect::Reads, status, &[], body).message
    };
    let quoted = message(400, &format!(r#"{{"message":"no {KEY}\nhere"}}"#));
    assert_eq!(
        quoted,
        "Supabase refused the request (HTTP 400): no (key) here"
    );
    for shown in [
        message(401, &format!(r#"{{"message":"bad {KEY}"}}"#)),
        message(400, &format!(r#"{{"code":"{KEY}","message":"{KEY}"}}"#)),
        // Cut by us within the key, and by the server.
        message(400, &format!("{}{KEY}", "x".repeat(290))),
        message(400, &format!("bad {}…", &KEY[..15])),
    ] {
        assert!(!shown.contains("0123"), "{shown}");
    }
}

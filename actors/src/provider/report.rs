//! What an error body says, whatever its shape.

use std::time::Duration;

use serde_json::Value;

use super::{failure::duration, text::canonical_json};

/// Longest quotation of an upstream, in characters.
const QUOTE_CHARS_MAX: usize = 500;

/// Stands at the end of a quotation that was cut.
pub(super) const CUT: char = '…';

/// The facts of an error body.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The upstream's words, cleaned and cut; absent if it sent none that a person should read.
    pub(super) message: Option<String>,
    /// `availability.retryable`.
    pub(super) retryable: Option<bool>,
    /// `availability.retry_after`.
    pub(super) retry_after: Option<Duration>,
    /// A status inside the body: `code` or `http_status`.
    code: Option<u16>,
    /// Every word that names the error: `type`, `error_type`, string codes.
    words: Vec<String>,
    /// The body tells what in the request is at fault: moderation, a guardrail, availability.
    about_the_request: bool,
}

impl Report {
    /// Reads a body, or the value of its `error` member; anything goes, an empty body too.
    pub(super) fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // Canonical, since a cut text may end in half a surrogate pair, which no parser takes.
        match serde_json::from_str::<Value>(&canonical_json(text)) {
            Ok(value) => Self::of(&value),
            Err(_) => Self {
                message: clean(text),
                ..Self::default()
            },
        }
    }

    fn of(body: &Value) -> Self {
        let body = match body {
            // Google's door wraps the object in a list.
            Value::Array(items) => items.first().unwrap_or(body),
            _ => body,
        };
        let error = body.get("error").filter(|error| is_truthy(error));
        let error = error.or_else(|| body.get("detail")).unwrap_or(body);
        let metadata = error.get("metadata").unwrap_or(&Value::Null);
        let availability = error.get("availability").unwrap_or(&Value::Null);
        let fields = [
            &error["code"],
            &error["status"],
            &error["type"],
            &error["error_type"],
            &metadata["error_type"],
            &metadata["provider_code"],
            &availability["code"],
        ];
        Self {
            message: message(error, metadata),
            retryable: availability["retryable"].as_bool(),
            retry_after: availability["retry_after"].as_f64().and_then(duration),
            code: [&error["code"], &error["http_status"]]
                .into_iter()
                .find_map(status),
            words: fields
                .into_iter()
                .filter_map(Value::as_str)
                .map(ToOwned::to_owned)
                .collect(),
            about_the_request: availability.is_object() || is_about_content(metadata),
        }
    }

    /// The status the body names, in a number or a word.
    pub(super) fn status(&self) -> Option<u16> {
        let by_word = || self.words.iter().find_map(|word| status_of_word(word));
        self.code.or_else(by_word)
    }

    pub(super) fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|found| found == word)
    }

    /// Whether a 403 is about what was asked, not about who asked.
    pub(super) fn is_about_the_request(&self) -> bool {
        let words = ["content_policy_violation", "refusal", "invalid_prompt"];
        self.about_the_request || words.iter().any(|word| self.has_word(word))
    }

    pub(super) fn is_context_too_long(&self) -> bool {
        // vLLM, and OpenRouter's hosts behind "invalid_request", say it in the text alone.
        let says_so = |message: &String| message.contains("maximum context length");
        self.has_word("context_length_exceeded")
            || self.has_word("exceed_context_size_error")
            || self.message.as_ref().is_some_and(says_so)
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// The words for people: of the error itself, and of the host behind it where the router's own
/// say nothing ("Provider returned error").
fn message(error: &Value, metadata: &Value) -> Option<String> {
    let own = words_of(error);
    let behind = metadata["raw"].as_str().and_then(|raw| {
        let raw = canonical_json(raw);
        match serde_json::from_str::<Value>(&raw) {
            Ok(value) => words_of(value.get("error").unwrap_or(&value)).map(ToOwned::to_owned),
            Err(_) => Some(raw),
        }
    });
    match (own, behind) {
        (Some(own), Some(behind)) if own.contains("returned error") => {
            clean(&format!("{own}: {behind}"))
        }
        (Some(own), _) => clean(own),
        (None, behind) => clean(&behind?),
    }
}

fn words_of(error: &Value) -> Option<&str> {
    match error {
        Value::String(text) => Some(text),
        // FastAPI's list of what is wrong with the body.
        Value::Array(items) => items.first().and_then(words_of),
        _ => ["message", "msg", "error", "detail"]
            .iter()
            .find_map(|key| error.get(key)?.as_str()),
    }
}

fn is_about_content(metadata: &Value) -> bool {
    let Value::Object(members) = metadata else {
        return false;
    };
    let starts = ["reasons", "flagged_input", "moderation", "guardrail"];
    members
        .keys()
        .any(|key| starts.iter().any(|start| key.starts_with(start)))
}

fn status(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|status| (400..600).contains(status))
}

/// OpenRouter's `error_type` vocabulary, and the types other servers use.
fn status_of_word(word: &str) -> Option<u16> {
    Some(match word {
        "invalid_request"
        | "invalid_request_error"
        | "BadRequestError"
        | "invalid_prompt"
        | "content_policy_violation"
        | "refusal"
        | "context_length_exceeded"
        | "exceed_context_size_error"
        | "max_tokens_exceeded"
        | "token_limit_exceeded"
        | "string_too_long"
        | "model_not_found"
        | "wrong_endpoint" => 400,
        "authentication" | "authentication_error" => 401,
        "payment_required" => 402,
        "permission_denied" | "permission_error" => 403,
        "not_found" | "not_found_error" | "NotFoundError" => 404,
        "payload_too_large" => 413,
        "unprocessable" => 422,
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "rate_limited"
        | "capacity_exhausted"
        | "insufficient_quota" => 429,
        "timeout" => 504,
        _ => return None,
    })
}

/// Makes an upstream's words fit to show: one line, no control characters, no key, bounded.
/// A web page is no words at all.
fn clean(text: &str) -> Option<String> {
    let start = text.trim_start().get(..64).unwrap_or(text.trim_start());
    let start = start.to_ascii_lowercase();
    if start.contains("<html") || start.contains("<!doctype") || start.starts_with('<') {
        return None;
    }
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if holds_key(word) { "(key)" } else { word });
    let mut cleaned = String::new();
    let mut left = QUOTE_CHARS_MAX;
    for word in words {
        if left > 0 && !cleaned.is_empty() {
            cleaned.push(' ');
        }
        cleaned.extend(word.chars().take(left));
        let chars = word.chars().count();
        if chars > left {
            cleaned.push(CUT);
            break;
        }
        left = left.saturating_sub(chars + 1);
    }
    (!cleaned.is_empty()).then_some(cleaned)
}

/// Whether a word holds something like an API key: `sk-…` at its start or behind a sign.
fn holds_key(word: &str) -> bool {
    word.match_indices("sk-")
        .any(|(at, _)| !word[..at].ends_with(|before: char| before.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &str) -> Option<String> {
        Report::read(body.as_bytes()).message
    }

    #[test]
    fn the_words_are_found_in_every_shape() {
        for body in [
            r#"{"error":{"message":"slow down"}}"#,
            r#"{"error":"slow down"}"#,
            r#"{"detail":"slow down"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"slow down"}]}"#,
            r#"{"detail":{"message":"slow down"}}"#,
            r#"{"object":"error","message":"slow down"}"#,
            r#"[{"error":{"message":"slow down"}}]"#,
            r#"{"error":null,"message":"slow down"}"#,
            r#"{"message":"slow\ndown"}"#,
            "slow\u{7} down\r\n",
        ] {
            assert_eq!(words(body).as_deref(), Some("slow down"), "{body}");
        }
    }

    #[test]
    fn there_may_be_no_words() {
        for body in [
            "",
            "  ",
            "{}",
            "null",
            "[]",
            "<html><b>524</b></html>",
            "<!DOCTYPE html>",
        ] {
            assert_eq!(words(body), None, "{body}");
        }
    }

    #[test]
    fn words_are_bounded_and_never_hold_a_key() {
        let long = words(&format!("{{\"error\":\"{}\"}}", "é ".repeat(5000))).unwrap();
        assert!(
            long.chars().count() <= QUOTE_CHARS_MAX + 1,
            "{}",
            long.len()
        );
        let one_word = words(&"x".repeat(10_000)).unwrap();
        assert!(one_word.chars().count() <= QUOTE_CHARS_MAX + 1);
        assert!(one_word.ends_with(CUT));
        let fits = "x".repeat(QUOTE_CHARS_MAX);
        assert_eq!(words(&fits), Some(fits));
        let keyed = words(r#"{"error":"Incorrect key=sk-or-v1-abc. risk-free"}"#).unwrap();
        assert_eq!(keyed, "Incorrect (key) risk-free");
    }

    #[test]
    fn half_a_surrogate_pair_does_not_hide_the_error() {
        let report = Report::read(
            br#"{"error":{"message":"Input was flagged","metadata":{"flagged_input":"x\ud83d"}}}"#,
        );
        assert_eq!(report.message.as_deref(), Some("Input was flagged"));
        assert!(report.is_about_the_request());
    }
}

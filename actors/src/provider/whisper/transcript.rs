//! Reads a transcript, in whichever form the upstream gives it.
//!
//! Pure. OpenAI's json and verbose_json, speaches' and whisper.cpp's, and plain text, which
//! whisper.cpp calls HTML.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::provider::{Upstream, UpstreamError, failure, hearing::Transcript};

#[derive(Deserialize)]
struct Body {
    text: Option<String>,
    /// verbose_json's.
    duration: Option<Value>,
    /// verbose_json's.
    #[serde(default)]
    segments: Option<Vec<Segment>>,
    usage: Option<Usage>,
    /// whisper.cpp may send it with status 200.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Segment {
    end: Option<f64>,
}

#[derive(Deserialize)]
struct Usage {
    seconds: Option<f64>,
}

/// Reads a whole answer.
pub(super) fn read(media: &str, body: Bytes) -> Result<Transcript, UpstreamError> {
    let malformed = || failure::failed(Upstream::Whisper, "sent an answer without a transcript");
    if !media.contains("json") {
        let text = std::str::from_utf8(&body).map_err(|_| malformed())?;
        if text.trim_start().starts_with('<') {
            let page = "answered with a web page; is the base URL right?";
            return Err(failure::failed(Upstream::Whisper, page));
        }
        let text = joined(text);
        let raw = (body.clone(), media.to_owned());
        return Ok(Transcript {
            text,
            seconds: None,
            raw,
        });
    }
    let read: Body = serde_json::from_slice(&body).map_err(|_| malformed())?;
    if read.error.is_some_and(|error| !error.is_null()) {
        return Err(failure::of_payload(Upstream::Whisper, &body));
    }
    let duration = read.duration.and_then(|duration| match duration {
        Value::Number(number) => number.as_f64(),
        // Older servers write it as text.
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let told = read.usage.and_then(|usage| usage.seconds);
    let segments = read.segments.unwrap_or_default();
    let last_heard = segments.last().and_then(|segment| segment.end);
    Ok(Transcript {
        text: joined(&read.text.ok_or_else(malformed)?),
        seconds: told
            .or(duration)
            .or(last_heard)
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
        raw: (body, media.to_owned()),
    })
}

/// On one line: whisper.cpp begins each segment with a space and ends it with a newline.
fn joined(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(media: &str, body: &'static str) -> Result<(String, Option<f64>), String> {
        let read = read(media, Bytes::from_static(body.as_bytes()));
        read.map(|it| (it.text, it.seconds))
            .map_err(|it| it.message)
    }

    #[test]
    fn every_form_of_a_transcript_is_read() {
        let json = "application/json";
        for (media, body, text, seconds) in [
            (json, r#"{"text":"Hello there."}"#, "Hello there.", None),
            (
                json,
                "{\"text\":\" Hello.\\n How are you?\\n\"}",
                "Hello. How are you?",
                None,
            ),
            (
                json,
                r#"{"text":"a","usage":{"type":"duration","seconds":3}}"#,
                "a",
                Some(3.0),
            ),
            (
                json,
                r#"{"text":"a","usage":{"type":"tokens","total_tokens":9}}"#,
                "a",
                None,
            ),
            (
                json,
                r#"{"task":"transcribe","duration":2.5,"text":"a"}"#,
                "a",
                Some(2.5),
            ),
            (
                json,
                r#"{"text":"a","segments":[{"end":1.5,"id":0},{"end":4.25}]}"#,
                "a",
                Some(4.25),
            ),
            (json, r#"{"text":"a","segments":null}"#, "a", None),
            (
                json,
                r#"{"duration":"2.5","text":"a","error":null}"#,
                "a",
                Some(2.5),
            ),
            (
                "text/html; charset=utf-8",
                " Hello.\n Bye.\n",
                "Hello. Bye.",
                None,
            ),
            ("text/plain", "", "", None),
        ] {
            assert_eq!(heard(media, body), Ok((text.to_owned(), seconds)), "{body}");
        }
    }

    #[test]
    fn what_is_no_transcript_is_an_error() {
        for (media, body, part) in [
            (
                "application/json",
                r#"{"error":"failed to read audio data"}"#,
                "failed to read",
            ),
            ("application/json", "{}", "without a transcript"),
            ("application/json", "<html>", "without a transcript"),
            ("text/html", "<html>", "base URL"),
        ] {
            let error = heard(media, body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}

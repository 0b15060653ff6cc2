//! Error answers with the bodies that providers really send.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::api::Api;
use crate::http::Answer;

/// The known error answers to chats, one JSON object a line.
const CASES: &str = include_str!("../../fixtures/errors.jsonl");
/// Those of the audio APIs; a name begins with its [`Api`].
const AUDIO_CASES: &str = include_str!("../../fixtures/audio_errors.jsonl");

static KNOWN: LazyLock<Vec<ErrorCase>> = LazyLock::new(|| {
    CASES
        .lines()
        .chain(AUDIO_CASES.lines())
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
});

/// One error answer: a status, headers and a body.
///
/// A body that is a JSON string is sent as the text itself; `null` is an empty body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ErrorCase {
    /// What option lists call it.
    pub name: String,
    /// The HTTP status.
    pub status: u16,
    /// Headers beside the length.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Value,
}

impl ErrorCase {
    /// Returns the known case of this name.
    pub fn named(name: &str) -> Option<Self> {
        KNOWN.iter().find(|case| case.name == name).cloned()
    }

    /// Returns the first known case of this status, or one of OpenRouter's shape.
    pub fn of_status(status: u16) -> Self {
        Api::OpenRouter.error(status)
    }

    /// Returns an HTML page of this status, as an edge in front of the API sends it.
    pub fn html(status: u16) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{status}</title></head>\n\
             <body><h1>{status}</h1><p>The edge has no answer.</p></body></html>\n"
        );
        Self {
            name: format!("html {status}"),
            status,
            headers: BTreeMap::from([("Content-Type".to_owned(), "text/html".to_owned())]),
            body: Value::String(page),
        }
    }

    /// Returns every known case.
    pub fn known() -> &'static [Self] {
        &KNOWN
    }

    pub(crate) fn answer(&self) -> Answer {
        let answer = match &self.body {
            Value::Null => Answer::new(self.status, "application/json", Vec::new()),
            Value::String(text) => Answer::new(self.status, "text/plain", text.as_str()),
            body => Answer::json(self.status, body),
        };
        self.headers
            .iter()
            .fold(answer, |answer, (name, value)| answer.header(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_case() {
        let lines = CASES.lines().count() + AUDIO_CASES.lines().count();
        assert_eq!(ErrorCase::known().len(), lines);
    }

    #[test]
    fn a_status_always_has_a_body() {
        for status in [
            400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 524, 529,
        ] {
            let case = ErrorCase::of_status(status);
            assert_eq!(case.status, status);
            assert!(!case.answer().body.is_empty());
            assert!(!case.name.starts_with("status"), "{status} has no fixture");
        }
        assert_eq!(ErrorCase::of_status(418).body["error"]["code"], 418);
    }

    #[test]
    fn an_api_has_its_own_shape_for_every_status() {
        let told = |api: Api, status| api.error(status).body;
        assert_eq!(
            told(Api::ElevenLabs, 429)["detail"]["status"],
            "too_many_concurrent_requests"
        );
        assert_eq!(
            told(Api::ElevenLabs, 504)["detail"]["message"],
            "Status 504"
        );
        assert_eq!(told(Api::OpenAi, 401)["error"]["code"], "invalid_api_key");
        assert_eq!(told(Api::OpenAi, 504)["error"]["param"], Value::Null);
        assert_eq!(
            told(Api::Speaches, 404)["detail"]
                .as_str()
                .map(|text| &text[..5]),
            Some("Model")
        );
        assert_eq!(
            told(Api::WhisperCpp, 500)["error"],
            "failed to process audio"
        );
    }

    #[test]
    fn headers_of_a_case_replace_the_defaults() {
        let answer = ErrorCase::html(503).answer();
        assert_eq!(
            answer.headers,
            [("Content-Type".to_owned(), "text/html".to_owned())]
        );
    }
}

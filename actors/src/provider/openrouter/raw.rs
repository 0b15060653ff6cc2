//! Takes what is needed out of raw JSON: values decoded, or copied in a form fit to pass on.

use std::borrow::Cow;

use memchr::memchr3;
use serde_json::value::RawValue;

use super::failure;
use crate::{
    json_text::{JsonText, unescape},
    provider::{
        RawJson, UpstreamError,
        text::{canonical_json, push_canonical},
    },
};

/// Decodes a raw JSON string; anything else is `None`.
pub(super) fn string(raw: &str) -> Option<String> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = JsonText::default();
    push_canonical(&mut text, inside);
    Some(unescape(text.as_escaped()))
}

/// Unix seconds, whether written as an integer, with a fraction, or as a string.
pub(super) fn seconds(raw: &str) -> i64 {
    let digits = raw.trim_matches('"').split('.').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// Copies raw JSON. It goes on to clients, so it is brought on one line and every escape in it
/// can be decoded.
pub(super) fn raw_json(raw: &RawValue) -> Result<RawJson, UpstreamError> {
    if is_plain(raw.get()) {
        return Ok(RawJson(raw.to_owned()));
    }
    parse_raw(canonical_json(raw.get()))
}

pub(super) fn parse_raw(json: String) -> Result<RawJson, UpstreamError> {
    RawValue::from_string(json)
        .map(RawJson)
        .map_err(|_| failure::failed("sent a malformed chunk of the reply"))
}

/// One JSON object of these members.
pub(super) fn object(members: &[(Cow<'_, str>, &RawValue)]) -> String {
    let mut json = String::from("{");
    for (name, value) in members {
        if json.len() > 1 {
            json.push(',');
        }
        json.push('"');
        json.push_str(JsonText::escape(name).as_escaped());
        json.push_str("\":");
        json.push_str(value.get());
    }
    json.push('}');
    if is_plain(&json) {
        return json;
    }
    canonical_json(&json)
}

/// Whether JSON has neither line ends nor escapes, and so is its own canonical form.
fn is_plain(json: &str) -> bool {
    memchr3(b'\n', b'\r', b'\\', json.as_bytes()).is_none()
}

//! A chat-completions request that can be asked again: of another model, or with the beginning of
//! its answer. Pure; everything else is copied byte for byte.

use std::{fmt, ops::Range};

use bytes::Bytes;

use crate::json_text::JsonText;

/// Body of a chat-completions request, complete JSON, `"stream":true` included.
#[derive(Clone)]
pub struct ChatBody {
    json: Bytes,
    places: Option<Places>,
}

/// Where in the JSON stands what another request has different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The model's name, escaped, without its quotes.
    pub model: Range<usize>,
    /// The bracket that ends the messages.
    pub messages_end: usize,
    /// The digits of `max_tokens`, where it is given.
    pub max_tokens: Option<Range<usize>>,
}

/// Fewest tokens that are asked for: some upstreams refuse less.
const MAX_TOKENS_LEAST: u32 = 16;

impl fmt::Debug for ChatBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatBody")
            .field("bytes", &self.json.len())
            .finish_non_exhaustive()
    }
}

impl ChatBody {
    /// A body whose places are known.
    #[must_use]
    pub fn new(json: impl Into<Bytes>, places: Places) -> Self {
        Self {
            json: json.into(),
            places: Some(places),
        }
    }

    /// The body as it was made.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The same request of this model.
    #[must_use]
    pub fn asking(&self, model: &str) -> Bytes {
        let Some(places) = &self.places else {
            return self.json.clone();
        };
        let model = JsonText::escape(model);
        if self.json.get(places.model.clone()) == Some(model.as_escaped().as_bytes()) {
            return self.json.clone();
        }
        self.spliced(&[(places.model.clone(), model.as_escaped())])
    }

    /// The request of this model to go on with a reply that begins with `prefix`, escaped;
    /// `spent` tokens of `max_tokens` are in it. None for a body whose places are not known.
    #[must_use]
    pub fn continuing(&self, model: &str, prefix: &str, spent: u32) -> Option<Bytes> {
        let places = self.places.as_ref()?;
        let model = JsonText::escape(model);
        let first = self.json.get(places.messages_end.checked_sub(1)?) == Some(&b'[');
        let comma = if first { "" } else { "," };
        let message = format!("{comma}{{\"role\":\"assistant\",\"content\":\"{prefix}\"}}");
        let end = places.messages_end..places.messages_end;
        let mut changes = vec![
            (places.model.clone(), model.as_escaped()),
            (end, message.as_str()),
        ];
        let left = places.max_tokens.clone().and_then(|digits| {
            let most: u32 = str::from_utf8(self.json.get(digits.clone())?)
                .ok()?
                .parse()
                .ok()?;
            let left = most.saturating_sub(spent).max(MAX_TOKENS_LEAST.min(most));
            Some((digits, left.to_string()))
        });
        if let Some((digits, left)) = &left {
            changes.push((digits.clone(), left));
        }
        Some(self.spliced(&changes))
    }

    /// A copy with these ranges replaced; they stand in order.
    fn spliced(&self, changes: &[(Range<usize>, &str)]) -> Bytes {
        let added: usize = changes.iter().map(|(_, text)| text.len()).sum();
        let mut json = Vec::with_capacity(self.json.len() + added);
        let mut from = 0;
        for (range, text) in changes {
            json.extend_from_slice(self.json.get(from..range.start).unwrap_or_default());
            json.extend_from_slice(text.as_bytes());
            from = range.end;
        }
        json.extend_from_slice(self.json.get(from..).unwrap_or_default());
        json.into()
    }
}

/// A body that can only be sent as it is.
impl From<Bytes> for ChatBody {
    fn from(json: Bytes) -> Self {
        Self { json, places: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body() -> ChatBody {
        let json =
            r#"{"model":"a\"b","messages":[{"role":"user","content":"hi"}],"max_tokens":100}"#;
        let messages_end = json.find(']').unwrap();
        let digits = json.find("100").unwrap();
        ChatBody::new(
            json,
            Places {
                model: 10..14,
                messages_end,
                max_tokens: Some(digits..digits + 3),
            },
        )
    }

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_model_asked_first_is_asked_with_the_same_bytes() {
        let body = body();
        assert_eq!(body.asking("a\"b"), body.json());
        let other = value(&body.asking("c\\d"));
        let mut expected = value(body.json());
        expected["model"] = json!("c\\d");
        assert_eq!(other, expected);
    }

    #[test]
    fn a_continuation_ends_with_what_there_is() {
        let body = body();
        let prefix = JsonText::escape("so\nfar \"");
        let bytes = body.continuing("c", prefix.as_escaped(), 30).unwrap();
        let mut expected = value(body.json());
        expected["model"] = json!("c");
        expected["max_tokens"] = json!(70);
        let messages = expected["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": "so\nfar \""}));
        assert_eq!(value(&bytes), expected);
    }

    #[test]
    fn some_tokens_are_always_asked_for() {
        let body = body();
        let bytes = body.continuing("c", "x", 5_000).unwrap();
        assert_eq!(value(&bytes)["max_tokens"], 16);
    }

    #[test]
    fn a_body_of_unknown_places_goes_as_it_is() {
        let body = ChatBody::from(Bytes::from_static(b"{}"));
        assert_eq!(body.asking("c"), "{}");
        assert!(body.continuing("c", "x", 0).is_none());
    }
}

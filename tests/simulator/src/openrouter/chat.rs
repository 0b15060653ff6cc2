//! A chat completion request, as far as the simulator reads it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::chunk::Envelope;
use super::reply::{Prefix, Source};
use super::script::Script;
use super::text::Text;
use super::usage::Tally;

/// The fields of a request that an answer depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest<'b> {
    #[serde(borrow)]
    pub(crate) model: Option<Cow<'b, str>>,
    pub(crate) stream: Option<bool>,
    #[serde(borrow)]
    messages: &'b RawValue,
}

/// The model of a request that names none.
const DEFAULT_MODEL: &str = "example/model-1";

static REPLIES: AtomicU64 = AtomicU64::new(1);

impl ChatRequest<'_> {
    pub(crate) fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    /// Returns the text that a script replies with to this request.
    pub(crate) fn reply_text(&self, script: &Script) -> Text {
        let text = match script.reply.source {
            Source::Echo => Text::of_words(&self.last_user_message()),
            Source::Generated | Source::Exact(_) | Source::Raw(_) => script.reply.text(),
        };
        match self.assistant_prefix() {
            Some(prefix) => continued(text, &prefix, script.reply.prefix),
            None => text,
        }
    }

    /// Returns the text that the request ends with in the assistant's name.
    fn assistant_prefix(&self) -> Option<String> {
        let messages: Vec<Value> = serde_json::from_str(self.messages.get()).ok()?;
        let last = messages.last().filter(|it| it["role"] == "assistant")?;
        last["content"].as_str().map(str::to_owned)
    }

    /// Returns the text of the last user message, its text parts joined.
    fn last_user_message(&self) -> String {
        let messages: Vec<Value> = serde_json::from_str(self.messages.get()).unwrap_or_default();
        let last = messages
            .iter()
            .rev()
            .find(|message| message["role"] == "user");
        match last.map(|message| &message["content"]) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect(),
            _ => String::new(),
        }
    }

    /// Makes the names of a new reply to this request.
    pub(crate) fn envelope(&self) -> Envelope {
        let number = REPLIES.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let created = now.map_or(0, |since| since.as_secs());
        Envelope {
            id: format!("gen-{created}-Sim{number:017}"),
            created,
            model: self.model().to_owned(),
        }
    }

    /// Returns what the usage of the reply is computed from: four bytes of messages a token.
    pub(crate) fn tally(&self, script: &Script) -> Tally {
        let measured = self.messages.get().len().div_ceil(4) as u64;
        Tally {
            prompt: script.reply.prompt_tokens.unwrap_or(measured),
            reasoning: script.reply.reasoning().len(),
            cost: script.reply.cost,
        }
    }
}

/// Returns what is told of a reply whose beginning is there already.
fn continued(text: Text, there: &str, how: Prefix) -> Text {
    let back = match how {
        Prefix::Ignored => return text,
        Prefix::Finished => return Text::Pieces(Vec::new()),
        Prefix::Continued => 0,
        Prefix::Repeated(bytes) => bytes,
    };
    let whole = text.joined();
    // A beginning that is not the reply's own is continued with the whole reply.
    let there = if whole.starts_with(there) { there } else { "" };
    let mut from = there.len().saturating_sub(back);
    while !whole.is_char_boundary(from) {
        from -= 1;
    }
    match &whole[from..] {
        "" => Text::Pieces(Vec::new()),
        rest => Text::of_words(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(body: &str) -> String {
        serde_json::from_str::<ChatRequest<'_>>(body)
            .unwrap()
            .last_user_message()
    }

    #[test]
    fn the_last_user_message_is_found() {
        let body = r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b\n"},
            {"role":"assistant","content":"c"}]}"#;
        assert_eq!(last_of(body), "b\n");
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"},
            {"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"y"}]}]}"#;
        assert_eq!(last_of(parts), "xy");
        assert_eq!(last_of(r#"{"messages":[]}"#), "");
    }

    #[test]
    fn a_beginning_is_continued_in_each_way() {
        let text = || Text::of_words("one two three four");
        let told = |there, how| continued(text(), there, how).joined();
        assert_eq!(told("one two", Prefix::Ignored), "one two three four");
        assert_eq!(told("one two", Prefix::Continued), " three four");
        assert_eq!(told("one two", Prefix::Repeated(3)), "two three four");
        assert_eq!(told("one two", Prefix::Repeated(99)), "one two three four");
        assert_eq!(told("one two", Prefix::Finished), "");
        assert_eq!(told("other", Prefix::Continued), "one two three four");
    }

    #[test]
    fn a_request_needs_messages() {
        assert!(serde_json::from_str::<ChatRequest<'_>>("{}").is_err());
    }
}

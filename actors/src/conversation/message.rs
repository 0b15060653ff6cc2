//! One message, kept once: as the JSON object that the document shows.
//!
//! Its members are ordered so that the form which goes into a prompt is a prefix of it:
//! `{"role","content","name"?,"tool_call_id"?,"tool_calls"?` is the prompt form, then come
//! `"timestamp","id","turn_id"?,"model"?,"finish_reason"?,"models"?,"unsaid"?}`. Prompts and documents
//! copy bytes; nothing is serialized again. What a message has replaced is shown behind that, as the
//! member `alternatives`.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    id::{MessageId, TurnId},
    json_text::{JsonText, decoded_len, escaped_at_or_below},
    log::entry::CANCELLED,
    provider::RawJson,
    time::Timestamp,
};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The companion.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// Instructions. Found in imported documents only, where they stay out of prompts.
    System,
}

impl Role {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::System => "system",
        }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(JsonText),
    /// Content parts (text, images, …): a raw JSON array, stored and passed on as given.
    Parts(RawJson),
    /// Nothing, beside tool calls.
    Null,
}

/// A message that is not stored yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Draft {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// Name of the speaker, or of the tool.
    pub name: Option<JsonText>,
    /// Which tool call this answers.
    pub tool_call_id: Option<JsonText>,
    /// Raw JSON array of the calls an assistant makes.
    pub tool_calls: Option<RawJson>,
}

impl Draft {
    /// A message of plain text.
    #[must_use]
    pub fn text(role: Role, text: JsonText) -> Self {
        Self {
            role,
            content: Content::Text(text),
            name: None,
            tool_call_id: None,
            tool_calls: None,
        }
    }

    /// `{"role":…,"content":…` up to the end of the content, and the rest of the prompt form.
    fn prompt_form(&self, capacity: usize) -> (String, usize) {
        let mut json = String::with_capacity(capacity);
        json.push_str("{\"role\":\"");
        json.push_str(self.role.as_str());
        json.push_str("\",\"content\":");
        match &self.content {
            Content::Text(text) => push_string(&mut json, text),
            Content::Parts(parts) => json.push_str(parts.get()),
            Content::Null => json.push_str("null"),
        }
        let content_end = json.len();
        for (member, value) in [("name", &self.name), ("tool_call_id", &self.tool_call_id)] {
            if let Some(value) = value {
                push_member(&mut json, member);
                push_string(&mut json, value);
            }
        }
        if let Some(calls) = &self.tool_calls {
            push_member(&mut json, "tool_calls");
            json.push_str(calls.get());
        }
        (json, content_end)
    }

    /// Role and content as bytes, for comparing with a stored message.
    #[must_use]
    pub fn comparable(&self) -> String {
        let (mut json, content_end) = self.prompt_form(64);
        json.truncate(content_end);
        json
    }
}

/// What a stored message has beside its draft.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// When.
    pub timestamp: Timestamp,
    /// Its id.
    pub id: MessageId,
    /// The turn it belongs to; none for imported messages.
    pub turn: Option<TurnId>,
    /// Model that wrote it, the last one of several (replies).
    pub model: Option<&'a str>,
    /// All that wrote it, in order, where there are several.
    pub models: &'a [String],
    /// Why it ends (replies).
    pub finish_reason: Option<&'a str>,
}

/// A message of the history. 40 bytes beside the text, which log, mirror and sessions share.
#[derive(Clone, PartialEq)]
pub struct StoredMessage {
    fragment: Arc<str>,
    /// What it replaced and is shown with it, oldest first; these have none themselves.
    alternatives: Option<Arc<Vec<StoredMessage>>>,
    content_end: u32,
    prompt_end: u32,
    tokens: u32,
    role: Role,
}

impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("role", &self.role)
            .field("bytes", &self.fragment.len())
            .finish_non_exhaustive()
    }
}

/// A fragment that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored message is malformed: {0}")]
pub struct MalformedFragment(pub String);

/// What precedes the timestamp in a fragment.
const TIMESTAMP_MEMBER: &str = ",\"timestamp\":";

/// What precedes the text of a reply that was not heard, the last member of a fragment.
const UNSAID_MEMBER: &str = ",\"unsaid\":\"";

/// What precedes the alternatives of a message that is shown with them.
const ALTERNATIVES_MEMBER: &str = ",\"alternatives\":";

/// Most alternatives that a message is shown with, and most bytes of them: the newest are, and the
/// newest one always. All of them stay in the log.
pub const ALTERNATIVES_MAX: (usize, usize) = (16, 256 << 10);

impl StoredMessage {
    /// Makes the fragment of a new message.
    #[must_use]
    pub fn new(draft: &Draft, stamp: &Stamp<'_>) -> Self {
        let content_bytes = match &draft.content {
            Content::Text(text) => text.as_escaped().len(),
            Content::Parts(parts) => parts.get().len(),
            Content::Null => 4,
        };
        let (mut json, content_end) = draft.prompt_form(content_bytes + 256);
        let prompt_end = json.len();
        json.push_str(TIMESTAMP_MEMBER);
        json.push('"');
        json.push_str(&stamp.timestamp.to_string());
        json.push_str("\",\"id\":\"");
        json.push_str(
            stamp
                .id
                .0
                .hyphenated()
                .encode_lower(&mut Uuid::encode_buffer()),
        );
        json.push('"');
        if let Some(turn) = stamp.turn {
            json.push_str(",\"turn_id\":\"");
            json.push_str(turn.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            json.push('"');
        }
        for (member, value) in [
            ("model", stamp.model),
            ("finish_reason", stamp.finish_reason),
        ] {
            if let Some(value) = value {
                push_member(&mut json, member);
                push_string(&mut json, &JsonText::escape(value));
            }
        }
        if stamp.models.len() > 1 {
            push_member(&mut json, "models");
            for (index, model) in stamp.models.iter().enumerate() {
                json.push(if index == 0 { '[' } else { ',' });
                push_string(&mut json, &JsonText::escape(model));
            }
            json.push(']');
        }
        json.push('}');
        Self {
            tokens: estimate_tokens(&json[..prompt_end]),
            fragment: json.into(),
            alternatives: None,
            content_end: index(content_end),
            prompt_end: index(prompt_end),
            role: draft.role,
        }
    }

    /// Reads a fragment back from the log, with alternatives if [`StoredMessage::whole`] wrote them.
    pub fn from_fragment(fragment: Arc<str>) -> Result<Self, MalformedFragment> {
        #[derive(Deserialize)]
        struct Shape<'a> {
            role: Role,
            #[serde(borrow)]
            content: &'a RawValue,
            #[serde(borrow)]
            timestamp: &'a RawValue,
            #[serde(borrow, default)]
            alternatives: Option<&'a RawValue>,
        }
        let malformed = |error: serde_json::Error| MalformedFragment(error.to_string());
        let shape: Shape<'_> = serde_json::from_str(&fragment).map_err(malformed)?;
        let position = |raw: &RawValue| raw.get().as_ptr().addr() - fragment.as_ptr().addr();
        if let Some(alternatives) = shape.alternatives {
            let own = position(alternatives)
                .checked_sub(ALTERNATIVES_MEMBER.len())
                .filter(|own| fragment[*own..].starts_with(ALTERNATIVES_MEMBER))
                .ok_or_else(|| MalformedFragment("its alternatives are not its last".into()))?;
            let list: Vec<&RawValue> =
                serde_json::from_str(alternatives.get()).map_err(malformed)?;
            let list = list
                .into_iter()
                .map(|raw| Self::from_fragment(raw.get().into()));
            let alternatives: Vec<_> = list.collect::<Result<_, _>>()?;
            let plain = Self::from_fragment(format!("{}}}", &fragment[..own]).into())?;
            return Ok(plain.with_alternatives(alternatives));
        }
        let content_end = position(shape.content) + shape.content.get().len();
        let prompt_end = position(shape.timestamp)
            .checked_sub(TIMESTAMP_MEMBER.len())
            .filter(|end| *end >= content_end && fragment[*end..].starts_with(TIMESTAMP_MEMBER))
            .ok_or_else(|| {
                MalformedFragment("the timestamp does not follow the prompt form".into())
            })?;
        Ok(Self {
            tokens: estimate_tokens(&fragment[..prompt_end]),
            role: shape.role,
            content_end: index(content_end),
            prompt_end: index(prompt_end),
            alternatives: None,
            fragment,
        })
    }

    /// The reply with more of its text, which nobody heard.
    #[must_use]
    pub fn with_unsaid(self, text: &JsonText) -> Self {
        let mut json = String::with_capacity(self.fragment.len() + text.as_escaped().len() + 16);
        json.push_str(&self.fragment);
        json.pop();
        push_member(&mut json, "unsaid");
        push_string(&mut json, text);
        json.push('}');
        Self {
            fragment: json.into(),
            ..self
        }
    }

    /// The text that was not heard, escaped; none if its listener heard all of it.
    #[must_use]
    pub fn unsaid(&self) -> Option<&str> {
        let behind = &self.fragment[self.prompt_end as usize..];
        // Within a string the quotes would be escaped.
        let start = behind.find(UNSAID_MEMBER)? + UNSAID_MEMBER.len();
        behind[start..].strip_suffix("\"}")
    }

    /// The reply of which so many UTF-8 bytes were heard, not counting a character in which they
    /// end: that is its content, and the rest is unsaid. None if it has no more text than that.
    #[must_use]
    pub fn heard(&self, bytes: usize) -> Option<Self> {
        #[derive(Deserialize)]
        struct Shape {
            name: Option<JsonText>,
            tool_call_id: Option<JsonText>,
            tool_calls: Option<RawJson>,
            turn_id: Option<TurnId>,
            model: Option<String>,
            #[serde(default)]
            models: Vec<String>,
        }
        let (heard, unheard) = {
            let text = &self.fragment[self.text_range()];
            text.split_at(escaped_at_or_below(text, bytes))
        };
        if unheard.is_empty() {
            return None;
        }
        let shape: Shape = serde_json::from_str(&self.fragment).ok()?;
        let (mut content, mut unsaid) = (JsonText::default(), JsonText::default());
        content.push_escaped(heard);
        unsaid.push_escaped(unheard);
        unsaid.push_escaped(self.unsaid().unwrap_or_default());
        let draft = Draft {
            role: self.role,
            content: Content::Text(content),
            name: shape.name,
            tool_call_id: shape.tool_call_id,
            tool_calls: shape.tool_calls,
        };
        let stamp = Stamp {
            timestamp: self.timestamp(),
            id: self.id()?,
            turn: shape.turn_id,
            model: shape.model.as_deref(),
            models: &shape.models,
            finish_reason: Some(CANCELLED),
        };
        let reply = Self::new(&draft, &stamp).with_unsaid(&unsaid);
        Some(Self {
            alternatives: self.alternatives.clone(),
            ..reply
        })
    }

    /// Whether it says nothing at all: a reply that was stopped before anything of it was heard.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.prompt_prefix() == "{\"role\":\"assistant\",\"content\":\"\""
    }

    /// Role and content with what is unsaid of it, comparable with [`Draft::comparable`].
    #[must_use]
    pub fn uncut(&self) -> Cow<'_, str> {
        match self.unsaid() {
            None => self.comparable().into(),
            Some(unsaid) => {
                let heard = &self.fragment[..self.text_range().end];
                format!("{heard}{unsaid}\"").into()
            }
        }
    }

    /// UTF-8 bytes of the text of a plain-text message.
    #[must_use]
    pub fn text_len(&self) -> usize {
        decoded_len(&self.fragment[self.text_range()])
    }

    /// The JSON object, as the document shows it but for its alternatives.
    #[must_use]
    pub fn fragment(&self) -> &Arc<str> {
        &self.fragment
    }

    /// What it replaced and is shown with it, oldest first.
    #[must_use]
    pub fn alternatives(&self) -> &[Self] {
        self.alternatives.as_ref().map_or(&[], |all| all)
    }

    /// The message, with the newest of these as its alternatives, as many as may be shown.
    #[must_use]
    pub fn with_alternatives(mut self, mut alternatives: Vec<Self>) -> Self {
        let (count_max, bytes_max) = ALTERNATIVES_MAX;
        let mut bytes = 0;
        let fit = alternatives.iter().rev().take(count_max).take_while(|it| {
            bytes += it.bytes();
            bytes <= bytes_max
        });
        let shown = fit.count().max(1).min(alternatives.len());
        alternatives.drain(..alternatives.len() - shown);
        for alternative in &mut alternatives {
            alternative.alternatives = None;
        }
        self.alternatives = (shown > 0).then(|| Arc::new(alternatives));
        self
    }

    /// The whole JSON object, as the document shows it.
    #[must_use]
    pub fn whole(&self) -> Arc<str> {
        if self.alternatives().is_empty() {
            return self.fragment.clone();
        }
        let mut json = String::with_capacity(self.shown_bytes());
        self.push_whole(&mut json, &|json, message| json.push_str(&message.fragment));
        json.into()
    }

    /// Writes the whole JSON object, where `push` writes a fragment.
    pub fn push_whole(&self, json: &mut String, push: &impl Fn(&mut String, &Self)) {
        push(json, self);
        let alternatives = self.alternatives();
        if alternatives.is_empty() {
            return;
        }
        json.pop();
        json.push_str(ALTERNATIVES_MEMBER);
        for (index, alternative) in alternatives.iter().enumerate() {
            json.push(if index == 0 { '[' } else { ',' });
            push(json, alternative);
        }
        json.push_str("]}");
    }

    /// The prompt form without its closing brace.
    #[must_use]
    pub fn prompt_prefix(&self) -> &str {
        &self.fragment[..self.prompt_end as usize]
    }

    /// Role and content, as [`Draft::comparable`] gives them.
    #[must_use]
    pub fn comparable(&self) -> &str {
        &self.fragment[..self.content_end as usize]
    }

    /// Where the text of a plain-text message lies in the fragment, without its quotes.
    #[must_use]
    pub fn text_range(&self) -> std::ops::Range<usize> {
        let start = "{\"role\":\"".len() + self.role.as_str().len() + "\",\"content\":\"".len();
        let end = (self.content_end as usize).saturating_sub(1);
        if self.fragment.as_bytes().get(start - 1) == Some(&b'"') && start <= end {
            start..end
        } else {
            0..0
        }
    }

    /// Who speaks.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Estimated tokens in a prompt.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Bytes of the fragment.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.fragment.len()
    }

    /// Bytes of the whole JSON object.
    #[must_use]
    pub fn shown_bytes(&self) -> usize {
        let alternatives = self.alternatives();
        let bytes: usize = alternatives.iter().map(|it| it.bytes() + 1).sum();
        let around = if bytes == 0 {
            0
        } else {
            ALTERNATIVES_MEMBER.len() + 1
        };
        self.bytes() + bytes + around
    }

    /// When, as the document shows it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        let start = self.timestamp_start();
        Timestamp::parse(&self.fragment[start..start + Timestamp::TEXT_BYTES])
            .unwrap_or(Timestamp::from_micros(0))
    }

    /// The same message at another time: of a turn that waited behind a longer reply.
    #[must_use]
    pub fn at(&self, timestamp: Timestamp) -> Self {
        let start = self.timestamp_start();
        let mut json = String::from(&*self.fragment);
        json.replace_range(start..start + Timestamp::TEXT_BYTES, &timestamp.to_string());
        Self {
            fragment: json.into(),
            alternatives: self.alternatives.clone(),
            ..*self
        }
    }

    /// Where the digits of the timestamp begin.
    #[must_use]
    pub fn timestamp_start(&self) -> usize {
        self.prompt_end as usize + TIMESTAMP_MEMBER.len() + 1
    }

    /// The model that wrote it, for replies that name it.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Shape {
            model: Option<String>,
        }
        serde_json::from_str::<Shape>(&self.fragment).ok()?.model
    }

    /// All models that wrote it, where there are several.
    #[must_use]
    pub fn models(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(default)]
            models: Vec<String>,
        }
        serde_json::from_str::<Shape>(&self.fragment)
            .map(|shape| shape.models)
            .unwrap_or_default()
    }

    /// The tool calls that it asks for.
    #[must_use]
    pub fn tool_calls(&self) -> Option<RawJson> {
        #[derive(Deserialize)]
        struct Shape {
            tool_calls: Option<RawJson>,
        }
        let shape: Shape = serde_json::from_str(&self.fragment).ok()?;
        shape.tool_calls
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Option<MessageId> {
        let start = self.timestamp_start() + Timestamp::TEXT_BYTES + "\",\"id\":\"".len();
        let text = self.fragment.get(start..start + 36)?;
        Uuid::try_parse(text).ok().map(MessageId)
    }
}

/// Estimates the tokens of a message's prompt form.
///
/// One token for four ASCII bytes (JSON framing included), one for each other character, and four
/// for the message itself: on English prose some 10 % above what common tokenizers count, on CJK
/// about right. Erring high only cuts the history a little earlier.
#[must_use]
pub fn estimate_tokens(prompt_form: &str) -> u32 {
    let (mut ascii, mut other) = (0_usize, 0_usize);
    for byte in prompt_form.bytes() {
        // Continuation bytes (10xxxxxx) belong to a character already counted.
        match byte {
            0x00..=0x7f => ascii += 1,
            0x80..=0xbf => {}
            0xc0..=0xff => other += 1,
        }
    }
    index(ascii.div_ceil(4) + other + 4)
}

/// Sizes here are bounded by the body and reply limits, far below 4 GiB.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn push_member(json: &mut String, member: &str) {
    json.push_str(",\"");
    json.push_str(member);
    json.push_str("\":");
}

fn push_string(json: &mut String, text: &JsonText) {
    json.push('"');
    json.push_str(text.as_escaped());
    json.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp<'static> {
        Stamp {
            timestamp: Timestamp::from_micros(1_800_000_000_000_001),
            id: MessageId::now(),
            turn: Some(TurnId::now()),
            model: Some("a/\"b\""),
            models: &[],
            finish_reason: Some("stop"),
        }
    }

    proptest! {
        #[test]
        fn a_fragment_reads_back_as_it_was_made(text in "\\PC*", named in proptest::option::of("[a-z\"]{1,8}"), calls in any::<bool>()) {
            let draft = Draft {
                role: Role::Assistant,
                content: Content::Text(JsonText::escape(&text)),
                name: named.map(|name| JsonText::escape(&name)),
                tool_call_id: None,
                tool_calls: calls.then(|| RawJson(RawValue::from_string("[{\"timestamp\":\"x\"}]".into()).unwrap())),
            };
            let stamp = stamp();
            let message = StoredMessage::new(&draft, &stamp);
            let again = StoredMessage::from_fragment(message.fragment().clone()).unwrap();
            prop_assert_eq!(&again, &message);
            prop_assert_eq!(message.comparable(), draft.comparable());
            prop_assert_eq!(message.timestamp(), stamp.timestamp);
            prop_assert_eq!(message.id(), Some(stamp.id));
            let value: serde_json::Value = serde_json::from_str(message.fragment()).unwrap();
            prop_assert_eq!(&value["content"], &text);
                let wanted = JsonText::escape(&text);
            prop_assert_eq!(&message.fragment()[message.text_range()], wanted.as_escaped());
            let prompt: serde_json::Value = serde_json::from_str(&format!("{}}}", message.prompt_prefix())).unwrap();
            prop_assert!(prompt.get("timestamp").is_none() && prompt.get("id").is_none());
            let later = message.at(stamp.timestamp.next());
            prop_assert_eq!(later.timestamp(), stamp.timestamp.next());
            prop_assert_eq!(later.bytes(), message.bytes());
        }
    }

    proptest! {
        #[test]
        fn what_was_heard_and_what_was_not_are_the_whole(
            text in "([é\"\\\\\n\u{1}a-c🚀]|,\"unsaid\":\"){0,12}", cuts in prop::collection::vec(0_usize..40, 1..4),
            calls in any::<bool>(), alternative in any::<bool>(),
        ) {
            let draft = Draft {
                tool_calls: calls.then(|| RawJson(RawValue::from_string("[{\"unsaid\":\"x\"}]".into()).unwrap())),
                ..Draft::text(Role::Assistant, JsonText::escape(&text))
            };
            let all = alternative.then(|| plain("old")).into_iter().collect();
            let models = ["a\",\"unsaid\":\"".to_owned(), "b".to_owned()];
            let whole = StoredMessage::new(&draft, &Stamp { models: &models, ..stamp() }).with_alternatives(all);
            prop_assert_eq!(whole.unsaid(), None);
            let mut message = whole.clone();
            for bytes in cuts {
                let before = crate::json_text::unescape(&message.fragment()[message.text_range()]);
                let bound = (0..=bytes.min(before.len())).rfind(|it| before.is_char_boundary(*it)).unwrap();
                let Some(heard) = message.heard(bytes) else {
                    prop_assert_eq!(bound, before.len());
                    continue;
                };
                prop_assert!(bound < before.len(), "there is less of it than before");
                prop_assert_eq!(heard.text_len(), bound);
                let value: serde_json::Value = serde_json::from_str(heard.fragment()).unwrap();
                prop_assert_eq!(&value["content"], &text[..bound]);
                prop_assert_eq!(&value["unsaid"], &text[bound..]);
                prop_assert_eq!(&value["finish_reason"], "cancelled");
                let wanted: serde_json::Value = serde_json::from_str(whole.fragment()).unwrap();
                for same in ["tool_calls", "model", "models", "id", "turn_id", "timestamp"] {
                    prop_assert_eq!(value.get(same), wanted.get(same), "{}", same);
                }
                prop_assert_eq!(heard.uncut(), whole.comparable());
                prop_assert!(!heard.prompt_prefix().contains(",\"unsaid\":\""));
                prop_assert_eq!(heard.is_silent(), bound == 0 && !calls);
                prop_assert_eq!(heard.alternatives(), whole.alternatives());
                prop_assert_eq!(&StoredMessage::from_fragment(heard.whole()).unwrap(), &heard);
                message = heard;
            }
        }
    }

    #[test]
    fn only_text_is_heard() {
        for content in [
            Content::Null,
            Content::Parts(RawJson(RawValue::from_string("[\"a\"]".into()).unwrap())),
        ] {
            let draft = Draft {
                content,
                ..Draft::text(Role::Assistant, JsonText::default())
            };
            assert_eq!(StoredMessage::new(&draft, &stamp()).heard(0), None);
        }
    }

    fn plain(text: &str) -> StoredMessage {
        let draft = Draft::text(Role::Assistant, JsonText::escape(text));
        StoredMessage::new(&draft, &stamp())
    }

    proptest! {
        #[test]
        fn a_message_reads_back_with_its_alternatives(texts in prop::collection::vec("\\PC*", 1..5)) {
            let all = texts.iter().map(|text| plain(text)).collect();
            // What stands in a text must not be taken for the member.
            let message = plain("\",\"alternatives\":[{}]").with_alternatives(all);
            let whole = message.whole();
            prop_assert_eq!(whole.len(), message.shown_bytes());
            let again = StoredMessage::from_fragment(whole.clone()).unwrap();
            prop_assert_eq!(&again, &message);
            prop_assert_eq!(again.whole(), whole.clone());
            prop_assert!(!again.fragment().contains(&*texts[0]) || texts[0].len() < 40);
            let value: serde_json::Value = serde_json::from_str(&whole).unwrap();
            prop_assert_eq!(value["alternatives"].as_array().unwrap().len(), texts.len());
            prop_assert_eq!(&value["alternatives"][0]["content"], &texts[0]);
        }
    }

    #[test]
    fn the_newest_alternatives_are_shown_as_many_as_there_is_room_for() {
        let (count, bytes) = ALTERNATIVES_MAX;
        let many: Vec<_> = (0..count + 3).map(|it| plain(&it.to_string())).collect();
        let message = plain("new").with_alternatives(many.clone());
        assert_eq!(message.alternatives(), &many[3..]);
        let huge = || plain(&"x".repeat(bytes));
        let message = plain("new").with_alternatives(vec![plain("old"), huge()]);
        assert_eq!(
            message.alternatives().len(),
            1,
            "the newest is shown even so"
        );
        let message = plain("new").with_alternatives(vec![huge(), plain("old")]);
        assert_eq!(message.alternatives().len(), 1);
        assert!(
            plain("new")
                .with_alternatives(vec![])
                .alternatives()
                .is_empty()
        );
    }

    #[test]
    fn the_models_are_named_where_there_are_several() {
        let draft = Draft::text(Role::Assistant, JsonText::escape("x"));
        let models = ["a/\"b\"".to_owned(), "c".to_owned()];
        for (given, found) in [(&models[..], &models[..]), (&models[..1], &[])] {
            let stamp = Stamp {
                models: given,
                ..stamp()
            };
            let message = StoredMessage::new(&draft, &stamp);
            assert_eq!(message.models(), found);
            let value: serde_json::Value = serde_json::from_str(message.fragment()).unwrap();
            assert_eq!(value.get("models").is_some(), !found.is_empty());
        }
    }

    #[test]
    fn the_estimate_counts_other_scripts_by_character() {
        assert_eq!(estimate_tokens("12345678"), 6);
        assert_eq!(estimate_tokens("東京"), 6);
    }
}

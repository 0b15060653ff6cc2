//! One message, kept once: as the JSON object that the document shows.
//!
//! Its members are ordered so that the form which goes into a prompt is a prefix of it:
//! `{"role","content","name"?,"tool_call_id"?,"tool_calls"?` is the prompt form, then come
//! `"timestamp","id","turn_id"?,"model"?,"finish_reason"?,"models"?,"unsaid"?}`. Prompts and documents
//! copy bytes; nothing is serialized again. What a message has replaced is shown behind that, as the
//! member `alternatives`.

use std::{fmt, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

mod draft;
#[cfg(test)]
mod tests;
mod unsaid;

pub use draft::{Content, Draft, Role};
use draft::{push_member, push_string};

use crate::{
    id::{MessageId, TurnId},
    json_text::{JsonText, decoded_len},
    provider::RawJson,
    time::Timestamp,
};

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

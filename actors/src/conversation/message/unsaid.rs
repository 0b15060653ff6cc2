//! Replies that were heard in part: what was heard is the reply, the rest is kept beside it.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Content, Draft, Stamp, StoredMessage, push_member, push_string};
use crate::{
    id::TurnId,
    json_text::{JsonText, escaped_at_or_below},
    log::entry::CANCELLED,
    provider::RawJson,
};

/// What precedes the text of a reply that was not heard, the last member of a fragment.
const UNSAID_MEMBER: &str = ",\"unsaid\":\"";

impl StoredMessage {
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
}

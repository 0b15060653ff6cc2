//! A message before it is stored: who says what.

use serde::{Deserialize, Serialize};

use crate::{json_text::JsonText, provider::RawJson};

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
    pub(super) fn prompt_form(&self, capacity: usize) -> (String, usize) {
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

pub(super) fn push_member(json: &mut String, member: &str) {
    json.push_str(",\"");
    json.push_str(member);
    json.push_str("\":");
}

pub(super) fn push_string(json: &mut String, text: &JsonText) {
    json.push('"');
    json.push_str(text.as_escaped());
    json.push('"');
}

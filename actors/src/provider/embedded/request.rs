//! What the companion reads of a chat-completions request.

use serde::Deserialize;
use serde_json::Value;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    User,
    Companion,
}

/// One message, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) speaker: Speaker,
    pub(super) text: String,
    /// Kinds of content parts other than text (`image_url`, `input_audio`, …).
    pub(super) attachments: usize,
}

/// A conversation as the companion sees it.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// System messages, joined.
    pub(super) system: String,
    pub(super) lines: Vec<Line>,
}

impl Dialogue {
    pub(super) fn said_by(&self, speaker: Speaker) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines
            .iter()
            .filter(move |line| line.speaker == speaker)
    }

    pub(super) fn word_count(&self) -> usize {
        let texts = self.lines.iter().map(|line| line.text.as_str());
        texts
            .chain([self.system.as_str()])
            .map(|text| text.split_whitespace().count())
            .sum()
    }
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) dialogue: Dialogue,
    /// `max_tokens`, a word for a token.
    pub(super) words_max: usize,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

impl Request {
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let body: Body = serde_json::from_slice(body)?;
        let mut dialogue = Dialogue::default();
        for message in body.messages {
            let (text, attachments) = content(&message.content);
            let speaker = match message.role.as_str() {
                "user" => Speaker::User,
                "assistant" => Speaker::Companion,
                "system" | "developer" => {
                    dialogue.system.push_str(&text);
                    dialogue.system.push('\n');
                    continue;
                }
                // Tool results and what else there may be: nothing that was said.
                _ => continue,
            };
            dialogue.lines.push(Line {
                speaker,
                text,
                attachments,
            });
        }
        let words_max = body.max_tokens.or(body.max_completion_tokens);
        Ok(Self {
            dialogue,
            words_max: words_max.unwrap_or(usize::MAX),
        })
    }
}

/// The text of a content, and how many of its parts are something else.
fn content(content: &Value) -> (String, usize) {
    match content {
        Value::String(text) => (text.clone(), 0),
        Value::Array(parts) => {
            let texts: Vec<_> = parts
                .iter()
                .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
                .collect();
            (texts.join("\n"), parts.len() - texts.len())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => (String::new(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_roles_are_understood() {
        let request = Request::parse(
            br#"{"model":"x","max_tokens":5,"messages":[
                {"role":"system","content":"You are Luna."},
                {"role":"user","content":[{"type":"text","text":"Look"},{"type":"image_url","image_url":{"url":"u"}}]},
                {"role":"assistant","content":null,"tool_calls":[]},
                {"role":"tool","tool_call_id":"1","content":"42"}]}"#,
        )
        .unwrap();
        assert_eq!(request.words_max, 5);
        assert_eq!(request.dialogue.system.trim(), "You are Luna.");
        let [user, companion] = &request.dialogue.lines[..] else {
            panic!("{request:?}");
        };
        assert_eq!((user.text.as_str(), user.attachments), ("Look", 1));
        assert_eq!(companion.text, "");
        assert_eq!(request.dialogue.word_count(), 4);
    }
}

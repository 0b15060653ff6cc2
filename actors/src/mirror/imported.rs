//! Documents that are not ours yet: what the ancestor, another instance or an editor wrote.
//!
//! Nothing in them is thrown away. What is not understood is kept as the JSON it was.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use crate::{
    conversation::message::ALTERNATIVES_MAX,
    id::{ConversationId, MessageId},
    log::sqlite::FileStamp,
    mirror::{REVISION_MEMBER, Revision, digest_of},
    provider::RawJson,
    time::Timestamp,
    voice::{self, usage::VoiceUsage},
};

/// A document read back.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedDocument {
    /// When the conversation began, if the document says it intelligibly.
    pub created_at: Option<Timestamp>,
    /// When it was last changed, likewise.
    pub updated_at: Option<Timestamp>,
    /// Owner.
    pub user_id: Option<String>,
    /// Companion.
    pub character_id: Option<String>,
    /// What was spoken and heard, if it says so.
    pub voice_usage: Option<VoiceUsage>,
    /// In order; system messages as they stand.
    pub messages: Vec<ImportedMessage>,
    /// What of which log it shows, if one of ours wrote it.
    pub revision: Option<Revision>,
    /// Members without a field above, or with a value that is not of its type.
    pub others: Vec<(String, RawJson)>,
    /// The file it was read from, to tell it from an edited one when it is replaced.
    pub file: Option<FileStamp>,
}

/// A message of an imported document.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedMessage {
    /// `user`, `assistant`, `system`, `tool`, or whatever it says.
    pub role: String,
    /// Text, array of parts, or null; null also if there is none.
    pub content: RawJson,
    /// When it was said. One that does not parse stands in `others`.
    pub timestamp: Option<Timestamp>,
    /// All other members, in order, as they stand (`id`, `tool_calls`, `name`, …).
    pub others: Vec<(String, RawJson)>,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no JSON object, or cut off.
    #[error("it does not parse: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is no text.
    #[error("it is not valid UTF-8: {0}")]
    Text(#[from] std::str::Utf8Error),
    /// It has no list of messages.
    #[error("it has no \"messages\"")]
    NoMessages,
    /// A message does not say whose it is.
    #[error("message {index} has no \"role\"")]
    NoRole {
        /// From 0.
        index: usize,
    },
    /// It says that it is another conversation's.
    #[error("it is the document of conversation {found:?}")]
    OtherConversation {
        /// What stands in it.
        found: String,
    },
}

/// Members of a message that a conversation takes over.
const TAKEN_OVER: [&str; 9] = [
    "id",
    "turn_id",
    "name",
    "tool_call_id",
    "tool_calls",
    "model",
    "finish_reason",
    "models",
    "unsaid",
];

impl ImportedDocument {
    /// Whether it says anything that a conversation does not take over: then it is no copy of one,
    /// and must not be replaced by one.
    #[must_use]
    pub fn says_more(&self) -> bool {
        !self.others.is_empty() || self.messages.iter().any(ImportedMessage::says_more)
    }

    /// What it says of which log it shows, be it that it was changed since.
    #[must_use]
    pub fn claims(&self) -> Option<Revision> {
        let changed = self.others.iter().find(|(name, _)| name == "revision");
        let changed = changed.and_then(|(_, claim)| serde_json::from_str(claim.get()).ok());
        self.revision.clone().or(changed)
    }

    /// Reads the document of a conversation.
    pub fn parse(id: &ConversationId, bytes: &[u8]) -> Result<Self, ImportError> {
        // Members are kept raw, and skipping raw JSON does not recurse: nesting costs no stack.
        let json = str::from_utf8(bytes)?;
        let members: Members<'_> = serde_json::from_str(json)?;
        let mut document = Self {
            created_at: None,
            updated_at: None,
            user_id: None,
            character_id: None,
            voice_usage: None,
            messages: vec![],
            revision: None,
            others: vec![],
            file: None,
        };
        let mut messages = None;
        for (name, value) in members.0 {
            let understood = match &*name {
                "id" => match text(value) {
                    Some(found) => {
                        if ConversationId::parse(&found).as_ref() != Ok(id) {
                            return Err(ImportError::OtherConversation { found });
                        }
                        true
                    }
                    None => false,
                },
                "created_at" => set(&mut document.created_at, timestamp(value)),
                "updated_at" => set(&mut document.updated_at, timestamp(value)),
                "user_id" => set(&mut document.user_id, text(value)),
                "character_id" => set(&mut document.character_id, text(value)),
                voice::usage::MEMBER => set(&mut document.voice_usage, voice_usage(value)),
                "messages" => set(&mut messages, Some(value)),
                "revision" => set(&mut document.revision, revision(json, value)),
                _ => false,
            };
            if !understood && value.get() != "null" {
                document.others.push((name.into_owned(), raw(value)));
            }
        }
        let messages = messages.ok_or(ImportError::NoMessages)?;
        let messages: Vec<Members<'_>> = serde_json::from_str(messages.get())?;
        document.messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, members)| message(index, members))
            .collect::<Result<_, _>>()?;
        Ok(document)
    }
}

/// Member of a message with what it replaced.
const ALTERNATIVES: &str = "alternatives";

impl ImportedMessage {
    /// What it replaced; none if that is not a list of messages.
    #[must_use]
    pub fn alternatives(&self) -> Option<Vec<Self>> {
        let member = self.others.iter().find(|(name, _)| name == ALTERNATIVES);
        let Some((_, list)) = member else {
            return Some(Vec::new());
        };
        let list: Vec<Members<'_>> = serde_json::from_str(list.get()).ok()?;
        let list = list.into_iter().enumerate();
        list.map(|(index, members)| message(index, members).ok())
            .collect()
    }

    fn says_more(&self) -> bool {
        let alternatives = self.alternatives();
        let all_taken = alternatives.is_some_and(|all| {
            let is_plain = |it: &Self| it.others.iter().all(|(name, _)| name != ALTERNATIVES);
            all.len() <= ALTERNATIVES_MAX.0 && all.iter().all(|it| is_plain(it) && !it.says_more())
        });
        let mut others = self.others.iter().map(|(name, _)| name.as_str());
        !all_taken || others.any(|name| name != ALTERNATIVES && !TAKEN_OVER.contains(&name))
    }
}

fn message(index: usize, members: Members<'_>) -> Result<ImportedMessage, ImportError> {
    let (mut role, mut content, mut at, mut others) = (None, None, None, vec![]);
    for (name, value) in members.0 {
        let understood = match &*name {
            "role" => set(&mut role, text(value)),
            "content" => set(&mut content, Some(raw(value))),
            "timestamp" => set(&mut at, timestamp(value)),
            _ => false,
        };
        if !understood {
            others.push((name.into_owned(), raw(value)));
        }
    }
    Ok(ImportedMessage {
        role: role.ok_or(ImportError::NoRole { index })?,
        content: content.unwrap_or_else(|| RawJson(RawValue::NULL.to_owned())),
        timestamp: at,
        others,
    })
}

/// Takes the value, if there is one, and says whether.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let understood = value.is_some();
    if understood {
        *place = value;
    }
    understood
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// What of which log the text shows, if nobody has touched it since.
fn revision(text: &str, value: &RawValue) -> Option<Revision> {
    let revision: Revision = serde_json::from_str(value.get()).ok()?;
    let at = value.get().as_ptr().addr() - text.as_ptr().addr();
    let before = text[..at].strip_suffix(REVISION_MEMBER)?;
    (digest_of([before]) == revision.sha256).then_some(revision)
}

fn voice_usage(value: &RawValue) -> Option<VoiceUsage> {
    serde_json::from_str(value.get()).ok()
}

fn timestamp(value: &RawValue) -> Option<Timestamp> {
    Timestamp::parse(&text(value)?)
}

fn raw(value: &RawValue) -> RawJson {
    RawJson(value.to_owned())
}

/// The members of an object in order; the last of two with one name counts, as in the ancestor.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = vec![];
                while let Some(name) = map.next_key::<String>()? {
                    members.push((Cow::Owned(name), map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The id that an imported message without one gets: two imports of one document agree on it.
///
/// Depends on what the message says and where it stands, not on how the JSON was written.
#[must_use]
pub fn imported_message_id(
    conversation: &ConversationId,
    index: usize,
    message: &ImportedMessage,
) -> MessageId {
    let namespace = Uuid::new_v5(
        &Uuid::new_v5(&Uuid::NAMESPACE_URL, b"idol-router/conversations"),
        conversation.as_str().as_bytes(),
    );
    let mut name = format!("{index}|{}|", message.role);
    if let Some(at) = message.timestamp {
        name.push_str(&at.to_string());
    }
    name.push('|');
    match serde_json::from_str(message.content.get()) {
        Ok(Value::String(text)) => name.push_str(&text),
        Ok(value) => push_canonical(&mut name, &value),
        // Nested too deeply to look into.
        Err(_) => name.push_str(message.content.get()),
    }
    MessageId(Uuid::new_v5(&namespace, name.as_bytes()))
}

/// Compact, members sorted by name. As deep as the parser goes, which is bounded.
fn push_canonical(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_canonical(text, item);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_canonical(text, &Value::String(name.clone()));
                text.push(':');
                push_canonical(text, member);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ConversationId {
        ConversationId::parse("c").unwrap()
    }

    fn parse(text: &str) -> Result<ImportedDocument, ImportError> {
        ImportedDocument::parse(&id(), text.as_bytes())
    }

    #[test]
    fn nothing_is_lost() {
        let document = parse(
            r#"{"id":"c","created_at":"2026-11-22T11:53:43.779059","updated_at":17,"user_id":"u",
                "character_id":null,"mood":{"a": [1 ,2]},"messages":[
                {"role":"system","content":"be kind"},
                {"role":"assistant","content":null,"tool_calls":[ {"id":"x"} ],"timestamp":"soon"},
                {"role":"tool","content":[{"type":"text","text":"\u00e9"}],"timestamp":"2026-11-22T11:53:43"},
                {"role":"user"}]}"#,
        )
        .unwrap();
        assert_eq!(
            document.created_at.unwrap().to_string(),
            "2026-11-22T11:53:43.779059Z"
        );
        assert_eq!(
            (document.updated_at, document.user_id.as_deref()),
            (None, Some("u"))
        );
        let others: Vec<_> = document
            .others
            .iter()
            .map(|(name, raw)| (&**name, raw.get()))
            .collect();
        assert_eq!(others, [("updated_at", "17"), ("mood", r#"{"a": [1 ,2]}"#)]);
        let [system, assistant, tool, user] = &document.messages[..] else {
            panic!("{document:?}");
        };
        assert_eq!(
            (&*system.role, system.content.get()),
            ("system", r#""be kind""#)
        );
        assert_eq!(assistant.content.get(), "null");
        let names: Vec<_> = assistant.others.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["tool_calls", "timestamp"]);
        assert_eq!(tool.content.get(), r#"[{"type":"text","text":"\u00e9"}]"#);
        assert_eq!(
            tool.timestamp.unwrap().to_string(),
            "2026-11-22T11:53:43.000000Z"
        );
        assert_eq!(user.content.get(), "null");
    }

    #[test]
    fn what_is_no_document_is_said() {
        assert!(matches!(parse("[]"), Err(ImportError::Syntax(_))));
        assert!(matches!(parse("{}"), Err(ImportError::NoMessages)));
        assert!(matches!(
            parse(r#"{"messages":7}"#),
            Err(ImportError::Syntax(_))
        ));
        assert!(matches!(
            parse(r#"{"messages":[{"role":"user"},{"role":1}]}"#),
            Err(ImportError::NoRole { index: 1 })
        ));
        assert!(matches!(
            parse(r#"{"id":"d","messages":[]}"#),
            Err(ImportError::OtherConversation { .. })
        ));
        assert!(matches!(
            ImportedDocument::parse(&id(), b"{\"messages\":[\"\xff\"]}"),
            Err(ImportError::Text(_))
        ));
    }

    #[test]
    fn nesting_costs_no_stack() {
        for deep in [
            format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)),
            "[".repeat(500_000),
        ] {
            let text = format!(r#"{{"messages":[{{"role":"user","content":{deep}}}]}}"#);
            if let Ok(document) = parse(&text) {
                assert_eq!(document.messages[0].content.get(), deep);
                let message = &document.messages[0];
                assert_eq!(
                    imported_message_id(&id(), 0, message),
                    imported_message_id(&id(), 0, message)
                );
            }
            drop(parse(&deep));
        }
    }

    #[test]
    fn ids_depend_on_what_is_said_and_where() {
        let ids = |text: &str| {
            let document = parse(&format!(r#"{{"messages":{text}}}"#)).unwrap();
            let messages = document.messages.iter().enumerate();
            messages
                .map(|(index, message)| imported_message_id(&id(), index, message).to_string())
                .collect::<Vec<_>>()
        };
        let first = ids(r#"[{"role":"user","content":"é","timestamp":"2026-11-22T11:53:43"}]"#);
        // Fixed for good: documents imported by an earlier release must not change.
        assert_eq!(first, ["3783ca59-b3a4-52e7-bde5-f2c373e8c8a8"]);
        assert_eq!(
            first,
            ids(
                r#"[ {"timestamp":"2026-11-22T11:53:43.000000Z","content":"\u00e9","role":"user"} ]"#
            )
        );
        assert_eq!(
            ids(r#"[{"role":"user","content":[{"a":1,"b":"x"}]}]"#),
            ids(r#"[{"role":"user","content":[ {"b":"\u0078", "a":1} ]}]"#)
        );
        let twice = ids(r#"[{"role":"user","content":"x"},{"role":"user","content":"x"}]"#);
        assert_ne!(twice[0], twice[1]);
    }
}

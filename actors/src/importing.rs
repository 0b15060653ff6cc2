//! Takes a document that was read back into the log.

use std::borrow::Cow;

use crate::{
    conversation::message::{Content, Draft, Role, Stamp, StoredMessage},
    id::{ConversationId, MessageId, TurnId},
    json_text::JsonText,
    log::entry::{Begun, Entry, EntryHead},
    mirror::imported::{ImportedDocument, ImportedMessage, imported_message_id},
    provider::RawJson,
    time::Timestamp,
};

mod document;

pub use document::{Act, ImportFailure, Imported, Regained, import_document, regain};
pub(crate) use document::{Offered, entries_of};

/// The document holds something that no conversation can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {index} has the role {role:?}, which is not one of a conversation's")]
pub struct UnknownRole {
    index: usize,
    role: String,
}

/// The entry with which an imported conversation begins.
pub(crate) fn entry_of(
    id: &ConversationId,
    document: &ImportedDocument,
) -> Result<Entry, UnknownRole> {
    let first_message = document
        .messages
        .iter()
        .find_map(|message| message.timestamp);
    let at = document
        .created_at
        .or(first_message)
        .unwrap_or_else(Timestamp::now);
    let messages = messages_of(id, document, at)?;
    let last = messages.last().map_or(at, StoredMessage::timestamp);
    Ok(Entry {
        head: EntryHead::Begun(Begun {
            at,
            incarnation: fastrand::u64(..),
            user_id: document.user_id.clone(),
            character_id: document.character_id.clone(),
            imported_updated_at: Some(document.updated_at.unwrap_or(last)),
            voice_usage: document.voice_usage,
            unverified: false,
        }),
        messages: messages.iter().map(StoredMessage::whole).collect(),
    })
}

/// The messages of a document; those before the first one with a time get `at`.
pub(crate) fn messages_of(
    id: &ConversationId,
    document: &ImportedDocument,
    at: Timestamp,
) -> Result<Vec<StoredMessage>, UnknownRole> {
    let mut last = at;
    let mut messages = Vec::with_capacity(document.messages.len());
    for (index, message) in document.messages.iter().enumerate() {
        // A message without a time stands where it stands.
        last = message.timestamp.unwrap_or(last);
        messages.push(stored(id, index, message, last)?);
    }
    Ok(messages)
}

fn stored(
    id: &ConversationId,
    index: usize,
    message: &ImportedMessage,
    timestamp: Timestamp,
) -> Result<StoredMessage, UnknownRole> {
    let alternatives = message.alternatives().unwrap_or_default();
    let alternatives = alternatives.iter().map(|alternative| {
        let timestamp = alternative.timestamp.unwrap_or(timestamp);
        plain(id, index, alternative, timestamp)
    });
    let alternatives: Vec<_> = alternatives.collect::<Result<_, _>>()?;
    Ok(plain(id, index, message, timestamp)?.with_alternatives(alternatives))
}

/// A message without what it replaced.
fn plain(
    id: &ConversationId,
    index: usize,
    message: &ImportedMessage,
    timestamp: Timestamp,
) -> Result<StoredMessage, UnknownRole> {
    let role = match message.role.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        "system" | "developer" => Role::System,
        other => {
            return Err(UnknownRole {
                index,
                role: other.to_owned(),
            });
        }
    };
    let member = |name: &str| {
        let found = message.others.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value)
    };
    let text = |name: &str| -> Option<String> { serde_json::from_str(member(name)?.get()).ok() };
    let escaped = |name: &str| text(name).map(|text| JsonText::escape(&text));
    let draft = Draft {
        role,
        content: content(&message.content),
        name: escaped("name"),
        tool_call_id: escaped("tool_call_id"),
        tool_calls: member("tool_calls")
            .filter(|calls| calls.get().starts_with('['))
            .cloned(),
    };
    let (model, finish_reason) = (text("model"), text("finish_reason"));
    let models: Vec<String> = member("models")
        .and_then(|models| serde_json::from_str(models.get()).ok())
        .unwrap_or_default();
    // Our own documents name their messages; the ancestor's do not.
    let own_id = text("id").and_then(|id| id.parse().ok()).map(MessageId);
    let turn = text("turn_id").and_then(|id| id.parse().ok()).map(TurnId);
    let stamp = Stamp {
        timestamp,
        id: own_id.unwrap_or_else(|| imported_message_id(id, index, message)),
        turn,
        model: model.as_deref(),
        models: &models,
        finish_reason: finish_reason.as_deref(),
    };
    let message = StoredMessage::new(&draft, &stamp);
    Ok(match escaped("unsaid") {
        Some(unsaid) => message.with_unsaid(&unsaid),
        None => message,
    })
}

fn content(raw: &RawJson) -> Content {
    if raw.get() == "null" {
        return Content::Null;
    }
    match serde_json::from_str::<Cow<'_, str>>(raw.get()) {
        Ok(text) => Content::Text(JsonText::escape(&text)),
        // Parts, or a text that JSON allows and UTF-8 does not (a lone surrogate): kept as it is.
        Err(_) => Content::Parts(raw.clone()),
    }
}

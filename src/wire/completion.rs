//! A finished reply as a `chat.completion`, as OpenRouter gives it.

use idol_actors::{
    conversation::{command::Started, event::Outcome, message::Role},
    json_text::JsonText,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::Object;

/// The answer of `POST /chat`.
#[must_use]
pub fn completion(spelled: &str, started: &Started, outcome: &Outcome) -> String {
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
        #[serde(borrow)]
        tool_calls: Option<&'a RawValue>,
    }
    let parts: Option<Parts<'_>> = outcome
        .reply
        .as_ref()
        .and_then(|reply| serde_json::from_str(reply.fragment()).ok());
    let content = parts.as_ref().map_or("\"\"", |parts| parts.content.get());
    let message = Object::with_capacity(content.len() + 128)
        .escaped("role", Role::Assistant.as_str())
        .raw("content", content)
        .maybe(outcome.reasoning.as_ref(), |it, text| {
            it.escaped("reasoning", text.as_escaped())
        })
        .maybe(
            parts.as_ref().and_then(|parts| parts.tool_calls),
            |it, calls| it.raw("tool_calls", calls.get()),
        )
        .end();
    let native = match &outcome.native_finish_reason {
        Some(native) => format!("\"{}\"", JsonText::escape(native).as_escaped()),
        None => "null".to_owned(),
    };
    let choice = Object::with_capacity(message.len() + 128)
        .number("index", 0)
        .raw("logprobs", "null")
        .string("finish_reason", &outcome.finish_reason)
        .raw("native_finish_reason", &native)
        .raw("message", &message)
        .end();
    let head = &outcome.head;
    Object::with_capacity(choice.len() + 512)
        .string("id", &head.id)
        .maybe(head.provider.as_deref(), |it, provider| {
            it.string("provider", provider)
        })
        .string("model", &head.model)
        .escaped("object", "chat.completion")
        .number("created", head.created)
        .raw("choices", &format!("[{choice}]"))
        .maybe(outcome.usage.as_ref(), |it, usage| {
            it.raw("usage", usage.get())
        })
        .string("conversation_id", spelled)
        .shown("turn_id", started.turn)
        .maybe(outcome.reply.as_ref(), |it, _| {
            it.shown("message_id", started.reply)
        })
        .end()
}

//! A turn as Server-Sent Events: every event is one line `data: {json}` and a blank line.

use bytes::Bytes;
use idol_actors::{
    conversation::event::{Event, EventBody, Outcome, Received},
    error::EngineError,
    id::TurnId,
    json_text::JsonText,
    provider::ReplyHead,
};

use super::json::Object;

const DATA: &str = "data: ";

/// Where another request went on with the reply.
const SEAM: &str = ": seam ";

/// Sent when nothing else was for a while: without a write, a closed client is not noticed.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

pub(super) fn line(object: Object) -> Bytes {
    let mut text = object.end();
    text.push_str("\n\n");
    text.into()
}

pub(super) fn data(bytes: usize) -> Object {
    let mut prefix = String::with_capacity(bytes + 64);
    prefix.push_str(DATA);
    Object::after(prefix)
}

/// The first event: the user's message is in the log.
#[must_use]
pub fn conversation_start(spelled: &str, event: &Event, received: &Received) -> Bytes {
    let replaces = received.replacing.and_then(|it| it.message);
    line(
        data(256)
            .string("conversation_id", spelled)
            .escaped("type", "conversation_start")
            .shown("turn_id", event.turn)
            .maybe(received.message, |it, id| it.shown("message_id", id))
            .maybe(replaces, |it, id| it.shown("replaces", id))
            .shown("cursor", event.cursor),
    )
}

/// The last event: the reply is in the log.
#[must_use]
pub fn done(spelled: &str, event: &Event, outcome: &Outcome) -> Bytes {
    line(
        data(256)
            .string("conversation_id", spelled)
            .escaped("type", "done")
            .shown("turn_id", event.turn)
            .maybe(outcome.reply.as_ref(), |it, _| {
                it.shown("message_id", event.reply)
            })
            .string("finish_reason", &outcome.finish_reason)
            .maybe(outcome.heard(), |it, (offset, unsaid)| {
                it.number("offset", offset).escaped("unsaid", unsaid)
            })
            .maybe(outcome.usage.as_ref(), |it, usage| {
                it.raw("usage", usage.get())
            })
            .shown("cursor", event.cursor),
    )
}

/// The last event of a turn that failed.
#[must_use]
pub fn error(spelled: &str, turn: TurnId, error: &EngineError) -> Bytes {
    let public = crate::error::public(error);
    line(
        data(256)
            .escaped("type", "error")
            .string("conversation_id", spelled)
            .string("error", &public.sentence)
            .escaped("code", public.code)
            .maybe(public.retry_after, |it, wait| {
                it.number("retry_after", wait)
            })
            .shown("turn_id", turn),
    )
}

/// A piece of the reply, in the provider's own shape; none for events that have no chunk.
#[must_use]
pub fn chunk(event: &Event) -> Option<Bytes> {
    let (head, delta, finish, native) = match &event.body {
        EventBody::Text { text, head, .. } => (head, Delta::Content("content", text), None, None),
        EventBody::Reasoning { text, head } => {
            (head, Delta::Content("reasoning", text), None, None)
        }
        EventBody::Delta { members, head } => (head, Delta::Raw(members.get()), None, None),
        EventBody::Finish {
            reason,
            native,
            head,
        } => (head, Delta::Raw("{}"), Some(reason), native.as_ref()),
        EventBody::Usage { usage, head } => {
            let object = chunk_head(head, usage.get().len())
                .raw("choices", "[]")
                .raw("usage", usage.get());
            return Some(line(chunk_tail(object, event)));
        }
        EventBody::Seam { offset, model } => return Some(seam(event, *offset, model)),
        EventBody::Received(_)
        | EventBody::Started { .. }
        | EventBody::Ended(_)
        // Its turn is over: who asked for it has left.
        | EventBody::Cut { .. } => return None,
    };
    let mut choice = String::with_capacity(delta.len() + 128);
    choice.push_str("[{\"index\":0,\"delta\":");
    delta.push_to(&mut choice);
    for (name, value) in [("finish_reason", finish), ("native_finish_reason", native)] {
        choice.push_str(",\"");
        choice.push_str(name);
        choice.push_str("\":");
        match value {
            Some(value) => {
                choice.push('"');
                choice.push_str(JsonText::escape(value).as_escaped());
                choice.push('"');
            }
            None => choice.push_str("null"),
        }
    }
    choice.push_str(",\"logprobs\":null}]");
    let object = chunk_head(head, choice.len()).raw("choices", &choice);
    Some(line(chunk_tail(object, event)))
}

/// A comment, which old front ends pass over: to them a line of data is a chunk of the reply.
fn seam(event: &Event, offset: u64, model: &str) -> Bytes {
    line(
        Object::after(String::from(SEAM))
            .shown("turn_id", event.turn)
            .number("offset", offset)
            .string("model", model)
            .shown("cursor", event.cursor),
    )
}

enum Delta<'a> {
    Content(&'static str, &'a JsonText),
    Raw(&'a str),
}

impl Delta<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Content(_, text) => text.as_escaped().len() + 48,
            Self::Raw(raw) => raw.len(),
        }
    }

    fn push_to(&self, json: &mut String) {
        match self {
            Self::Content(member, text) => {
                json.push_str("{\"role\":\"assistant\",\"");
                // Reasoning comes beside an empty content, as OpenRouter sends it.
                if *member != "content" {
                    json.push_str("content\":\"\",\"");
                }
                json.push_str(member);
                json.push_str("\":\"");
                json.push_str(text.as_escaped());
                json.push_str("\"}");
            }
            Self::Raw(raw) => json.push_str(raw),
        }
    }
}

fn chunk_head(head: &ReplyHead, bytes: usize) -> Object {
    data(bytes + 384)
        .string("id", &head.id)
        .maybe(head.provider.as_deref(), |it, provider| {
            it.string("provider", provider)
        })
        .string("model", &head.model)
        .escaped("object", "chat.completion.chunk")
        .number("created", head.created)
}

fn chunk_tail(object: Object, event: &Event) -> Object {
    object
        .shown("turn_id", event.turn)
        .shown("cursor", event.cursor)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use idol_actors::{
        conversation::event::{Cursor, Seen},
        id::MessageId,
    };

    use super::*;

    fn event(body: EventBody) -> Event {
        let turn = TurnId::now();
        let cursor = Cursor {
            turn,
            epoch: 1,
            item: 2,
            byte: 3,
            offset: 3,
            seen: Seen::Started,
        };
        Event::new(turn, MessageId::now(), cursor, body)
    }

    #[test]
    fn a_seam_is_one_comment_whatever_the_model_is_called() {
        let event = event(EventBody::Seam {
            offset: 7,
            model: "a\n\ndata: \"b\"".into(),
        });
        let bytes = chunk(&event).unwrap();
        let text = str::from_utf8(&bytes).unwrap();
        let json = text.strip_prefix(": seam ").unwrap();
        let json = json.strip_suffix("\n\n").unwrap();
        assert!(!json.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["offset"], 7);
        assert_eq!(json["model"], "a\n\ndata: \"b\"");
    }

    #[test]
    fn a_chunk_has_the_providers_shape() {
        let head = Arc::new(ReplyHead {
            id: "gen-1".into(),
            model: "a/b".into(),
            provider: Some("Host".into()),
            created: 7,
        });
        let event = event(EventBody::Text {
            offset: 0,
            text: JsonText::escape("\"hi\"\n"),
            head,
        });
        let bytes = chunk(&event).unwrap();
        let text = str::from_utf8(&bytes).unwrap();
        assert!(text.ends_with("\n\n") && text.matches('\n').count() == 2);
        let json: serde_json::Value =
            serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(json["choices"][0]["delta"]["content"], "\"hi\"\n");
        assert_eq!(json["object"], "chat.completion.chunk");
        assert_eq!(json["provider"], "Host");
        assert_eq!(json["turn_id"], event.turn.to_string());
        assert_eq!(json["cursor"], event.cursor.to_string());
    }
}

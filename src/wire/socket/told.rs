//! What a client is told over `/ws/chat`: a frame each.

use bytes::Bytes;
use idol_actors::{
    conversation::{
        command::{CaughtUp, Earlier, Reset, ResetReason},
        document::Replacing,
        event::{Cursor, Event, EventBody, Outcome, Received},
        message::StoredMessage,
    },
    error::EngineError,
    id::{MessageId, TurnId},
};

use super::Refused;
use crate::{
    config::Timestamps,
    error::public,
    wire::{
        document::{bytes_of, instant, messages},
        json::Object,
        page::Page,
    },
};

pub(super) fn typed(kind: &str, spelled: &str, bytes: usize) -> Object {
    Object::with_capacity(bytes + 192)
        .escaped("type", kind)
        .string("conversation_id", spelled)
}

/// `pong`.
pub const PONG: &str = "{\"type\":\"pong\"}";

/// `conversation_started`: it is in the log.
#[must_use]
pub fn conversation_started(spelled: &str) -> String {
    typed("conversation_started", spelled, 0).end()
}

/// `message_received`: the message is in the log.
#[must_use]
pub fn message_received(
    spelled: &str,
    turn: TurnId,
    message: Option<MessageId>,
    client_message_id: Option<&str>,
    cursor: Option<Cursor>,
) -> String {
    typed("message_received", spelled, 64)
        .shown("turn_id", turn)
        .maybe(message, |it, id| it.shown("message_id", id))
        .maybe(client_message_id, |it, id| {
            it.string("client_message_id", id)
        })
        .maybe(cursor, |it, cursor| it.shown("cursor", cursor))
        .end()
}

/// `history_truncated`: what follows a message is about to be replaced.
#[must_use]
fn history_truncated(
    spelled: &str,
    turn: TurnId,
    replacing: Replacing,
    cursor: Option<Cursor>,
) -> String {
    let object = typed("history_truncated", spelled, 64).shown("turn_id", turn);
    let object = match replacing.after {
        Some(after) => object.shown("after", after),
        None => object.raw("after", "null"),
    };
    object
        .maybe(cursor, |it, cursor| it.shown("cursor", cursor))
        .end()
}

/// What somebody said on another device, and what it replaces: a frame each, and the place behind
/// it.
#[must_use]
pub fn received_of_others(
    spelled: &str,
    event: &Event,
    received: &Received,
    timestamps: Timestamps,
) -> Vec<(Cursor, String)> {
    let mut told = received.told;
    let parts = told.saturating_add(u32::try_from(received.parts()).unwrap_or(u32::MAX));
    let mut place = || {
        told += 1;
        event.part(told, parts)
    };
    let mut frames = Vec::with_capacity(received.parts());
    for message in &received.before {
        let cursor = place();
        let frame = user_message(spelled, event.turn, message, None, cursor, timestamps);
        frames.push((cursor, frame));
    }
    if let Some(replacing) = received.replacing {
        let cursor = place();
        let frame = history_truncated(spelled, event.turn, replacing, Some(cursor));
        frames.push((cursor, frame));
    }
    for message in &received.messages {
        let cursor = place();
        // The key is that of the last one.
        let key = received.key.as_deref().filter(|_| cursor == event.cursor);
        let frame = user_message(spelled, event.turn, message, key, cursor, timestamps);
        frames.push((cursor, frame));
    }
    frames
}

/// That what a client said is in the log, and what it replaces. Before it stand messages that the
/// replaced turn had, if that one is not told any more.
#[must_use]
pub fn received_of_own(
    spelled: &str,
    event: &Event,
    received: &Received,
    client_message_id: Option<&str>,
    timestamps: Timestamps,
) -> Vec<String> {
    let others = received_of_others(spelled, event, received, timestamps);
    let before = others.into_iter().take(received.before.len());
    let mut frames: Vec<_> = before.map(|(_, frame)| frame).collect();
    let turn = event.turn;
    if let Some(replacing) = received.replacing {
        frames.push(history_truncated(spelled, turn, replacing, None));
    }
    let (message, place) = (received.message, Some(event.cursor));
    frames.push(message_received(
        spelled,
        turn,
        message,
        client_message_id,
        place,
    ));
    frames
}

fn user_message(
    spelled: &str,
    turn: TurnId,
    message: &StoredMessage,
    key: Option<&str>,
    cursor: Cursor,
    timestamps: Timestamps,
) -> String {
    // The stored message is `{"role":…,"content":<JSON>`: the content is copied as it stands.
    let content = message.comparable().split_once(",\"content\":");
    let content = content.map_or("null", |(_, content)| content);
    typed("user_message", spelled, content.len())
        .shown("turn_id", turn)
        .maybe(message.id(), |it, id| it.shown("message_id", id))
        .escaped("role", message.role().as_str())
        .raw("content", content)
        .shown("timestamp", instant(message.timestamp(), timestamps))
        .maybe(key, |it, key| it.string("client_message_id", key))
        .shown("cursor", cursor)
        .end()
}

/// A frame without its place. That is the last member of each frame that has one.
#[must_use]
pub fn unplaced(mut frame: String) -> String {
    if let Some(place) = frame.rfind(",\"cursor\":\"") {
        frame.truncate(place);
        frame.push('}');
    }
    frame
}

/// The event as a frame, for a conversation spelled like this; none if it has no frame.
///
/// The first and the last event of a turn depend on the session and are written by other functions.
#[must_use]
pub fn event(spelled: &str, event: &Event) -> Option<Bytes> {
    let object = match &event.body {
        EventBody::Started { replaces, .. } => typed("response_start", spelled, 128)
            .shown("turn_id", event.turn)
            .shown("message_id", event.reply)
            .maybe(*replaces, |it, id| it.shown("replaces", id))
            .shown("cursor", event.cursor),
        EventBody::Text { offset, text, .. } => typed("chunk", spelled, text.as_escaped().len())
            .escaped("content", text.as_escaped())
            .shown("turn_id", event.turn)
            .number("offset", offset)
            .shown("cursor", event.cursor),
        EventBody::Reasoning { text, .. } => typed("reasoning", spelled, text.as_escaped().len())
            .escaped("content", text.as_escaped())
            .shown("turn_id", event.turn)
            .shown("cursor", event.cursor),
        EventBody::Seam { offset, model } => typed("seam", spelled, model.len())
            .shown("turn_id", event.turn)
            .number("offset", offset)
            .string("model", model)
            .shown("cursor", event.cursor),
        EventBody::Cut { offset, unsaid } => {
            typed("response_cut", spelled, unsaid.as_escaped().len())
                .shown("turn_id", event.turn)
                .shown("message_id", event.reply)
                .number("offset", offset)
                .escaped("unsaid", unsaid.as_escaped())
        }
        EventBody::Received(_)
        | EventBody::Delta { .. }
        | EventBody::Finish { .. }
        | EventBody::Usage { .. }
        | EventBody::Ended(_) => return None,
    };
    Some(object.end().into())
}

/// `response_complete`, or `error` for a turn that failed.
#[must_use]
pub fn ended(spelled: &str, event: &Event, outcome: &Outcome, timestamps: Timestamps) -> String {
    if let Some(error) = &outcome.error {
        return failed(spelled, Some(event.turn), error)
            .shown("cursor", event.cursor)
            .end();
    }
    let model = Some(&outcome.head.model).filter(|model| !model.is_empty());
    typed("response_complete", spelled, 256)
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
        .maybe(model, |it, model| it.string("model", model))
        .shown("timestamp", instant(outcome.timestamp, timestamps))
        .shown("cursor", event.cursor)
        .end()
}

/// The end of a turn whose place is behind the client already.
#[must_use]
pub fn missed_end(spelled: &str, event: &Event, timestamps: Timestamps) -> String {
    match &event.body {
        EventBody::Ended(outcome) => unplaced(ended(spelled, event, outcome, timestamps)),
        _ => String::new(),
    }
}

/// `reset`: what the client has does not hold any more, or not all of it.
#[must_use]
pub fn reset(spelled: &str, reset: &Reset) -> String {
    let reason = match reset.reason {
        ResetReason::NotACursor => "not_a_cursor",
        ResetReason::UnknownTurn => "unknown_turn",
        ResetReason::UnknownMessage => "unknown_message",
        ResetReason::BeyondText => "beyond_text",
        ResetReason::Retold => "retold",
        ResetReason::Replaced => "replaced",
        ResetReason::TooFarBehind => "too_far_behind",
    };
    typed("reset", spelled, 128)
        .escaped("reason", reason)
        .maybe(reset.turn, |it, (turn, kept)| {
            it.shown("turn_id", turn).number("offset", kept)
        })
        .end()
}

/// `resumed`: what the client missed; what follows is live.
#[must_use]
pub fn resumed(spelled: &str, caught_up: &CaughtUp, timestamps: Timestamps) -> String {
    let bytes = bytes_of(&caught_up.messages)
        + caught_up
            .turn
            .as_ref()
            .map_or(0, |turn| turn.text.as_escaped().len() + 256);
    let object = typed("resumed", spelled, bytes);
    let earlier = match caught_up.earlier {
        Earlier::No => "false",
        Earlier::Yes => "true",
    };
    messages(object, &caught_up.messages, timestamps)
        .raw("has_earlier", earlier)
        .maybe(caught_up.turn.as_ref(), |it, turn| {
            let under_way = Object::with_capacity(turn.text.as_escaped().len() + 256)
                .shown("turn_id", turn.turn)
                .shown("message_id", turn.reply)
                .escaped("content", turn.text.as_escaped())
                .number("offset", turn.offset)
                .shown("cursor", turn.cursor);
            it.raw("turn", &under_way.end())
        })
        .shown("cursor", caught_up.cursor)
        .end()
}

/// `conversation_deleted`: it is watched no more.
#[must_use]
pub fn conversation_deleted(spelled: &str) -> String {
    typed("conversation_deleted", spelled, 0).end()
}

/// `history`: a part of a conversation's messages.
#[must_use]
pub fn history(spelled: &str, page: Page<'_>, timestamps: Timestamps) -> String {
    let object = typed("history", spelled, bytes_of(page.messages));
    messages(object, page.messages, timestamps)
        .raw("has_more", page.more.as_json())
        .end()
}

/// `error` in a conversation; ends the turn it names.
#[must_use]
pub fn turn_error(spelled: &str, turn: Option<TurnId>, error: &EngineError) -> String {
    failed(spelled, turn, error).end()
}

/// What a client said aloud comes to nothing. It has no turn, so no turn of the conversation ends with
/// it; the client's own id tells which utterance it was.
#[must_use]
pub fn utterance_error(
    spelled: &str,
    client_message_id: Option<&str>,
    error: &EngineError,
) -> String {
    failed(spelled, None, error)
        .maybe(client_message_id, |it, id| {
            it.string("client_message_id", id)
        })
        .end()
}

fn failed(spelled: &str, turn: Option<TurnId>, error: &EngineError) -> Object {
    let public = public(error);
    Object::with_capacity(256)
        .escaped("type", "error")
        .string("error", &public.sentence)
        .string("conversation_id", spelled)
        .escaped("code", public.code)
        .maybe(public.retry_after, |it, wait| {
            it.number("retry_after", wait)
        })
        .maybe(turn, |it, turn| it.shown("turn_id", turn))
}

/// `error` about a message that could not be carried out.
#[must_use]
pub fn refused(refused: &Refused) -> String {
    Object::with_capacity(128)
        .escaped("type", "error")
        .string("error", &refused.sentence)
        .escaped("code", refused.code)
        .maybe(refused.retry_after, |it, wait| {
            it.number("retry_after", wait)
        })
        .end()
}

/// `going_away`: the server stops; come back after so many seconds.
#[must_use]
pub fn going_away(retry_after: u64) -> String {
    Object::with_capacity(64)
        .escaped("type", "going_away")
        .number("retry_after", retry_after)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_its_place_is_whole_but_for_it() {
        let frame = r#"{"content":",\"cursor\":\"x\"}","cursor":"0.1"}"#;
        let bare = r#"{"content":",\"cursor\":\"x\"}"}"#;
        assert_eq!(unplaced(frame.to_owned()), bare);
        assert_eq!(unplaced(r#"{"a":1}"#.to_owned()), r#"{"a":1}"#);
    }

    #[test]
    fn who_asked_for_a_reply_anew_is_told_what_it_answers_if_the_turn_before_is_gone() {
        let stored = |text: &str| {
            let fragment = format!(
                r#"{{"role":"user","content":"{text}","timestamp":"2026-01-01T00:00:00.000000Z"}}"#
            );
            StoredMessage::from_fragment(fragment.into()).unwrap()
        };
        let received = Received {
            before: vec![stored("asked")],
            messages: Vec::new(),
            message: Some(MessageId::now()),
            key: None,
            replacing: None,
            told: 0,
        };
        let body = EventBody::Received(received.clone());
        let event = Event::new(TurnId::now(), MessageId::now(), Cursor::START, body);

        let frames = received_of_own("c1", &event, &received, Some("key"), Timestamps::Utc);

        let frames: Vec<serde_json::Value> = frames
            .iter()
            .map(|frame| serde_json::from_str(frame).unwrap())
            .collect();
        assert_eq!(frames[0]["type"], "user_message");
        assert_eq!(frames[0]["content"], "asked");
        assert_eq!(frames[1]["type"], "message_received");
        assert_eq!(frames[1]["client_message_id"], "key");
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn a_start_without_its_place_says_all_the_same_what_it_replaces() {
        let replaced = MessageId::now();
        let body = EventBody::Started {
            model: "m".into(),
            replaces: Some(replaced),
        };
        let start = Event::new(TurnId::now(), MessageId::now(), Cursor::START, body);
        let frame = event("c1", &start).map(|bytes| bytes.to_vec()).unwrap();
        let bare = unplaced(String::from_utf8(frame).unwrap());
        let bare: serde_json::Value = serde_json::from_str(&bare).unwrap();
        assert_eq!(bare["replaces"], replaced.to_string());
        assert!(bare.get("cursor").is_none());
    }
}

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    conversation::{
        document::{TurnRecord, TurnState},
        event::{Event, Outcome, Received},
        message::{Draft, Role, Stamp, StoredMessage},
        streams::Streams,
    },
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::unescape,
    log::entry::{CANCELLED, INTERRUPTED, TurnEnded},
    provider::RawJson,
    time::Timestamp,
};

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Reasoning(String),
    Delta,
    Seam,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        4 => "[a\"é\n🚀]{1,9}".prop_map(Piece::Text),
        1 => "[b\\\\]{1,9}".prop_map(Piece::Reasoning),
        1 => Just(Piece::Delta),
        1 => Just(Piece::Seam),
    ];
    prop::collection::vec(piece, 0..12)
}

fn raw(json: &str) -> RawJson {
    RawJson(serde_json::value::RawValue::from_string(json.to_owned()).unwrap())
}

/// A turn whose reply came in these pieces, with its finish reason and usage, not ended yet.
fn live(turn: TurnId, pieces: &[Piece]) -> (Streams, u64, String) {
    let mut streams = Streams::new(7);
    let ordinal = streams.push(TurnStream::new(turn, MessageId::now()));
    let stream = streams.get_mut(ordinal).unwrap();
    stream.show(Received::default());
    stream.start("m".into());
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(more) => {
                text.push_str(more);
                stream.push_text(JsonText::escape(more));
            }
            Piece::Reasoning(more) => stream.push_reasoning(JsonText::escape(more)),
            Piece::Delta => stream.push_delta(raw(r#"{"refusal":"no"}"#)),
            Piece::Seam => stream.push_seam("other".into()),
        }
    }
    stream.push_finish("stop".into(), None);
    stream.push_usage(raw("{}"));
    (streams, ordinal, text)
}

/// The same turn as the log has it, with so much of its text.
fn kept(turn: TurnId, text: &str, finish_reason: &str) -> TurnStream {
    let stamp = Stamp {
        timestamp: Timestamp::from_micros(1),
        id: MessageId::now(),
        turn: Some(turn),
        model: None,
        finish_reason: Some(finish_reason),
        models: &[],
    };
    let draft = Draft::text(Role::Assistant, JsonText::escape(text));
    let reply = (!text.is_empty()).then(|| StoredMessage::new(&draft, &stamp));
    logged(turn, reply, finish_reason)
}

/// The same turn as the log has it, with this reply.
fn logged(turn: TurnId, reply: Option<StoredMessage>, finish_reason: &str) -> TurnStream {
    let record = TurnRecord {
        turn: Some(turn),
        reply_id: reply
            .as_ref()
            .and_then(StoredMessage::id)
            .or(Some(MessageId::now())),
        messages: reply.into_iter().collect(),
        runs: smallvec::SmallVec::from_iter([1]),
        state: TurnState::Ended(Box::new(TurnEnded {
            at: Timestamp::from_micros(1),
            turn,
            attempt: 1,
            finish_reason: finish_reason.to_owned(),
            usage: (finish_reason == "stop").then(|| raw("{}")),
            error: (finish_reason == INTERRUPTED).then(|| "conversation_restarted".to_owned()),
        })),
        key: None,
        branch: None,
    };
    TurnStream::retold(&record).unwrap()
}

fn events_of(stream: &TurnStream, from: Position, bytes_max: usize) -> Vec<Event> {
    let mut at = from;
    let mut events = Vec::new();
    while let Some((event, after)) = stream.read(at, bytes_max) {
        events.push(event);
        at = after;
    }
    events
}

/// What events say, with text that follows text joined.
fn said(events: &[Event]) -> Vec<(&'static str, String)> {
    let mut said: Vec<(&'static str, String)> = Vec::new();
    for event in events {
        let (kind, text) = match &event.body {
            EventBody::Text { text, .. } => ("text", unescape(text.as_escaped())),
            EventBody::Reasoning { text, .. } => ("reasoning", unescape(text.as_escaped())),
            EventBody::Received(_) => ("received", String::new()),
            EventBody::Started { .. } => ("started", String::new()),
            EventBody::Delta { .. } => ("delta", String::new()),
            EventBody::Seam { .. } => ("seam", String::new()),
            EventBody::Finish { .. } => ("finish", String::new()),
            EventBody::Usage { .. } => ("usage", String::new()),
            EventBody::Ended(_) => ("ended", String::new()),
            EventBody::Cut { .. } => ("cut", String::new()),
        };
        match said.last_mut() {
            Some((last, joined)) if *last == kind && !text.is_empty() => joined.push_str(&text),
            _ => said.push((kind, text)),
        }
    }
    said
}

fn text_of(events: &[Event]) -> String {
    said(events)
        .into_iter()
        .filter_map(|(kind, text)| (kind == "text").then_some(text))
        .collect()
}

proptest! {
    #[test]
    fn a_stream_that_is_cut_behind_any_event_is_joined_without_a_seam(
        pieces in pieces(), bytes_max in 6usize..20,
    ) {
        let (streams, ordinal, text) = live(TurnId::now(), &pieces);
        let stream = streams.get(ordinal).unwrap();
        let whole = events_of(stream, Position::default(), usize::MAX >> 1);
        let fine = events_of(stream, Position::default(), bytes_max);
        prop_assert_eq!(text_of(&whole), text);
        for cut in 1..=fine.len() {
            let place = stream.place(ordinal, fine[cut - 1].cursor).unwrap();
            let rest = events_of(stream, place, usize::MAX >> 1);
            let before: Vec<_> = fine[..cut].iter().chain(&rest).collect();
            let joined: Vec<Event> = before.into_iter().map(|event| {
                Event::new(event.turn, event.reply, event.cursor, event.body.clone())
            }).collect();
            prop_assert_eq!(said(&joined), said(&whole));
        }
    }

    #[test]
    fn a_cursor_of_before_goes_on_in_what_the_log_kept_or_is_beyond_it(
        pieces in pieces(), bytes_max in 6usize..20, kept_share in 0usize..=4,
    ) {
        let turn = TurnId::now();
        let (streams, ordinal, text) = live(turn, &pieces);
        let mut length = text.len() * kept_share / 4;
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let reason = if length == text.len() { "stop" } else { INTERRUPTED };
        let again = kept(turn, &text[..length], reason);
        let deltas = pieces.iter().any(|piece| matches!(piece, Piece::Delta));
        let mut seen = String::new();
        for event in events_of(streams.get(ordinal).unwrap(), Position::default(), bytes_max) {
            if let EventBody::Text { text, .. } = &event.body {
                seen.push_str(&unescape(text.as_escaped()));
            }
            match again.place(0, event.cursor) {
                Ok(place) => {
                    prop_assert_eq!(place.offset, seen.len() as u64);
                    let rest = events_of(&again, place, usize::MAX >> 1);
                    prop_assert_eq!(format!("{seen}{}", text_of(&rest)), &text[..length]);
                    prop_assert!(rest.last().is_some_and(Event::is_last), "its end is still to be told");
                    let twice = said(&rest).iter().any(|(kind, _)| *kind == "received");
                    prop_assert!(!twice);
                }
                Err(misplaced) => {
                    prop_assert_eq!(misplaced, Misplaced::Beyond { kept: length as u64 });
                    prop_assert!(seen.len() > length || deltas);
                }
            }
        }
    }

    #[test]
    fn no_forged_cursor_leads_into_the_midst_of_a_character(
        pieces in pieces(), item in 0u32..16, byte in 0u32..40, offset in 0u64..80, seen in 0usize..7, epoch in 0u32..3,
    ) {
        let turn = TurnId::now();
        let (streams, ordinal, text) = live(turn, &pieces);
        let stream = streams.get(ordinal).unwrap();
        let live_epoch = stream.epoch;
        let cursor = Cursor {
            turn, item, byte, offset,
            epoch: if epoch == 0 { live_epoch } else { epoch },
            seen: Seen::ALL[seen],
        };
        if let Ok(place) = stream.place(ordinal, cursor) {
            let rest = text_of(&events_of(stream, place, usize::MAX >> 1));
            prop_assert!(text.ends_with(&rest));
            prop_assert_eq!(place.offset, (text.len() - rest.len()) as u64);
        }
    }

    #[test]
    fn joined_text_and_the_events_behind_it_are_the_whole(
        pieces in pieces(), bytes_max in 0usize..60,
    ) {
        let (streams, ordinal, text) = live(TurnId::now(), &pieces);
        let stream = streams.get(ordinal).unwrap();
        for passing in [Passing::Reasoning, Passing::Silence] {
            let (run, at, cursor) = stream.text_run(stream.start_of_reply(), passing, bytes_max);
            prop_assert_eq!(stream.place(0, cursor), Ok(at));
            let rest = events_of(stream, at, usize::MAX >> 1);
            prop_assert_eq!(format!("{}{}", unescape(run.as_escaped()), text_of(&rest)), text.clone());
            let reasoning: String = pieces.iter().filter_map(|piece| match piece {
                Piece::Reasoning(text) => Some(text.as_str()),
                Piece::Text(_) | Piece::Delta | Piece::Seam => None,
            }).collect();
            let told: String = said(&rest).into_iter().filter_map(|(kind, text)| {
                (kind == "reasoning").then_some(text)
            }).collect();
            if passing == Passing::Silence {
                prop_assert_eq!(told, reasoning);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_place_beyond_what_was_heard_is_none_and_every_other_one_holds(
        pieces in pieces(), heard in 0usize..40, bytes_max in 6usize..24, over in any::<bool>(),
    ) {
        let turn = TurnId::now();
        let (mut streams, ordinal, text) = live(turn, &pieces);
        let stamp = Stamp {
            timestamp: Timestamp::from_micros(1),
            id: MessageId::now(),
            turn: Some(turn),
            model: None,
            finish_reason: Some("stop"),
            models: &[],
        };
        let whole = StoredMessage::new(&Draft::text(Role::Assistant, JsonText::escape(&text)), &stamp);
        let Some(cut) = whole.heard(heard) else { return Ok(()) };
        let outcome = |reply: &StoredMessage, reason| {
            let failed = Outcome::failed(Arc::default(), reason, EngineError::Restarted);
            Arc::new(Outcome { reply: Some(reply.clone()), error: None, ..failed })
        };
        let stream = streams.get_mut(ordinal).unwrap();
        stream.settle(&whole);
        if over {
            stream.end(outcome(&whole, "stop"));
        }
        let full = logged(turn, Some(whole), "stop");
        let mut places = Vec::new();
        for told in [&*stream, &full] {
            let (mut at, mut seen) = (Position::default(), String::new());
            while let Some((event, after)) = told.read(at, bytes_max) {
                if let EventBody::Text { text, .. } = &event.body {
                    seen.push_str(&unescape(text.as_escaped()));
                }
                places.push((event.cursor, after, seen.clone()));
                at = after;
            }
        }

        stream.cut(&cut);
        if !over {
            stream.end(outcome(&cut, CANCELLED));
        }

        let kept = cut.text_len();
        let again = logged(turn, Some(cut), CANCELLED);
        for (cursor, position, seen) in places {
            for told in [&*stream, &again] {
                match told.place(0, cursor) {
                    Ok(place) => {
                        let rest = events_of(told, place, bytes_max);
                        prop_assert_eq!(format!("{seen}{}", text_of(&rest)), &text[..kept]);
                        let last = rest.last().map(|it| &it.body);
                        let told_all = cursor.seen == Seen::Ended;
                        prop_assert!(told_all || matches!(last, Some(EventBody::Ended(it)) if it.finish_reason == CANCELLED));
                    }
                    Err(misplaced) => {
                        let beyond = Misplaced::Beyond { kept: kept as u64 };
                        let untellable = cursor.seen == Seen::Delta && cursor.epoch != told.epoch;
                        prop_assert!(misplaced == beyond && seen.len() > kept || untellable);
                    }
                }
            }
            // One that reads on where it had come to is told no more of it, and the end.
            if cursor.epoch == stream.epoch {
                let rest = events_of(stream, position, bytes_max);
                let told = format!("{seen}{}", text_of(&rest));
                prop_assert_eq!(told, &text[..kept.max(seen.len())]);
                prop_assert!(cursor.seen == Seen::Ended || rest.last().is_some_and(Event::is_last));
            }
        }
    }
}

#[test]
fn another_run_of_a_turn_is_another_text() {
    let turn = TurnId::now();
    let (streams, ordinal, _) = live(turn, &[Piece::Text("seen".to_owned())]);
    let seen = events_of(streams.get(ordinal).unwrap(), Position::default(), 100);
    let cursor = seen[2].cursor;
    assert_eq!(cursor.offset, 4);
    // Told from the log, it is the same run; and then it runs again, here or before a restart.
    let kept = kept(turn, "seen", "stop");
    assert_eq!(kept.place(0, cursor).map(|place| place.offset), Ok(4));
    let again = kept.run(2);
    assert_eq!(again.place(0, cursor), Err(Misplaced::Beyond { kept: 0 }));
    let mut streams = Streams::new(1);
    let ordinal = streams.push(again);
    let located = streams.locate(cursor);
    assert_eq!(located, Some(Err(Misplaced::Beyond { kept: 0 })));
    let started = seen[1].cursor;
    assert!(
        streams
            .get(ordinal)
            .unwrap()
            .place(ordinal, started)
            .is_ok()
    );
}

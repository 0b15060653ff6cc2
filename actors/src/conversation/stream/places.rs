//! Places in a turn: the cursor of a position, the position of a cursor, and the text between.

use serde::Serialize;

use super::{Cursor, EventBody, Item, Position, Seen, TurnStream, run_of};
use crate::json_text::{JsonText, cut_at_or_below, decoded_len, escaped_at, is_boundary};

/// Why a cursor leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// It lies beyond the text, of which so many UTF-8 bytes are here.
    Beyond {
        /// UTF-8 bytes of reply text.
        kept: u64,
    },
    /// What was seen is told in other pieces here.
    Untellable,
}

/// What a reader of text alone may pass over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Passing {
    /// Everything that has no event on its transport, and reasoning.
    Reasoning,
    /// Everything that has no event on its transport.
    Silence,
}

impl TurnStream {
    /// The cursor of a position, which comes after an event.
    #[must_use]
    pub fn cursor(&self, at: Position) -> Cursor {
        Cursor {
            turn: self.turn,
            epoch: self.epoch,
            item: at.item,
            byte: at.byte,
            offset: at.offset,
            seen: self.seen(at),
        }
    }

    fn seen(&self, at: Position) -> Seen {
        // Text is read from within its item, everything else from behind it.
        let last = match at.byte {
            0 => (at.item as usize).checked_sub(1),
            _ => Some(at.item as usize),
        };
        let Some(item) = last.and_then(|last| self.items.get(last)) else {
            return Seen::Nothing;
        };
        let delta = self
            .first_delta
            .filter(|first| Some(*first) <= last)
            .map_or(Seen::Started, |_| Seen::Delta);
        match item {
            Item::Whole(EventBody::Received(_)) => Seen::Received,
            Item::Whole(EventBody::Finish { .. }) => Seen::Finish,
            Item::Whole(EventBody::Usage { .. }) => Seen::Usage,
            Item::Whole(EventBody::Ended(_)) => Seen::Ended,
            Item::Text(_) | Item::Reasoning(_) | Item::Whole(_) => delta,
        }
    }

    /// The position of a cursor of this turn.
    pub fn place(&self, ordinal: u64, cursor: Cursor) -> Result<Position, Misplaced> {
        let place = match cursor.epoch == self.epoch {
            true => self.exact(cursor),
            false => self.approach(cursor),
        };
        place.map(|place| Position { ordinal, ..place })
    }

    /// Where the cursor was given out.
    fn exact(&self, cursor: Cursor) -> Result<Position, Misplaced> {
        let beyond = Misplaced::Beyond {
            kept: self.text_len(),
        };
        let (item, byte) = (cursor.item as usize, cursor.byte as usize);
        let within = match self.items.get(item) {
            Some(Item::Text(span) | Item::Reasoning(span)) => is_boundary(span.as_str(), byte),
            Some(Item::Whole(EventBody::Received(received))) => byte < received.parts().max(1),
            Some(Item::Whole(_)) => byte == 0,
            None => item == self.items.len() && byte == 0,
        };
        if !within {
            return Err(beyond);
        }
        let before = self.items[..item].iter().map(|item| match item {
            Item::Text(span) => decoded_len(span.as_str()) as u64,
            Item::Reasoning(_) | Item::Whole(_) => 0,
        });
        let here = match self.items.get(item) {
            Some(Item::Text(span)) => decoded_len(&span.as_str()[..byte]) as u64,
            Some(Item::Reasoning(_) | Item::Whole(_)) | None => 0,
        };
        let offset = before.sum::<u64>() + here;
        if cursor.offset > offset {
            // There was more text when it was given out: the reply was heard in part.
            return Err(beyond);
        }
        Ok(Position {
            item: cursor.item,
            byte: cursor.byte,
            offset,
            ordinal: 0,
        })
    }

    /// The same place in a text of the same turn that was told at another time.
    fn approach(&self, cursor: Cursor) -> Result<Position, Misplaced> {
        let kept = self.text_len();
        if cursor.offset > kept {
            return Err(Misplaced::Beyond { kept });
        }
        // Another run is another text, of which nothing was seen.
        let (before, run) = (run_of(cursor.epoch), run_of(self.epoch));
        let other = before != 0 && before != run;
        if cursor.offset > 0 && other {
            return Err(Misplaced::Beyond { kept: 0 });
        }
        if self.received().is_none() {
            return Ok(Position::default());
        }
        if other && cursor.seen != Seen::Nothing {
            return Ok(self.behind(1));
        }
        let after = |wanted: Seen| self.whole(wanted).map(|index| self.behind(index + 1));
        match cursor.seen {
            Seen::Nothing => Ok(self.within_received(cursor)),
            Seen::Received => Ok(self.behind(1)),
            Seen::Delta if self.first_delta.is_some() => Err(Misplaced::Untellable),
            Seen::Started | Seen::Delta => self.text_place(cursor.offset),
            // Where there is none, it was lost with the end that it announced.
            Seen::Finish | Seen::Usage => after(cursor.seen)
                .or_else(|| self.whole(Seen::Usage).map(|index| self.behind(index)))
                .or_else(|| self.whole(Seen::Ended).map(|index| self.behind(index)))
                .map_or_else(|| self.text_place(cursor.offset), Ok),
            // A turn that runs again is told again.
            Seen::Ended => Ok(after(Seen::Ended).unwrap_or_else(|| self.behind(1))),
        }
    }

    /// Behind some of the messages, where they are told in the same parts.
    fn within_received(&self, cursor: Cursor) -> Position {
        let same = self.received().is_some_and(|received| {
            received.before.is_empty() && (cursor.byte as usize) < received.parts()
        });
        Position {
            byte: if same && cursor.item == 0 {
                cursor.byte
            } else {
                0
            },
            ..Position::default()
        }
    }

    fn whole(&self, wanted: Seen) -> Option<usize> {
        self.items.iter().position(|item| {
            matches!(
                (item, wanted),
                (Item::Whole(EventBody::Started { .. }), Seen::Started)
                    | (Item::Whole(EventBody::Finish { .. }), Seen::Finish)
                    | (Item::Whole(EventBody::Usage { .. }), Seen::Usage)
                    | (Item::Whole(EventBody::Ended(_)), Seen::Ended)
            )
        })
    }

    /// Before the item of this index.
    fn behind(&self, index: usize) -> Position {
        let before = self.items.iter().take(index).map(|item| match item {
            Item::Text(span) => decoded_len(span.as_str()) as u64,
            Item::Reasoning(_) | Item::Whole(_) => 0,
        });
        Position {
            item: u32::try_from(index).unwrap_or(u32::MAX),
            offset: before.sum(),
            ..Position::default()
        }
    }

    /// Behind so many UTF-8 bytes of the reply's text.
    pub fn text_place(&self, offset: u64) -> Result<Position, Misplaced> {
        let beyond = Misplaced::Beyond {
            kept: self.text_len(),
        };
        if offset == 0 {
            return Ok(self.start_of_reply());
        }
        let mut left = usize::try_from(offset).map_err(|_beyond_memory| beyond)?;
        for (index, item) in self.items.iter().enumerate() {
            let Item::Text(span) = item else { continue };
            let length = decoded_len(span.as_str());
            if left > length {
                left -= length;
                continue;
            }
            let byte = escaped_at(span.as_str(), left).ok_or(beyond)?;
            return Ok(Position {
                item: u32::try_from(index).unwrap_or(u32::MAX),
                byte: u32::try_from(byte).unwrap_or(u32::MAX),
                offset,
                ordinal: 0,
            });
        }
        Err(beyond)
    }

    /// Behind the start of the reply; behind what was received where it has none.
    #[must_use]
    pub fn start_of_reply(&self) -> Position {
        self.behind(self.whole(Seen::Started).map_or(1, |index| index + 1))
    }

    /// Whether nothing is left behind a position.
    #[must_use]
    pub fn is_told(&self, at: Position) -> bool {
        at.item as usize >= self.items.len()
    }

    /// UTF-8 bytes of the reply's text.
    #[must_use]
    pub fn text_len(&self) -> u64 {
        self.text_spans()
            .map(|span| decoded_len(span.as_str()) as u64)
            .sum()
    }

    /// The position of its last event, once it has ended.
    #[must_use]
    pub fn last(&self, ordinal: u64) -> Option<Position> {
        self.outcome()?;
        Some(Position {
            ordinal,
            ..self.behind(self.items.len().checked_sub(1)?)
        })
    }

    /// The text from a position on, of at most `bytes_max` escaped bytes, up to the first event that
    /// must be told by itself; and the position and cursor after it.
    #[must_use]
    pub fn text_run(
        &self,
        from: Position,
        passing: Passing,
        bytes_max: usize,
    ) -> (JsonText, Position, Cursor) {
        let mut text = JsonText::default();
        let mut at = from;
        while let Some(item) = self.items.get(at.item as usize) {
            match item {
                Item::Text(span) => {
                    let (escaped, from) = (span.as_str(), at.byte as usize);
                    let room = bytes_max.saturating_sub(text.as_escaped().len());
                    let cut = cut_at_or_below(escaped, from, from + room);
                    text.push_escaped(&escaped[from..cut]);
                    at.offset += decoded_len(&escaped[from..cut]) as u64;
                    at.byte = u32::try_from(cut).unwrap_or(u32::MAX);
                    let grows = self.items.len() == at.item as usize + 1;
                    if cut < escaped.len() || grows {
                        break;
                    }
                }
                Item::Reasoning(_) if passing == Passing::Silence => break,
                Item::Whole(EventBody::Seam { .. } | EventBody::Ended(_)) => break,
                Item::Reasoning(span) if self.items.len() == at.item as usize + 1 => {
                    // It may still grow.
                    at.byte = u32::try_from(span.as_str().len()).unwrap_or(u32::MAX);
                    break;
                }
                Item::Reasoning(_) | Item::Whole(_) => {}
            }
            at.item += 1;
            at.byte = 0;
        }
        (text, at, self.cursor(at))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        conversation::{
            document::{TurnRecord, TurnState},
            event::{Event, Outcome, Received},
            message::{Draft, Role, Stamp, StoredMessage},
            stream::Streams,
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
        stream.show(Received {
            before: Vec::new(),
            messages: Vec::new(),
            message: None,
            key: None,
            replacing: None,
            told: 0,
        });
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
}

//! The turns of a conversation that somebody may still watch. Pure.
//!
//! Items of the running and the last finished turn are kept, older ones only while a session still
//! reads them.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{
    event::{Cursor, Event},
    stream::{Misplaced, Position, TurnStream},
};
use crate::id::TurnId;

/// The streams of a conversation, oldest first.
#[derive(Debug)]
pub struct Streams {
    epoch: u32,
    first: u64,
    turns: VecDeque<TurnStream>,
    /// The event read last: watchers at the same place share it.
    last: Option<(Position, usize, Arc<Event>, Position)>,
}

impl Streams {
    /// No turns yet.
    #[must_use]
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            first: 0,
            turns: VecDeque::new(),
            last: None,
        }
    }

    /// Adds a turn and tells its ordinal.
    pub fn push(&mut self, mut stream: TurnStream) -> u64 {
        let ordinal = self.end();
        // Two runs of a turn are two texts.
        let low = u32::try_from(ordinal % (1 << 31)).unwrap_or_default();
        stream.go_live(self.epoch.wrapping_add(low));
        self.turns.push_back(stream);
        ordinal
    }

    /// Takes back a turn that was never shown. Only the newest ones are.
    pub fn remove(&mut self, ordinal: u64) -> Option<TurnStream> {
        let index = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        let stream = self.turns.get_mut(index)?;
        // Its place stays, so that the ordinals after it hold; nobody finds it or is ever shown it.
        let gone = TurnStream::gone(stream.reply());
        Some(std::mem::replace(stream, gone))
    }

    /// The ordinal that the next turn will have.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.turns.len() as u64
    }

    /// The ordinal of the first turn that has not ended; all have: that of the next one.
    #[must_use]
    pub fn first_open(&self) -> u64 {
        let open = self.turns.iter().position(|stream| !stream.ended());
        self.first + open.unwrap_or(self.turns.len()) as u64
    }

    /// A turn by its ordinal.
    #[must_use]
    pub fn get(&self, ordinal: u64) -> Option<&TurnStream> {
        let index = ordinal.checked_sub(self.first)?;
        self.turns.get(usize::try_from(index).ok()?)
    }

    /// A turn by its ordinal.
    pub fn get_mut(&mut self, ordinal: u64) -> Option<&mut TurnStream> {
        let index = ordinal.checked_sub(self.first)?;
        // Whoever changes a stream makes the shared event stale only where it ends: text grows.
        self.last = None;
        self.turns.get_mut(usize::try_from(index).ok()?)
    }

    /// The ordinal of a turn.
    #[must_use]
    pub fn find(&self, turn: TurnId) -> Option<u64> {
        let index = self
            .turns
            .iter()
            .rposition(|stream| stream.turn() == turn)?;
        Some(self.first + index as u64)
    }

    /// Where a cursor points, if its turn is here: in the telling that it is of, else in the last.
    pub fn locate(&self, cursor: Cursor) -> Option<Result<Position, Misplaced>> {
        let telling = self.find_telling(cursor);
        let ordinal = telling.or_else(|| self.find(cursor.turn))?;
        Some(self.get(ordinal)?.place(ordinal, cursor))
    }

    /// The ordinal of the very telling that a cursor is of.
    #[must_use]
    pub fn find_telling(&self, cursor: Cursor) -> Option<u64> {
        let same = |it: &TurnStream| it.is_telling_of(cursor);
        let index = self.turns.iter().rposition(same)?;
        Some(self.first + index as u64)
    }

    /// The ordinal of a run of a turn.
    #[must_use]
    pub fn find_run(&self, turn: TurnId, run: usize) -> Option<u64> {
        let same = |it: &TurnStream| it.turn() == turn && it.attempt() as usize == run;
        let index = self.turns.iter().rposition(same)?;
        Some(self.first + index as u64)
    }

    /// The next event from a position on, across turns, and the position after it.
    pub fn read(&mut self, at: Position, bytes_max: usize) -> Option<(Arc<Event>, Position)> {
        if let Some((from, bytes, event, after)) = &self.last
            && *from == at
            && *bytes == bytes_max
        {
            return Some((event.clone(), *after));
        }
        let mut here = at;
        let (event, after) = loop {
            let stream = self.get(here.ordinal)?;
            match stream.read(here, bytes_max) {
                Some(found) => break found,
                None if stream.ended() => {
                    here = Position {
                        ordinal: here.ordinal + 1,
                        ..Position::default()
                    };
                }
                None => return None,
            }
        };
        let event = Arc::new(event);
        self.last = Some((at, bytes_max, event.clone(), after));
        Some((event, after))
    }

    /// The position of a turn's last event, once it has ended.
    #[must_use]
    pub fn last_of(&self, ordinal: u64) -> Option<Position> {
        self.get(ordinal)?.last(ordinal)
    }

    /// Forgets turns before `needed` that have ended, but keeps the last one that has.
    pub fn trim(&mut self, needed: u64) {
        while self.first < needed
            && self.turns.len() > 1
            && self.turns[0].ended()
            && self.turns[1].ended()
        {
            self.turns.pop_front();
            self.first += 1;
        }
    }

    /// The ordinals of the turns that are here.
    #[must_use]
    pub fn ordinals(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// Forgets everything before `needed` that has ended.
    pub fn clear_ended(&mut self, needed: u64) {
        while self.first < needed && self.turns.front().is_some_and(TurnStream::ended) {
            self.turns.pop_front();
            self.first += 1;
        }
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        conversation::{
            event::{EventBody, Outcome, Received},
            message::{Draft, Role, Stamp, StoredMessage},
        },
        id::MessageId,
        json_text::JsonText,
        time::Timestamp,
    };

    fn outcome(text: &JsonText) -> Arc<Outcome> {
        let stamp = Stamp {
            timestamp: Timestamp::from_micros(1),
            id: MessageId::now(),
            turn: None,
            model: None,
            models: &[],
            finish_reason: Some("stop"),
        };
        Arc::new(Outcome {
            finish_reason: "stop".into(),
            native_finish_reason: None,
            reply: Some(StoredMessage::new(
                &Draft::text(Role::Assistant, text.clone()),
                &stamp,
            )),
            reasoning: None,
            usage: None,
            head: Arc::default(),
            timestamp: Timestamp::from_micros(1),
            error: None,
        })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Text(String),
        Reasoning(String),
        Read(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            "[a\"é\n🚀]{1,9}".prop_map(Step::Text),
            "[b\\\\]{1,9}".prop_map(Step::Reasoning),
            (6usize..30).prop_map(Step::Read),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn reading_in_any_steps_gives_the_whole_text_once(steps in steps()) {
            let mut streams = Streams::new(7);
            let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
            streams.get_mut(ordinal).unwrap().show(Received::default());
            let mut at = Position { ordinal, ..Position::default() };
            let (mut text, mut reasoning) = (String::new(), String::new());
            let (mut seen_text, mut seen_reasoning) = (String::new(), String::new());
            let mut ended = false;
            let mut take = |event: &Event, ended: &mut bool| match &event.body {
                EventBody::Text { offset, text, .. } => {
                    assert_eq!(*offset as usize, seen_text.len());
                    seen_text.push_str(&crate::json_text::unescape(text.as_escaped()));
                }
                EventBody::Reasoning { text, .. } => {
                    seen_reasoning.push_str(&crate::json_text::unescape(text.as_escaped()));
                }
                EventBody::Ended(_) => *ended = true,
                EventBody::Received(_) | EventBody::Started { .. } | EventBody::Delta { .. }
                | EventBody::Finish { .. } | EventBody::Usage { .. } | EventBody::Seam { .. } | EventBody::Cut { .. } => {}
            };
            for step in steps {
                let stream = streams.get_mut(ordinal).unwrap();
                match step {
                    Step::Text(more) => {
                        text.push_str(&more);
                        stream.push_text(JsonText::escape(&more));
                    }
                    Step::Reasoning(more) => {
                        reasoning.push_str(&more);
                        stream.push_reasoning(JsonText::escape(&more));
                    }
                    Step::Read(bytes_max) => {
                        if let Some((event, after)) = streams.read(at, bytes_max) {
                            take(&event, &mut ended);
                            // A cursor leads back to the very position it was given at.
                            prop_assert_eq!(streams.locate(event.cursor), Some(Ok(after)));
                            at = after;
                        }
                    }
                }
            }
            let outcome = outcome(&streams.get(ordinal).unwrap().text());
            let stream = streams.get_mut(ordinal).unwrap();
            stream.settle(outcome.reply.as_ref().unwrap());
            stream.end(outcome);
            while let Some((event, after)) = streams.read(at, 16) {
                take(&event, &mut ended);
                at = after;
            }
            prop_assert!(ended);
            prop_assert_eq!(seen_text, text);
            prop_assert_eq!(seen_reasoning, reasoning);
        }
    }

    #[test]
    fn nothing_is_shown_before_the_acceptance_is_synced() {
        let mut streams = Streams::new(1);
        let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
        streams
            .get_mut(ordinal)
            .unwrap()
            .push_text(JsonText::escape("early"));
        assert!(streams.read(Position::default(), 100).is_none());
        streams.get_mut(ordinal).unwrap().show(Received::default());
        assert!(streams.read(Position::default(), 100).is_some());
    }

    #[test]
    fn the_last_ended_turn_stays_readable() {
        let mut streams = Streams::new(1);
        for _ in 0..3 {
            let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
            let stream = streams.get_mut(ordinal).unwrap();
            stream.show(Received::default());
            stream.end(outcome(&JsonText::escape("x")));
        }
        streams.trim(streams.end());
        assert!(streams.get(1).is_none());
        assert!(streams.get(2).is_some());
    }
}

//! Turns that are told to one who asked, out of the history, before what happens now. Pure.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use super::{
    document::TurnRecord,
    event::Event,
    stream::{Position, TurnStream},
};
use crate::{id::TurnId, limits};

/// Turns that have ended, oldest first, and how far they were told.
///
/// They are the subscriber's own: those who were there when they happened see none of it. Their
/// text is shared with the history, and they are with everybody who is told the same.
#[derive(Debug)]
pub struct Backlog {
    turns: VecDeque<Arc<TurnStream>>,
    at: Position,
}

impl Backlog {
    /// These turns, the first of them from a position on.
    #[must_use]
    pub fn new(turns: VecDeque<Arc<TurnStream>>, at: Position) -> Option<Box<Self>> {
        let mut backlog = Self { turns, at };
        backlog.drop_told();
        (!backlog.turns.is_empty()).then(|| Box::new(backlog))
    }

    /// One turn, from a position on.
    #[must_use]
    pub fn of(turn: TurnStream, at: Position) -> Option<Box<Self>> {
        Self::new(VecDeque::from([Arc::new(turn)]), at)
    }

    /// The next event, of at most `bytes_max` bytes of text, and the position after it.
    #[must_use]
    pub fn read(&self, bytes_max: usize) -> Option<(Arc<Event>, Position)> {
        let (event, after) = self.turns.front()?.read(self.at, bytes_max)?;
        Some((Arc::new(event), after))
    }

    /// An event was told; whether others follow.
    pub fn told(&mut self, after: Position) -> Rest {
        self.at = after;
        self.drop_told();
        match self.turns.is_empty() {
            true => Rest::Nothing,
            false => Rest::Something,
        }
    }

    fn drop_told(&mut self) {
        while self.turns.front().is_some_and(|turn| turn.is_told(self.at)) {
            self.turns.pop_front();
            self.at = Position::default();
        }
    }
}

/// What of a turn is told out of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Telling {
    /// All of one that ran once.
    Whole,
    /// The messages of one that ran again.
    Messages,
    /// The last run, without the messages.
    LastRun,
}

/// The turns that are being told out of the history: many who come back at once share them.
#[derive(Debug, Default)]
pub struct Retold(RefCell<HashMap<(TurnId, usize, Telling), Weak<TurnStream>>>);

impl Retold {
    /// A turn as it is told; none if it has no such telling.
    #[must_use]
    pub fn tell(&self, record: &TurnRecord, telling: Telling) -> Option<Arc<TurnStream>> {
        let key = (record.turn?, record.runs.len(), telling);
        let mut known = self.0.borrow_mut();
        if let Some(stream) = known.get(&key).and_then(Weak::upgrade) {
            return Some(stream);
        }
        let stream = Arc::new(match telling {
            Telling::Whole => TurnStream::retold(record)?,
            Telling::Messages => TurnStream::of_messages(record)?,
            Telling::LastRun => TurnStream::ran_again(record)?,
        });
        if known.len() >= limits::RESUME_TURNS_MAX {
            known.retain(|_, stream| stream.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&stream));
        Some(stream)
    }

    /// A turn is told otherwise from now on, to those who ask from now on.
    pub fn forget(&self, turn: TurnId) {
        self.0.borrow_mut().retain(|(known, ..), _| *known != turn);
    }
}

/// Whether something is left to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is.
    Something,
    /// There is not.
    Nothing,
}

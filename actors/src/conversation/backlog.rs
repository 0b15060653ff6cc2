//! Turns that are told to one who asked, out of the history, before what happens now. Pure.

use std::{collections::VecDeque, sync::Arc};

use super::{
    event::Event,
    stream::{Position, TurnStream},
};

/// Turns that have ended, oldest first, and how far they were told.
///
/// They are the subscriber's own: those who were there when they happened see none of it. Their
/// text is shared with the history.
#[derive(Debug)]
pub struct Backlog {
    turns: VecDeque<TurnStream>,
    at: Position,
}

impl Backlog {
    /// These turns, the first of them from a position on.
    #[must_use]
    pub fn new(turns: VecDeque<TurnStream>, at: Position) -> Option<Box<Self>> {
        let mut backlog = Self { turns, at };
        backlog.drop_told();
        (!backlog.turns.is_empty()).then(|| Box::new(backlog))
    }

    /// One turn, from a position on.
    #[must_use]
    pub fn of(turn: TurnStream, at: Position) -> Option<Box<Self>> {
        Self::new(VecDeque::from([turn]), at)
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

/// Whether something is left to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is.
    Something,
    /// There is not.
    Nothing,
}

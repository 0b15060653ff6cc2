//! The turns of a document, and what is remembered of them so that a turn costs the same behind a
//! long history as behind a short one.

use std::{
    cell::Cell,
    collections::HashSet,
    hash::{BuildHasher as _, Hash},
    ops::{Deref, Range},
};

use super::TurnRecord;
use crate::id::TurnId;

/// The turns in order. Whoever changes one names its index, and what was remembered of those from
/// it on is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    records: Vec<TurnRecord>,
    windowed: Cell<Option<Windowed>>,
    /// Hashes of the ids and of the keys that any turn ever had here: most requests are new, and
    /// need not be looked for among all turns.
    seen: HashSet<u64>,
}

/// The turns up to one of them.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    records: &'a [TurnRecord],
    windowed: Option<&'a Cell<Option<Windowed>>>,
}

/// Which of the first `turns` turns a prompt with so much room holds: those from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windowed {
    /// Tokens for the history and what is asked.
    pub room: u64,
    /// How many turns were gone through.
    pub turns: usize,
    /// The first that the prompt holds.
    pub start: usize,
    /// Tokens of those from `start` on.
    pub tokens: u64,
}

impl<'a> History<'a> {
    /// The turns.
    #[must_use]
    pub fn turns(self) -> &'a [TurnRecord] {
        self.records
    }

    /// What is remembered of its first turns for prompts of this room.
    #[must_use]
    pub fn windowed(self, room: u64) -> Option<Windowed> {
        let known = self.windowed?.get()?;
        (known.room == room && known.turns <= self.records.len()).then_some(known)
    }

    /// Remembers it for the next prompt.
    pub fn remember(self, windowed: Windowed) {
        if let Some(known) = self.windowed {
            known.set(Some(windowed));
        }
    }
}

/// Turns of which nothing is remembered.
impl<'a> From<&'a [TurnRecord]> for History<'a> {
    fn from(records: &'a [TurnRecord]) -> Self {
        Self {
            records,
            windowed: None,
        }
    }
}

impl Deref for Turns {
    type Target = [TurnRecord];

    fn deref(&self) -> &[TurnRecord] {
        &self.records
    }
}

impl Turns {
    /// The first so many.
    pub(super) fn until(&self, end: usize) -> History<'_> {
        History {
            records: &self.records[..end],
            windowed: Some(&self.windowed),
        }
    }

    /// Whether a turn of this id is, or was, among them; seldom wrong, and never if it says no.
    pub(super) fn may_hold(&self, turn: TurnId) -> bool {
        self.seen.contains(&self.hash_of(turn))
    }

    /// Whether a turn of this key is, or was, among them; seldom wrong, and never if it says no.
    pub(super) fn may_hold_key(&self, scope: &str, key: &str) -> bool {
        self.seen.contains(&self.hash_of((scope, key)))
    }

    pub(super) fn push(&mut self, record: TurnRecord) {
        self.insert(self.records.len(), record);
    }

    pub(super) fn extend(&mut self, records: Vec<TurnRecord>) {
        for record in records {
            self.push(record);
        }
    }

    pub(super) fn insert(&mut self, index: usize, record: TurnRecord) {
        self.changes(index);
        if let Some(turn) = record.turn {
            self.seen.insert(self.hash_of(turn));
        }
        if let Some(key) = record.key.as_deref() {
            let key = (key.0.scope.as_str(), key.0.key.as_str());
            self.seen.insert(self.hash_of(key));
        }
        self.records.insert(index, record);
    }

    pub(super) fn remove(&mut self, index: usize) -> TurnRecord {
        self.changes(index);
        self.records.remove(index)
    }

    pub(super) fn drain(&mut self, range: Range<usize>) -> Vec<TurnRecord> {
        self.changes(range.start);
        self.records.drain(range).collect()
    }

    pub(super) fn split_off(&mut self, index: usize) -> Vec<TurnRecord> {
        self.changes(index);
        self.records.split_off(index)
    }

    /// One of them, to be changed.
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut TurnRecord> {
        self.changing(index).first_mut()
    }

    /// Those from an index on, to be changed.
    pub(super) fn changing(&mut self, index: usize) -> &mut [TurnRecord] {
        self.changes(index);
        self.records.get_mut(index..).unwrap_or_default()
    }

    fn hash_of(&self, known: impl Hash) -> u64 {
        self.seen.hasher().hash_one(known)
    }

    fn changes(&mut self, index: usize) {
        let known = self.windowed.get_mut();
        if known.is_some_and(|known| known.turns > index) {
            *known = None;
        }
    }
}

//! What stands out among the documents that lack something, for those who watch the mirror.

use std::collections::{HashMap, HashSet};

use crate::id::ConversationId;

/// How far the removal of a deleted conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is owed.
    Removing,
    /// It is done; whether it lasts is still to be looked at.
    Removed,
}

/// The documents that stand out. All of them are in the schedule.
#[derive(Debug, Default)]
pub(super) struct Standings {
    deletions: HashMap<ConversationId, Standing>,
    unconfirmed: HashSet<ConversationId>,
    removed: usize,
}

impl Standings {
    pub(super) fn get(&self, id: &ConversationId) -> Option<Standing> {
        self.deletions.get(id).copied()
    }

    pub(super) fn set(&mut self, id: ConversationId, standing: Standing) {
        self.unconfirmed.remove(&id);
        self.removed += usize::from(standing == Standing::Removed);
        if self.deletions.insert(id, standing) == Some(Standing::Removed) {
            self.removed -= 1;
        }
    }

    pub(super) fn unconfirmed(&mut self, id: ConversationId) {
        self.unconfirmed.insert(id);
    }

    pub(super) fn clear(&mut self, id: &ConversationId) {
        self.unconfirmed.remove(id);
        if self.deletions.remove(id) == Some(Standing::Removed) {
            self.removed -= 1;
        }
    }

    /// Removals that are done and still looked after.
    pub(super) fn removed(&self) -> usize {
        self.removed
    }

    pub(super) fn unconfirmed_count(&self) -> usize {
        self.unconfirmed.len()
    }

    pub(super) fn deletions(&self) -> usize {
        self.deletions.len()
    }
}

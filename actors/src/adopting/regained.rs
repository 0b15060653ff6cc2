//! What a later copy of ours shows that the log has lost: the ends of turns, wherever they stand, and
//! what was said after them.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Entries, ends_of, finish_reason, replaced_last, same};
use crate::{
    conversation::{
        document::{Document, TurnRecord, TurnState},
        message::StoredMessage,
        orphan,
    },
    id::MessageId,
    log::entry::{Added, EntryHead, TurnEnded, TurnReopened},
    time::Timestamp,
};

/// Entries that make the history what the copy shows; `None`: there are none, the two have parted.
pub(super) fn entries(
    ours: &Document,
    theirs: &[StoredMessage],
    now: Timestamp,
) -> Option<Entries> {
    let mut regained = Regained::new(ours, now);
    regained.end_turns(ours, theirs)?;
    regained.add_rest(theirs)?;
    regained.showing(theirs)
}

/// These entries, if they make the history what the copy shows: a turn that was open may have moved to
/// another place than the one it once had.
pub(super) fn tried(
    ours: &Document,
    entries: Entries,
    theirs: &[StoredMessage],
    now: Timestamp,
) -> Option<Entries> {
    let mut tried = Regained::new(ours, now);
    for (head, messages) in entries {
        tried.push(head, messages)?;
    }
    tried.showing(theirs)
}

/// The history with what was taken over so far: each entry is tried before it is offered.
struct Regained {
    document: Document,
    entries: Entries,
    now: Timestamp,
}

impl Regained {
    fn new(ours: &Document, now: Timestamp) -> Self {
        Self {
            document: ours.clone(),
            entries: Vec::new(),
            now,
        }
    }

    /// The entries, if with them the history begins as the copy does.
    fn showing(self, theirs: &[StoredMessage]) -> Option<Entries> {
        (self.common(theirs) == theirs.len()).then_some(self.entries)
    }

    fn push(&mut self, head: EntryHead, messages: Vec<StoredMessage>) -> Option<()> {
        self.document.apply_parsed(&head, messages.clone()).ok()?;
        self.entries.push((head, messages));
        Some(())
    }

    /// Gives turns the replies that the log has not, in the order in which they were accepted.
    fn end_turns(&mut self, ours: &Document, theirs: &[StoredMessage]) -> Option<()> {
        // A reply may have been replaced before the copy was made.
        let replaced = theirs.iter().flat_map(StoredMessage::alternatives);
        let said: HashMap<_, _> = replaced.chain(theirs).map(|it| (it.id(), it)).collect();
        let reply_of = |record: &TurnRecord| {
            let owed = record.reply_id.filter(|_| record.reply().is_none())?;
            said.get(&Some(owed)).copied()
        };
        let turns = ours.turns();
        let last = turns.iter().rposition(|record| reply_of(record).is_some());
        for (index, record) in turns.iter().enumerate() {
            let Some(turn) = record.turn else { continue };
            if self.document.was_replaced(turn) {
                continue;
            }
            let (attempt, reply) = match (&record.state, reply_of(record)) {
                (TurnState::Open { attempt, .. }, Some(reply)) => (*attempt, reply),
                // It was over before a later one could have its reply.
                (TurnState::Open { attempt, owed, .. }, None) if Some(index) < last => {
                    let ended = orphan::end(turn, *attempt, *owed, self.now);
                    self.push(EntryHead::TurnEnded(ended), Vec::new())?;
                    continue;
                }
                (TurnState::Ended(ended), Some(reply)) => {
                    let attempt = ended.attempt + 1;
                    let reopened = TurnReopened {
                        at: self.now,
                        turn,
                        attempt,
                        model: model(reply),
                    };
                    self.push(EntryHead::TurnReopened(reopened), Vec::new())?;
                    (attempt, reply)
                }
                (TurnState::Open { .. } | TurnState::Ended(_) | TurnState::Imported, _) => continue,
            };
            let ended = TurnEnded {
                at: self.now,
                turn,
                attempt,
                finish_reason: finish_reason(reply),
                usage: None,
                error: None,
            };
            self.push(EntryHead::TurnEnded(ended), vec![reply.clone()])?;
        }
        Some(())
    }

    /// Adds what the copy says behind that, or in the place of the newest exchange.
    fn add_rest(&mut self, theirs: &[StoredMessage]) -> Option<()> {
        let common = self.common(theirs);
        let Some(next) = theirs.get(common) else {
            return Some(());
        };
        let mine: Vec<_> = self.document.messages().skip(common).collect();
        let replaces: Option<MessageId> = match mine.is_empty() {
            true => None,
            false => Some(replaced_last(&mine, next)?),
        };
        for (head, messages) in ends_of(&self.document, &mine, self.now) {
            self.push(head, messages)?;
        }
        let added = Added {
            at: self.now,
            replaces,
        };
        self.push(EntryHead::Appended(added), theirs[common..].to_vec())
    }

    /// How many messages the two begin with in common.
    fn common(&self, theirs: &[StoredMessage]) -> usize {
        let both = self.document.messages().zip(theirs);
        both.take_while(|(mine, theirs)| same(mine, theirs)).count()
    }
}

/// The model that a reply names.
fn model(reply: &StoredMessage) -> String {
    #[derive(Deserialize)]
    struct Reply {
        model: Option<String>,
    }
    let reply: Option<Reply> = serde_json::from_str(reply.fragment()).ok();
    reply.and_then(|reply| reply.model).unwrap_or_default()
}

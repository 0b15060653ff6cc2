//! Replies and messages that are replaced by others: regenerate and edit.
//!
//! A turn that replaces is accepted behind all others and shows nothing until it has a reply. Then
//! it moves to its place, and what stood there, and behind it up to where the turn was accepted,
//! leaves the document. What was replaced is kept: its turns answer repeats of their requests, and
//! the id of each of its messages stands for what replaced it.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use smallvec::SmallVec;

use super::{Document, History, TurnRecord, TurnState};
use crate::{
    conversation::message::{Role, StoredMessage},
    id::{MessageId, TurnId},
};

/// Which message stands for a replaced one. It may have been replaced in its turn.
pub type Heirs = BTreeMap<MessageId, MessageId>;

/// What a turn replaces once it has a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// The message in whose place it stands, as its acceptance names it.
    pub at: MessageId,
    /// Its own user message until it has a reply: an edit's.
    pub(super) own: SmallVec<[StoredMessage; 1]>,
    /// What is told of it.
    pub(super) told: Replacing,
}

impl Branch {
    /// What was told of it when it was accepted; once it has a reply, what it replaced.
    #[must_use]
    pub fn told(&self) -> Replacing {
        self.told
    }
}

/// What is told of a turn that replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replacing {
    /// The message that it replaces; none: it answers a message that has no reply.
    pub message: Option<MessageId>,
    /// The last message that stays; none: none does.
    pub after: Option<MessageId>,
    /// The user's message that it answers.
    #[serde(skip)]
    pub answers: Option<MessageId>,
}

/// What is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A reply.
    Reply,
    /// A user's message.
    Message,
}

/// Why nothing can be replaced there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// No message has this id, or had it.
    #[error("message_id should be the id of a message of this conversation")]
    Unknown,
    /// It is not a user's message.
    #[error("message_id should be the id of a message of the user: only those can be edited")]
    NotTheUsers,
    /// Instructions are not answered.
    #[error("message_id should not be the id of a system message: those have no reply")]
    System,
    /// There is nothing that could be answered.
    #[error("message_id should name a reply to a message: there is none that could be answered")]
    Nothing,
}

/// Where a turn that replaces begins: in this turn, behind so many of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    turn: usize,
    stays: usize,
}

impl Document {
    /// Checks what a request wants to replace; tells the id to name in the acceptance of its turn.
    pub fn replaceable(&self, at: Option<MessageId>, kind: Kind) -> Result<MessageId, NoPlace> {
        let at = match at {
            Some(at) => at,
            None => self.newest().ok_or(NoPlace::Nothing)?,
        };
        // A reply that is under way has no place yet, but the turn that it will stand in.
        let mut open = self.turns.iter().filter(|it| it.is_open());
        if kind == Kind::Reply && open.any(|it| it.reply_id == Some(at)) {
            return Ok(at);
        }
        let said = self.messages().chain(self.replaced());
        let mut named = said.filter(|it| it.id() == Some(at));
        if kind == Kind::Message && named.any(|it| it.role() != Role::User) {
            return Err(NoPlace::NotTheUsers);
        }
        let place = self.place(at, kind)?;
        let record = &self.turns[place.turn];
        let here = record.messages.get(place.stays);
        let here = here.and_then(StoredMessage::id);
        let owed = record.reply_id.filter(|id| self.find(*id) == Some(place));
        // The message itself, whatever a client called it by.
        Ok(match kind {
            Kind::Reply => here.or(owed).unwrap_or(at),
            Kind::Message => here
                .filter(|here| self.standing_for(at) == *here)
                .unwrap_or(at),
        })
    }

    /// The history before a turn that replaces, and what it answers.
    pub fn before(
        &self,
        at: MessageId,
        own: &[StoredMessage],
    ) -> (History<'_>, SmallVec<[StoredMessage; 4]>) {
        let Ok(place) = self.place(at, kind_of(own)) else {
            return (self.turns.until(self.turns.len()), own.into());
        };
        let stays = &self.turns[place.turn].messages[..place.stays];
        let new = stays.iter().chain(own).cloned().collect();
        (self.turns.until(place.turn), new)
    }

    /// What is to be told of a turn that replaces, as things are now.
    #[must_use]
    pub fn replacing(&self, record: &TurnRecord) -> Option<Replacing> {
        let branch = record.branch.as_deref()?;
        let told = match record.state {
            TurnState::Open { .. } => self.told(branch.at, &branch.own),
            TurnState::Ended(_) | TurnState::Imported => None,
        };
        Some(told.unwrap_or(branch.told))
    }

    pub(super) fn told(&self, at: MessageId, own: &[StoredMessage]) -> Option<Replacing> {
        let place = self.place(at, kind_of(own)).ok()?;
        let before = self.turns[..place.turn].iter().rev();
        let stays = &self.turns[place.turn].messages[..place.stays];
        let mut before = stays
            .iter()
            .rev()
            .chain(before.flat_map(|it| it.messages.iter().rev()));
        let here = self.turns[place.turn].messages.get(place.stays);
        let after = before.next();
        let answers = own.last().or(after);
        Some(Replacing {
            message: here.and_then(StoredMessage::id),
            after: after.and_then(StoredMessage::id),
            answers: answers.and_then(StoredMessage::id),
        })
    }

    /// The messages of a turn as it received them; those of one that replaces, before it has a
    /// reply, are not in the document.
    #[must_use]
    pub fn received<'a>(&self, record: &'a TurnRecord) -> &'a [StoredMessage] {
        match record.branch.as_deref() {
            Some(branch) if record.messages.is_empty() => &branch.own,
            Some(_) | None => record.received(),
        }
    }

    /// The turn that stands for a replaced one without a reply; none if it has not been replaced.
    #[must_use]
    pub fn stands_for(&self, turn: TurnId) -> Option<TurnId> {
        let replaced = self.replaced.iter().rev();
        let record = replaced.into_iter().find(|it| it.turn == Some(turn))?;
        let heir = successor(&self.heirs, record.reply_id?);
        self.turns[self.find(heir)?.turn].turn
    }

    /// Whether a turn has left the document.
    #[must_use]
    pub fn was_replaced(&self, turn: TurnId) -> bool {
        self.replaced.iter().any(|it| it.turn == Some(turn))
    }

    /// The messages that were replaced, as far as they are known: some may come twice, and some may
    /// stand in the document as well.
    pub fn replaced(&self) -> impl Iterator<Item = &StoredMessage> {
        let here = self.messages().flat_map(StoredMessage::alternatives);
        here.chain(self.replaced.iter().flat_map(|it| &it.messages))
    }

    /// What a request means that names no message: the newest reply, or the newest message if that
    /// has none.
    fn newest(&self) -> Option<MessageId> {
        self.turns.iter().rev().find_map(|record| {
            if record.is_open() || record.reply().is_some() {
                return record.reply_id;
            }
            let mut said = record.messages.iter().rev();
            said.find(|it| it.role() != Role::System)?.id()
        })
    }

    /// Where a message stands, or the reply that a turn owes.
    fn find(&self, id: MessageId) -> Option<Place> {
        self.turns
            .iter()
            .enumerate()
            .rev()
            .find_map(|(turn, record)| {
                let messages = &record.messages;
                let stays = match messages.iter().position(|it| it.id() == Some(id)) {
                    Some(stays) => stays,
                    None if record.reply_id == Some(id) && record.branch.is_none() => {
                        messages.len()
                    }
                    None => return None,
                };
                Some(Place { turn, stays })
            })
    }

    /// The message that stands for one that was replaced, or was to replace one and did not.
    fn standing_for(&self, id: MessageId) -> MessageId {
        let mut id = id;
        // Each turn that replaces names an older message: as many steps as there are turns.
        for _ in 0..=self.turns.len() {
            id = successor(&self.heirs, id);
            if self.messages().any(|it| it.id() == Some(id)) {
                break;
            }
            let waits = |record: &&TurnRecord| {
                record.messages.is_empty()
                    && (record.reply_id == Some(id)
                        || self.received(record).iter().any(|it| it.id() == Some(id)))
            };
            let mut hidden = self.turns.iter().filter(|it| it.branch.is_some());
            match hidden.find(waits).and_then(|it| it.branch.as_deref()) {
                Some(branch) => id = branch.at,
                None => break,
            }
        }
        id
    }

    fn place(&self, at: MessageId, kind: Kind) -> Result<Place, NoPlace> {
        let stands = self.standing_for(at);
        let named = self.find(stands).ok_or(NoPlace::Unknown)?;
        let message = self.turns[named.turn].messages.get(named.stays);
        let place = match (kind, message.map(StoredMessage::role)) {
            (Kind::Message, Some(Role::User)) => return Ok(named),
            // Another reply took the place of the one that the message followed: it follows that.
            (Kind::Message, Some(_)) if stands != at => Place {
                stays: named.stays + 1,
                ..named
            },
            (Kind::Message, _) => return Err(NoPlace::NotTheUsers),
            (Kind::Reply, Some(Role::System)) => return Err(NoPlace::System),
            (Kind::Reply, Some(Role::Assistant) | None) => named,
            (Kind::Reply, Some(Role::User | Role::Tool)) => self.reply_to(named),
        };
        let stays = self.turns[place.turn].messages[..place.stays].iter();
        let before = self.turns[..place.turn].iter();
        let mut said = before.flat_map(|it| &it.messages).chain(stays);
        match said.any(|it| it.role() != Role::System) {
            true => Ok(place),
            false => Err(NoPlace::Nothing),
        }
    }

    /// The place of the reply to a message; behind its turn if there is none.
    fn reply_to(&self, message: Place) -> Place {
        let unanswered = Place {
            stays: self.turns[message.turn].messages.len(),
            ..message
        };
        for (turn, record) in self.turns.iter().enumerate().skip(message.turn) {
            let from = if turn == message.turn {
                message.stays + 1
            } else {
                0
            };
            for (stays, said) in record.messages.iter().enumerate().skip(from) {
                match said.role() {
                    Role::Assistant => return Place { turn, stays },
                    Role::User if turn != message.turn => return unanswered,
                    Role::User | Role::Tool | Role::System => {}
                }
            }
        }
        unanswered
    }

    /// Moves a turn that replaces to its place: it has a reply. Tells its index there, and what
    /// the reply replaces.
    pub(super) fn select(
        &mut self,
        position: usize,
        reply: MessageId,
    ) -> (usize, Option<StoredMessage>) {
        let branch = self.turns[position].branch.as_deref();
        let Some(at) = branch.map(|branch| branch.at) else {
            return (position, None);
        };
        let mut record = self.turns.remove(position);
        let branch = record.branch.as_deref_mut();
        let own = branch.map(|branch| std::mem::take(&mut branch.own));
        let own = own.unwrap_or_default();
        let Ok(place) = self.place(at, kind_of(&own)) else {
            // Never where the acceptance was checked: it stands where it was accepted, then.
            record.messages.extend(own);
            self.turns.insert(position, record);
            return (position, None);
        };
        if let (Some(told), Some(branch)) = (self.told(at, &own), record.branch.as_deref_mut()) {
            branch.told = told;
        }
        let heir = own.first().and_then(StoredMessage::id).unwrap_or(reply);
        let (stays, mut old) = self.cut(place, position, heir);
        record.messages = stays;
        for said in own {
            // The first of them replaces; the reply is then no alternative of anything.
            record.messages.push(replacing(said, old.take()));
        }
        self.turns.insert(place.turn, record);
        (place.turn, old)
    }

    /// Puts messages in the place of one, and of all that is behind it.
    pub(super) fn replace(&mut self, at: MessageId, messages: Vec<StoredMessage>) {
        let heir = messages.first().and_then(StoredMessage::id);
        let mut behind = Vec::new();
        if let (Some(heir), Some(place)) = (heir, self.find(self.standing_for(at))) {
            let (stays, _) = self.cut(place, self.turns.len(), heir);
            behind = self.turns.split_off(place.turn);
            if !stays.is_empty() {
                let since = self.seq + 1;
                self.turns.push(TurnRecord::imported(stays, since));
            }
        }
        for message in messages {
            self.import(message);
        }
        self.turns.extend(behind);
    }

    /// Takes out of the document what stands at a place and behind it, up to a turn. Tells which
    /// messages of the place's turn stay, and which message stood there. Turns that are still to
    /// be answered are kept behind the place.
    fn cut(
        &mut self,
        place: Place,
        end: usize,
        heir: MessageId,
    ) -> (SmallVec<[StoredMessage; 2]>, Option<StoredMessage>) {
        let end = end.max(place.turn + 1).min(self.turns.len());
        let cut = self.turns.drain(place.turn..end);
        let (mut stays, mut old) = (SmallVec::new(), None);
        let mut owed = Vec::new();
        let heirs = Arc::make_mut(&mut self.heirs);
        for (index, mut record) in cut.into_iter().enumerate() {
            let from = if index == 0 { place.stays } else { 0 };
            if index == 0 {
                stays = record.messages[..from].into();
                old = record.messages.get(from).cloned();
            }
            if record.is_open() {
                record.messages.drain(..from);
                owed.push(record);
                continue;
            }
            let own = record.branch.iter().flat_map(|branch| &branch.own);
            let gone = record.messages[from..].iter().chain(own);
            let gone = gone.filter_map(StoredMessage::id);
            for id in gone.chain(record.reply_id).filter(|id| *id != heir) {
                heirs.insert(id, heir);
            }
            self.replaced.push(record);
        }
        for (index, record) in owed.into_iter().enumerate() {
            self.turns.insert(place.turn + index, record);
        }
        (stays, old)
    }

    /// Notes what an imported message replaced before.
    pub(super) fn note_alternatives(&mut self, message: &StoredMessage) {
        let Some(id) = message.id().filter(|_| !message.alternatives().is_empty()) else {
            return;
        };
        let heirs = Arc::make_mut(&mut self.heirs);
        let others = message.alternatives().iter().filter_map(StoredMessage::id);
        for other in others.filter(|other| *other != id) {
            heirs.insert(other, id);
        }
    }
}

fn kind_of(own: &[StoredMessage]) -> Kind {
    match own {
        [] => Kind::Reply,
        _ => Kind::Message,
    }
}

/// The message, with what it replaces, and what that had replaced, as its alternatives.
pub(super) fn replacing(message: StoredMessage, old: Option<StoredMessage>) -> StoredMessage {
    let Some(old) = old else {
        return message;
    };
    let mut all = old.alternatives().to_vec();
    all.push(old);
    all.retain(|it| it.id() != message.id());
    message.with_alternatives(all)
}

/// The message that stands for one that was replaced; the message itself if it was not.
pub(super) fn successor(heirs: &Heirs, id: MessageId) -> MessageId {
    let mut id = id;
    // What was imported may say anything, even that two replaced each other.
    for _ in 0..heirs.len() {
        match heirs.get(&id) {
            Some(heir) => id = *heir,
            None => break,
        }
    }
    id
}

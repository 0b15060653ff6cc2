//! What to take over from a copy that holds something the log does not. Pure.
//!
//! A log can lose its end: a backup was restored, or a damaged WAL ends early. A copy that a mirror
//! wrote before that is then ahead, and what it has more is appended again.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::{
    conversation::{
        document::{Document, TurnRecord, TurnState},
        message::{Role, StoredMessage},
    },
    id::{ConversationId, MessageId},
    importing::{self, UnknownRole},
    log::entry::{Added, EntryHead, Prepended, TurnEnded, UNKNOWN},
    mirror::imported::ImportedDocument,
    time::Timestamp,
};

/// What a copy has to offer.
#[derive(Debug, PartialEq)]
pub(crate) enum Offer {
    /// Nothing that the log does not have.
    Nothing,
    /// Entries that bring what it has more, with their messages.
    Entries(Vec<(EntryHead, Vec<StoredMessage>)>),
    /// The two have parted: neither is a beginning of the other.
    Parted,
}

/// Compares a copy with the history that the log has.
pub(crate) fn offer(
    id: &ConversationId,
    ours: &Document,
    copy: &ImportedDocument,
    now: Timestamp,
) -> Result<Offer, UnknownRole> {
    let theirs = importing::messages_of(id, copy, ours.created_at())?;
    let mine: Vec<&StoredMessage> = ours.messages().collect();
    let common = mine
        .iter()
        .zip(&theirs)
        .take_while(|(mine, theirs)| same(mine, theirs))
        .count();
    if common == theirs.len() {
        return Ok(Offer::Nothing);
    }
    if common == mine.len() {
        let suffix = theirs.into_iter().skip(common).collect();
        return Ok(Offer::Entries(appended(ours, suffix, now)));
    }
    if let Some(replaced) = replaced_last(&mine[common..], &theirs[common]) {
        let suffix = theirs.into_iter().skip(common).collect();
        return Ok(Offer::Entries(branched(ours, replaced, suffix, now)));
    }
    if is_earlier(ours, &theirs, common) {
        return Ok(Offer::Nothing);
    }
    let known: HashSet<_> = mine.iter().filter_map(|message| message.id()).collect();
    let shared = |message: &StoredMessage| message.id().is_some_and(|id| known.contains(&id));
    if ours.began_unverified() && !theirs.iter().any(shared) {
        let prepended = EntryHead::Prepended(Prepended {
            at: now,
            created_at: copy.created_at.unwrap_or_else(|| ours.created_at()),
            user_id: copy.user_id.clone(),
            character_id: copy.character_id.clone(),
        });
        return Ok(Offer::Entries(vec![(prepended, theirs)]));
    }
    Ok(Offer::Parted)
}

/// Entries for messages that replace the end of what the log has. A turn that is open may be the one
/// that was to do so.
fn branched(
    ours: &Document,
    replaced: MessageId,
    suffix: Vec<StoredMessage>,
    now: Timestamp,
) -> Vec<(EntryHead, Vec<StoredMessage>)> {
    let first = suffix.first().and_then(StoredMessage::id);
    let mut open = ours.turns().iter().filter(|it| it.is_open());
    let begins = open.find(|it| {
        let own = ours.received(it).first().and_then(StoredMessage::id);
        it.branch.is_some() && own.or(it.reply_id) == first
    });
    let Some(turn) = begins else {
        let added = Added {
            at: now,
            replaces: Some(replaced),
        };
        return vec![(EntryHead::Appended(added), suffix)];
    };
    let accepted = ours.received(turn).len();
    appended(ours, suffix.into_iter().skip(accepted).collect(), now)
}

/// Whether two messages are one. Their times may differ: one that waited is given a later one.
fn same(mine: &StoredMessage, theirs: &StoredMessage) -> bool {
    mine.id() == theirs.id() && mine.comparable() == theirs.comparable()
}

/// Whether a copy shows what the log had before something was replaced.
fn is_earlier(ours: &Document, theirs: &[StoredMessage], common: usize) -> bool {
    let of_id = |message| (StoredMessage::id(message), message);
    let replaced: HashMap<_, _> = ours.replaced().map(of_id).collect();
    let mut known: HashMap<_, _> = ours.messages().map(of_id).collect();
    let is_in = |all: &HashMap<_, &StoredMessage>, message: &StoredMessage| {
        let found = all.get(&message.id());
        found.is_some_and(|found| same(found, message))
    };
    let parts = theirs.get(common);
    if !parts.is_some_and(|message| is_in(&replaced, message)) {
        return false;
    }
    known.extend(replaced);
    theirs.iter().all(|message| is_in(&known, message))
}

/// The message that a copy's message replaced, if it did so in the newest exchange: then nothing
/// was said here that the copy might not know.
fn replaced_last(mine: &[&StoredMessage], theirs: &StoredMessage) -> Option<MessageId> {
    let (first, behind) = mine.split_first()?;
    let newest = behind.iter().all(|message| message.role() != Role::User);
    let mut alternatives = theirs.alternatives().iter();
    let replaced = alternatives.any(|alternative| same(first, alternative));
    first.id().filter(|_| newest && replaced)
}

/// Entries for messages that follow what the log has. The reply of a turn that is open ends it.
fn appended(
    ours: &Document,
    suffix: Vec<StoredMessage>,
    now: Timestamp,
) -> Vec<(EntryHead, Vec<StoredMessage>)> {
    let open: Vec<&TurnRecord> = ours.turns().iter().filter(|it| it.is_open()).collect();
    let mut entries = Vec::new();
    let mut rest = Vec::with_capacity(suffix.len());
    for message in suffix {
        match open.iter().find_map(|turn| ends(turn, &message)) {
            Some((turn, attempt)) if rest.is_empty() => {
                let ended = EntryHead::TurnEnded(TurnEnded {
                    at: now,
                    turn,
                    attempt,
                    finish_reason: finish_reason(&message),
                    usage: None,
                    error: None,
                });
                entries.push((ended, vec![message]));
            }
            Some(_) | None => rest.push(message),
        }
    }
    if !rest.is_empty() {
        entries.push((
            EntryHead::Appended(Added {
                at: now,
                replaces: None,
            }),
            rest,
        ));
    }
    entries
}

fn ends(record: &TurnRecord, message: &StoredMessage) -> Option<(crate::id::TurnId, u32)> {
    match &record.state {
        TurnState::Open { attempt, .. } if record.reply_id == message.id() => {
            Some((record.turn?, *attempt))
        }
        TurnState::Open { .. } | TurnState::Ended(_) | TurnState::Imported => None,
    }
}

fn finish_reason(message: &StoredMessage) -> String {
    #[derive(Deserialize)]
    struct Reply {
        finish_reason: Option<String>,
    }
    let reply: Option<Reply> = serde_json::from_str(message.fragment()).ok();
    reply
        .and_then(|reply| reply.finish_reason)
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

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
        orphan,
    },
    id::{ConversationId, MessageId},
    importing::{self, UnknownRole},
    log::entry::{Added, EntryHead, Heard, Prepended, TurnEnded, UNKNOWN, VoiceUsed},
    mirror::imported::ImportedDocument,
    time::Timestamp,
};

mod regained;

/// Entries, and the messages of each.
type Entries = Vec<(EntryHead, Vec<StoredMessage>)>;

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
///
/// Of a reply that was heard in part a copy from before shows more: it is the same reply, and the
/// copy no other one. One of ours that shows less of it is from after.
pub(crate) fn offer(
    id: &ConversationId,
    ours: &Document,
    copy: &ImportedDocument,
    now: Timestamp,
) -> Result<Offer, UnknownRole> {
    let theirs = importing::messages_of(id, copy, ours.created_at())?;
    let revision = copy.revision.as_ref();
    let whose = match revision.is_some_and(|it| it.incarnation == ours.incarnation()) {
        true => Whose::Ours,
        false => Whose::Unknown,
    };
    let mut entries = match whose {
        Whose::Ours => heard(ours, &theirs, now),
        Whose::Unknown => Entries::new(),
    };
    match more(ours, copy, theirs, whose, now) {
        Offer::Parted => return Ok(Offer::Parted),
        Offer::Nothing => {}
        Offer::Entries(more) => entries.extend(more),
    }
    let used = copy.voice_usage.unwrap_or_default();
    let used = used.beyond(ours.voice_usage());
    if whose == Whose::Ours && !used.is_nothing() {
        let used = VoiceUsed {
            at: now,
            usage: used,
        };
        entries.push((EntryHead::VoiceUsed(used), Vec::new()));
    }
    Ok(match entries.is_empty() {
        true => Offer::Nothing,
        false => Offer::Entries(entries),
    })
}

/// Whether a copy is of the life of the id that the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Unknown,
}

/// Entries for the replies of which a copy of ours shows less than the log.
fn heard(ours: &Document, theirs: &[StoredMessage], now: Timestamp) -> Entries {
    // One may have been replaced before the copy was made.
    let replaced = theirs.iter().flat_map(StoredMessage::alternatives);
    let said: HashMap<_, _> = replaced.chain(theirs).map(|it| (it.id(), it)).collect();
    let entry = |record: &TurnRecord| {
        let (turn, mine) = (record.turn?, record.reply()?);
        let theirs = said.get(&mine.id())?;
        let heard = Heard {
            at: now,
            turn,
            reply: mine.id()?,
            bytes: theirs.text_len(),
        };
        let less = same(mine, theirs) && heard.bytes < mine.text_len();
        less.then(|| (EntryHead::Heard(heard), Vec::new()))
    };
    ours.turns().iter().filter_map(entry).collect()
}

/// What a copy says more, message by message.
fn more(
    ours: &Document,
    copy: &ImportedDocument,
    theirs: Vec<StoredMessage>,
    whose: Whose,
    now: Timestamp,
) -> Offer {
    let mine: Vec<&StoredMessage> = ours.messages().collect();
    let common = mine
        .iter()
        .zip(&theirs)
        .take_while(|(mine, theirs)| same(mine, theirs))
        .count();
    if common == theirs.len() {
        return Offer::Nothing;
    }
    let is_ours = whose == Whose::Ours;
    if (is_ours || was_replaced(ours, &theirs[common])) && all_known(ours, &theirs) {
        return Offer::Nothing;
    }
    if is_ours && let Some(entries) = regained::entries(ours, &theirs, now) {
        return Offer::Entries(entries);
    }
    let suffix = || theirs[common..].to_vec();
    let replaced = replaced_last(&mine[common..], &theirs[common]);
    let behind = match replaced {
        None if common == mine.len() => Some(appended(ours, suffix(), now)),
        None => None,
        Some(replaced) => {
            let mut entries = ends_of(ours, &mine[common..], now);
            entries.extend(branched(ours, replaced, suffix(), now));
            Some(entries)
        }
    };
    if let Some(entries) = behind {
        let tried = regained::tried(ours, entries, &theirs, now);
        return tried.map_or(Offer::Parted, Offer::Entries);
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
        return Offer::Entries(vec![(prepended, theirs)]);
    }
    Offer::Parted
}

/// Ends for the turns of these messages that are open: what was replaced had ended.
fn ends_of(
    ours: &Document,
    replaced: &[&StoredMessage],
    now: Timestamp,
) -> Vec<(EntryHead, Vec<StoredMessage>)> {
    let is_replaced = |record: &&TurnRecord| {
        let first = record.messages.first();
        first.is_some_and(|first| replaced.iter().any(|it| it.id() == first.id()))
    };
    let open = ours.turns().iter().filter(is_replaced);
    open.filter_map(|record| match record.state {
        TurnState::Open { attempt, owed, .. } => {
            Some(orphan::end(record.turn?, attempt, owed, now))
        }
        TurnState::Ended(_) | TurnState::Imported => None,
    })
    .map(|ended| (EntryHead::TurnEnded(ended), Vec::new()))
    .collect()
}

/// Entries for messages that replace the end of what the log has. A turn that is open may be the one
/// that was to do so.
fn branched(
    ours: &Document,
    replaced: MessageId,
    suffix: Vec<StoredMessage>,
    now: Timestamp,
) -> Vec<(EntryHead, Vec<StoredMessage>)> {
    let mut open = ours.turns().iter().filter(|it| it.is_open());
    // Its reply may have been replaced since.
    let begins = open.find(|it| {
        let ids = ours.received(it).iter().map(StoredMessage::id);
        let whole = ids.chain([it.reply_id]);
        it.branch.is_some()
            && suffix
                .iter()
                .map(StoredMessage::id)
                .take(whole.clone().count())
                .eq(whole)
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

/// Whether two messages are one. Their times may differ: one that waited is given a later one. So
/// may what was heard of them.
fn same(mine: &StoredMessage, theirs: &StoredMessage) -> bool {
    let alike = || mine.comparable() == theirs.comparable() || mine.uncut() == theirs.uncut();
    mine.id() == theirs.id() && alike()
}

/// Whether the log had a message in the document once.
fn was_replaced(ours: &Document, message: &StoredMessage) -> bool {
    ours.replaced().any(|it| same(it, message))
}

/// Whether the log has all these messages, in the document or replaced: a copy shows what there was
/// before something was replaced, or before a reply came to a message that others waited behind.
fn all_known(ours: &Document, theirs: &[StoredMessage]) -> bool {
    let all = ours.messages().chain(ours.replaced());
    let known: HashMap<_, _> = all.map(|message| (message.id(), message)).collect();
    let is_known = |message: &StoredMessage| {
        let found = known.get(&message.id());
        found.is_some_and(|found| same(found, message))
    };
    theirs.iter().all(is_known)
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

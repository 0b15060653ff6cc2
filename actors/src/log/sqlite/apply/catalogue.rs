//! One row for each conversation: a projection of its entries, kept with every append.

use rusqlite::{Connection, params};

use super::EncodedAppend;
use crate::log::entry::EntryHead;

/// What an append makes of its conversation's row. Members that are `None` stay as they are.
#[derive(Default)]
struct Change<'a> {
    seq: i64,
    updated_at: i64,
    bytes: i64,
    owner: Owner<'a>,
    /// The row begins anew with this append.
    anew: Option<Anew>,
    created_at: Option<i64>,
    deleted_seq: Option<i64>,
    /// The document that may have been somewhere was found.
    found: bool,
}

/// Set once, by the first entry that names it.
#[derive(Default)]
struct Owner<'a> {
    user_id: Option<&'a str>,
    character_id: Option<&'a str>,
}

impl<'a> Owner<'a> {
    fn name(&mut self, user_id: Option<&'a str>, character_id: Option<&'a str>) {
        self.user_id = self.user_id.or(user_id);
        self.character_id = self.character_id.or(character_id);
    }
}

/// A beginning, or an end: what was there before does not count.
struct Anew {
    incarnation: i64,
    created_at: i64,
    unverified: bool,
}

fn change(append: &EncodedAppend) -> Change<'_> {
    let mut change = Change::default();
    for (entry, seq) in append.entries.iter().zip(append.expected_seq + 1..) {
        change.seq = seq.cast_signed();
        change.updated_at = entry.head.at().micros();
        let bytes = entry.body().len() as i64;
        match &entry.head {
            EntryHead::Begun(begun) => {
                if let Some(imported) = begun.imported_updated_at {
                    change.updated_at = imported.micros();
                }
                change.bytes = 0;
                change.owner = Owner::default();
                let (user_id, character_id) = (&begun.user_id, &begun.character_id);
                change
                    .owner
                    .name(user_id.as_deref(), character_id.as_deref());
                change.anew = Some(Anew {
                    incarnation: begun.incarnation.cast_signed(),
                    created_at: begun.at.micros(),
                    unverified: begun.unverified,
                });
            }
            EntryHead::Deleted(deleted) => {
                change.bytes = 0;
                change.owner = Owner::default();
                change.deleted_seq = Some(change.seq);
                change.anew = Some(Anew {
                    incarnation: deleted.incarnation.cast_signed(),
                    created_at: deleted.at.micros(),
                    unverified: false,
                });
            }
            EntryHead::TurnAccepted(accepted) => {
                let (user_id, character_id) = (&accepted.user_id, &accepted.character_id);
                change
                    .owner
                    .name(user_id.as_deref(), character_id.as_deref());
            }
            EntryHead::Prepended(prepended) => {
                let (user_id, character_id) = (&prepended.user_id, &prepended.character_id);
                change
                    .owner
                    .name(user_id.as_deref(), character_id.as_deref());
                change.created_at = Some(prepended.created_at.micros());
                change.found = true;
            }
            EntryHead::TurnEnded(_)
            | EntryHead::TurnReopened(_)
            | EntryHead::Heard(_)
            | EntryHead::VoiceUsed(_)
            | EntryHead::Appended(_) => {}
        }
        change.bytes += bytes;
    }
    change
}

/// Brings the row of a conversation up to date, making it if there is none, and tells its number.
pub(super) fn update(
    connection: &Connection,
    num: Option<i64>,
    append: &EncodedAppend,
) -> rusqlite::Result<i64> {
    let change = change(append);
    let (user_id, character_id) = (change.owner.user_id, change.owner.character_id);
    let deleted_seq = change.deleted_seq.unwrap_or(0);
    match (num, &change.anew) {
        // Checked before: what is not there yet begins with this append.
        (None, anew) => connection
            .prepare_cached(
                "INSERT INTO conversations (id, incarnation, seq, created_at, updated_at, user_id,
                    character_id, bytes, deleted_seq, unverified)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .insert(params![
                append.id.as_str(),
                anew.as_ref().map_or(0, |anew| anew.incarnation),
                change.seq,
                anew.as_ref()
                    .map_or(change.updated_at, |anew| anew.created_at),
                change.updated_at,
                user_id,
                character_id,
                change.bytes,
                deleted_seq,
                anew.as_ref().is_some_and(|anew| anew.unverified)
            ]),
        (Some(num), Some(anew)) => {
            connection
                .prepare_cached(
                    "UPDATE conversations SET incarnation = ?2, seq = ?3, created_at = ?4,
                        updated_at = ?5, user_id = ?6, character_id = ?7, bytes = ?8,
                        deleted_seq = max(deleted_seq, ?9), unverified = ?10 WHERE num = ?1",
                )?
                .execute(params![
                    num,
                    anew.incarnation,
                    change.seq,
                    anew.created_at,
                    change.updated_at,
                    user_id,
                    character_id,
                    change.bytes,
                    deleted_seq,
                    anew.unverified
                ])?;
            Ok(num)
        }
        (Some(num), None) => {
            connection
                .prepare_cached(
                    "UPDATE conversations SET seq = ?2, updated_at = ?3,
                        user_id = coalesce(user_id, ?4),
                        character_id = coalesce(character_id, ?5), bytes = bytes + ?6
                     WHERE num = ?1",
                )?
                .execute(params![
                    num,
                    change.seq,
                    change.updated_at,
                    user_id,
                    character_id,
                    change.bytes
                ])?;
            if change.found {
                connection
                    .prepare_cached(
                        "UPDATE conversations SET created_at = min(created_at, ?2), unverified = 0
                         WHERE num = ?1",
                    )?
                    .execute(params![num, change.created_at])?;
            }
            Ok(num)
        }
    }
}

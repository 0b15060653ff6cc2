//! What one member of a batch does inside the transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    encode::{Encoded, Kind, VERSION},
    progress::Progress,
    schema::{SEQ_MAX, position},
};
use crate::{
    id::{ConversationId, TurnId},
    log::{
        AppendError,
        entry::{Begun, EntryHead},
    },
};

/// An append as the writer gets it.
#[derive(Debug)]
pub(super) struct EncodedAppend {
    pub(super) id: ConversationId,
    pub(super) expected_seq: u64,
    pub(super) entries: Vec<Encoded>,
}

impl EncodedAppend {
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(Encoded::bytes).sum()
    }
}

/// Writes one append, or says why not. A refusal has written nothing; an error of the storage engine
/// may have, and the caller rolls back.
pub(super) fn append(
    connection: &Connection,
    append: &EncodedAppend,
) -> rusqlite::Result<Result<u64, AppendError>> {
    let known = connection
        .prepare_cached("SELECT num, seq FROM conversations WHERE id = ?1")?
        .query_row([append.id.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })
        .optional()?;
    let actual_seq = known.map_or(0, |(_, seq)| seq);
    if actual_seq != append.expected_seq {
        return Ok(Err(AppendError::Refused { actual_seq }));
    }
    // Everything is checked before anything is written: a refusal needs no savepoint then.
    if let Err(refusal) = check(connection, append)? {
        return Ok(Err(refusal));
    }
    let seq = actual_seq + append.entries.len() as u64;
    let num = match known {
        Some((num, _)) => {
            update_catalogue(connection, num, seq, append)?;
            num
        }
        None => match insert_catalogue(connection, seq, append)? {
            Some(num) => num,
            None => return Ok(Err(malformed("a conversation begins with its first entry"))),
        },
    };
    for (entry, seq) in append.entries.iter().zip(actual_seq + 1..) {
        write_entry(connection, position(num, seq), entry)?;
    }
    Ok(Ok(seq))
}

/// A request that no retry makes better: a mistake in the engine, kept out of the log.
fn malformed(why: &str) -> AppendError {
    AppendError::Unavailable(Arc::from(why))
}

fn check(
    connection: &Connection,
    append: &EncodedAppend,
) -> rusqlite::Result<Result<(), AppendError>> {
    if append.entries.is_empty() {
        return Ok(Err(malformed("an append holds at least one entry")));
    }
    if append.expected_seq + append.entries.len() as u64 > SEQ_MAX {
        return Ok(Err(malformed("the conversation has too many entries")));
    }
    for (index, entry) in append.entries.iter().enumerate() {
        let earlier = &append.entries[..index];
        let first = append.expected_seq == 0 && index == 0;
        let checked = match &entry.head {
            EntryHead::Begun(_) if first => Ok(()),
            EntryHead::Begun(_) => Err(malformed("a conversation begins once")),
            _ if first => Err(malformed("a conversation begins with its first entry")),
            EntryHead::TurnAccepted(accepted) => check_new(connection, earlier, accepted.turn)?,
            EntryHead::TurnEnded(ended) => check_open(connection, append, earlier, ended.turn)?,
        };
        if checked.is_err() {
            return Ok(checked);
        }
    }
    Ok(Ok(()))
}

fn holds(entries: &[Encoded], turn: TurnId, kind: Kind) -> bool {
    entries
        .iter()
        .any(|entry| entry.turn() == Some(turn) && Kind::of(&entry.head) == kind)
}

fn is_stored(connection: &Connection, turn: TurnId, kind: Kind) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM entries WHERE turn = ?1 AND kind = ?2")?
        .exists(params![turn.0.as_bytes(), kind.column()])
}

fn check_new(
    connection: &Connection,
    earlier: &[Encoded],
    turn: TurnId,
) -> rusqlite::Result<Result<(), AppendError>> {
    let duplicate = holds(earlier, turn, Kind::TurnAccepted)
        || is_stored(connection, turn, Kind::TurnAccepted)?;
    Ok(if duplicate {
        Err(AppendError::Duplicate { turn })
    } else {
        Ok(())
    })
}

fn check_open(
    connection: &Connection,
    append: &EncodedAppend,
    earlier: &[Encoded],
    turn: TurnId,
) -> rusqlite::Result<Result<(), AppendError>> {
    if holds(earlier, turn, Kind::TurnEnded) || is_stored(connection, turn, Kind::TurnEnded)? {
        return Ok(Err(AppendError::Duplicate { turn }));
    }
    let open = holds(earlier, turn, Kind::TurnAccepted)
        || connection
            .prepare_cached(
                "SELECT 1 FROM open_turns t JOIN conversations c ON c.num = t.pos >> 28
                 WHERE t.turn = ?1 AND c.id = ?2",
            )?
            .exists(params![turn.0.as_bytes(), append.id.as_str()])?;
    Ok(if open {
        Ok(())
    } else {
        Err(malformed(
            "a turn ends in the conversation that accepted it",
        ))
    })
}

/// What an append changes in its conversation's row.
struct Change<'a> {
    updated_at: i64,
    user_id: Option<&'a str>,
    character_id: Option<&'a str>,
    bytes: i64,
}

fn change(append: &EncodedAppend) -> Change<'_> {
    let mut change = Change {
        updated_at: 0,
        user_id: None,
        character_id: None,
        bytes: 0,
    };
    for entry in &append.entries {
        change.updated_at = entry.at().micros();
        change.bytes += entry.body().len() as i64;
        let (user_id, character_id) = match &entry.head {
            EntryHead::Begun(begun) => {
                if let Some(imported) = begun.imported_updated_at {
                    change.updated_at = imported.micros();
                }
                (&begun.user_id, &begun.character_id)
            }
            EntryHead::TurnAccepted(accepted) => (&accepted.user_id, &accepted.character_id),
            EntryHead::TurnEnded(_) => continue,
        };
        change.user_id = change.user_id.or(user_id.as_deref());
        change.character_id = change.character_id.or(character_id.as_deref());
    }
    change
}

fn update_catalogue(
    connection: &Connection,
    num: i64,
    seq: u64,
    append: &EncodedAppend,
) -> rusqlite::Result<()> {
    let change = change(append);
    connection
        .prepare_cached(
            "UPDATE conversations SET seq = ?2, updated_at = ?3, user_id = coalesce(user_id, ?4),
                character_id = coalesce(character_id, ?5), bytes = bytes + ?6 WHERE num = ?1",
        )?
        .execute(params![
            num,
            seq.cast_signed(),
            change.updated_at,
            change.user_id,
            change.character_id,
            change.bytes
        ])?;
    Ok(())
}

/// `None`: the first entry does not begin a conversation.
fn insert_catalogue(
    connection: &Connection,
    seq: u64,
    append: &EncodedAppend,
) -> rusqlite::Result<Option<i64>> {
    let Some(EntryHead::Begun(Begun {
        at, incarnation, ..
    })) = append.entries.first().map(|entry| &entry.head)
    else {
        return Ok(None);
    };
    let change = change(append);
    let num = connection
        .prepare_cached(
            "INSERT INTO conversations
                (id, incarnation, seq, created_at, updated_at, user_id, character_id, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .insert(params![
            append.id.as_str(),
            incarnation.cast_signed(),
            seq.cast_signed(),
            at.micros(),
            change.updated_at,
            change.user_id,
            change.character_id,
            change.bytes
        ])?;
    Ok(Some(num))
}

fn write_entry(connection: &Connection, pos: i64, entry: &Encoded) -> rusqlite::Result<()> {
    let turn = entry.turn();
    let turn = turn.as_ref().map(|turn| turn.0.as_bytes().as_slice());
    let kind = Kind::of(&entry.head);
    connection
        .prepare_cached(
            "INSERT INTO entries (pos, version, kind, turn, head, lengths, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            pos,
            VERSION,
            kind.column(),
            turn,
            entry.head_json(),
            entry.lengths(),
            entry.body()
        ])?;
    match kind {
        Kind::Begun => {}
        Kind::TurnAccepted => {
            connection
                .prepare_cached("INSERT INTO open_turns (turn, pos) VALUES (?1, ?2)")?
                .execute(params![turn, pos])?;
        }
        Kind::TurnEnded => {
            connection
                .prepare_cached("DELETE FROM open_turns WHERE turn = ?1")?
                .execute([turn])?;
        }
    }
    Ok(())
}

/// Records how far a mirror is. A conversation that is gone, or lives anew, is passed over.
pub(super) fn progress(
    connection: &Connection,
    mirror: &str,
    rows: &[Progress],
) -> rusqlite::Result<()> {
    // An intent leaves what was written before it, so that either is known as ours.
    let mut intend = connection.prepare_cached(
        "INSERT INTO mirror_progress (mirror, conv, incarnation, seq, intended_size, intended_mtime_ns)
         SELECT ?1, num, incarnation, 0, ?4, ?5 FROM conversations WHERE id = ?2 AND incarnation = ?3
         ON CONFLICT (mirror, conv) DO UPDATE SET
            intended_size = excluded.intended_size, intended_mtime_ns = excluded.intended_mtime_ns",
    )?;
    let mut written = connection.prepare_cached(
        "INSERT INTO mirror_progress (mirror, conv, incarnation, seq, file_size, file_mtime_ns)
         SELECT ?1, num, incarnation, ?6, ?4, ?5 FROM conversations WHERE id = ?2 AND incarnation = ?3
         ON CONFLICT (mirror, conv) DO UPDATE SET
            incarnation = excluded.incarnation, seq = excluded.seq,
            file_size = excluded.file_size, file_mtime_ns = excluded.file_mtime_ns,
            intended_size = NULL, intended_mtime_ns = NULL",
    )?;
    for row in rows {
        let size = row.stamp.size.cast_signed();
        let incarnation = row.incarnation.cast_signed();
        match row.reached {
            None => intend.execute(params![
                mirror,
                row.id.as_str(),
                incarnation,
                size,
                row.stamp.mtime_ns
            ])?,
            Some(seq) => written.execute(params![
                mirror,
                row.id.as_str(),
                incarnation,
                size,
                row.stamp.mtime_ns,
                seq.cast_signed()
            ])?,
        };
    }
    Ok(())
}

//! What one member of a batch does inside the transaction.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    encode::{Encoded, Kind, VERSION},
    partials::Partials,
    schema::position,
};
use crate::{
    id::ConversationId,
    log::{AppendError, entry::EntryHead},
};

mod catalogue;
mod check;

use check::Stage;

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

/// What the catalogue says of a conversation.
#[derive(Debug, Clone, Copy)]
struct Known {
    num: i64,
    seq: u64,
    /// The newest deletion; 0: never.
    deleted_seq: u64,
}

/// Writes one append, or says why not. A refusal has written nothing; an error of the storage engine
/// may have, and the caller rolls back.
pub(super) fn append(
    connection: &Connection,
    partials: &Partials,
    append: &EncodedAppend,
) -> rusqlite::Result<Result<u64, AppendError>> {
    let known = connection
        .prepare_cached("SELECT num, seq, deleted_seq FROM conversations WHERE id = ?1")?
        .query_row([append.id.as_str()], |row| {
            Ok(Known {
                num: row.get(0)?,
                seq: row.get::<_, i64>(1)?.cast_unsigned(),
                deleted_seq: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })
        .optional()?;
    let actual_seq = known.map_or(0, |known| known.seq);
    if actual_seq != append.expected_seq {
        return Ok(Err(AppendError::Refused { actual_seq }));
    }
    // Everything is checked before anything is written: a refusal needs no savepoint then.
    let stage = match known {
        Some(known) if known.deleted_seq < known.seq => Stage::UnderWay,
        Some(_) | None => Stage::Over,
    };
    if let Err(refusal) = check::check(connection, append, stage)? {
        return Ok(Err(refusal));
    }
    let num = catalogue::update(connection, known.map(|known| known.num), append)?;
    for (entry, seq) in append.entries.iter().zip(actual_seq + 1..) {
        if let EntryHead::Deleted(_) = entry.head {
            partials.forget(connection, num)?;
            forget(connection, num, seq)?;
        }
        write_entry(connection, position(num, seq), entry)?;
    }
    Ok(Ok(actual_seq + append.entries.len() as u64))
}

/// Removes the entries and open turns that a conversation holds before a deletion.
fn forget(connection: &Connection, num: i64, seq: u64) -> rusqlite::Result<()> {
    let (first, last) = (position(num, 0), position(num, seq) - 1);
    connection
        .prepare_cached("DELETE FROM open_turns WHERE pos BETWEEN ?1 AND ?2")?
        .execute([first, last])?;
    connection
        .prepare_cached("DELETE FROM entries WHERE pos BETWEEN ?1 AND ?2")?
        .execute([first, last])?;
    Ok(())
}

fn write_entry(connection: &Connection, pos: i64, entry: &Encoded) -> rusqlite::Result<()> {
    let about = entry.head.turn();
    let attempt = about.map_or(1, |(_, attempt)| attempt);
    let turn = about.as_ref().map(|(turn, _)| turn.0.as_bytes().as_slice());
    let kind = Kind::of(&entry.head);
    connection
        .prepare_cached(
            "INSERT INTO entries (pos, version, kind, turn, attempt, head, lengths, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            pos,
            VERSION,
            kind.column(),
            turn,
            attempt,
            entry.head_json(),
            entry.lengths(),
            entry.body()
        ])?;
    match kind {
        Kind::Begun
        | Kind::Heard
        | Kind::VoiceUsed
        | Kind::Appended
        | Kind::Prepended
        | Kind::Deleted => {}
        Kind::TurnAccepted | Kind::TurnReopened => {
            connection
                .prepare_cached("INSERT INTO open_turns (turn, pos, attempt) VALUES (?1, ?2, ?3)")?
                .execute(params![turn, pos, attempt])?;
        }
        Kind::TurnEnded => {
            connection
                .prepare_cached("DELETE FROM open_turns WHERE turn = ?1")?
                .execute([turn])?;
        }
    }
    Ok(())
}

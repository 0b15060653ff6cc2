//! Whether an append makes sense, asked before any of it is written.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::EncodedAppend;
use crate::{
    id::TurnId,
    log::{
        AppendError,
        entry::EntryHead,
        sqlite::{
            encode::{Encoded, Kind},
            schema::SEQ_MAX,
        },
    },
};

type Checked = Result<(), AppendError>;

/// A request that no retry makes better: a mistake in the engine, kept out of the log.
fn malformed(why: &str) -> AppendError {
    AppendError::Unavailable(Arc::from(why))
}

/// Where a conversation is, as far as the order of entries goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Never begun, or its last entry is a deletion.
    Over,
    UnderWay,
}

pub(super) fn check(
    connection: &Connection,
    append: &EncodedAppend,
    stage: Stage,
) -> rusqlite::Result<Checked> {
    if append.entries.is_empty() {
        return Ok(Err(malformed("an append holds at least one entry")));
    }
    if append.expected_seq + append.entries.len() as u64 > SEQ_MAX {
        return Ok(Err(malformed("the conversation has too many entries")));
    }
    let mut stage = stage;
    for (index, entry) in append.entries.iter().enumerate() {
        let earlier = &append.entries[..index];
        stage = match (stage, &entry.head) {
            (Stage::Over, EntryHead::Begun(_)) => Stage::UnderWay,
            (Stage::Over, _) => {
                return Ok(Err(malformed("a conversation begins with its first entry")));
            }
            (Stage::UnderWay, EntryHead::Begun(_)) => {
                return Ok(Err(malformed("a conversation begins once")));
            }
            (Stage::UnderWay, EntryHead::Deleted(_)) => Stage::Over,
            (Stage::UnderWay, _) => Stage::UnderWay,
        };
        let checked = match &entry.head {
            EntryHead::Begun(_)
            | EntryHead::Heard(_)
            | EntryHead::VoiceUsed(_)
            | EntryHead::Appended(_)
            | EntryHead::Prepended(_)
            | EntryHead::Deleted(_) => Ok(()),
            EntryHead::TurnAccepted(accepted) => {
                new(connection, earlier, accepted.turn, Kind::TurnAccepted, 1)?
            }
            EntryHead::TurnReopened(reopened) => {
                let (turn, attempt) = (reopened.turn, reopened.attempt);
                reopens(connection, append, earlier, turn, attempt)?
            }
            EntryHead::TurnEnded(ended) => {
                ends(connection, append, earlier, ended.turn, ended.attempt)?
            }
        };
        if checked.is_err() {
            return Ok(checked);
        }
    }
    Ok(Ok(()))
}

fn holds(entries: &[Encoded], turn: TurnId, kind: Kind, attempt: u32) -> bool {
    entries
        .iter()
        .any(|entry| entry.head.turn() == Some((turn, attempt)) && Kind::of(&entry.head) == kind)
}

fn is_stored(
    connection: &Connection,
    turn: TurnId,
    kind: Kind,
    attempt: u32,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM entries WHERE turn = ?1 AND kind = ?2 AND attempt = ?3")?
        .exists(params![turn.0.as_bytes(), kind.column(), attempt])
}

fn new(
    connection: &Connection,
    earlier: &[Encoded],
    turn: TurnId,
    kind: Kind,
    attempt: u32,
) -> rusqlite::Result<Checked> {
    let duplicate =
        holds(earlier, turn, kind, attempt) || is_stored(connection, turn, kind, attempt)?;
    Ok(if duplicate {
        Err(AppendError::Duplicate { turn })
    } else {
        Ok(())
    })
}

/// A turn runs once more when the run before it has ended, in the conversation that accepted it.
fn reopens(
    connection: &Connection,
    append: &EncodedAppend,
    earlier: &[Encoded],
    turn: TurnId,
    attempt: u32,
) -> rusqlite::Result<Checked> {
    let checked = new(connection, earlier, turn, Kind::TurnReopened, attempt)?;
    if checked.is_err() {
        return Ok(checked);
    }
    let ended = attempt > 1
        && connection
            .prepare_cached(
                "SELECT 1 FROM entries e JOIN conversations c ON c.num = e.pos >> 28
                 WHERE e.turn = ?1 AND e.kind = ?2 AND e.attempt = ?3 AND c.id = ?4",
            )?
            .exists(params![
                turn.0.as_bytes(),
                Kind::TurnEnded.column(),
                attempt - 1,
                append.id.as_str()
            ])?;
    Ok(if ended {
        Ok(())
    } else {
        Err(malformed("a turn runs again after it has ended"))
    })
}

fn ends(
    connection: &Connection,
    append: &EncodedAppend,
    earlier: &[Encoded],
    turn: TurnId,
    attempt: u32,
) -> rusqlite::Result<Checked> {
    let checked = new(connection, earlier, turn, Kind::TurnEnded, attempt)?;
    if checked.is_err() {
        return Ok(checked);
    }
    let opening = match attempt {
        1 => Kind::TurnAccepted,
        _ => Kind::TurnReopened,
    };
    let open = holds(earlier, turn, opening, attempt)
        || connection
            .prepare_cached(
                "SELECT 1 FROM open_turns t JOIN conversations c ON c.num = t.pos >> 28
                 WHERE t.turn = ?1 AND t.attempt = ?2 AND c.id = ?3",
            )?
            .exists(params![turn.0.as_bytes(), attempt, append.id.as_str()])?;
    Ok(if open {
        Ok(())
    } else {
        Err(malformed(
            "a turn ends in the conversation that accepted it",
        ))
    })
}

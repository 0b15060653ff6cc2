//! The text of replies under way, in the pieces in which it was checkpointed.
//!
//! Pieces are only ever added at the end of the table, whosever they are: those of one tick share
//! their pages, however many replies run. Grouped by reply, each would write pages of its own five
//! times a second. So the pieces of a reply that has ended are not looked up and removed one by one;
//! they go with all others once no older reply is under way. Until then nobody reads them: only the
//! pieces of open turns count.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, params};

use crate::{id::TurnId, log::Checkpoint};

/// Dead pieces that are let lie until the writer comes to rest.
const DEAD_MAX: i64 = 16 * 1024;

/// Which pieces are still needed.
#[derive(Debug, Default)]
pub(super) struct Partials {
    /// The first piece of each reply under way.
    first: HashMap<TurnId, i64>,
    by_number: BTreeSet<i64>,
    /// Number of the oldest piece that may be in the table.
    oldest: i64,
    /// Number of the next piece.
    next: i64,
}

impl Partials {
    /// What an earlier run left: needed until its turns are ended.
    pub(super) fn open(connection: &Connection) -> rusqlite::Result<Self> {
        let mut partials = Self::default();
        let mut statement = connection.prepare(
            "SELECT p.turn, min(p.num) FROM partials p JOIN open_turns t ON t.turn = p.turn
             GROUP BY p.turn",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let turn = TurnId(uuid::Uuid::from_bytes(row.get(0)?));
            partials.begin(turn, row.get(1)?);
        }
        partials.next = connection.query_row(
            "SELECT coalesce(max(num), 0) + 1 FROM partials",
            [],
            |row| row.get(0),
        )?;
        Ok(partials)
    }

    fn begin(&mut self, turn: TurnId, number: i64) {
        self.first.entry(turn).or_insert_with(|| {
            self.by_number.insert(number);
            number
        });
    }

    /// Adds a piece; passes over one of a turn that is not open.
    ///
    /// If the transaction is rolled back, what is noted here holds up a removal, nothing worse.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        piece: &Checkpoint,
    ) -> rusqlite::Result<()> {
        let added = connection
            .prepare_cached(
                "INSERT INTO partials (num, conv, turn, attempt, offset, text)
                 SELECT ?1, pos >> 28, turn, attempt, ?4, ?5 FROM open_turns
                 WHERE turn = ?2 AND attempt = ?3",
            )?
            .execute(params![
                self.next,
                piece.turn.0.as_bytes(),
                piece.attempt,
                piece.offset.cast_signed(),
                piece.text
            ])?;
        if added > 0 {
            self.begin(piece.turn, self.next);
            self.next += 1;
        }
        Ok(())
    }

    /// A turn's end is committed: its pieces are dead.
    pub(super) fn ended(&mut self, turn: TurnId) {
        if let Some(number) = self.first.remove(&turn) {
            self.by_number.remove(&number);
        }
    }

    /// The first piece that is needed.
    fn needed(&self) -> i64 {
        self.by_number.first().copied().unwrap_or(self.next)
    }

    /// Whether there is anything to remove.
    pub(super) fn has_dead(&self) -> bool {
        self.oldest < self.needed()
    }

    /// Whether so much is dead that it cannot wait for a quiet moment.
    pub(super) fn has_many_dead(&self) -> bool {
        self.needed() - self.oldest > DEAD_MAX
    }

    /// Removes the dead pieces that no living one stands before.
    pub(super) fn remove_dead(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let needed = self.needed();
        connection
            .prepare_cached("DELETE FROM partials WHERE num < ?1")?
            .execute([needed])?;
        self.oldest = needed;
        Ok(())
    }
}

/// Removes all pieces of a conversation, dead or not.
pub(super) fn forget(connection: &Connection, conv: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM partials WHERE conv = ?1")?
        .execute([conv])?;
    Ok(())
}

/// The text of open turns, each as far as it is without a gap. Looks at all pieces that are there,
/// once.
pub(super) fn texts(
    connection: &Connection,
    attempts: &HashMap<TurnId, u32>,
) -> rusqlite::Result<HashMap<TurnId, String>> {
    let mut texts: HashMap<TurnId, Text> = HashMap::new();
    let mut statement = connection
        .prepare_cached("SELECT turn, attempt, offset, text FROM partials ORDER BY num")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let turn = TurnId(uuid::Uuid::from_bytes(row.get(0)?));
        if attempts.get(&turn) == Some(&row.get(1)?) {
            let text = texts.entry(turn).or_default();
            text.add(row.get(2)?, row.get_ref(3)?.as_str()?);
        }
    }
    Ok(texts
        .into_iter()
        .map(|(turn, text)| (turn, text.text))
        .collect())
}

/// A text that is put together.
#[derive(Default)]
struct Text {
    text: String,
    /// A piece is missing: nothing that follows counts.
    broken: bool,
}

impl Text {
    fn add(&mut self, offset: i64, piece: &str) {
        let offset = usize::try_from(offset).ok();
        match offset.filter(|offset| self.text.is_char_boundary(*offset)) {
            Some(offset) if !self.broken => {
                // A piece that was sent again, since its first sending was not acknowledged, holds
                // it all.
                self.text.truncate(offset);
                self.text.push_str(piece);
            }
            Some(_) | None => self.broken = true,
        }
    }
}

/// The text of one open turn.
pub(super) fn text(connection: &Connection, turn: TurnId) -> rusqlite::Result<String> {
    let mut statement = connection.prepare_cached(
        "SELECT offset, text FROM partials WHERE turn = ?1
            AND attempt = (SELECT attempt FROM open_turns WHERE turn = ?1)
         ORDER BY num",
    )?;
    let mut rows = statement.query([turn.0.as_bytes()])?;
    let mut text = Text::default();
    while let Some(row) = rows.next()? {
        text.add(row.get(0)?, row.get_ref(1)?.as_str()?);
    }
    Ok(text.text)
}

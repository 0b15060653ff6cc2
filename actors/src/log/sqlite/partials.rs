//! The text of replies under way, in the pieces in which it was checkpointed.
//!
//! Pieces are only ever added at the end of the table, whosever they are: those of one tick share
//! their pages, however many replies run. Grouped by reply, each would write pages of its own five
//! times a second. So the pieces of a reply that has ended are not looked up and removed one by one;
//! they go with all others once no older reply is under way. Until then nobody reads them: only the
//! pieces of open turns count.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{id::TurnId, log::Checkpoint};

/// Dead pieces that are let lie until the writer comes to rest.
const DEAD_MAX: i64 = 16 * 1024;

/// Which pieces are still needed.
#[derive(Debug, Default)]
pub(super) struct Partials {
    /// The first piece of each reply under way.
    first: HashMap<TurnId, i64>,
    by_number: BTreeSet<i64>,
    /// The pieces of each conversation that may be in the table, dead or not. Eight bytes for a piece:
    /// the table, and with it this, holds what came since the oldest reply under way began.
    of_conversation: HashMap<i64, Vec<i64>>,
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
        partials.next = 1;
        let mut statement = connection.prepare("SELECT num, conv FROM partials ORDER BY num")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            partials.note(row.get(1)?, number);
            partials.next = number + 1;
        }
        Ok(partials)
    }

    fn begin(&mut self, turn: TurnId, number: i64) {
        self.first.entry(turn).or_insert_with(|| {
            self.by_number.insert(number);
            number
        });
    }

    fn note(&mut self, conv: i64, number: i64) {
        self.of_conversation.entry(conv).or_default().push(number);
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
                 WHERE turn = ?2 AND attempt = ?3
                 RETURNING conv",
            )?
            .query_row(
                params![
                    self.next,
                    piece.turn.0.as_bytes(),
                    piece.attempt,
                    piece.offset.cast_signed(),
                    piece.text
                ],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(conv) = added {
            self.begin(piece.turn, self.next);
            self.note(conv, self.next);
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
        self.of_conversation.retain(|_, numbers| {
            numbers.retain(|number| *number >= needed);
            !numbers.is_empty()
        });
        Ok(())
    }

    /// Removes all pieces of a conversation, dead or not, without a look at those of others.
    ///
    /// That they are gone is not noted, since the transaction may be rolled back: no number is given
    /// twice, so it does no harm to remove them again.
    pub(super) fn forget(&self, connection: &Connection, conv: i64) -> rusqlite::Result<()> {
        let mut remove = connection.prepare_cached(FORGET)?;
        for number in self.of_conversation.get(&conv).into_iter().flatten() {
            remove.execute([number])?;
        }
        Ok(())
    }
}

const FORGET: &str = "DELETE FROM partials WHERE num = ?1";

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

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;
    use uuid::Uuid;

    use super::*;

    /// The tables that are looked at, with one open turn for each of so many conversations.
    fn open(conversations: i64) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE open_turns (turn BLOB PRIMARY KEY, pos INTEGER, attempt INTEGER);
                 CREATE TABLE partials (num INTEGER PRIMARY KEY, conv INTEGER, turn BLOB,
                    attempt INTEGER, offset INTEGER, text TEXT);",
            )
            .unwrap();
        for conv in 0..conversations {
            let turn = turn(conv);
            connection
                .execute(
                    "INSERT INTO open_turns VALUES (?1, ?2, 1)",
                    params![turn.0.as_bytes(), conv << 28],
                )
                .unwrap();
        }
        connection
    }

    fn turn(conv: i64) -> TurnId {
        TurnId(Uuid::from_u128(u128::from(conv.cast_unsigned())))
    }

    fn tick(connection: &Connection, partials: &mut Partials, conversations: i64) {
        for conv in 0..conversations {
            let piece = Checkpoint {
                turn: turn(conv),
                attempt: 1,
                offset: 0,
                text: "text".into(),
            };
            partials.add(connection, &piece).unwrap();
        }
    }

    fn left(connection: &Connection, conv: i64) -> i64 {
        let count = "SELECT count(*) FROM partials WHERE conv = ?1";
        connection
            .query_row(count, [conv], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_deletion_looks_at_no_piece_of_another_conversation() {
        let connection = open(100);
        let mut partials = Partials::open(&connection).unwrap();
        tick(&connection, &mut partials, 100);
        partials.ended(turn(7));
        tick(&connection, &mut partials, 100);
        // Those of an earlier run are known as well.
        let reopened = Partials::open(&connection).unwrap();

        partials.forget(&connection, 7).unwrap();
        reopened.forget(&connection, 8).unwrap();

        let left = [6, 7, 8].map(|conv| left(&connection, conv));
        assert_eq!(left, [2, 0, 0]);
        let remove = connection.prepare_cached(FORGET).unwrap();
        assert_eq!(remove.get_status(StatementStatus::FullscanStep), 0);
        assert_eq!(remove.get_status(StatementStatus::Run), 4);
    }

    #[test]
    fn what_is_removed_is_not_remembered() {
        let connection = open(10);
        let mut partials = Partials::open(&connection).unwrap();
        for _ in 0..3 {
            tick(&connection, &mut partials, 10);
        }
        for conv in 1..10 {
            partials.ended(turn(conv));
        }
        partials.remove_dead(&connection).unwrap();
        assert_eq!(left(&connection, 3), 3, "an older reply is under way");
        partials.ended(turn(0));
        partials.remove_dead(&connection).unwrap();
        assert_eq!(left(&connection, 3), 0);
        assert!(partials.of_conversation.is_empty());
    }
}

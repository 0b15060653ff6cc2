//! Tables, settings, migrations.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use uuid::Uuid;

use super::OpenError;

/// Oldest SQLite that this log trusts: earlier ones have a bug that can lose a WAL's end when it is reset.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Bits of a position that count the entries of one conversation.
const SEQ_BITS: u32 = 28;

/// Most entries of one conversation.
pub(super) const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// Page cache of the writer in KiB; of each reader a quarter.
const CACHE_KIB: i64 = 16 * 1024;

/// How long a connection waits for a lock that only a foreign tool can hold.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// Each step leads from the version of its index to the next one.
///
/// `entries` stands in the order of time: what a batch appends, to whatever conversations, shares
/// pages. Kept by conversation, each append would touch a page of its own, and split one often. A
/// conversation is found through `entries_pos`, some hundreds of entries of which fit one page.
/// Turn ids are time-ordered, so `entries_turn` grows at its right edge. `open_turns` holds the
/// turns that are owed an end: recovery reads it, and not the history. `partials` holds the text of
/// replies under way, see its module. The catalogue is found by owner and companion,
/// which never change once they are set; by time it is sorted when asked, since an index on the time
/// would be one more page in every append.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE conversations (
        num          INTEGER PRIMARY KEY,
        id           TEXT NOT NULL UNIQUE,
        incarnation  INTEGER NOT NULL,
        seq          INTEGER NOT NULL,
        created_at   INTEGER NOT NULL,
        updated_at   INTEGER NOT NULL,
        user_id      TEXT,
        character_id TEXT,
        bytes        INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entries (
        pos     INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        kind    INTEGER NOT NULL,
        turn    BLOB,
        head    BLOB NOT NULL,
        lengths BLOB,
        body    BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX entries_turn ON entries (turn, kind) WHERE turn IS NOT NULL;
    CREATE TABLE open_turns (
        turn BLOB PRIMARY KEY,
        pos  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE mirror_progress (
        mirror            TEXT NOT NULL,
        conv              INTEGER NOT NULL,
        incarnation       INTEGER NOT NULL,
        seq               INTEGER NOT NULL,
        file_size         INTEGER,
        file_mtime_ns     INTEGER,
        intended_size     INTEGER,
        intended_mtime_ns INTEGER,
        PRIMARY KEY (mirror, conv)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE meta (
        log_id BLOB NOT NULL
    ) STRICT;
    INSERT INTO meta (log_id) VALUES (randomblob(16));
    ALTER TABLE conversations ADD COLUMN deleted_seq INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE conversations ADD COLUMN unverified INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX conversations_user ON conversations (user_id) WHERE user_id IS NOT NULL;
    CREATE INDEX conversations_character ON conversations (character_id)
        WHERE character_id IS NOT NULL;
    ALTER TABLE entries ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
    DROP INDEX entries_turn;
    CREATE UNIQUE INDEX entries_turn ON entries (turn, kind, attempt) WHERE turn IS NOT NULL;
    ALTER TABLE open_turns ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
    CREATE TABLE partials (
        num     INTEGER PRIMARY KEY,
        conv    INTEGER NOT NULL,
        turn    BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        offset  INTEGER NOT NULL,
        text    TEXT NOT NULL
    ) STRICT;
    ALTER TABLE mirror_progress ADD COLUMN hash BLOB;
    ALTER TABLE mirror_progress ADD COLUMN intended_at INTEGER;
    ALTER TABLE mirror_progress ADD COLUMN look_at INTEGER;
    ALTER TABLE mirror_progress ADD COLUMN look_step INTEGER;
",
    "
    ALTER TABLE entries RENAME TO entries_by_conversation;
    CREATE TABLE entries (
        num     INTEGER PRIMARY KEY,
        pos     INTEGER NOT NULL,
        version INTEGER NOT NULL,
        kind    INTEGER NOT NULL,
        turn    BLOB,
        attempt INTEGER NOT NULL,
        head    BLOB NOT NULL,
        lengths BLOB,
        body    BLOB NOT NULL
    ) STRICT;
    INSERT INTO entries (pos, version, kind, turn, attempt, head, lengths, body)
        SELECT pos, version, kind, turn, attempt, head, lengths, body
        FROM entries_by_conversation ORDER BY pos;
    DROP TABLE entries_by_conversation;
    CREATE UNIQUE INDEX entries_pos ON entries (pos);
    CREATE UNIQUE INDEX entries_turn ON entries (turn, kind, attempt) WHERE turn IS NOT NULL;
",
];

/// Where entry `seq` of conversation `num` stands.
pub(super) fn position(num: i64, seq: u64) -> i64 {
    (num << SEQ_BITS) | seq.min(SEQ_MAX).cast_signed()
}

/// The conversation and the sequence of a position.
pub(super) fn at_position(pos: i64) -> (i64, u64) {
    (pos >> SEQ_BITS, pos.cast_unsigned() & SEQ_MAX)
}

/// Opens the writer's connection and brings the tables up to date.
pub(super) fn open_writer(
    path: &Path,
    page_count_max: Option<u32>,
) -> Result<Connection, OpenError> {
    let found = rusqlite::version_number();
    if found < SQLITE_VERSION_MIN {
        return Err(OpenError::OldSqlite {
            found: rusqlite::version(),
        });
    }
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    // Else each new value of some parameters has its statement planned anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NoWal { mode });
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // What was deleted must not be readable in the file afterwards.
    connection.pragma_update_and_check(None, "secure_delete", "on", |_| Ok(()))?;
    // The writer alone decides when to move the WAL into the database: see its `rest`.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    migrate(&mut connection)?;
    if let Some(pages) = page_count_max {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(connection)
}

/// Opens a connection that can only read. The writer's must be open.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB / 4)?;
    Ok(connection)
}

/// Random, made with the log: tells this log's copies from another's.
pub(super) fn log_id(connection: &Connection) -> rusqlite::Result<Uuid> {
    let bytes: [u8; 16] = connection.query_row("SELECT log_id FROM meta", [], |row| row.get(0))?;
    Ok(Uuid::from_bytes(bytes))
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let Some(steps) = usize::try_from(found)
        .ok()
        .and_then(|from| MIGRATIONS.get(from..))
    else {
        return Err(OpenError::Newer { found, known });
    };
    if steps.is_empty() {
        return Ok(());
    }
    // All or nothing: a half-migrated log would be neither version.
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;

    /// The last version whose entries stood by conversation.
    const BY_CONVERSATION: u8 = 2;

    #[test]
    fn positions_keep_conversations_apart() {
        for (num, seq) in [(1, 0), (1, SEQ_MAX), (2, 1), (1 << 34, 7)] {
            assert_eq!(at_position(position(num, seq)), (num, seq));
        }
        assert!(position(1, SEQ_MAX) < position(2, 0));
    }

    #[test]
    fn a_log_whose_entries_stood_by_conversation_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sqlite");
        let connection = Connection::open(&path).unwrap();
        for step in &MIGRATIONS[..usize::from(BY_CONVERSATION)] {
            connection.execute_batch(step).unwrap();
        }
        connection
            .pragma_update(None, "user_version", BY_CONVERSATION)
            .unwrap();
        for (num, seq, turn) in [(2, 1, Some("b")), (1, 2, Some("a")), (1, 1, None)] {
            connection
                .execute(
                    "INSERT INTO entries (pos, version, kind, turn, attempt, head, lengths, body)
                     VALUES (?1, 4, 3, ?2, 7, ?3, NULL, x'00ff')",
                    params![
                        position(num, seq),
                        turn.map(str::as_bytes),
                        [num.to_le_bytes(), seq.to_le_bytes().map(|byte| byte ^ 3)].concat()
                    ],
                )
                .unwrap();
        }
        let rows = |connection: &Connection| -> Vec<String> {
            let mut statement = connection
                .prepare(
                    "SELECT quote(pos) || quote(version) || quote(kind) || quote(turn)
                        || quote(attempt) || quote(head) || quote(lengths) || quote(body)
                     FROM entries ORDER BY pos",
                )
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<rusqlite::Result<_>>().unwrap()
        };
        let kept = rows(&connection);
        drop(connection);

        let connection = open_writer(&path, None).unwrap();

        assert_eq!(rows(&connection), kept);
        assert_eq!(kept.len(), 3);
        let again = "INSERT INTO entries (pos, version, kind, turn, attempt, head, body)
                     SELECT pos + ?1, version, kind, turn, attempt + ?2, head, body FROM entries
                     WHERE pos = ?3";
        for (later, attempts, what) in [(0, 1, "entries.pos"), (1, 0, "entries.turn")] {
            let twice = connection.execute(again, params![later, attempts, position(1, 2)]);
            let refused = twice.unwrap_err().to_string();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn a_newer_log_is_refused_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sqlite");
        let connection = open_writer(&path, None).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = open_writer(&path, None).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }));
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}

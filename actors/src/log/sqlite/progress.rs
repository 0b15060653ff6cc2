//! How far each mirror is behind the log: asked by the mirrors, kept beside the entries.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::id::ConversationId;

/// What a file was when we wrote it. One that differs was touched by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Time of last modification, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
}

/// A step of a mirror with one conversation's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Whose file.
    pub id: ConversationId,
    /// The life of the id that it shows.
    pub incarnation: u64,
    /// Entries that the durable file shows; `None`: the file is about to be put in place.
    ///
    /// The intent is what tells our own file from an edited one after a crash between the two.
    pub reached: Option<u64>,
    /// The file.
    pub stamp: FileStamp,
}

/// One conversation's row as a mirror needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRow {
    /// Which.
    pub id: ConversationId,
    /// The life of the id.
    pub incarnation: u64,
    /// Entries in the log.
    pub seq: u64,
    /// Entries that the mirror shows, of this incarnation.
    pub mirrored_seq: u64,
    /// The file as the mirror last left it.
    pub written: Option<FileStamp>,
    /// The file as the mirror was about to leave it.
    pub intended: Option<FileStamp>,
}

/// A page of conversations that a mirror does not show in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaggingPage {
    /// In no order that means anything.
    pub rows: Vec<MirrorRow>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<LaggingCursor>,
}

/// A place in the catalogue. The default is its begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaggingCursor(i64);

const COLUMNS: &str = "c.num, c.id, c.incarnation, c.seq,
    iif(p.incarnation = c.incarnation, p.seq, 0),
    p.file_size, p.file_mtime_ns, p.intended_size, p.intended_mtime_ns
    FROM conversations c LEFT JOIN mirror_progress p ON p.mirror = ?1 AND p.conv = c.num";

pub(super) fn lagging(
    connection: &Connection,
    mirror: &str,
    after: LaggingCursor,
    limit: usize,
) -> rusqlite::Result<LaggingPage> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} WHERE c.num > ?2
            AND (p.seq IS NULL OR p.seq < c.seq OR p.incarnation <> c.incarnation)
         ORDER BY c.num LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![
        mirror,
        after.0,
        i64::try_from(limit).unwrap_or(i64::MAX)
    ])?;
    let mut page = LaggingPage::default();
    let mut read = 0;
    while let Some(row) = rows.next()? {
        read += 1;
        page.next = Some(LaggingCursor(row.get(0)?));
        page.rows.extend(mirror_row(row)?);
    }
    if read < limit {
        page.next = None;
    }
    Ok(page)
}

pub(super) fn of(
    connection: &Connection,
    mirror: &str,
    id: &ConversationId,
) -> rusqlite::Result<Option<MirrorRow>> {
    let row = connection
        .prepare_cached(&format!("SELECT {COLUMNS} WHERE c.id = ?2"))?
        .query_row(params![mirror, id.as_str()], mirror_row)
        .optional()?;
    Ok(row.flatten())
}

/// `None`: the row's id is none; it cannot be named in a file, either.
fn mirror_row(row: &Row<'_>) -> rusqlite::Result<Option<MirrorRow>> {
    let Ok(id) = ConversationId::parse(row.get_ref(1)?.as_str()?) else {
        return Ok(None);
    };
    Ok(Some(MirrorRow {
        id,
        incarnation: row.get::<_, i64>(2)?.cast_unsigned(),
        seq: row.get::<_, i64>(3)?.cast_unsigned(),
        mirrored_seq: row.get::<_, Option<i64>>(4)?.map_or(0, i64::cast_unsigned),
        written: stamp(row, 5)?,
        intended: stamp(row, 7)?,
    }))
}

fn stamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<FileStamp>> {
    let size: Option<i64> = row.get(column)?;
    let mtime_ns: Option<i64> = row.get(column + 1)?;
    Ok(size.zip(mtime_ns).map(|(size, mtime_ns)| FileStamp {
        size: size.cast_unsigned(),
        mtime_ns,
    }))
}

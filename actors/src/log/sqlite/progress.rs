//! How far each mirror is behind the log: asked by the mirrors, kept beside the entries.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{id::ConversationId, time::Timestamp};

/// What a file was when we wrote it. One that differs was touched by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Time of last modification, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
}

/// SHA-256 of a document's text.
pub type ContentHash = [u8; 32];

/// A step of a mirror with one conversation's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Whose copy.
    pub id: ConversationId,
    /// The life of the id that it concerns; a step for another life is passed over.
    pub incarnation: u64,
    /// The step.
    pub step: Step,
}

/// What a mirror is about to do, or has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file is about to be put in place.
    ///
    /// The intent is what tells our own file from an edited one after a crash between the two.
    FileIntended(FileStamp),
    /// The file is durable.
    FileWritten {
        /// Entries that it shows.
        seq: u64,
        /// The file.
        stamp: FileStamp,
    },
    /// A file that the mirror did not write is known all the same, and is to be replaced.
    ///
    /// What was removed stays removed: this is no reason to clean up after an earlier life again.
    FileKnown(FileStamp),
    /// An upload is about to be sent.
    ///
    /// Without a step after it, whether it arrived is not known, and it may yet arrive.
    UploadBegun {
        /// When.
        at: Timestamp,
    },
    /// The upload is confirmed.
    Uploaded {
        /// Entries that it shows.
        seq: u64,
        /// Its content.
        hash: ContentHash,
    },
    /// The copy shows it, as far as it ever will; nothing else is to be remembered.
    Reached {
        /// Entries that it shows.
        seq: u64,
    },
    /// The copy of a deleted conversation is gone.
    Removed {
        /// The deletion that it shows.
        seq: u64,
        /// When to look whether it stayed away; `None`: it has.
        look: Option<Look>,
    },
}

/// A time to look whether a copy that was removed came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// Looks before this one.
    pub step: u32,
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
    /// The newest deletion among them; 0: there is none.
    pub deleted_seq: u64,
    /// Whether a copy of this id that is not ours may belong to it.
    pub unverified: bool,
    /// Entries that the mirror shows; numbers go on over deletions.
    pub mirrored_seq: u64,
    /// The file as the mirror last left it.
    pub written: Option<FileStamp>,
    /// The file as the mirror was about to leave it.
    pub intended: Option<FileStamp>,
    /// What the mirror last uploaded.
    pub hash: Option<ContentHash>,
    /// An upload whose end was not recorded.
    pub uploading: Option<Timestamp>,
    /// When the mirror looks whether a removed copy came back.
    pub look: Option<Look>,
}

impl MirrorRow {
    /// Whether the copy is to be absent.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted_seq == self.seq
    }

    /// Whether the mirror may still hold what was deleted.
    #[must_use]
    pub fn owes_removal(&self) -> bool {
        self.mirrored_seq < self.deleted_seq
    }
}

/// A page of conversations that a mirror does not show in full, or has to look after.
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

const COLUMNS: &str = "c.num, c.id, c.incarnation, c.seq, c.deleted_seq, c.unverified, p.seq,
    p.file_size, p.file_mtime_ns, p.intended_size, p.intended_mtime_ns,
    p.hash, p.intended_at, p.look_at, p.look_step
    FROM conversations c LEFT JOIN mirror_progress p ON p.mirror = ?1 AND p.conv = c.num";

pub(super) fn lagging(
    connection: &Connection,
    mirror: &str,
    after: LaggingCursor,
    limit: usize,
) -> rusqlite::Result<LaggingPage> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} WHERE c.num > ?2
            AND (p.seq IS NULL OR p.seq < c.seq OR p.look_at IS NOT NULL)
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
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|at| at.map(Timestamp::from_micros))
    };
    let step: Option<u32> = row.get(14)?;
    Ok(Some(MirrorRow {
        id,
        incarnation: number(2)?,
        seq: number(3)?,
        deleted_seq: number(4)?,
        unverified: row.get(5)?,
        mirrored_seq: row.get::<_, Option<i64>>(6)?.map_or(0, i64::cast_unsigned),
        written: stamp(row, 7)?,
        intended: stamp(row, 9)?,
        hash: row.get(11)?,
        uploading: time(12)?,
        look: time(13)?.zip(step).map(|(at, step)| Look { at, step }),
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

/// Records steps of a mirror. A conversation that is gone, or lives anew, is passed over.
pub(super) fn record(
    connection: &Connection,
    mirror: &str,
    steps: &[Progress],
) -> rusqlite::Result<()> {
    for Progress {
        id,
        incarnation,
        step,
    } in steps
    {
        let incarnation = incarnation.cast_signed();
        // Every step but a beginning says how far the mirror is; each of them settles the
        // beginning before it.
        let conv: Option<i64> = connection
            .prepare_cached("SELECT num FROM conversations WHERE id = ?1 AND incarnation = ?2")?
            .query_row(params![id.as_str(), incarnation], |row| row.get(0))
            .optional()?;
        let Some(conv) = conv else { continue };
        match step {
            // An intent leaves what was written before it, so that either is known as ours.
            Step::FileIntended(stamp) => connection
                .prepare_cached(
                    "INSERT INTO mirror_progress
                        (mirror, conv, incarnation, seq, intended_size, intended_mtime_ns)
                     VALUES (?1, ?2, ?3, 0, ?4, ?5)
                     ON CONFLICT (mirror, conv) DO UPDATE SET
                        intended_size = excluded.intended_size,
                        intended_mtime_ns = excluded.intended_mtime_ns",
                )?
                .execute(params![
                    mirror,
                    conv,
                    incarnation,
                    stamp.size.cast_signed(),
                    stamp.mtime_ns
                ])?,
            Step::FileWritten { seq, stamp } => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO mirror_progress
                        (mirror, conv, incarnation, seq, file_size, file_mtime_ns)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    mirror,
                    conv,
                    incarnation,
                    seq.cast_signed(),
                    stamp.size.cast_signed(),
                    stamp.mtime_ns
                ])?,
            Step::FileKnown(stamp) => connection
                .prepare_cached(
                    "INSERT INTO mirror_progress
                        (mirror, conv, incarnation, seq, file_size, file_mtime_ns)
                     VALUES (?1, ?2, ?3, 0, ?4, ?5)
                     ON CONFLICT (mirror, conv) DO UPDATE SET
                        seq = min(seq, (SELECT deleted_seq FROM conversations WHERE num = ?2)),
                        file_size = excluded.file_size,
                        file_mtime_ns = excluded.file_mtime_ns,
                        intended_size = NULL,
                        intended_mtime_ns = NULL",
                )?
                .execute(params![
                    mirror,
                    conv,
                    incarnation,
                    stamp.size.cast_signed(),
                    stamp.mtime_ns
                ])?,
            Step::UploadBegun { at } => connection
                .prepare_cached(
                    "INSERT INTO mirror_progress (mirror, conv, incarnation, seq, intended_at)
                     VALUES (?1, ?2, ?3, 0, ?4)
                     ON CONFLICT (mirror, conv) DO UPDATE SET intended_at = excluded.intended_at",
                )?
                .execute(params![mirror, conv, incarnation, at.micros()])?,
            Step::Uploaded { seq, hash } => {
                connection
                    .prepare_cached(
                        "UPDATE conversations SET unverified = 0 WHERE num = ?1 AND unverified",
                    )?
                    .execute([conv])?;
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO mirror_progress
                            (mirror, conv, incarnation, seq, hash)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![mirror, conv, incarnation, seq.cast_signed(), hash])?
            }
            Step::Reached { seq } => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO mirror_progress (mirror, conv, incarnation, seq)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![mirror, conv, incarnation, seq.cast_signed()])?,
            Step::Removed { seq, look } => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO mirror_progress
                        (mirror, conv, incarnation, seq, look_at, look_step)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    mirror,
                    conv,
                    incarnation,
                    seq.cast_signed(),
                    look.map(|look| look.at.micros()),
                    look.map(|look| look.step)
                ])?,
        };
    }
    Ok(())
}

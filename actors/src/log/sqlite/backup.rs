//! A copy of a log as of one moment, taken while it is in use.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{OpenError, schema::open_reader};

/// Pages copied between two reports of progress.
const PAGES_PER_STEP: i32 = 256;

/// How far a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupProgress {
    /// Pages still to be copied.
    pub remaining: u64,
    /// Pages in all.
    pub total: u64,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Source(#[from] OpenError),
    /// There is something of that name.
    #[error("the file is there already: nothing is overwritten")]
    Exists,
    /// The copy cannot be made.
    #[error("the copy cannot be made: {0}")]
    Copy(#[from] rusqlite::Error),
    /// The copy cannot be put in its place.
    #[error("the copy cannot be written: {0}")]
    Write(#[from] io::Error),
    /// The copy is no sound database.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
}

/// Copies the log file `source` to `destination`, which must not exist. Blocks.
///
/// The copy shows one moment, whatever a server writes meanwhile; it is checked and synced before it
/// gets its name. To be opened as a log like any other.
pub fn backup(
    source: &Path,
    destination: &Path,
    mut report: impl FnMut(BackupProgress),
) -> Result<(), BackupError> {
    if fs::symlink_metadata(destination).is_ok() {
        return Err(BackupError::Exists);
    }
    let source = open_reader(source)?;
    // The moment: without a transaction of our own each commit of a server would begin the copy anew.
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let mut name = destination.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    copy(&source, part, &mut report).inspect_err(|_| {
        // What is left of a copy in pieces helps nobody.
        fs::remove_file(part).ok();
    })?;
    fs::rename(part, destination)?;
    let directory = destination.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn copy(
    source: &Connection,
    part: &Path,
    report: &mut impl FnMut(BackupProgress),
) -> Result<(), BackupError> {
    let mut copy = Connection::open_with_flags(
        part,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    {
        let backup = Backup::new(source, &mut copy)?;
        loop {
            let step = backup.step(PAGES_PER_STEP)?;
            let progress = backup.progress();
            report(BackupProgress {
                remaining: u64::try_from(progress.remaining).unwrap_or(0),
                total: u64::try_from(progress.pagecount).unwrap_or(0),
            });
            if step == StepResult::Done {
                break;
            }
        }
    }
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(BackupError::Damaged(verdict));
    }
    copy.close().map_err(|(_, error)| error)?;
    File::open(part)?.sync_all()?;
    Ok(())
}

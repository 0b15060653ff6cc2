//! Whether a log's file is a sound database, as SQLite itself sees it.

use std::path::Path;

use super::{OpenError, schema::open_reader};

/// Findings that are told; more say nothing new.
const FINDINGS_MAX: u32 = 20;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every page; not whether indexes and tables agree.
    Quick,
    /// Indexes and uniqueness, too: many times as long.
    Full,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum IntegrityError {
    /// The file cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Open(#[from] OpenError),
    /// The check broke off.
    #[error("the log's file cannot be checked: {0}")]
    Check(#[from] rusqlite::Error),
}

/// What SQLite finds wrong with the file of a log; empty if nothing. Blocks, and writes nothing.
///
/// # Errors
///
/// See [`IntegrityError`].
pub fn check_file(path: &Path, depth: Depth) -> Result<Vec<String>, IntegrityError> {
    let connection = open_reader(path)?;
    let pragma = match depth {
        Depth::Quick => "quick_check",
        Depth::Full => "integrity_check",
    };
    let mut statement = connection.prepare(&format!("PRAGMA {pragma}({FINDINGS_MAX})"))?;
    let findings = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(findings
        .into_iter()
        .filter(|finding| finding != "ok")
        .collect())
}

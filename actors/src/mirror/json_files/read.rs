//! Documents that stand in the directory and not in the log.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::files::{free_name, stamp, sync_directory};
use crate::{id::ConversationId, log::sqlite::FileStamp, mirror::imported::ImportedDocument};

/// Largest document that is read.
pub const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// Why there is no answer. Never "not there": that is `Ok(None)`.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read now.
    #[error("{} cannot be read: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was read, and is no document. It is kept; the operator decides.
    #[error("{reason}; it is kept as {}", .kept.display())]
    Unreadable {
        /// What is wrong with it.
        reason: String,
        /// Where it is now.
        kept: PathBuf,
    },
}

/// Reads a conversation's document. Blocks.
///
/// Only for a conversation that the log does not have. One that does not parse is set aside, and
/// goes on being an error until the operator removes it.
pub fn read(dir: &Path, id: &ConversationId) -> Result<Option<ImportedDocument>, ReadError> {
    let path = dir.join(format!("{id}.json"));
    if let Some((stamp, mut document)) = read_file(dir, id, &path)? {
        document.file = Some(stamp);
        return Ok(Some(document));
    }
    // The ancestor named the file as its client spelled the id.
    if Uuid::try_parse(id.as_str()).is_ok() {
        let path = dir.join(format!("{}.json", id.as_str().to_ascii_uppercase()));
        if let Some((_, document)) = read_file(dir, id, &path)? {
            return Ok(Some(document));
        }
    }
    let kept = unreadable(dir, id);
    match fs::symlink_metadata(&kept) {
        Ok(_) => Err(ReadError::Unreadable {
            reason: "the document was found damaged earlier".to_owned(),
            kept,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError::Io { path: kept, source }),
    }
}

/// Reads a document whose file is none of those that the mirror knows to have written, if it can be
/// read. Blocks.
///
/// For a conversation that the log has: to find what the log has lost.
#[must_use]
pub fn read_strange(
    dir: &Path,
    id: &ConversationId,
    known: [Option<FileStamp>; 2],
) -> Option<ImportedDocument> {
    let path = dir.join(format!("{id}.json"));
    let metadata = fs::symlink_metadata(&path).ok()?;
    if known.contains(&Some(stamp(&metadata))) || metadata.len() > DOCUMENT_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    let mut document = ImportedDocument::parse(id, &bytes).ok()?;
    document.file = Some(stamp(&metadata));
    Some(document)
}

fn unreadable(dir: &Path, id: &ConversationId) -> PathBuf {
    dir.join(format!("{id}.unreadable.json"))
}

fn read_file(
    dir: &Path,
    id: &ConversationId,
    path: &Path,
) -> Result<Option<(FileStamp, ImportedDocument)>, ReadError> {
    let failed = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        // Stays where it is: nothing is wrong with it but its size.
        return Err(ReadError::Unreadable {
            reason: format!("the document is larger than {DOCUMENT_BYTES_MAX} bytes"),
            kept: path.to_owned(),
        });
    }
    match ImportedDocument::parse(id, &bytes) {
        Ok(document) => Ok(Some((stamp(&metadata), document))),
        Err(error) => Err(set_aside(dir, id, path).map_or_else(failed, |kept| {
            tracing::warn!(conversation = %id, kept = %kept.display(), %error, "a document is unreadable");
            ReadError::Unreadable {
                reason: error.to_string(),
                kept,
            }
        })),
    }
}

fn set_aside(dir: &Path, id: &ConversationId, path: &Path) -> io::Result<PathBuf> {
    let kept = free_name(&unreadable(dir, id), |number| {
        dir.join(format!("{id}.unreadable-{number}.json"))
    });
    fs::rename(path, &kept)?;
    sync_directory(dir)?;
    Ok(kept)
}

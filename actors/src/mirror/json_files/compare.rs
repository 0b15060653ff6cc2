//! What stands in the directory, against what the log says should stand there. Reads only.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    path::Path,
};

use uuid::Uuid;

use super::files::stamp;
use crate::{
    id::ConversationId,
    log::sqlite::{FileStamp, MirrorRow},
    mirror::{Rendered, imported::ImportedDocument},
};

/// How a copy stands to the log.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyState {
    /// The same, byte for byte.
    Equal,
    /// It is not there, and never was: the mirror has yet to write it.
    NotYet,
    /// It is not there, though the mirror wrote it.
    Missing,
    /// It shows fewer entries, as the mirror left it.
    Behind,
    /// It is of this conversation's life in this log, and shows more entries than the log has.
    Ahead(Box<ImportedDocument>),
    /// It is not what the mirror wrote: another hand, or another log.
    Edited,
    /// It is no document.
    Unreadable(String),
}

/// What tells a file from an edited one.
#[must_use]
pub fn file_stamp(metadata: &Metadata) -> FileStamp {
    stamp(metadata)
}

/// Compares the file of a conversation that is not deleted with its rendered document. Blocks.
///
/// # Errors
///
/// The file is there, and cannot be read.
pub fn compare(
    dir: &Path,
    row: &MirrorRow,
    rendered: &Rendered,
    log: Uuid,
) -> io::Result<CopyState> {
    let path = dir.join(format!("{}.json", row.id));
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match row.written {
                Some(_) => CopyState::Missing,
                None => CopyState::NotYet,
            });
        }
        Err(error) => return Err(error),
    };
    let known = [row.written, row.intended].contains(&Some(stamp(&metadata)));
    let bytes = fs::read(&path)?;
    if rendered.is(&bytes) {
        return Ok(CopyState::Equal);
    }
    let document = match ImportedDocument::parse(&row.id, &bytes) {
        Ok(document) => document,
        Err(error) => return Ok(CopyState::Unreadable(error.to_string())),
    };
    let ours = document
        .revision
        .as_ref()
        .filter(|it| it.log == log && it.incarnation == row.incarnation);
    Ok(match ours {
        Some(revision) if revision.seq > row.seq => CopyState::Ahead(Box::new(document)),
        Some(_) => CopyState::Behind,
        // A document taken over from before stays as it was until it is first written.
        None if known && row.mirrored_seq < row.seq => CopyState::Behind,
        None => CopyState::Edited,
    })
}

/// The files of the directory by the conversation they belong to: names up to the first dot.
///
/// Names that begin with no id are left out. A UUID counts in any case.
///
/// # Errors
///
/// The directory cannot be read.
pub fn files_by_conversation(dir: &Path) -> io::Result<HashMap<ConversationId, Vec<String>>> {
    let mut files: HashMap<ConversationId, Vec<String>> = HashMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let stem = name.split_once('.').map(|(stem, _)| stem);
        if let Some(Ok(id)) = stem.map(ConversationId::parse) {
            files.entry(id).or_default().push(name.to_owned());
        }
    }
    Ok(files)
}

//! What the mirror does to the directory. Everything here blocks.

use std::{
    fs::{self, DirEntry, File, Metadata},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use uuid::Uuid;

use super::read::DOCUMENT_BYTES_MAX;
use crate::{
    id::ConversationId,
    log::sqlite::FileStamp,
    mirror::{
        imported::ImportedDocument,
        lives::{Life, is_of_before, set_aside_at},
    },
    time::Timestamp,
};

/// Ending of a file that is not in place yet.
const TEMPORARY: &str = ".json.tmp";

/// What stands between a conversation's id and the time at which an edited file of it was kept.
const EDITED: &str = "edited-";

/// A document on its way into the directory.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) id: ConversationId,
    pub(super) incarnation: u64,
    pub(super) seq: u64,
    pub(super) json: Vec<Arc<str>>,
    /// The stamps by which a file in its place is known as ours.
    pub(super) ours: [Option<FileStamp>; 2],
    /// The log it is from.
    pub(super) log: Uuid,
}

impl Document {
    /// Whether a file that is none of those that were noted is one of ours all the same, and older:
    /// the note was lost with the end of the log.
    fn supersedes(&self, path: &Path, staged: &Path) -> io::Result<bool> {
        let parse =
            |path| ImportedDocument::parse(&self.id, &fs::read(path)?).map_err(io::Error::other);
        let Ok(theirs) = parse(path) else {
            return Ok(false);
        };
        let of_this_life = theirs
            .revision
            .as_ref()
            .is_some_and(|it| it.log == self.log && it.incarnation == self.incarnation);
        // Not by their numbers: a log that lost its end has counted on since.
        Ok(of_this_life && parse(staged)?.messages.starts_with(&theirs.messages))
    }
}

/// A document on disk, under its temporary name.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) document: Document,
    pub(super) stamp: FileStamp,
}

/// A document in its place.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) id: ConversationId,
    pub(super) incarnation: u64,
    pub(super) seq: u64,
    pub(super) stamp: FileStamp,
    /// Where an edited file went that stood there.
    pub(super) set_aside: Option<PathBuf>,
}

/// Writes and syncs a document beside its place.
pub(super) fn stage(dir: &Path, document: Document) -> Result<Staged, (ConversationId, io::Error)> {
    let path = temporary(dir, &document.id);
    match write(&path, &document.json) {
        Ok(metadata) => Ok(Staged {
            stamp: stamp(&metadata),
            document: Document {
                // The text is on disk now: it need not wait in memory for the rest of the batch.
                json: vec![],
                ..document
            },
        }),
        Err(error) => {
            discard(dir, &document.id);
            Err((document.id, error))
        }
    }
}

fn write(path: &Path, json: &[Arc<str>]) -> io::Result<Metadata> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut writer = BufWriter::with_capacity(64 << 10, options.open(path)?);
    for piece in json {
        writer.write_all(piece.as_bytes())?;
    }
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    file.metadata()
}

/// Puts a staged document in its place. Durable only after [`sync_directory`].
pub(super) fn publish(
    dir: &Path,
    staged: Staged,
    is_set_aside: impl Fn(),
) -> Result<Published, (ConversationId, io::Error)> {
    let Staged { document, stamp } = staged;
    let replace = || {
        let path = dir.join(format!("{}.json", document.id));
        let set_aside = match fs::symlink_metadata(&path) {
            Ok(found) if document.ours.contains(&Some(self::stamp(&found))) => None,
            Ok(_) if document.supersedes(&path, &temporary(dir, &document.id))? => None,
            Ok(_) => {
                let kept = set_aside(dir, &document.id, &path)?;
                is_set_aside();
                Some(kept)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        fs::rename(temporary(dir, &document.id), path)?;
        Ok(set_aside)
    };
    match replace() {
        Ok(set_aside) => Ok(Published {
            id: document.id,
            incarnation: document.incarnation,
            seq: document.seq,
            stamp,
            set_aside,
        }),
        Err(error) => {
            discard(dir, &document.id);
            Err((document.id, error))
        }
    }
}

/// Removes a document that was staged in vain: it would only take room until the next try.
pub(super) fn discard(dir: &Path, id: &ConversationId) {
    if let Err(error) = fs::remove_file(temporary(dir, id)) {
        tracing::debug!(conversation = %id, %error, "a temporary file stays until the next try");
    }
}

fn set_aside(dir: &Path, id: &ConversationId, path: &Path) -> io::Result<PathBuf> {
    let time = Timestamp::now().to_string().replace(':', "");
    let kept = free_name(&dir.join(format!("{id}.{EDITED}{time}.json")), |number| {
        dir.join(format!("{id}.{EDITED}{time}-{number}.json"))
    });
    fs::rename(path, &kept)?;
    Ok(kept)
}

/// Removes every file of a conversation: the document, temporaries, and what was set aside.
///
/// No id holds a dot, so what begins with the id and a dot is its own. The FastAPI service named the
/// file of a UUID as its client spelled it.
pub(super) fn remove_all(dir: &Path, id: &ConversationId) -> io::Result<()> {
    remove_those(dir, id, |_| Ok(true))
}

/// Removes those files of a conversation that an earlier life of its id left, which was deleted
/// before the one that `began` then.
pub(super) fn remove_earlier(
    dir: &Path,
    id: &ConversationId,
    life: Life,
    began: Timestamp,
) -> io::Result<()> {
    let edited = format!("{id}.{EDITED}");
    remove_those(dir, id, |file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(TEMPORARY) {
            return Ok(true);
        }
        if let Some(set_aside) = set_aside_at(&name, &edited) {
            return Ok(set_aside < began);
        }
        let metadata = file.metadata()?;
        let micros = stamp(&metadata).mtime_ns / 1_000;
        let writer = match metadata.len() {
            0..=DOCUMENT_BYTES_MAX => ImportedDocument::parse(id, &fs::read(file.path())?)
                .ok()
                .and_then(|document| life.writer_of(&document)),
            _ => None,
        };
        let changed = Some(Timestamp::from_micros(micros));
        Ok(is_of_before(writer, changed, began))
    })
}

fn remove_those(
    dir: &Path,
    id: &ConversationId,
    goes: impl Fn(&DirEntry) -> io::Result<bool>,
) -> io::Result<()> {
    let is_uuid = Uuid::try_parse(id.as_str()).is_ok();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.split_once('.').is_some_and(|(stem, _)| {
            stem == id.as_str() || (is_uuid && stem.eq_ignore_ascii_case(id.as_str()))
        });
        if ours && goes(&entry)? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes what a crash left half-written. Nobody else writes here: the directory is locked.
pub(super) fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn temporary(dir: &Path, id: &ConversationId) -> PathBuf {
    dir.join(format!("{id}{TEMPORARY}"))
}

/// Makes renames durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The first name that is not taken. Only this process makes names here.
pub(super) fn free_name(first: &Path, numbered: impl Fn(u32) -> PathBuf) -> PathBuf {
    let taken = |path: &Path| fs::symlink_metadata(path).is_ok();
    if !taken(first) {
        return first.to_owned();
    }
    (1..=u32::MAX)
        .map(numbered)
        .find(|path| !taken(path))
        .unwrap_or_else(|| first.to_owned())
}

/// What tells a file from an edited one.
pub(super) fn stamp(metadata: &Metadata) -> FileStamp {
    let since_epoch = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    FileStamp {
        size: metadata.len(),
        mtime_ns: i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX),
    }
}

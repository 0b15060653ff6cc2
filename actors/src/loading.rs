//! Finds a conversation: in the log, else in its JSON file, which is then imported.

use std::{path::PathBuf, sync::Arc};

use tokio::time::timeout;

use crate::{
    conversation::document::{Document, Folded},
    error::EngineError,
    id::ConversationId,
    importing::{self, Offered},
    limits::LOAD_DEADLINE,
    log::{
        Append, AppendError, Log, LogError, Partial,
        entry::Entry,
        sqlite::{FileStamp, SqliteLog},
    },
    mirror::{
        imported::ImportedDocument,
        json_files::{self, ReadError},
    },
};

/// JSON documents to import from on first use.
#[derive(Debug, Clone)]
pub struct JsonSource {
    /// Where they are.
    pub directory: PathBuf,
    /// Where it is noted that a file was taken over.
    pub log: Arc<SqliteLog>,
}

/// Where conversations are found.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    pub(crate) log: Arc<dyn Log>,
    /// Directory of the JSON files; none: only the log is asked.
    pub(crate) json_files: Option<JsonSource>,
}

/// What there is of a conversation.
#[derive(Debug)]
pub(crate) struct Found {
    /// The history, or that there is none.
    pub(crate) history: Folded,
    /// Text of replies that nobody lives to end.
    pub(crate) partials: Vec<Partial>,
}

impl Loader {
    /// The conversation; `None` if there is none. A read that fails is an error, never "not there".
    pub(crate) async fn load(&self, id: ConversationId) -> Result<Found, EngineError> {
        match timeout(LOAD_DEADLINE, self.find(&id)).await {
            Ok(found) => found,
            Err(_elapsed) => {
                tracing::error!(conversation = %id, "loading took too long");
                Err(EngineError::StorageUnavailable)
            }
        }
    }

    async fn find(&self, id: &ConversationId) -> Result<Found, EngineError> {
        if let Some(loaded) = self.log.load(id.clone()).await.map_err(unreadable)? {
            let partials = loaded.partials;
            let mut history = fold(loaded.first_seq, loaded.entries).await?;
            if let (Some(files), Folded::Here(document)) = (&self.json_files, &mut history) {
                self.catch_up(id, document, files).await?;
            }
            return Ok(Found { history, partials });
        }
        let history = match self.read_json_file(id).await? {
            Some(imported) => self.import(id, &imported).await?,
            None => Folded::Over { seq: 0 },
        };
        Ok(Found {
            history,
            partials: Vec::new(),
        })
    }

    /// Appends what a copy of ours shows more than the log does: the log has lost its end.
    async fn catch_up(
        &self,
        id: &ConversationId,
        document: &mut Document,
        files: &JsonSource,
    ) -> Result<(), EngineError> {
        let entries = catch_up(id, document, files).await.map_err(|error| {
            tracing::error!(conversation = %id, %error, "the lost end of a conversation cannot be logged");
            EngineError::StorageUnavailable
        })?;
        for entry in &entries {
            document.apply(entry).map_err(|error| unusable(&error))?;
        }
        Ok(())
    }

    async fn read_json_file(
        &self,
        id: &ConversationId,
    ) -> Result<Option<ImportedDocument>, EngineError> {
        let Some(files) = &self.json_files else {
            return Ok(None);
        };
        let (directory, wanted) = (files.directory.clone(), id.clone());
        let read = tokio::task::spawn_blocking(move || json_files::read(&directory, &wanted));
        match read.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(ReadError::Unreadable { reason, kept })) => {
                // Where it is kept is the operator's business, not the client's.
                let kept = kept.display();
                tracing::error!(conversation = %id, %reason, %kept, "a stored document cannot be read");
                Err(EngineError::Unreadable { reason })
            }
            Ok(Err(error @ ReadError::Io { .. })) => {
                tracing::error!(conversation = %id, %error, "a JSON file cannot be read");
                Err(EngineError::StorageUnavailable)
            }
            Err(error) => {
                tracing::error!(conversation = %id, %error, "reading a JSON file failed");
                Err(EngineError::StorageUnavailable)
            }
        }
    }

    pub(crate) async fn import(
        &self,
        id: &ConversationId,
        imported: &ImportedDocument,
    ) -> Result<Folded, EngineError> {
        let entry = importing::entry_of(id, imported).map_err(|error| unusable(&error))?;
        let append = Append {
            id: id.clone(),
            expected_seq: 0,
            entries: vec![entry.clone()],
        };
        self.log.append(append).await.map_err(|error| {
            tracing::error!(conversation = %id, %error, "an import cannot be logged");
            EngineError::StorageUnavailable
        })?;
        tracing::info!(conversation = %id, messages = entry.messages.len(), "imported a JSON file");
        let history = fold(1, vec![entry]).await?;
        if let (Some(files), Some(stamp), Folded::Here(document)) =
            (&self.json_files, imported.file, &history)
            // One that says more than the conversation is kept aside when its place is needed.
            && !imported.says_more()
        {
            note_ours(id, document, stamp, files).await;
        }
        Ok(history)
    }
}

/// Appends to the log what a conversation's JSON file has more, if it is one of ours and ahead of the
/// log; tells what was appended. By the conversation's owner alone, or before there is one.
pub(crate) async fn catch_up(
    id: &ConversationId,
    document: &Document,
    files: &JsonSource,
) -> Result<Vec<Entry>, AppendError> {
    let Some((entries, stamp)) = strange(id, document, files).await else {
        return Ok(Vec::new());
    };
    if !entries.is_empty() {
        tracing::warn!(conversation = %id, "the log had lost the end of a conversation; it is taken from its JSON file");
        let append = Append {
            id: id.clone(),
            expected_seq: document.seq(),
            entries: entries.clone(),
        };
        files.log.append(append).await?;
    }
    note_ours(id, document, stamp, files).await;
    Ok(entries)
}

/// Without it the file is taken for an edited one and kept aside: noisy, not wrong.
async fn note_ours(id: &ConversationId, document: &Document, stamp: FileStamp, files: &JsonSource) {
    let adopted = json_files::adopted(id.clone(), document.incarnation(), stamp);
    let noted = files.log.record_progress(json_files::MIRROR, vec![adopted]);
    if let Err(error) = noted.await {
        tracing::warn!(conversation = %id, %error, "a file that was taken over is not noted");
    }
}

/// A JSON file that the mirror does not know to have written, and that is one of ours all the same:
/// entries for what it has more than the log, if anything, and its stamp.
///
/// One that cannot be read is no reason not to read the log: the mirror reports it.
async fn strange(
    id: &ConversationId,
    document: &Document,
    files: &JsonSource,
) -> Option<(Vec<Entry>, FileStamp)> {
    let row = files.log.mirror_row(json_files::MIRROR, id.clone()).await;
    let row = row.ok().flatten()?;
    let (directory, wanted) = (files.directory.clone(), id.clone());
    let read = tokio::task::spawn_blocking(move || {
        json_files::read_strange(&directory, &wanted, [row.written, row.intended])
    });
    let copy = read.await.ok()??;
    let (log, incarnation) = (files.log.log_id(), document.incarnation());
    copy.revision
        .as_ref()
        .filter(|it| it.log == log && it.incarnation == incarnation)?;
    let stamp = copy.file?;
    match importing::entries_of(id, document, &copy) {
        Ok(Offered::Nothing) => Some((Vec::new(), stamp)),
        Ok(Offered::Entries { entries, .. }) => Some((entries, stamp)),
        // The mirror sets such a file aside before it writes its own.
        Ok(Offered::Parted) => None,
        Err(error) => {
            tracing::warn!(conversation = %id, %error, "a JSON file that is ahead of the log cannot be used");
            None
        }
    }
}

fn unusable(error: &dyn std::error::Error) -> EngineError {
    EngineError::Unreadable {
        reason: error.to_string(),
    }
}

/// Histories beyond this many entries are folded off the actor's thread.
const FOLD_HERE_MAX: usize = 64;

async fn fold(first_seq: u64, entries: Vec<Entry>) -> Result<Folded, EngineError> {
    let folded = if entries.len() <= FOLD_HERE_MAX {
        Document::fold(first_seq, &entries)
    } else {
        tokio::task::spawn_blocking(move || Document::fold(first_seq, &entries))
            .await
            .map_err(|_panicked| EngineError::StorageUnavailable)?
    };
    folded.map_err(|error| {
        tracing::error!(%error, "the log holds a history that cannot be put together");
        EngineError::Unreadable {
            reason: error.to_string(),
        }
    })
}

fn unreadable(error: LogError) -> EngineError {
    tracing::error!(%error, "loading failed");
    match error {
        LogError::Unavailable(_) => EngineError::StorageUnavailable,
        LogError::Corrupt { .. } => EngineError::Unreadable {
            reason: error.to_string(),
        },
    }
}

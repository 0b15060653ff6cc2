//! Finds a conversation: in the log, else in its JSON file, which is then imported.

use std::{path::PathBuf, sync::Arc};

use tokio::time::timeout;

use crate::{
    conversation::document::Document,
    error::EngineError,
    id::ConversationId,
    limits::LOAD_DEADLINE,
    log::{Append, Log, LogError, entry::Entry},
    mirror::json_files::{self, ReadError},
};

/// Where conversations are found.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    pub(crate) log: Arc<dyn Log>,
    /// Directory of the JSON files; none: only the log is asked.
    pub(crate) json_files: Option<PathBuf>,
}

impl Loader {
    /// The conversation; `None` if there is none. A read that fails is an error, never "not there".
    pub(crate) async fn load(&self, id: ConversationId) -> Result<Option<Document>, EngineError> {
        match timeout(LOAD_DEADLINE, self.find(&id)).await {
            Ok(found) => found,
            Err(_elapsed) => {
                tracing::error!(conversation = %id, "loading took too long");
                Err(EngineError::StorageUnavailable)
            }
        }
    }

    async fn find(&self, id: &ConversationId) -> Result<Option<Document>, EngineError> {
        if let Some(loaded) = self.log.load(id.clone()).await.map_err(unreadable)? {
            return fold(loaded.entries).await;
        }
        match self.read_json_file(id).await? {
            Some(entry) => self.import(id, entry).await,
            None => Ok(None),
        }
    }

    async fn read_json_file(&self, id: &ConversationId) -> Result<Option<Entry>, EngineError> {
        let Some(directory) = self.json_files.clone() else {
            return Ok(None);
        };
        let wanted = id.clone();
        let read = tokio::task::spawn_blocking(move || json_files::read(&directory, &wanted));
        match read.await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(document))) => Ok(Some(document.into_entry(id))),
            Ok(Err(ReadError::Unreadable { reason, .. })) => {
                tracing::error!(conversation = %id, %reason, "a stored document cannot be read");
                Err(EngineError::Unreadable { reason })
            }
            Ok(Err(error)) => {
                tracing::error!(conversation = %id, %error, "a JSON file cannot be read");
                Err(EngineError::StorageUnavailable)
            }
            Err(error) => {
                tracing::error!(conversation = %id, %error, "reading a JSON file failed");
                Err(EngineError::StorageUnavailable)
            }
        }
    }

    async fn import(
        &self,
        id: &ConversationId,
        entry: Entry,
    ) -> Result<Option<Document>, EngineError> {
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
        fold(vec![entry]).await
    }
}

/// Histories beyond this many entries are folded off the actor's thread.
const FOLD_HERE_MAX: usize = 64;

async fn fold(entries: Vec<Entry>) -> Result<Option<Document>, EngineError> {
    let folded = if entries.len() <= FOLD_HERE_MAX {
        Document::fold(&entries)
    } else {
        tokio::task::spawn_blocking(move || Document::fold(&entries))
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

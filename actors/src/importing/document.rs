//! One document into the log: as a new conversation, or as what the log's own lacks.

use std::sync::Arc;

use super::{UnknownRole, entry_of};
use crate::{
    adopting::{self, Offer},
    conversation::{
        document::{Document, FoldError, Folded},
        message::StoredMessage,
    },
    id::ConversationId,
    log::{
        Append, AppendError, Loaded, Log, LogError,
        entry::{Entry, EntryHead},
        sqlite::SqliteLog,
    },
    mirror::imported::ImportedDocument,
    time::Timestamp,
};

/// Tries against another writer of the same conversation: two files may name one id.
const TRIES: usize = 3;

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is a conversation now.
    Begun {
        /// The life of the id that began.
        incarnation: u64,
        /// Messages that it has.
        messages: usize,
    },
    /// The log had the conversation, and was given so many messages that it lacked.
    Continued {
        /// Messages that it lacked.
        messages: usize,
    },
    /// The log has all that the document says.
    AlreadyThere,
    /// The log has another history under this id; it was left alone.
    Parted,
    /// The conversation was deleted, and stays so.
    Deleted,
}

/// Why it cannot be told, or done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportFailure {
    /// The document holds what no conversation can hold.
    #[error(transparent)]
    Unusable(#[from] UnknownRole),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] LogError),
    /// The log holds a history that cannot be put together.
    #[error("the log's own history cannot be put together: {0}")]
    Fold(#[from] FoldError),
    /// The log cannot be written.
    #[error(transparent)]
    Write(#[from] AppendError),
}

/// Takes a document into the log; `Ok` means: synced. Nothing is ever replaced or brought back.
///
/// May be called for many documents at once: their appends share transactions.
///
/// # Errors
///
/// See [`ImportFailure`]; unless the append's outcome is unknown, nothing was written.
pub async fn import_document(
    log: &dyn Log,
    id: &ConversationId,
    document: &ImportedDocument,
) -> Result<Imported, ImportFailure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match import_once(log, id, document).await {
            Err(ImportFailure::Write(AppendError::Refused { .. })) if tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

async fn import_once(
    log: &dyn Log,
    id: &ConversationId,
    document: &ImportedDocument,
) -> Result<Imported, ImportFailure> {
    let Some(loaded) = log.load(id.clone()).await? else {
        return begin(log, id, document).await;
    };
    let ours = match folded(loaded)? {
        Folded::Here(ours) => ours,
        Folded::Over { .. } => return Ok(Imported::Deleted),
    };
    match entries_of(id, &ours, document)? {
        Offered::Nothing => Ok(Imported::AlreadyThere),
        Offered::Parted => Ok(Imported::Parted),
        Offered::Entries { entries, messages } => {
            let append = Append {
                id: id.clone(),
                expected_seq: ours.seq(),
                entries,
            };
            log.append(append).await?;
            Ok(Imported::Continued { messages })
        }
    }
}

async fn begin(
    log: &dyn Log,
    id: &ConversationId,
    document: &ImportedDocument,
) -> Result<Imported, ImportFailure> {
    let entry = entry_of(id, document)?;
    let messages = entry.messages.len();
    let incarnation = match &entry.head {
        EntryHead::Begun(begun) => begun.incarnation,
        _ => 0,
    };
    // A tombstone is an entry, too: nothing that was deleted passes this.
    let append = Append {
        id: id.clone(),
        expected_seq: 0,
        entries: vec![entry],
    };
    log.append(append).await?;
    Ok(Imported::Begun {
        incarnation,
        messages,
    })
}

/// Whether to do it, or only to tell what would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Reads only.
    Look,
    /// Writes.
    Do,
}

/// What a mirror's copy gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regained {
    /// So many messages that the log had lost.
    Messages(usize),
    /// Nothing: it holds no more than the log.
    Nothing,
    /// Nothing: it is of another log or another life of the id, or the two have parted.
    Foreign,
}

/// Gives the log back what it has lost and a copy of its own shows; `Ok` means: synced.
///
/// # Errors
///
/// See [`ImportFailure`].
pub async fn regain(
    log: &SqliteLog,
    id: &ConversationId,
    copy: &ImportedDocument,
    act: Act,
) -> Result<Regained, ImportFailure> {
    let Some(loaded) = log.load(id.clone()).await? else {
        return Ok(Regained::Foreign);
    };
    let Folded::Here(ours) = folded(loaded)? else {
        return Ok(Regained::Foreign);
    };
    let is_ours = copy
        .revision
        .as_ref()
        .is_some_and(|it| it.log == log.log_id() && it.incarnation == ours.incarnation());
    if !is_ours {
        return Ok(Regained::Foreign);
    }
    let (entries, messages) = match entries_of(id, &ours, copy)? {
        Offered::Nothing => return Ok(Regained::Nothing),
        Offered::Parted => return Ok(Regained::Foreign),
        Offered::Entries { entries, messages } => (entries, messages),
    };
    if act == Act::Do {
        let append = Append {
            id: id.clone(),
            expected_seq: ours.seq(),
            entries,
        };
        log.append(append).await?;
    }
    Ok(Regained::Messages(messages))
}

/// The document of entries as they were loaded.
fn folded(loaded: Loaded) -> Result<Folded, FoldError> {
    Document::fold(loaded.first_seq, &loaded.entries)
}

/// What a copy has more than the log, ready to be appended.
pub(crate) enum Offered {
    Nothing,
    Entries {
        entries: Vec<Entry>,
        messages: usize,
    },
    Parted,
}

/// Compares a copy with the history that the log has.
pub(crate) fn entries_of(
    id: &ConversationId,
    ours: &Document,
    copy: &ImportedDocument,
) -> Result<Offered, UnknownRole> {
    let offered = match adopting::offer(id, ours, copy, Timestamp::now())? {
        Offer::Nothing => return Ok(Offered::Nothing),
        Offer::Parted => return Ok(Offered::Parted),
        Offer::Entries(offered) => offered,
    };
    let messages = offered.iter().map(|(_, messages)| messages.len()).sum();
    let entries = offered.into_iter().map(entry).collect();
    Ok(Offered::Entries { entries, messages })
}

fn entry((head, messages): (EntryHead, Vec<StoredMessage>)) -> Entry {
    let messages: Vec<Arc<str>> = messages.iter().map(StoredMessage::whole).collect();
    Entry { head, messages }
}

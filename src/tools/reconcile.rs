//! `reconcile`: takes back into the log what only its mirrors still have, then brings the mirrors
//! up to date.
//!
//! First the JSON files give back what they have more, then the bucket; only then are open turns
//! ended, since a copy may hold their true end; if a copy cannot be read, they stay open. What is of another history is left to the
//! mirrors, which keep it beside their own copy.

use std::{fs, path::Path};

use futures::{StreamExt as _, TryStreamExt as _};
use idol_actors::{
    id::ConversationId,
    importing::{Act, ImportFailure, Imported, Regained, import_document, regain},
    log::{
        Log as _, LogError,
        sqlite::{CatalogueRow, FileStamp, Progress as MirrorProgress},
    },
    mirror::{
        Render as _,
        imported::ImportedDocument,
        json_files::{
            self, CopyState, adopted, compare, file_stamp, files_by_conversation, unremoved,
        },
        supabase::SupabaseError,
    },
    rendering::DocumentRenderer,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::{
    account::{Account, Source},
    objects::Objects,
};
use super::{Missing, Opened, Report, STOPPED, ToolError, bucket, catalogue, progress::Progress};
use crate::config::{Config, Reconcile};

mod account;
mod mirrors;
mod objects;

/// Conversations looked at at once; each may call the bucket.
const CONVERSATIONS: usize = bucket::CALLS;

/// No file has it: the mirror takes a file that is there for another hand's, and keeps it aside.
const NO_STAMP: FileStamp = FileStamp {
    size: 0,
    mtime_ns: i64::MIN,
};

pub(super) async fn run(
    asked: &Reconcile,
    config: &Config,
    stop: CancellationToken,
) -> Result<Report, ToolError> {
    let client = bucket::configured(config)?;
    let opened = Opened::open(config, Missing::Refuse)?;
    let act = match asked.dry_run {
        true => Act::Look,
        false => Act::Do,
    };
    let mut account = Account::new(act);
    let done = async {
        let objects = match &client {
            Some(client) => Some(Objects::list(client.clone()).await?),
            None => None,
        };
        let read = take_back(&opened, objects, act, &stop, &mut account).await?;
        if act == Act::Do && read != Read::LogFailed && !stop.is_cancelled() {
            if read == Read::Whole {
                opened.recover().await?;
            } else if !opened.log.open_turns(1).await?.is_empty() {
                account.left_open();
            }
            mirrors::bring_up_to_date(&opened, client.as_ref(), &stop, &mut account).await;
        }
        Ok::<_, ToolError>(())
    };
    let done = done.await;
    opened.close().await;
    done?;
    let mut report = account.report();
    if stop.is_cancelled() {
        report.text.push_str(STOPPED);
        report.status = super::Status::Failed;
    }
    Ok(report)
}

/// Why one conversation could not be looked after.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Import(#[from] ImportFailure),
    #[error("its JSON file cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("its object cannot be read: {0}")]
    Object(#[from] SupabaseError),
    #[error("its object is listed, and the server says it is not there")]
    Vanished,
    #[error("{0}")]
    Damaged(String),
}

impl Trouble {
    /// Whether the log no longer writes: nothing more can be done.
    fn is_final(&self) -> bool {
        matches!(self, Self::Import(ImportFailure::Write(_)))
    }
}

/// What is known of the copies in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// All that they have and the log can take is in the log.
    Whole,
    /// Of some conversation it is not known.
    InPart,
    /// The log no longer writes.
    LogFailed,
}

impl Read {
    fn after(self, trouble: &Trouble) -> Self {
        match self {
            Self::LogFailed => Self::LogFailed,
            Self::Whole | Self::InPart if trouble.is_final() => Self::LogFailed,
            Self::Whole | Self::InPart => Self::InPart,
        }
    }
}

/// What was done for one conversation.
type Deeds = Vec<(Source, Regained)>;

async fn take_back(
    opened: &Opened,
    objects: Option<Objects>,
    act: Act,
    stop: &CancellationToken,
    account: &mut Account,
) -> Result<Read, ToolError> {
    let mut read = Read::Whole;
    let directory = opened.dir.conversations();
    let mut files = files_by_conversation(&directory).map_err(ToolError::path(&directory))?;
    let mut progress = Progress::new("conversations", None);
    let (reader, mut keys) = match objects {
        Some(Objects { reader, keys }) => (Some(reader), keys),
        None => (None, Default::default()),
    };
    let listed = &keys.clone();
    let mut walked = catalogue::walk(opened.log.clone(), stop.clone())
        .map_ok(|row| {
            let (id, reader) = (row.id.clone(), reader.as_ref());
            let key = listed.get(&id);
            let there = files.remove(&id).unwrap_or_default();
            keys.remove(&id);
            async move {
                let done = conversation(opened, row, &there, reader.zip(key), act).await;
                Ok::<_, LogError>((id, done))
            }
        })
        .try_buffer_unordered(CONVERSATIONS)
        .boxed_local();
    let mut looked_at = 0;
    let mut after_the_end = None;
    while let Some((id, done)) = walked.try_next().await? {
        looked_at += 1;
        progress.at(looked_at);
        match done {
            Ok(deeds) => account.deeds(&id, deeds),
            // Another conversation's write ended the log while this one was read; what is to be
            // told is that write's failure, which may be known a moment later.
            Err(trouble) if opened.log.has_died() && !trouble.is_final() => {
                after_the_end.get_or_insert((id, trouble));
            }
            Err(trouble) => {
                account.trouble(id.as_str(), &trouble);
                read = read.after(&trouble);
                if read == Read::LogFailed {
                    return Ok(read);
                }
            }
        }
    }
    drop(walked);
    if let Some((id, trouble)) = after_the_end {
        account.trouble(id.as_str(), &trouble);
        return Ok(Read::LogFailed);
    }
    if stop.is_cancelled() {
        return Ok(read);
    }
    let mut lost: Vec<ConversationId> = files.into_keys().collect();
    lost.sort_unstable();
    for id in lost {
        let done = lost_file(opened, &id, act).await;
        let is_final = done.as_ref().is_err_and(Trouble::is_final);
        account.begun(&id, Source::File, done);
        if is_final {
            return Ok(Read::LogFailed);
        }
    }
    if let Some(reader) = reader {
        let mut lost: Vec<_> = keys.into_iter().collect();
        lost.sort_unstable();
        for (id, key) in lost {
            let done = reader.lost(opened, &id, &key, act).await;
            let is_final = done.as_ref().is_err_and(Trouble::is_final);
            account.begun(&id, Source::Object, done);
            if is_final {
                return Ok(Read::LogFailed);
            }
        }
    }
    Ok(read)
}

async fn conversation(
    opened: &Opened,
    row: CatalogueRow,
    files: &[String],
    object: Option<(&objects::Reader, &String)>,
    act: Act,
) -> Result<Deeds, Trouble> {
    let mut deeds = Deeds::new();
    if row.is_deleted() {
        // The mirror removes what should not be there.
        if !files.is_empty() {
            note(opened, unremoved(row.id.clone(), row.incarnation), act).await?;
        }
        return Ok(deeds);
    }
    deeds.extend(from_file(opened, &row, act).await?);
    if let Some((reader, key)) = object
        && let Some(copy) = reader.ahead(opened, &row, key).await?
    {
        let regained = regain(&opened.log, &row.id, &copy, act).await?;
        deeds.push((Source::Object, regained));
    }
    Ok(deeds)
}

/// Takes back what the JSON file has more, and has a file written anew that is not ours.
async fn from_file(
    opened: &Opened,
    row: &CatalogueRow,
    act: Act,
) -> Result<Option<(Source, Regained)>, Trouble> {
    let log = &opened.log;
    let loaded = log.load(row.id.clone()).await?;
    let mirrored = log.mirror_row(json_files::MIRROR, row.id.clone()).await?;
    let (Some(loaded), Some(mirrored)) = (loaded, mirrored) else {
        return Err(Trouble::Damaged("it has no entries".into()));
    };
    let (directory, id, log_id) = (opened.dir.conversations(), row.id.clone(), log.log_id());
    let compared = spawn_blocking(move || {
        let renderer = DocumentRenderer { log: log_id };
        let rendered = renderer.render(&id, loaded);
        let rendered = rendered.map_err(|error| Trouble::Damaged(error.to_string()))?;
        let stamp = stamp_of(&directory, &id);
        Ok::<_, Trouble>((compare(&directory, &mirrored, &rendered, log_id)?, stamp))
    });
    let compared = compared
        .await
        .map_err(|panic| Trouble::Damaged(panic.to_string()))?;
    let (state, stamp) = compared?;
    let (regained, known) = match state {
        CopyState::Equal | CopyState::NotYet | CopyState::Behind => return Ok(None),
        CopyState::Missing | CopyState::Edited | CopyState::Unreadable(_) => (None, NO_STAMP),
        CopyState::Ahead(copy) => match regain(log, &row.id, &copy, act).await? {
            Regained::Foreign => (Some(Regained::Foreign), NO_STAMP),
            // All that it says is in the log: it may be replaced.
            regained => (Some(regained), stamp.unwrap_or(NO_STAMP)),
        },
    };
    write_anew(opened, &row.id, row.incarnation, known, act).await?;
    Ok(regained.map(|regained| (Source::File, regained)))
}

/// Has the mirror write a document, over a file with this stamp and no other.
async fn write_anew(
    opened: &Opened,
    id: &ConversationId,
    incarnation: u64,
    known: FileStamp,
    act: Act,
) -> Result<(), LogError> {
    note(opened, adopted(id.clone(), incarnation, known), act).await
}

async fn note(opened: &Opened, progress: MirrorProgress, act: Act) -> Result<(), LogError> {
    if act == Act::Look {
        return Ok(());
    }
    opened
        .log
        .record_progress(json_files::MIRROR, vec![progress])
        .await
}

/// A conversation that the log has lost as a whole begins again from its file; `None`: the file is
/// not of this log.
async fn lost_file(
    opened: &Opened,
    id: &ConversationId,
    act: Act,
) -> Result<Option<usize>, Trouble> {
    let (directory, reading) = (opened.dir.conversations(), id.clone());
    let read = spawn_blocking(move || {
        let stamp = stamp_of(&directory, &reading)?;
        let bytes = fs::read(directory.join(format!("{reading}.json"))).ok()?;
        let document = ImportedDocument::parse(&reading, &bytes).ok()?;
        Some((stamp, document))
    });
    let read = read
        .await
        .map_err(|panic| Trouble::Damaged(panic.to_string()))?;
    let Some((stamp, document)) = read else {
        return Ok(None);
    };
    let Some((messages, incarnation)) = begin_again(opened, id, &document, act).await? else {
        return Ok(None);
    };
    if let Some(incarnation) = incarnation {
        write_anew(opened, id, incarnation, stamp, act).await?;
    }
    Ok(Some(messages))
}

/// Messages, and the life that began; `None`: the document is not of this log.
async fn begin_again(
    opened: &Opened,
    id: &ConversationId,
    document: &ImportedDocument,
    act: Act,
) -> Result<Option<(usize, Option<u64>)>, Trouble> {
    let is_ours = document
        .revision
        .as_ref()
        .is_some_and(|it| it.log == opened.log.log_id());
    if !is_ours {
        return Ok(None);
    }
    if act == Act::Look {
        return Ok(Some((document.messages.len(), None)));
    }
    Ok(
        match import_document(opened.log.as_ref(), id, document).await? {
            Imported::Begun {
                incarnation,
                messages,
            } => Some((messages, Some(incarnation))),
            Imported::Continued { messages } => Some((messages, None)),
            Imported::AlreadyThere => Some((0, None)),
            Imported::Parted | Imported::Deleted => None,
        },
    )
}

fn stamp_of(directory: &Path, id: &ConversationId) -> Option<FileStamp> {
    let metadata = fs::symlink_metadata(directory.join(format!("{id}.json"))).ok()?;
    Some(file_stamp(&metadata))
}

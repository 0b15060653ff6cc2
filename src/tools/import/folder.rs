//! Documents of a directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt as _, stream};
use idol_actors::{
    id::ConversationId,
    log::sqlite::SqliteLog,
    mirror::{imported::ImportedDocument, json_files::DOCUMENT_BYTES_MAX},
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{Fate, Next, Tally, take};
use crate::tools::{
    Opened, ToolError,
    bucket::{Named, named},
    progress::Progress,
};

/// Documents under way at once: their appends share a sync.
const DOCUMENTS: usize = 64;

/// KiB of documents under way at once. A larger one goes alone.
const KIB_MAX: u32 = 128 << 10;

/// How the reading of a file ended that gave no document.
enum NoDocument {
    Skipped(String),
    Failed(String),
}

pub(super) async fn import(
    directory: &Path,
    opened: &Opened,
    stop: &CancellationToken,
    tally: &mut Tally,
) -> Result<(), ToolError> {
    opened.foreign_directory(directory)?;
    let names = names(directory).map_err(ToolError::path(directory))?;
    let mut progress = Progress::new("files", Some(names.len() as u64));
    let room = Semaphore::new(KIB_MAX as usize);
    let room = &room;
    let mut fates = stream::iter(names)
        .take_until(stop.cancelled())
        .map(|name| async move {
            let path = directory.join(&name);
            let name = name.to_string_lossy().into_owned();
            let fate = match named(&name) {
                Named::Document(id) => one(&opened.log, path, &id, room).await,
                Named::Aside(_) => Fate::Skipped("it was kept beside a document".into()),
                Named::Other => Fate::Skipped("its name is not {conversation id}.json".into()),
            };
            (name, fate)
        })
        .buffer_unordered(DOCUMENTS)
        .boxed_local();
    while let Some((name, fate)) = fates.next().await {
        if tally.count(name, fate) == Next::GiveUp {
            break;
        }
        progress.at(tally.done());
    }
    Ok(())
}

/// The names in a directory, in their order.
fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

async fn one(log: &Arc<SqliteLog>, path: PathBuf, id: &ConversationId, room: &Semaphore) -> Fate {
    let size = match fs::metadata(&path) {
        // To open a pipe would wait for whoever writes to it.
        Ok(found) if !found.is_file() => return Fate::Skipped("it is no file".into()),
        Ok(found) => found.len(),
        Err(error) => return Fate::Failed(error.to_string()),
    };
    if size > DOCUMENT_BYTES_MAX {
        return Fate::Skipped(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes"));
    }
    let kib = u32::try_from(size / 1024 + 1).unwrap_or(KIB_MAX);
    let Ok(_held) = room.acquire_many(kib.min(KIB_MAX)).await else {
        return Fate::Failed("no room".into());
    };
    let reading = id.clone();
    match spawn_blocking(move || read(&path, &reading)).await {
        Ok(Ok(document)) => take(log, id, &document).await,
        Ok(Err(NoDocument::Skipped(reason))) => Fate::Skipped(reason),
        Ok(Err(NoDocument::Failed(reason))) => Fate::Failed(reason),
        Err(panic) => Fate::Failed(panic.to_string()),
    }
}

fn read(path: &Path, id: &ConversationId) -> Result<ImportedDocument, NoDocument> {
    let bytes = fs::read(path).map_err(|error| NoDocument::Failed(error.to_string()))?;
    ImportedDocument::parse(id, &bytes).map_err(|error| NoDocument::Skipped(error.to_string()))
}

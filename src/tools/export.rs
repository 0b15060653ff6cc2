//! `export`: every conversation as the document that the JSON mirror writes.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _};
use idol_actors::{
    id::ConversationId,
    log::{Log as _, sqlite::SqliteLog},
    mirror::{Render as _, Rendered},
    rendering::DocumentRenderer,
};
use tokio_util::sync::CancellationToken;

use super::{Missing, Opened, Report, STOPPED, Status, ToolError, catalogue, progress::Progress};
use crate::config::{Config, Export};

/// Documents under way at once: their syncs overlap.
const DOCUMENTS: usize = 16;

/// What happens to a file that stands where a document belongs and says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

/// What became of a document.
enum Fate {
    Written,
    SameAsBefore,
}

#[derive(Default)]
struct Counts {
    written: u64,
    same: u64,
    failed: Vec<(ConversationId, String)>,
}

pub(super) async fn run(
    asked: &Export,
    config: &Config,
    stop: CancellationToken,
) -> Result<Report, ToolError> {
    let opened = Opened::open(config, Missing::Refuse)?;
    // A reply that a crash cut is in the log, but not yet in the document.
    opened.recover().await?;
    let report = export(asked, &opened, &stop).await;
    opened.close().await;
    report
}

async fn export(
    asked: &Export,
    opened: &Opened,
    stop: &CancellationToken,
) -> Result<Report, ToolError> {
    let directory = &asked.directory;
    fs::create_dir_all(directory).map_err(ToolError::path(directory))?;
    opened.foreign_directory(directory)?;
    let existing = match asked.overwrite {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let mut counts = Counts::default();
    let mut progress = Progress::new("conversations", None);
    let mut fates = catalogue::walk(opened.log.clone(), stop.clone())
        .try_filter(|row| std::future::ready(!row.is_deleted()))
        .map_ok(|row| {
            let (log, directory) = (opened.log.clone(), directory.clone());
            async move {
                let fate = one(log, &row.id, directory, existing).await;
                Ok((row.id, fate))
            }
        })
        .try_buffer_unordered(DOCUMENTS)
        .boxed_local();
    while let Some((id, fate)) = fates.try_next().await? {
        match fate {
            Ok(Fate::Written) => counts.written += 1,
            Ok(Fate::SameAsBefore) => counts.same += 1,
            Err(reason) => counts.failed.push((id, reason)),
        }
        let failed = counts.failed.len() as u64;
        progress.at(counts.written + counts.same + failed);
    }
    drop(progress);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(ToolError::path(directory))?;
    Ok(counts.report(stop))
}

impl Counts {
    fn report(self, stop: &CancellationToken) -> Report {
        let mut text = String::new();
        for (id, reason) in &self.failed {
            text.push_str(&format!("failed {id}: {reason}\n"));
        }
        let failed = self.failed.len();
        text.push_str(&format!(
            "exported {}, already there {}, failed {failed}\n",
            self.written, self.same
        ));
        let mut status = match failed {
            0 => Status::Well,
            _ => Status::Failed,
        };
        if stop.is_cancelled() {
            text.push_str(STOPPED);
            status = Status::Failed;
        }
        Report { text, status }
    }
}

async fn one(
    log: Arc<SqliteLog>,
    id: &ConversationId,
    directory: PathBuf,
    existing: Existing,
) -> Result<Fate, String> {
    let loaded = log.load(id.clone()).await;
    let loaded = loaded.map_err(|error| error.to_string())?;
    let loaded = loaded.ok_or("the log lists it, and does not have it")?;
    let (id, renderer) = (id.clone(), DocumentRenderer { log: log.log_id() });
    let written = tokio::task::spawn_blocking(move || {
        let rendered = renderer
            .render(&id, loaded)
            .map_err(|error| error.to_string())?;
        put(&directory, &id, &rendered, existing)
    });
    written.await.map_err(|panic| panic.to_string())?
}

/// Puts a document in its place, whole or not at all.
fn put(
    directory: &Path,
    id: &ConversationId,
    rendered: &Rendered,
    existing: Existing,
) -> Result<Fate, String> {
    let path = directory.join(format!("{id}.json"));
    match fs::symlink_metadata(&path) {
        Ok(found) => {
            let same = found.len() == rendered.bytes() as u64
                && fs::read(&path).is_ok_and(|bytes| rendered.is(&bytes));
            if same {
                return Ok(Fate::SameAsBefore);
            }
            if existing == Existing::Keep {
                return Err("another file of this name is there; --overwrite replaces it".into());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
    }
    let part = directory.join(format!("{id}.json.part"));
    let placed = write(&part, rendered).and_then(|()| fs::rename(&part, &path));
    placed.map(|()| Fate::Written).map_err(|error| {
        // Half a document helps nobody.
        fs::remove_file(&part).ok();
        error.to_string()
    })
}

fn write(path: &Path, rendered: &Rendered) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // As private as the server's own files.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut writer = BufWriter::with_capacity(64 << 10, options.open(path)?);
    for piece in &rendered.json {
        writer.write_all(piece.as_bytes())?;
    }
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

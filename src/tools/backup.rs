//! `backup`: the log to another file, as of one moment, while the server may be writing.

use std::fs;

use idol_actors::log::sqlite::backup;

use super::{LOG_FILE, Report, Status, ToolError, progress::Progress};
use crate::config::{Backup, Config};

/// Copies the log. Blocks; ended by a signal it leaves `FILE.part`, which the next one replaces.
///
/// # Errors
///
/// See [`ToolError`]; there is no file then.
pub fn run(asked: &Backup, config: &Config) -> Result<Report, ToolError> {
    // The lock is the server's: only the file is opened, for reading.
    let source = config.storage.data_dir.join(LOG_FILE);
    if !source.exists() {
        return Err(ToolError::NoLog(config.storage.data_dir.clone()));
    }
    let file = &asked.file;
    let mut progress = Progress::new("pages", Some(0));
    let copied = backup(&source, file, |at| {
        progress.of(at.total);
        progress.at(at.total - at.remaining.min(at.total));
    });
    drop(progress);
    copied.map_err(|source| ToolError::Backup {
        path: file.clone(),
        source,
    })?;
    let size = fs::metadata(file).map_err(ToolError::path(file))?.len();
    let text = format!(
        "{}: {size} bytes\n\
         To restore: stop the server, put the file into an empty DATA_DIR as {LOG_FILE}, \
         and run `idol-router reconcile` if JSON files or a bucket may have more.\n",
        file.display()
    );
    let status = Status::Well;
    Ok(Report { text, status })
}

//! What an operator does with conversations while the server is stopped, and backups while it runs.
//!
//! Each tool says on standard output what came of it, and leaves standard error to progress and
//! warnings. None goes on by itself after the log failed to write.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use idol_actors::{
    loading::JsonSource,
    log::{
        LogError,
        data_dir::{DataDir, DataDirError},
        sqlite::{BackupError, IntegrityError, OpenError, SqliteLog, SqliteOptions},
    },
    mirror::supabase::{SupabaseConfigError, SupabaseError},
    recovery::{Recovery, RecoveryError, recover},
};
use tokio_util::sync::CancellationToken;

use crate::config::{Command, Config};

pub mod backup;
mod bucket;
mod catalogue;
mod export;
mod import;
mod progress;
mod reconcile;
mod retry;
mod verify;

/// How a tool ended, as its exit status says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well: 0.
    Well,
    /// Something failed; the report says what: 1.
    Failed,
    /// `verify` found differences: 3.
    Differs,
}

impl Status {
    /// The exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Differs => 3,
        }
    }
}

/// What a tool has to say at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For standard output; ends with a line end.
    pub text: String,
    /// How it went.
    pub status: Status,
}

/// Why a tool could not do its work at all.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The data directory cannot be used; most often since a server uses it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is nothing to work on.
    #[error("DATA_DIR {} holds no log: is it the right directory?", .0.display())]
    NoLog(PathBuf),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Turns of the last run cannot be ended.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// SQLite gives no verdict.
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    /// A directory or a file of the operator's cannot be used.
    #[error("{}: {source}", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's own directory is named where another one belongs.
    #[error("{} belongs to the server: name another directory", .0.display())]
    OwnDirectory(PathBuf),
    /// No Supabase project is configured.
    #[error("SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY must be set to use the bucket")]
    NoBucket,
    /// The Supabase configuration cannot be used.
    #[error(transparent)]
    Supabase(#[from] SupabaseConfigError),
    /// The bucket cannot be used.
    #[error("the bucket cannot be read: {0}")]
    Bucket(#[from] SupabaseError),
    /// There is no backup.
    #[error("{}: {source}", .path.display())]
    Backup {
        /// Where it was to be.
        path: PathBuf,
        /// Why there is none.
        source: BackupError,
    },
}

impl ToolError {
    /// The exit status: 2 for what the operator asked, 1 for what went wrong.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::OwnDirectory(_) | Self::NoBucket | Self::Supabase(_) => 2,
            _ => 1,
        }
    }

    fn path(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Path { path, source }
    }
}

/// Runs a command that needs the log to itself; `stop` makes it end between two conversations.
/// Needs a running actix system. `None`: it is no such command.
pub async fn run(
    command: &Command,
    config: &Config,
    stop: CancellationToken,
) -> Option<Result<Report, ToolError>> {
    Some(match command {
        Command::Healthcheck | Command::Backup(_) => return None,
        Command::Export(asked) => export::run(asked, config, stop).await,
        Command::Import(asked) => import::run(asked, config, stop).await,
        Command::Verify(asked) => verify::run(asked, config, stop).await,
        Command::Reconcile(asked) => reconcile::run(asked, config, stop).await,
    })
}

/// Whether a log is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is: an import may be the first thing that is done.
    Make,
    /// A mistyped directory is not to be taken for an empty one.
    Refuse,
}

/// A log that nobody else uses.
struct Opened {
    dir: DataDir,
    log: Arc<SqliteLog>,
}

impl Opened {
    fn open(config: &Config, missing: Missing) -> Result<Self, ToolError> {
        let path = &config.storage.data_dir;
        if missing == Missing::Refuse && !path.join(LOG_FILE).exists() {
            return Err(ToolError::NoLog(path.clone()));
        }
        let dir = DataDir::lock(path)?;
        let log = Arc::new(SqliteLog::open(&dir, SqliteOptions::default())?);
        Ok(Self { dir, log })
    }

    fn json_files(&self) -> JsonSource {
        JsonSource {
            directory: self.dir.conversations(),
            log: self.log.clone(),
        }
    }

    /// Ends the turns that a crash cut, as a start of the server does.
    async fn recover(&self) -> Result<Recovery, ToolError> {
        Ok(recover(&self.log, Some(&self.json_files())).await?)
    }

    /// Refuses a directory that the server writes to.
    fn foreign_directory(&self, path: &Path) -> Result<(), ToolError> {
        let (Ok(own), Ok(asked)) = (self.dir.path().canonicalize(), path.canonicalize()) else {
            return Ok(());
        };
        if asked == own || asked == own.join("conversations") {
            return Err(ToolError::OwnDirectory(path.to_owned()));
        }
        Ok(())
    }

    /// Closes the log, whatever came of the work.
    async fn close(self) {
        self.log.close().await;
    }
}

/// Name of the log's database within DATA_DIR.
const LOG_FILE: &str = "log.sqlite";

/// What is said when the operator stopped a tool.
const STOPPED: &str = "stopped before the end; run it again to go on\n";

//! The command line.

use std::{fmt, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// Arguments of the process. Whatever else there is to choose comes from the environment.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "idol-router",
    version,
    about = "A conversation backend for AI companions: REST, SSE and WebSocket in, OpenRouter out.",
    after_help = super::variable::help(),
)]
pub struct Cli {
    /// Address to listen on; wins over HOST.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub host: Option<String>,
    /// TCP port; wins over PORT.
    #[arg(long, value_name = "NUMBER", global = true)]
    pub port: Option<String>,
    /// Directory of the log and the documents; wins over DATA_DIR.
    #[arg(long, value_name = "PATH", global = true)]
    pub data_dir: Option<String>,
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The value a flag gives to a variable. Checked where the variable is, so both have one rule.
    pub(super) fn flag(&self, variable: &str) -> Option<&str> {
        match variable {
            "HOST" => self.host.as_deref(),
            "PORT" => self.port.as_deref(),
            "DATA_DIR" => self.data_dir.as_deref(),
            _ => None,
        }
    }
}

/// What every tool's help ends with.
const EXIT_STATUS: &str = "\
Exit status:
  0  all is well
  1  something failed; the report says what
  2  bad usage or configuration
  3  `verify` found differences

The report goes to standard output, progress and warnings to standard error.
Ctrl-C stops between two conversations.";

/// Things to do other than serve.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the server on this machine for /health; exit status 0 if it is well.
    Healthcheck,
    /// Write every conversation to a directory, one JSON document each. The server must be stopped.
    #[command(after_help = EXIT_STATUS)]
    Export(Export),
    /// Take documents into the log: a directory of them, or the bucket's. The server must be stopped.
    ///
    /// Reads documents of this server and of the FastAPI service, named by their conversation.
    /// What the log has is left alone, what was deleted stays deleted, the source is not changed.
    #[command(after_help = EXIT_STATUS)]
    Import(Import),
    /// Compare the log with its JSON files and with Supabase, if configured. Writes nothing. The
    /// server must be stopped.
    #[command(after_help = EXIT_STATUS)]
    Verify(Verify),
    /// Take back into the log what only its mirrors still have, then bring the mirrors up to date.
    /// The server must be stopped.
    #[command(after_help = EXIT_STATUS)]
    Reconcile(Reconcile),
    /// Copy the log to a new file, as of one moment; the server may be running.
    ///
    /// To restore: stop the server, and put the file into an empty DATA_DIR as log.sqlite.
    #[command(after_help = EXIT_STATUS)]
    Backup(Backup),
}

/// Arguments of `export`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Export {
    /// Where to; made if it is missing.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Replace files of another content; without it they are left, and the export fails.
    #[arg(long)]
    pub overwrite: bool,
}

/// Arguments of `import`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Import {
    /// A directory of documents, `{conversation id}.json`.
    #[arg(value_name = "DIR", required_unless_present = "bucket")]
    pub directory: Option<PathBuf>,
    /// The bucket of the configured Supabase project.
    #[arg(long, conflicts_with = "directory")]
    pub bucket: bool,
    /// Report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Verify {
    /// Read every object, not only what the bucket says of it, and check the log's indexes.
    #[arg(long)]
    pub deep: bool,
    /// Name all conversations that differ, not only the first of each kind.
    #[arg(long)]
    pub all: bool,
    /// Report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `reconcile`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Reconcile {
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `backup`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Backup {
    /// The copy; must not exist.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthcheck => "healthcheck",
            Self::Export(_) => "export",
            Self::Import(_) => "import",
            Self::Verify(_) => "verify",
            Self::Reconcile(_) => "reconcile",
            Self::Backup(_) => "backup",
        })
    }
}

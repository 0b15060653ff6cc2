//! The command line.

use std::fmt;

use clap::{Parser, Subcommand};

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

/// Things to do other than serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the server on this machine for /health; exit status 0 if it is well.
    Healthcheck,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthcheck => "healthcheck",
        })
    }
}

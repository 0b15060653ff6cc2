//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::{client::Ask, scenario::Scenario};

/// Loads a server, and measures it beside a bare proxy and the upstream itself.
///
/// Without a command everything is measured on this machine: the server, its upstream (a test
/// double) and the clients are processes of their own. See benches/README.md.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) measure: Measure,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// Two minutes in all: fewer rounds, shorter windows, smaller crowds
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only this scenario; may be given more than once
    #[arg(long, value_name = "SCENARIO")]
    pub(crate) only: Vec<Scenario>,
    /// Rounds of each comparison
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: Option<u16>,
    /// Seconds of a window
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub(crate) seconds: Option<u16>,
    /// Turns of a client in one conversation, before it begins another
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) turns: Option<u16>,
    /// The server's program [default: idol-router beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// Where data and reports go [default: load in the target directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Loads a deployment, for a bounded time
    Run(Deployment),
    /// What the processes of a run are
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

/// How a deployment is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// POST /chat/stream
    Sse,
    /// /ws/chat
    Websocket,
    /// POST /chat
    Chat,
}

impl From<Transport> for Ask {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Sse => Self::ChatStream,
            Transport::Websocket => Self::WebSocket,
            Transport::Chat => Self::Chat,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Deployment {
    /// The server, without a path: http or https
    #[arg(long)]
    pub(crate) url: Url,
    #[arg(long, value_enum, default_value_t = Transport::Sse)]
    pub(crate) transport: Transport,
    /// Clients that each begin a turn when the one before is over
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) clients: u32,
    /// Seconds until the last turn is begun
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) duration: u32,
    /// The model asked for; else the server's own choice
    #[arg(long, conflicts_with_all = ["tokens", "gap_ms"])]
    pub(crate) model: Option<String>,
    /// Tokens of a reply, where the upstream is this program's (`idol-load role upstream`)
    #[arg(long)]
    pub(crate) tokens: Option<u32>,
    /// Milliseconds between two tokens there
    #[arg(long)]
    pub(crate) gap_ms: Option<u64>,
    /// An Authorization header, as `Bearer <token>`
    #[arg(long)]
    pub(crate) authorization: Option<String>,
}

/// The hidden roles.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    Upstream,
    PassThrough {
        /// The upstream's origin
        upstream: String,
    },
    Echo,
    Client {
        /// The job, as JSON
        job: String,
    },
    AppendLog {
        directory: PathBuf,
        writers: usize,
        seconds: f64,
    },
    FillLog {
        directory: PathBuf,
        conversations: u64,
    },
    /// Another program, which ends when its parent does
    Program {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn scenarios_are_named_as_in_the_report() {
        let cli = Cli::parse_from(["idol-load", "--quick", "--only", "burst-many"]);
        assert_eq!(cli.measure.only, [Scenario::BurstMany]);
        assert_eq!(Scenario::BurstMany.name(), "burst-many");
    }
}

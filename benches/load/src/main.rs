//! The load test: the server under load, beside a bare proxy and the upstream itself.
//!
//! Server, upstream, yardsticks and clients are processes of their own, so that CPU and memory are
//! each one's own; this program starts itself again for all but the server. See `benches/README.md`
//! for what is measured and how to read it.

mod bench;
mod cli;
mod client;
mod clock;
mod deployment;
mod error;
mod figure;
mod machine;
mod measure;
mod model;
mod plot;
mod process;
mod results;
mod roles;
mod scale;
mod scenario;
mod stats;
mod table;

use std::{future::Future, os::unix::process::CommandExt as _, process::ExitCode, time::Duration};

use clap::Parser as _;
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Cli, Command, Role},
    error::LoadError,
    roles::{echo, log, pass_through, upstream},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = raise_open_files().and_then(|()| match cli.command {
        None => block_on(until_interrupted(measure::run(cli.measure))),
        Some(Command::Run(asked)) => block_on(until_interrupted(deployment::run(asked))),
        Some(Command::Role { role }) => play(role),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idol-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays a part of a run, and ends with the process that started it.
fn play(role: Role) -> Result<(), LoadError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| LoadError::io("a death signal")(error.into()))?;
    match role {
        Role::Upstream => upstream::run(),
        Role::PassThrough { upstream } => pass_through::run(upstream),
        Role::Echo => echo::run(),
        Role::Client { job } => block_on(client::run(&job)),
        Role::AppendLog {
            directory,
            writers,
            seconds,
        } => block_on_all(async move {
            let window = Duration::from_secs_f64(seconds);
            let appended = log::append(&directory, writers, window).await?;
            println!("{}", serde_json::to_string(&appended)?);
            Ok(())
        }),
        Role::FillLog {
            directory,
            conversations,
        } => block_on_all(async move { log::fill(&directory, conversations).await }),
        Role::Program { program, arguments } => {
            let what = program.display().to_string();
            // Only what failed comes back from it.
            let error = std::process::Command::new(program).args(arguments).exec();
            Err(LoadError::io(what)(error))
        }
    }
}

/// Sockets are files: a shell's usual 1,024 would be the most clients.
fn raise_open_files() -> Result<(), LoadError> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| LoadError::io("the limit of open files")(error.into()))
}

fn block_on<T>(work: impl Future<Output = Result<T, LoadError>>) -> Result<T, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(LoadError::io("a runtime"))?.block_on(work)
}

fn block_on_all<T>(work: impl Future<Output = Result<T, LoadError>>) -> Result<T, LoadError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(LoadError::io("a runtime"))?.block_on(work)
}

/// Ends the work, and with it all processes that it started, on Ctrl-C and on SIGTERM.
async fn until_interrupted(
    work: impl Future<Output = Result<(), LoadError>>,
) -> Result<(), LoadError> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(LoadError::io("a signal's handler"))?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => Err(LoadError::Interrupted),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(LoadError::io("a signal's handler"))?;
            Err(LoadError::Interrupted)
        }
    }
}

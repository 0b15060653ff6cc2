//! The process: configuration, log lines, the server, signals, the exit code.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use idol_router::{
    application::{Application, Ended, Tuning},
    config::{Cli, Command, Config, Mode},
    healthcheck, open_files, telemetry,
    tools::{self, Report, ToolError},
};
use tikv_jemallocator::Jemalloc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// glibc's keeps what many closed sockets and ended replies held; this one gives it back within seconds
/// (`.cargo/config.toml` says how soon).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A setting is wrong: nothing was started.
const EXIT_CONFIG: u8 = 2;
/// The log gave no clear answer; a restart reads what is in it.
const EXIT_LOG: u8 = 74;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    match cli.command {
        Some(Command::Healthcheck) => match healthcheck::run(&config.server) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        },
        Some(Command::Backup(asked)) => told(tools::backup::run(&asked, &config)),
        Some(command) => work(&command, &config),
        None => serve(config),
    }
}

/// Runs a tool that has the log to itself.
fn work(command: &Command, config: &Config) -> ExitCode {
    if let Err(error) = telemetry::init(&config.log) {
        return fail(1, &error);
    }
    actix_web::rt::System::new().block_on(async move {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let terminated = terminated();
        let listening = tokio::task::spawn_local(async move {
            terminated.await;
            stopping.cancel();
        });
        let ended = tools::run(command, config, stop).await;
        listening.abort();
        match ended {
            Some(ended) => told(ended),
            None => fail(EXIT_CONFIG, &format!("{command} needs no log")),
        }
    })
}

/// Tells what a tool has to say.
fn told(ended: Result<Report, ToolError>) -> ExitCode {
    match ended {
        Ok(report) => match io::stdout().write_all(report.text.as_bytes()) {
            Ok(()) => ExitCode::from(report.status.code()),
            Err(error) => fail(1, &format!("the report cannot be written: {error}")),
        },
        Err(error) => fail(error.code(), &error),
    }
}

fn fail(code: u8, error: &dyn fmt::Display) -> ExitCode {
    eprintln!("idol-router: {error}");
    ExitCode::from(code)
}

fn serve(config: Config) -> ExitCode {
    if let Err(error) = telemetry::init(&config.log) {
        return fail(1, &error);
    }
    let open_files = open_files::raise();
    actix_web::rt::System::new().block_on(async move {
        let banner = Banner::of(&config);
        let terminated = terminated();
        let application = match Application::build(config, Tuning::default()).await {
            Ok(application) => application,
            Err(error) => return fail(1, &error),
        };
        tracing::info!(open_files, "each client takes one of them");
        eprintln!("{banner}listening on http://{}", application.address());
        match application.run_until(terminated).await {
            Ok(Ended::Stopped) => ExitCode::SUCCESS,
            Ok(Ended::LogDied(reason)) => fail(EXIT_LOG, &reason),
            Err(error) => fail(1, &error),
        }
    })
}

/// SIGTERM, or ctrl-c; also one that comes before this is awaited.
fn terminated() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("signals cannot be received: stop this process by force");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// What a person who starts the server is told first.
struct Banner {
    mode: &'static str,
    supabase: Option<String>,
}

impl Banner {
    fn of(config: &Config) -> Self {
        let mode = match config.mode() {
            Mode::Live => "",
            Mode::Demo => {
                "demo mode: no provider key is set, so the embedded companion answers.\n\
                 It follows rules, it is no language model; set OPENROUTER_API_KEY for a real one.\n"
            }
        };
        let supabase = config
            .supabase
            .as_ref()
            .map(|it| format!("bucket {:?} at {}", it.bucket, it.url));
        Self { mode, supabase }
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mode)?;
        match &self.supabase {
            None => f.write_str(
                "Conversations are kept in the log and in JSON files; no Supabase mirror is configured.\n",
            ),
            Some(place) => writeln!(
                f,
                "Conversations are kept in the log and in JSON files, and copied to Supabase: {place}."
            ),
        }
    }
}

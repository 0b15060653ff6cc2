//! The process: configuration, log lines, the server, signals, the exit code.

use std::{fmt, process::ExitCode};

use clap::Parser;
use idol_router::{
    application::{Application, Ended, Tuning},
    config::{Cli, Command, Config, Mode},
    healthcheck, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

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
        None => serve(config),
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
    actix_web::rt::System::new().block_on(async move {
        let banner = Banner::of(&config);
        let terminated = terminated();
        let application = match Application::build(config, Tuning::default()).await {
            Ok(application) => application,
            Err(error) => return fail(1, &error),
        };
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

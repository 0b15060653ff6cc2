//! Runs the test double as a process of its own, for load tests.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use idol_simulator::{Options, Simulator};
use tokio::signal::unix::{SignalKind, signal};

/// A test double for the upstream providers, on loopback.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The bearer key that requests must carry.
    #[arg(long)]
    key: Option<String>,
    /// The service key that requests to Supabase must carry.
    #[arg(long)]
    service_key: Option<String>,
    /// A bucket that Supabase has; may be given more than once.
    #[arg(long)]
    bucket: Vec<String>,
    /// What a chat completion does by default, as an option list.
    #[arg(long, default_value = "")]
    default: String,
    /// Prints no counts at the end.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the simulator cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let default: idol_simulator::Script = arguments
        .default
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let simulator = Simulator::start_with(Options {
            port: arguments.port,
            threads: arguments.threads,
            key: arguments.key.clone(),
        })?;
        simulator.set_default(default);
        simulator.require_service_key(arguments.service_key.as_deref());
        for bucket in &arguments.bucket {
            simulator.supabase().create_bucket(bucket);
        }
        println!("listening on {}", simulator.base_url());
        tokio::select! {
            _ = terminate.recv() => {}
            ended = tokio::signal::ctrl_c() => ended?,
        }
        if !arguments.quiet {
            eprintln!("{:?}", simulator.counters());
        }
        Ok(())
    })
}

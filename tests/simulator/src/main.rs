//! Runs the test double as a process of its own, for load tests.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use idol_simulator::{Options, Route, Script, Simulator};
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
    /// The `xi-api-key` that requests to ElevenLabs must carry.
    #[arg(long)]
    elevenlabs_key: Option<String>,
    /// The most generations of speech at once.
    #[arg(long)]
    generations: Option<u64>,
    /// The bearer key that transcription requests must carry.
    #[arg(long)]
    whisper_key: Option<String>,
    /// A bucket that Supabase has; may be given more than once.
    #[arg(long)]
    bucket: Vec<String>,
    /// What a chat completion does by default, as an option list.
    #[arg(long, default_value = "")]
    default: String,
    /// What a request for speech does by default, as an option list.
    #[arg(long, default_value = "")]
    speech: String,
    /// What a transcription does by default, as an option list.
    #[arg(long, default_value = "")]
    transcription: String,
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
    let script = |options: &str| {
        let script = options.parse::<Script>();
        script.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    };
    let defaults = [
        (Route::Chat, script(&arguments.default)?),
        (Route::Speech, script(&arguments.speech)?),
        (Route::Transcription, script(&arguments.transcription)?),
    ];
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
        for (route, default) in defaults {
            simulator.set_default_on(route, default);
        }
        let elevenlabs = simulator.elevenlabs();
        elevenlabs.require_key(arguments.elevenlabs_key.as_deref());
        elevenlabs.limit_generations(arguments.generations);
        simulator
            .whisper()
            .require_key(arguments.whisper_key.as_deref());
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

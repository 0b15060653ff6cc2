//! Where log lines go, and in which form.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{LogConfig, LogFormat};

/// Log lines cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed; a checked configuration has none such.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process got there first.
    #[error("log lines already go elsewhere")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's log lines, those of libraries included, to standard error.
///
/// Standard output stays free for what a command prints.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match config.format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
            registry.with(lines.with_ansi(colours)).try_init()?;
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_in_one_process_is_refused_and_not_a_panic() {
        let config = LogConfig {
            filter: "off".to_owned(),
            format: LogFormat::Json,
        };
        init(&config).unwrap();
        assert!(matches!(init(&config), Err(TelemetryError::Installed(_))));
    }
}

//! What is measured.

mod append;
mod chat;
mod cold_start;
mod documents;
mod fan_out;
mod grid;
mod history;
mod idle;
mod resident;
mod stream;
mod streaming;

use clap::ValueEnum;

use self::stream::Shape;
use crate::{bench::Bench, error::LoadError, figure::Figure, model::Model};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Replies of 64 tokens in one burst, 32 clients: SSE and WebSocket
    Burst,
    /// The same with 256 clients
    BurstMany,
    /// The same with a write for each token, 32 clients
    Single,
    /// 50 clients, 32 tokens, the first after 50 ms, 10 ms apart
    Gentle,
    /// Whole replies, 32 clients
    Chat,
    /// Quiet sockets, beside those of a bare echo
    Idle,
    /// 2,000 sockets with 20 tokens a second each
    Streaming,
    /// One sender, 1,000 watchers
    FanOut,
    /// Turns behind 10 and behind 10,000 messages
    History,
    /// Memory of conversations that are in it
    Resident,
    /// A start with a log of 100,000 conversations
    ColdStart,
    /// Appends by 64 writers to the log alone
    LogAppend,
}

impl Scenario {
    /// What it is called on the command line and in reports.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) async fn run(self, bench: &Bench) -> Result<Vec<Figure>, LoadError> {
        let name = &*self.name();
        let burst = Shape {
            clients: 32,
            model: Model::default(),
            streams_least: 0.6,
            cpu_most: 2.5,
        };
        match self {
            Self::Burst => stream::saturated(bench, name, burst).await,
            Self::BurstMany => {
                let many = Shape {
                    clients: 256,
                    ..burst
                };
                stream::saturated(bench, name, many).await
            }
            Self::Single => {
                let single = Shape {
                    model: Model {
                        batch: 1,
                        ..burst.model
                    },
                    streams_least: 0.8,
                    cpu_most: 1.6,
                    ..burst
                };
                stream::saturated(bench, name, single).await
            }
            Self::Gentle => stream::gentle(bench, name).await,
            Self::Chat => chat::run(bench, name).await,
            Self::Idle => idle::run(bench, name).await,
            Self::Streaming => streaming::run(bench, name).await,
            Self::FanOut => fan_out::run(bench, name).await,
            Self::History => history::run(bench, name).await,
            Self::Resident => resident::run(bench, name).await,
            Self::ColdStart => cold_start::run(bench, name).await,
            Self::LogAppend => append::run(bench, name).await,
        }
    }
}

//! The load generator: a process of its own, so that its CPU is nobody else's.
//!
//! It takes a [`Job`] as JSON on its command line and writes what came of it as JSON on its output.
//! Jobs that are watched meanwhile (open sockets) first write the line `ready`, and wait for a line
//! on their input before they close.

mod fan_out;
mod field;
mod http;
mod peer;
mod reply;
mod sockets;
mod stamps;
mod streaming;
mod turn;
mod turns;
mod visit;
mod websocket;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::{
    fan_out::Watched,
    peer::{Peer, Security},
    streaming::Streamed,
    turn::Ask,
    turns::{Bound, Conversations, Expect, Progress, Turns, TurnsJob},
    visit::{Visited, get},
};
use crate::error::LoadError;

/// Longest wait for one answer, or for one event of it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Connections that are made at once.
const AT_ONCE: usize = 64;

/// What a client process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    /// Turns in a closed loop: each client begins the next one when one is over.
    Turns(TurnsJob),
    /// Sockets that say one thing and then nothing.
    Idle {
        address: SocketAddr,
        sockets: usize,
        greeting: Greeting,
    },
    /// Clients that each get one slow reply, all at once.
    Streaming {
        address: SocketAddr,
        ask: Ask,
        clients: usize,
        model: String,
        /// Seconds over which they begin.
        ramp: f64,
    },
    /// One client speaks, the others watch its conversation.
    FanOut {
        address: SocketAddr,
        watchers: usize,
        model: String,
    },
    /// Reads each of so many conversations once.
    Visit {
        address: SocketAddr,
        prefix: String,
        conversations: usize,
    },
}

/// What an idle socket says first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Greeting {
    /// It starts a conversation.
    Conversation,
    /// Any text, to a server that says it back.
    Echo,
}

/// Does a job in this process.
pub(crate) async fn run(job: &str) -> Result<(), LoadError> {
    match serde_json::from_str(job)? {
        Job::Turns(job) => tell(&turns::run(&job, &Progress::default()).await?),
        Job::Idle {
            address,
            sockets,
            greeting,
        } => sockets::hold(address, sockets, greeting).await,
        Job::Streaming {
            address,
            ask,
            clients,
            model,
            ramp,
        } => {
            let ramp = Duration::from_secs_f64(ramp);
            tell(&streaming::run(address, ask, clients, &model, ramp).await?)
        }
        Job::FanOut {
            address,
            watchers,
            model,
        } => tell(&fan_out::run(address, watchers, &model).await?),
        Job::Visit {
            address,
            prefix,
            conversations,
        } => tell(&visit::run(address, &prefix, conversations).await?),
    }
}

/// Loads a deployment from this process.
pub(crate) async fn turns(job: &TurnsJob, progress: &Progress) -> Result<Turns, LoadError> {
    turns::run(job, progress).await
}

fn tell(outcome: &impl Serialize) -> Result<(), LoadError> {
    say(&serde_json::to_string(outcome)?)
}

fn say(line: &str) -> Result<(), LoadError> {
    writeln!(io::stdout(), "{line}").map_err(LoadError::io("stdout"))
}

/// Reads what another client process told.
pub(crate) fn told<T: DeserializeOwned>(line: &str) -> Result<T, LoadError> {
    Ok(serde_json::from_str(line)?)
}

//! The handle with which a test steers the simulated ElevenLabs.

use std::sync::Arc;
use std::time::Duration;

use super::state::SocketMessage;
use crate::openrouter::{Route, Script};
use crate::server::Shared;

/// The simulated ElevenLabs of a [`Simulator`](crate::Simulator).
#[derive(Debug, Clone)]
pub struct ElevenLabs {
    shared: Arc<Shared>,
}

impl ElevenLabs {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Queues what the next request for speech over HTTP shall do.
    pub fn script(&self, script: impl Into<Script>) {
        self.shared.openrouter.queue(Route::Speech, script.into());
    }

    /// Sets what a request for speech does that nothing else speaks for.
    pub fn set_default(&self, script: impl Into<Script>) {
        self.shared
            .openrouter
            .set_default(Route::Speech, script.into());
    }

    /// Queues what the next socket shall do.
    pub fn script_socket(&self, script: impl Into<Script>) {
        self.shared
            .openrouter
            .queue(Route::SpeechSocket, script.into());
    }

    /// Sets the `xi-api-key` that requests must carry from now on; `None`, as at the start, asks
    /// for none.
    pub fn require_key(&self, key: Option<&str>) {
        self.shared.elevenlabs.require_key(key.map(str::to_owned));
    }

    /// Sets how many generations may be under way at once; `None`, as at the start, for any.
    ///
    /// A request past the limit gets 429 `concurrent_limit_exceeded` and uses up no script. The
    /// most that there ever were is [`Counters::most_generations`](crate::Counters).
    pub fn limit_generations(&self, limit: Option<u64>) {
        self.shared.elevenlabs.limit_generations(limit);
    }

    /// Sets how long a socket waits for input; `None`, as at the start, lets clients say it with
    /// `inactivity_timeout`.
    pub fn set_input_timeout(&self, timeout: Option<Duration>) {
        self.shared.elevenlabs.set_input_timeout(timeout);
    }

    /// Returns the last messages that clients sent on sockets, oldest first.
    pub fn socket_messages(&self) -> Vec<SocketMessage> {
        self.shared.elevenlabs.messages()
    }
}

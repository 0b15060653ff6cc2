//! The key and the limits of the simulated ElevenLabs.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::counters::{Counted, Meter};

/// The most messages of clients kept.
const KEPT_MESSAGES: usize = 16_384;

/// A message that a client sent on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketMessage {
    /// Which socket it was, counted from 1 in the order that they were opened.
    pub socket: u64,
    /// The message.
    pub text: String,
}

impl SocketMessage {
    /// Parses the message as JSON.
    ///
    /// # Errors
    ///
    /// When it is not JSON.
    pub fn json(&self) -> serde_json::Result<Value> {
        serde_json::from_str(&self.text)
    }
}

/// What tests have told the simulated ElevenLabs.
#[derive(Debug, Default)]
pub(crate) struct State {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    key: Option<String>,
    /// The most generations at once; none for no limit.
    limit: Option<u64>,
    /// The longest time without input on a socket, whatever the client asks for.
    input_timeout: Option<Duration>,
    /// What clients have sent on sockets, the oldest first.
    messages: VecDeque<SocketMessage>,
}

impl State {
    pub(crate) fn require_key(&self, key: Option<String>) {
        self.lock().key = key;
    }

    pub(crate) fn key(&self) -> Option<String> {
        self.lock().key.clone()
    }

    pub(crate) fn limit_generations(&self, limit: Option<u64>) {
        self.lock().limit = limit;
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.lock().limit
    }

    pub(crate) fn set_input_timeout(&self, timeout: Option<Duration>) {
        self.lock().input_timeout = timeout;
    }

    pub(crate) fn input_timeout(&self) -> Option<Duration> {
        self.lock().input_timeout
    }

    pub(crate) fn keep_message(&self, socket: u64, text: &str) {
        let messages = &mut self.lock().messages;
        if messages.len() == KEPT_MESSAGES {
            messages.pop_front();
        }
        messages.push_back(SocketMessage {
            socket,
            text: text.to_owned(),
        });
    }

    pub(crate) fn messages(&self) -> Vec<SocketMessage> {
        self.lock().messages.iter().cloned().collect()
    }

    /// Begins a generation, which lasts until what is returned is dropped; `None` past the limit.
    pub(crate) fn generate<'m>(&self, meter: &'m Meter) -> Option<Counted<'m>> {
        let limit = self.limit();
        let mut begun = false;
        meter.change(|counters| {
            begun = limit.is_none_or(|limit| counters.active_generations < limit);
            if begun {
                counters.active_generations += 1;
                counters.most_generations =
                    counters.most_generations.max(counters.active_generations);
            }
        });
        begun.then(|| Counted::new(meter, |_| {}, |counters| counters.active_generations -= 1))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

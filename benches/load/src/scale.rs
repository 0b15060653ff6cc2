//! How much of everything a run does.

use serde::Serialize;

/// Sizes of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Seconds at the start of a window that do not count.
    pub(crate) warm_up: f64,
    /// Seconds of a window.
    pub(crate) window: f64,
    /// Turns of a client in one conversation, before it begins another.
    pub(crate) turns: u64,
    pub(crate) idle_sockets: usize,
    /// Seconds for which idle sockets are watched.
    pub(crate) idle_seconds: u64,
    /// `CONVERSATION_IDLE_SECS` there.
    pub(crate) conversation_idle_seconds: u64,
    pub(crate) streaming_sockets: usize,
    pub(crate) streaming_tokens: u32,
    /// Seconds over which these replies are begun.
    pub(crate) streaming_ramp: f64,
    pub(crate) watchers: usize,
    pub(crate) fan_out_tokens: u32,
    /// Conversations of each length.
    pub(crate) histories: usize,
    pub(crate) history_turns: u64,
    pub(crate) resident: usize,
    pub(crate) cold_conversations: u64,
}

impl Scale {
    pub(crate) fn full() -> Self {
        Self {
            rounds: 4,
            warm_up: 0.5,
            window: 3.0,
            turns: 10,
            idle_sockets: 10_000,
            idle_seconds: 30,
            conversation_idle_seconds: 45,
            streaming_sockets: 2_000,
            streaming_tokens: 100,
            streaming_ramp: 2.0,
            watchers: 1_000,
            fan_out_tokens: 50,
            histories: 32,
            history_turns: 40,
            resident: 10_000,
            cold_conversations: 100_000,
        }
    }

    /// For two minutes in all: coarser figures, the sizes of what is judged by size kept where they
    /// are quick to reach.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 2,
            warm_up: 0.25,
            window: 1.0,
            idle_sockets: 3_000,
            idle_seconds: 5,
            conversation_idle_seconds: 8,
            streaming_tokens: 80,
            fan_out_tokens: 20,
            histories: 8,
            history_turns: 60,
            resident: 4_000,
            ..Self::full()
        }
    }
}

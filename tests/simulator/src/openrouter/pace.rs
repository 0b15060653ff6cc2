//! When the parts of an answer are sent.

use std::time::Duration;

/// When the parts of an answer are sent.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) headers: Duration,
    pub(crate) first: Duration,
    pub(crate) gap: Duration,
    /// Deltas in one write, where the script says it.
    pub(crate) batch: Option<usize>,
    /// Deltas a second; overrides the gap.
    pub(crate) rate: Option<u32>,
    /// Comments before the first delta.
    pub(crate) comments: usize,
    /// Deltas between two comments.
    pub(crate) between: Option<usize>,
    /// Time between comments while the stream waits.
    pub(crate) beat: Option<Duration>,
}

impl Pace {
    /// Returns the deltas in one write of a chat.
    pub(crate) fn batch(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    /// Returns the time between two writes of so many deltas.
    pub(crate) fn between_writes(&self, batch: usize) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs(1) * batch as u32 / rate.max(1),
            None => self.gap,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            headers: Duration::ZERO,
            first: Duration::ZERO,
            gap: Duration::ZERO,
            batch: None,
            rate: None,
            comments: 1,
            between: None,
            beat: None,
        }
    }
}

//! When the parts of an answer are sent.

use std::time::Duration;

/// When the parts of an answer are sent.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) headers: Duration,
    pub(crate) first: Duration,
    pub(crate) gap: Duration,
    pub(crate) batch: usize,
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
    /// Returns the time between two writes.
    pub(crate) fn between_writes(&self) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs(1) * self.batch as u32 / rate.max(1),
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
            batch: 1,
            rate: None,
            comments: 1,
            between: None,
            beat: None,
        }
    }
}

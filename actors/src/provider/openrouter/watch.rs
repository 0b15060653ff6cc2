//! Until when one call waits for what.

use tokio::time::{Duration, Instant};

use super::{config::Deadlines, failure, reply::Phase};
use crate::provider::UpstreamError;

/// As long is waited for usage after the finish reason. The reply is whole then, and a user waits.
const AFTER_FINISH: Duration = Duration::from_secs(5);

/// The deadlines of one call, as moments.
pub(super) struct Watch {
    deadlines: Deadlines,
    first_token: Instant,
    pub(super) whole: Instant,
    events_seen: u64,
    last_event: Instant,
}

impl Watch {
    /// From now on; `whole` is the end of all requests for the reply.
    pub(super) fn new(deadlines: Deadlines, whole: Instant) -> Self {
        let now = Instant::now();
        Self {
            first_token: now + deadlines.first_token,
            whole,
            deadlines,
            events_seen: 0,
            last_event: now,
        }
    }

    /// Takes note of the number of events seen so far. To be told after they were passed on: the
    /// time a listener took is not the upstream's silence.
    pub(super) fn saw(&mut self, events: u64) {
        if events != self.events_seen {
            self.events_seen = events;
            self.last_event = Instant::now();
        }
    }

    pub(super) fn deadline(&self, phase: Phase) -> Instant {
        let next = match phase {
            Phase::Waiting => self.first_token,
            Phase::Flowing => self.last_event + self.deadlines.silence,
            Phase::Finished => self.last_event + AFTER_FINISH,
        };
        next.min(self.whole)
    }

    /// Says which deadline passed.
    pub(super) fn passed(&self, phase: Phase) -> UpstreamError {
        let seconds = |wait: Duration| wait.as_secs_f64();
        let Deadlines {
            first_token,
            silence,
            whole,
            ..
        } = self.deadlines;
        failure::timed_out(match phase {
            _ if Instant::now() >= self.whole => {
                format!("did not finish the reply within {} s", seconds(whole))
            }
            Phase::Waiting => format!("did not begin a reply within {} s", seconds(first_token)),
            Phase::Flowing | Phase::Finished => {
                format!("fell silent within the reply for {} s", seconds(silence))
            }
        })
    }
}

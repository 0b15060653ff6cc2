//! How long what begins a conversation waits for the store of documents elsewhere.
//!
//! Twice as long as the last search took: who waits for a store that is well waits no longer than
//! usual, and a store that has become slow holds up nobody for long. A conversation that does not
//! wait begins without its memory, and gets it later; so there is a least wait, too.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::limits::{REMOTE_GRACE, REMOTE_GRACE_MIN};

/// What the last search for a document elsewhere taught.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Microseconds that it took; 0: there was none yet.
    last: AtomicU64,
}

/// It did not end well, or in time.
const IN_VAIN: u64 = u64::MAX;

impl Patience {
    /// A search has ended with an answer.
    pub(crate) fn answered_after(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(IN_VAIN);
        self.last.store(micros.max(1), Ordering::Relaxed);
    }

    /// A search failed, or nobody waits for it any longer.
    pub(crate) fn in_vain(&self) {
        self.last.store(IN_VAIN, Ordering::Relaxed);
    }

    /// How long the next search is waited for; `is_prompt` tells whether whatever else the store was
    /// asked was answered within a time, and counts as long as there was no search.
    pub(crate) fn grace(&self, is_prompt: impl FnOnce(Duration) -> bool) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            0 if is_prompt(REMOTE_GRACE) => REMOTE_GRACE,
            0 => Duration::ZERO,
            micros => match Duration::from_micros(micros) {
                took if took <= REMOTE_GRACE => (took * 2).clamp(REMOTE_GRACE_MIN, REMOTE_GRACE),
                _late => Duration::ZERO,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The wait after a search that took so long.
    fn after(took: Duration) -> Duration {
        let patience = Patience::default();
        patience.answered_after(took);
        patience.grace(|_| panic!("the search tells more than other calls"))
    }

    #[test]
    fn a_search_is_waited_for_twice_as_long_as_the_last_one_took() {
        assert_eq!(after(ms(70)), ms(140));
        assert_eq!(after(ms(120)), ms(240));
    }

    #[test]
    fn the_wait_has_its_bounds() {
        assert_eq!(after(Duration::ZERO), REMOTE_GRACE_MIN);
        assert_eq!(after(ms(5)), REMOTE_GRACE_MIN);
        assert_eq!(after(REMOTE_GRACE), REMOTE_GRACE);
    }

    #[test]
    fn nobody_waits_after_a_search_that_was_late_until_one_is_in_time() {
        assert_eq!(after(REMOTE_GRACE + ms(1)), Duration::ZERO);
        assert_eq!(after(Duration::MAX), Duration::ZERO);
        let patience = Patience::default();
        patience.in_vain();
        assert_eq!(patience.grace(|_| true), Duration::ZERO);
        patience.answered_after(ms(60));
        assert_eq!(patience.grace(|_| true), ms(120));
    }

    #[test]
    fn before_the_first_search_other_calls_tell_whether_the_store_is_well() {
        let patience = Patience::default();
        assert_eq!(
            patience.grace(|within| within == REMOTE_GRACE),
            REMOTE_GRACE
        );
        assert_eq!(patience.grace(|_| false), Duration::ZERO);
    }
}

//! The key and the limits of the simulated ElevenLabs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counters::{Counted, Meter};

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

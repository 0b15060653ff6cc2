//! Asks all conversations that have something to keep at the same moment.
//!
//! What they then hand to the log comes within a moment of each other, and becomes one transaction.

use std::sync::{Mutex, PoisonError, Weak};

use actix::{Recipient, prelude::SendError};

use crate::{conversation::Keep, limits, shared::Shared};

/// Who is to be asked at the next tick.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    joined: Mutex<Vec<Recipient<Keep>>>,
}

impl Ticker {
    /// Asks for one tick. Each asks once per tick: the list is bounded by the conversations.
    pub(crate) fn join(&self, who: Recipient<Keep>) {
        self.joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(who);
    }

    fn tick(&self) {
        let joined =
            std::mem::take(&mut *self.joined.lock().unwrap_or_else(PoisonError::into_inner));
        for who in joined {
            // One whose mailbox is full is asked at the next tick; one that is gone, never.
            if let Err(SendError::Full(_)) = who.try_send(Keep) {
                self.join(who);
            }
        }
    }
}

/// Ticks until the engine is gone.
pub(crate) async fn run(shared: Weak<Shared>) {
    let mut ticks = tokio::time::interval(limits::KEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match shared.upgrade() {
            Some(shared) => shared.ticker.tick(),
            None => return,
        }
    }
}

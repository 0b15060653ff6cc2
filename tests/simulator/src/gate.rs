//! Gates: points in a reply where it waits for the test.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::counters::{WaitError, wait_on};

/// A point that replies cannot pass until the test opens it.
///
/// Clones are the same gate. Any number of replies may wait at one gate; once open it stays open.
#[derive(Debug, Clone)]
pub struct Gate {
    state: watch::Sender<GateState>,
    clock: Handle,
}

#[derive(Debug, Clone, Copy, Default)]
struct GateState {
    open: bool,
    arrived: u64,
}

impl Gate {
    pub(crate) fn new(clock: Handle) -> Self {
        Self {
            state: watch::Sender::new(GateState::default()),
            clock,
        }
    }

    /// Lets every waiting reply pass, and every later one.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Returns how many replies have arrived at the gate, passed or not.
    pub fn arrived(&self) -> u64 {
        self.state.borrow().arrived
    }

    /// Waits until so many replies have arrived.
    ///
    /// Everything before the gate has then been written to the socket.
    ///
    /// # Errors
    ///
    /// When the deadline passes first.
    pub async fn reached(&self, replies: u64, deadline: Duration) -> Result<(), WaitError> {
        let what = format!("arrival of {replies} at a gate");
        let mut watched = self.state.subscribe();
        let condition = |state: &GateState| state.arrived >= replies;
        wait_on(&mut watched, &self.clock, &what, condition, deadline).await?;
        Ok(())
    }

    /// Arrives at the gate and waits until it is open.
    pub(crate) async fn pass(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        // The sender lives in `self`, so the wait ends only when the gate opens.
        drop(self.state.subscribe().wait_for(|state| state.open).await);
    }
}

//! Memory for audio that comes faster than its client takes it.
//!
//! A synthesis holds one of the few places that the provider's plan has, so its audio is taken as fast
//! as it is made: a client that plays while it reads, or does not read at all, keeps nobody from
//! speaking. All answers share that memory; once it is used up, each has a few pieces of its own.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// Bytes of audio, of all answers together: some ten minutes of PCM, or an hour of the default format.
const SHARED_BYTES: usize = 64 << 20;

/// Pieces that each answer may hold besides.
const OWN_PIECES: usize = 4;

/// How long a client may take nothing while all memory is used up.
const STALL: Duration = Duration::from_secs(15);

/// What all answers share.
#[derive(Debug, Clone)]
pub struct AudioAhead(Arc<Semaphore>);

impl Default for AudioAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED_BYTES)))
    }
}

impl AudioAhead {
    /// The room of one answer.
    #[must_use]
    pub fn room(&self) -> Room {
        Room {
            shared: self.0.clone(),
            own: Arc::new(Semaphore::new(OWN_PIECES)),
            taken: Arc::new(Notify::new()),
        }
    }
}

/// The room of one answer.
#[derive(Debug, Clone)]
pub struct Room {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
    taken: Arc<Notify>,
}

impl Room {
    /// The client has taken a piece.
    pub fn took(&self) {
        self.taken.notify_one();
    }

    /// Room for a piece, until it is dropped. None: there is no memory for more, and the client takes
    /// nothing.
    pub async fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = async {
            select! {
                biased;
                own = self.own.clone().acquire_owned() => own,
                shared = self.shared.clone().acquire_many_owned(bytes) => shared,
            }
        };
        tokio::pin!(held);
        loop {
            select! {
                biased;
                held = &mut held => return held.ok(),
                () = self.taken.notified() => {}
                () = sleep(STALL) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn once_all_memory_is_used_up_an_answer_has_what_is_its_own() {
        let ahead = AudioAhead::default();
        let (one, other) = (ahead.room(), ahead.room());
        let mut held = Vec::new();
        while let Some(Some(piece)) = one.hold(SHARED_BYTES / 8).now_or_never() {
            held.push(piece);
        }
        assert_eq!(held.len(), OWN_PIECES + 8);
        for _piece in 0..OWN_PIECES {
            held.push(other.hold(1).now_or_never().unwrap().unwrap());
        }
        assert!(other.hold(1).await.is_none(), "its client takes nothing");
        // One that takes what it holds of the shared memory, slowly, is waited for.
        let takes = async {
            for _piece in 0..9 {
                tokio::time::advance(STALL / 2).await;
                one.took();
                tokio::task::yield_now().await;
            }
            drop(held.remove(OWN_PIECES));
        };
        let (waited, ()) = futures::join!(one.hold(SHARED_BYTES / 8), takes);
        held.push(waited.expect("room once a piece was taken"));
        held.pop();
        assert!(other.hold(1).await.is_some());
        held.clear();
        assert_eq!(one.shared.available_permits(), SHARED_BYTES);
    }
}

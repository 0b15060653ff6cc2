//! Memory for audio that comes faster than its client takes it.
//!
//! A synthesis holds one of the few places that the provider's plan has, so its audio is taken as fast
//! as it is made: a client that plays while it reads, or does not read at all, keeps nobody from
//! speaking. All answers share that memory; once it is used up, each has a few pieces of its own.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
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
        }
    }
}

/// The room of one answer.
#[derive(Debug, Clone)]
pub struct Room {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl Room {
    /// Room for a piece, until it is dropped. None: the client takes nothing, and there is no memory
    /// for more.
    pub async fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let own = self.own.clone().try_acquire_owned();
        let shared = || {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.shared.clone().try_acquire_many_owned(bytes)
        };
        if let Ok(held) = own.or_else(|_none| shared()) {
            return Some(held);
        }
        let freed = timeout(STALL, self.own.clone().acquire_owned()).await;
        freed.ok()?.ok()
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
        held.pop();
        assert!(other.hold(1).await.is_some());
        held.clear();
        assert_eq!(one.shared.available_permits(), SHARED_BYTES);
    }
}

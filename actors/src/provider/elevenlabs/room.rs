//! The room for syntheses at once, shared by all users: an account's plan allows few. First
//! sentences go before later ones, since somebody waits in silence for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::provider::{Upstream, UpstreamError, UpstreamErrorKind, failure, speech::Urgency};

/// How long a later sentence waits behind first ones: about as long as the one before it plays.
const LATER_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a client is told to wait where there is no room.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(2);

/// The room for syntheses at once.
#[derive(Debug)]
pub struct SpeechRoom {
    places: usize,
    queued_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    first: VecDeque<Waiter>,
    later: VecDeque<Waiter>,
    given: Given,
}

/// Who was given the last place before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    InTurn,
    /// A later sentence before first ones.
    Overdue,
}

/// Who waits for a place, and since when.
#[derive(Debug)]
struct Waiter {
    place: oneshot::Sender<Place>,
    since: Instant,
}

impl State {
    /// Who is next: a first sentence, but for a later one that has waited so long that its listener
    /// waits in silence, too. Of those, every second place at most: replies that are long keep no new
    /// one waiting.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let overdue = |waiter: &Waiter| waiter.since.elapsed() >= LATER_WAIT_MAX;
        let may_be = self.given == Given::InTurn;
        let later = match self.later.front() {
            Some(waiter) if may_be && overdue(waiter) => self.later.pop_front(),
            Some(_) | None => None,
        };
        self.given = match &later {
            Some(_) if !self.first.is_empty() => Given::Overdue,
            Some(_) | None => Given::InTurn,
        };
        let next = later
            .or_else(|| self.first.pop_front())
            .or_else(|| self.later.pop_front());
        next.map(|waiter| waiter.place)
    }
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomState {
    /// Syntheses under way.
    pub speaking: usize,
    /// Syntheses that wait for room.
    pub queued: usize,
}

/// A place that is held; dropping it gives it to the next.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<SpeechRoom>>);

impl SpeechRoom {
    /// For so many at once, at least one; so many may wait.
    #[must_use]
    pub fn new(places: usize, queued_max: usize) -> Arc<Self> {
        let places = places.max(1);
        Arc::new(Self {
            places,
            queued_max,
            state: Mutex::new(State {
                free: places,
                first: VecDeque::new(),
                later: VecDeque::new(),
                given: Given::InTurn,
            }),
        })
    }

    /// How full it is.
    #[must_use]
    pub fn state(&self) -> RoomState {
        let state = self.lock();
        let waits = |queue: &VecDeque<Waiter>| {
            let waiters = queue.iter();
            waiters.filter(|waiter| !waiter.place.is_closed()).count()
        };
        RoomState {
            speaking: self.places - state.free,
            queued: waits(&state.first) + waits(&state.later),
        }
    }

    /// Waits for a place, until `deadline`.
    ///
    /// # Errors
    ///
    /// [`UpstreamErrorKind::Unavailable`]: too many wait, or it took too long.
    pub(super) async fn enter(
        self: &Arc<Self>,
        urgency: Urgency,
        deadline: Instant,
    ) -> Result<Place, UpstreamError> {
        let place = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Place(Some(self.clone())));
            }
            // Who gave up waiting counts no more.
            state.first.retain(|waiter| !waiter.place.is_closed());
            state.later.retain(|waiter| !waiter.place.is_closed());
            if state.first.len() + state.later.len() >= self.queued_max {
                return Err(full());
            }
            let (sender, place) = oneshot::channel();
            let waiter = Waiter {
                place: sender,
                since: Instant::now(),
            };
            match urgency {
                Urgency::First => state.first.push_back(waiter),
                Urgency::Later => state.later.push_back(waiter),
            }
            place
        };
        match timeout_at(deadline, place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(full()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full() -> UpstreamError {
    UpstreamError {
        kind: UpstreamErrorKind::Unavailable,
        retry_after: Some(FULL_RETRY_AFTER.mul_f64(0.5 + fastrand::f64())),
        ..failure::failed(Upstream::ElevenLabs, "is asked for too much at once")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(room) = self.0.take() else { return };
        let mut place = Self(Some(room.clone()));
        loop {
            let next = {
                let mut state = room.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                    place.0 = None;
                }
                next
            };
            match next.map(|next| next.send(place)) {
                None | Some(Ok(())) => return,
                // That one has gone; the next, then.
                Some(Err(back)) => place = back,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    const EMPTY: RoomState = RoomState {
        speaking: 0,
        queued: 0,
    };

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn first_sentences_go_before_later_ones() {
        let room = SpeechRoom::new(1, 8);
        let held = room.enter(Urgency::Later, soon()).await.unwrap();
        let mut later = Box::pin(room.enter(Urgency::Later, soon()));
        let mut first = Box::pin(room.enter(Urgency::First, soon()));
        assert!(poll!(later.as_mut()).is_pending());
        assert!(poll!(first.as_mut()).is_pending());
        assert_eq!(room.state().queued, 2);

        drop(held);

        let first = first.await.unwrap();
        assert!(poll!(later.as_mut()).is_pending());
        drop(first);
        drop(later.await.unwrap());
        assert_eq!(room.state(), EMPTY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_sentence_that_waits_long_goes_before_first_ones() {
        let room = SpeechRoom::new(1, 8);
        let held = room.enter(Urgency::First, soon()).await.unwrap();
        let mut later = Box::pin(room.enter(Urgency::Later, soon()));
        assert!(poll!(later.as_mut()).is_pending());
        tokio::time::advance(LATER_WAIT_MAX).await;
        let mut first = Box::pin(room.enter(Urgency::First, soon()));
        assert!(poll!(first.as_mut()).is_pending());

        drop(held);

        let later = later.await.unwrap();
        assert!(poll!(first.as_mut()).is_pending());
        drop(later);
        drop(first.await.unwrap());
        assert_eq!(room.state(), EMPTY);
    }

    #[tokio::test(start_paused = true)]
    async fn later_sentences_that_wait_long_have_every_second_place() {
        let room = SpeechRoom::new(1, 8);
        let mut held = Some(room.enter(Urgency::First, soon()).await.unwrap());
        let mut later: Vec<_> = (0..2)
            .map(|_| Box::pin(room.enter(Urgency::Later, soon())))
            .collect();
        for waits in &mut later {
            assert!(poll!(waits.as_mut()).is_pending());
        }
        tokio::time::advance(LATER_WAIT_MAX).await;
        let mut first = Box::pin(room.enter(Urgency::First, soon()));
        assert!(poll!(first.as_mut()).is_pending());

        held.take();
        held = Some(later.remove(0).await.unwrap());
        assert!(poll!(first.as_mut()).is_pending());
        held.take();
        held = Some(first.await.unwrap());
        assert!(poll!(later[0].as_mut()).is_pending());
        held.take();

        drop(later.remove(0).await.unwrap());
        assert_eq!(room.state(), EMPTY);
    }

    #[tokio::test]
    async fn a_place_never_gets_lost_with_who_waited_for_it() {
        let room = SpeechRoom::new(1, 8);
        for goes_first in [true, false] {
            let held = room.enter(Urgency::First, soon()).await.unwrap();
            let mut gone = Box::pin(room.enter(Urgency::First, soon()));
            assert!(poll!(gone.as_mut()).is_pending());
            // Before the place is handed on, or when it is on its way.
            let mut gone = Some(gone);
            if goes_first {
                gone = None;
            }

            drop(held);
            drop(gone);

            assert_eq!(room.state(), EMPTY);
            drop(room.enter(Urgency::Later, soon()).await.unwrap());
            assert_eq!(room.state(), EMPTY);
        }
    }

    #[tokio::test]
    async fn the_queue_has_a_bound() {
        let room = SpeechRoom::new(1, 0);
        let _held = room.enter(Urgency::First, soon()).await.unwrap();

        let refused = room.enter(Urgency::First, soon()).await.unwrap_err();

        assert_eq!(refused.kind, UpstreamErrorKind::Unavailable);
        assert!(refused.retry_after.is_some());
    }
}

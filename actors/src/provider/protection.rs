//! What all calls to one upstream share, on whatever thread: breakers, bulkhead, retry budget.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::{
    Upstream, UpstreamError, UpstreamErrorKind,
    breaker::{Admitted, Breaker, BreakerPolicy, BreakerState, CallEnd},
    budget::RetryBudget,
    failure,
};

/// What an operator chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtectionPolicy {
    /// Who is asked.
    pub upstream: Upstream,
    /// Calls under way at once.
    pub calls: usize,
    /// Calls of one model under way at once, so that a slow one leaves room for the others.
    pub calls_of_model: usize,
    /// Calls that may wait for room.
    pub queued: usize,
    /// How long one waits.
    pub queue_wait: Duration,
    /// Repeats that may help nothing, one after the other.
    pub repeats: u32,
    /// When calls are stopped.
    pub breaker: BreakerPolicy,
}

impl Default for ProtectionPolicy {
    fn default() -> Self {
        Self {
            upstream: Upstream::OpenRouter,
            calls: 1_024,
            calls_of_model: 768,
            queued: 256,
            queue_wait: Duration::from_secs(5),
            repeats: 100,
            breaker: BreakerPolicy::default(),
        }
    }
}

/// Models that are remembered. Clients name them, so there is a bound; one beyond it, while all
/// others are busy, is asked without a breaker and a bound of its own.
const MODELS_MAX: usize = 256;

/// How long a client is told to wait where there is no room.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(2);

/// What all calls to one upstream share.
pub struct Protection {
    policy: ProtectionPolicy,
    room: Arc<Semaphore>,
    queued: AtomicUsize,
    shared: Mutex<Shared>,
    counts: Counts,
}

#[derive(Debug)]
struct Shared {
    budget: RetryBudget,
    /// Whether the upstream can be reached at all.
    reach: Breaker,
    models: HashMap<Arc<str>, Model>,
}

#[derive(Debug)]
struct Model {
    breaker: Breaker,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Counts {
    retries: AtomicU64,
    fallbacks: AtomicU64,
    continuations: AtomicU64,
    repaired: AtomicU64,
    refused_open: AtomicU64,
    refused_full: AtomicU64,
    refused_budget: AtomicU64,
}

/// Something to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// A model was asked again before the first token.
    Retry,
    /// Another model was asked.
    Fallback,
    /// A reply that broke off was asked to be continued.
    Continuation,
    /// A reply that broke off came to its end.
    Repaired,
}

/// What the calls to an upstream are at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionState {
    /// Calls under way.
    pub calls: usize,
    /// Calls that wait for room.
    pub queued: usize,
    /// Repeats that can be paid for.
    pub repeats_left: u64,
    /// Whether the upstream can be reached at all.
    pub reach: BreakerState,
    /// Models whose calls are stopped or probed.
    pub stopped: Vec<(Arc<str>, BreakerState)>,
    /// Requests that repeated one before the first token.
    pub retries: u64,
    /// Requests of another model.
    pub fallbacks: u64,
    /// Requests that continued a reply.
    pub continuations: u64,
    /// Replies that broke off and came to their end.
    pub repaired: u64,
    /// Calls that an open breaker stopped.
    pub refused_open: u64,
    /// Calls that found no room.
    pub refused_full: u64,
    /// Repeats that could not be paid for.
    pub refused_budget: u64,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Default for Protection {
    fn default() -> Self {
        Self::new(ProtectionPolicy::default())
    }
}

impl Protection {
    /// With nothing under way.
    #[must_use]
    pub fn new(policy: ProtectionPolicy) -> Self {
        Self {
            room: Arc::new(Semaphore::new(
                policy.calls.clamp(1, Semaphore::MAX_PERMITS),
            )),
            queued: AtomicUsize::new(0),
            shared: Mutex::new(Shared {
                budget: RetryBudget::new(policy.repeats, Instant::now()),
                reach: Breaker::new(policy.breaker, Instant::now()),
                models: HashMap::new(),
            }),
            counts: Counts::default(),
            policy,
        }
    }

    /// Lets a call of a model out, once there is room; before `deadline`.
    ///
    /// # Errors
    ///
    /// [`UpstreamErrorKind::Unavailable`], with the time to wait.
    pub(super) async fn admit(
        self: &Arc<Self>,
        model: &Arc<str>,
        deadline: tokio::time::Instant,
    ) -> Result<Call, UpstreamError> {
        let room = self.look(model)?;
        let permits = self.room_for(&room, deadline).await?;
        // What has waited asks once more.
        let breakers = self.enter(model)?;
        Ok(Call {
            protection: self.clone(),
            model: model.clone(),
            breakers: Some(breakers),
            _permits: permits,
        })
    }

    /// Pays for a repeat; none: it must not be made.
    pub(super) fn pay(self: &Arc<Self>) -> Option<Payment> {
        if self.lock().budget.pay(Instant::now()) {
            return Some(Payment(Some(self.clone())));
        }
        self.counts.refused_budget.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// A reply needed no repeat.
    pub(super) fn earned(&self) {
        self.lock().budget.earned();
    }

    pub(super) fn count(&self, counted: Counted) {
        let counter = match counted {
            Counted::Retry => &self.counts.retries,
            Counted::Fallback => &self.counts.fallbacks,
            Counted::Continuation => &self.counts.continuations,
            Counted::Repaired => &self.counts.repaired,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What the calls are at.
    #[must_use]
    pub fn state(&self) -> ProtectionState {
        let now = Instant::now();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = self.lock();
        let mut stopped: Vec<_> = shared
            .models
            .iter()
            // One that nobody has asked for since is not left alone: it is forgotten.
            .filter(|(_, it)| !it.breaker.is_idle(now))
            .map(|(model, it)| (model.clone(), it.breaker.state(now)))
            .filter(|(_, state)| *state != BreakerState::Closed)
            .collect();
        stopped.sort_by(|one, other| one.0.cmp(&other.0));
        ProtectionState {
            calls: self
                .policy
                .calls
                .saturating_sub(self.room.available_permits()),
            queued: self.queued.load(Ordering::Relaxed),
            repeats_left: shared.budget.repeats(now),
            reach: shared.reach.state(now),
            stopped,
            retries: read(&self.counts.retries),
            fallbacks: read(&self.counts.fallbacks),
            continuations: read(&self.counts.continuations),
            repaired: read(&self.counts.repaired),
            refused_open: read(&self.counts.refused_open),
            refused_full: read(&self.counts.refused_full),
            refused_budget: read(&self.counts.refused_budget),
        }
    }

    /// Whether a call would be let out, and the room of its model. Lets no probe out.
    fn look(&self, model: &Arc<str>) -> Result<Arc<Semaphore>, UpstreamError> {
        let now = Instant::now();
        let mut shared = self.lock();
        let of_model = shared.models.get(model).map(|it| &it.breaker);
        let wait = [Some(&shared.reach), of_model]
            .into_iter()
            .flatten()
            .find(|breaker| breaker.state(now) == BreakerState::Open)
            .map(|breaker| breaker.left(now));
        if let Some(wait) = wait {
            drop(shared);
            return Err(self.stopped(wait));
        }
        Ok(self.model(&mut shared, model, now))
    }

    /// Lets it out, as far as the breakers go.
    fn enter(&self, model: &Arc<str>) -> Result<Entered, UpstreamError> {
        let now = Instant::now();
        let mut shared = self.lock();
        let reach = shared.reach.admit(now);
        let reach = match reach {
            Ok(reach) => reach,
            Err(wait) => {
                drop(shared);
                return Err(self.stopped(wait));
            }
        };
        let of_model = shared.models.get_mut(model).map(|it| it.breaker.admit(now));
        match of_model.transpose() {
            Ok(of_model) => Ok(Entered { reach, of_model }),
            Err(wait) => {
                shared.reach.ended(reach, CallEnd::Neither, now);
                drop(shared);
                Err(self.stopped(wait))
            }
        }
    }

    /// The room of a model, which is remembered from now on if there is a place for it.
    fn model(&self, shared: &mut Shared, model: &Arc<str>, now: Instant) -> Arc<Semaphore> {
        if let Some(known) = shared.models.get(model) {
            return known.room.clone();
        }
        let calls = self.policy.calls_of_model.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(calls));
        if shared.models.len() >= MODELS_MAX {
            shared
                .models
                .retain(|_, it| Arc::strong_count(&it.room) > 1 || !it.breaker.is_idle(now));
        }
        if shared.models.len() < MODELS_MAX {
            let breaker = Breaker::new(self.policy.breaker, now);
            let room = room.clone();
            shared.models.insert(model.clone(), Model { breaker, room });
        }
        room
    }

    async fn room_for(
        &self,
        of_model: &Arc<Semaphore>,
        deadline: tokio::time::Instant,
    ) -> Result<[OwnedSemaphorePermit; 2], UpstreamError> {
        // The model's first: what waits for it must not hold the room of others.
        let semaphores = [of_model, &self.room];
        if let [Ok(first), Ok(second)] = semaphores.map(|it| it.clone().try_acquire_owned()) {
            return Ok([first, second]);
        }
        let _place = self.queue()?;
        let wait = tokio::time::Instant::now() + self.policy.queue_wait;
        let wait = wait.min(deadline);
        let acquire = async {
            let first = of_model.clone().acquire_owned().await.ok()?;
            let second = self.room.clone().acquire_owned().await.ok()?;
            Some([first, second])
        };
        match timeout_at(wait, acquire).await {
            Ok(Some(permits)) => Ok(permits),
            Ok(None) | Err(_) => Err(self.full()),
        }
    }

    fn queue(&self) -> Result<Place<'_>, UpstreamError> {
        let place = Place(&self.queued);
        if self.queued.fetch_add(1, Ordering::AcqRel) >= self.policy.queued {
            return Err(self.full());
        }
        Ok(place)
    }

    fn stopped(&self, wait: Duration) -> UpstreamError {
        self.counts.refused_open.fetch_add(1, Ordering::Relaxed);
        // Spread, so that they do not all come back at once.
        let wait = wait.mul_f64(1.0 + fastrand::f64() / 4.0);
        self.unavailable("fails too often and is left alone for a while", wait)
    }

    fn full(&self) -> UpstreamError {
        self.counts.refused_full.fetch_add(1, Ordering::Relaxed);
        let wait = FULL_RETRY_AFTER.mul_f64(0.5 + fastrand::f64());
        self.unavailable("is asked for too much at once", wait)
    }

    fn unavailable(&self, what: &str, wait: Duration) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Unavailable,
            retry_after: Some(wait),
            ..failure::failed(self.policy.upstream, what)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Clone, Copy)]
struct Entered {
    reach: Admitted,
    of_model: Option<Admitted>,
}

/// What was paid for a repeat. Dropping it gives it back: the repeat helped, or was not made, or
/// nobody waited for it.
#[derive(Debug)]
pub(super) struct Payment(Option<Arc<Protection>>);

impl Payment {
    /// The repeat helped nothing.
    pub(super) fn lose(mut self) {
        self.0 = None;
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        if let Some(protection) = &self.0 {
            protection.lock().budget.pay_back();
        }
    }
}

/// How a call went, for both breakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Went {
    /// Whether the upstream was reached.
    pub(super) reach: CallEnd,
    /// Whether the model did what it should.
    pub(super) model: CallEnd,
}

/// A call that was let out. Dropping it gives its room back; without an end it says nothing.
#[derive(Debug)]
pub(super) struct Call {
    protection: Arc<Protection>,
    model: Arc<str>,
    breakers: Option<Entered>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Call {
    /// The upstream answers, whatever it says: it can be reached.
    pub(super) fn reached(&self) {
        if let Some(entered) = self.breakers {
            self.protection.lock().reach.answered(entered.reach);
        }
    }

    /// Its first token came.
    pub(super) fn answered(&self) {
        if let Some(entered) = self.breakers {
            let mut shared = self.protection.lock();
            shared.reach.answered(entered.reach);
            if let Some((model, admitted)) =
                shared.models.get_mut(&self.model).zip(entered.of_model)
            {
                model.breaker.answered(admitted);
            }
        }
    }

    /// It is over.
    pub(super) fn ended(mut self, went: Went) {
        self.end(went);
    }

    fn end(&mut self, went: Went) {
        let Some(entered) = self.breakers.take() else {
            return;
        };
        let now = Instant::now();
        let mut shared = self.protection.lock();
        shared.reach.ended(entered.reach, went.reach, now);
        if let Some((model, admitted)) = shared.models.get_mut(&self.model).zip(entered.of_model) {
            model.breaker.ended(admitted, went.model, now);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Went {
            reach: CallEnd::Neither,
            model: CallEnd::Neither,
        });
    }
}

#[cfg(test)]
mod tests;

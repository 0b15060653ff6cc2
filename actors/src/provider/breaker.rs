//! Stops calls that are likely to fail, and finds out when they no longer are. Pure: time is given.

use std::time::{Duration, Instant};

use super::UpstreamErrorKind;

/// When calls are stopped, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Percent of calls that fail, from which on they are stopped; 0: never.
    pub percent: u32,
    /// Fewer calls than this within the window say nothing.
    pub calls_least: u32,
    /// For how long calls are stopped the first time.
    pub open_first: Duration,
    /// Doubled each time, up to this.
    pub open_longest: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            percent: 50,
            calls_least: 10,
            open_first: Duration::from_secs(5),
            open_longest: Duration::from_secs(60),
        }
    }
}

/// Calls are counted over so many pieces of time, each so long.
const PIECES: usize = 6;
const PIECE: Duration = Duration::from_secs(5);

/// A probe that says nothing for so long holds up no other.
const PROBE_WAIT: Duration = Duration::from_secs(30);

/// How a call that was let through went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The upstream did what it should.
    Well,
    /// It did not.
    Badly,
    /// It says nothing about the upstream: our request was at fault, or nobody waited for it.
    Neither,
}

impl CallEnd {
    /// What a failure says about the model that was asked.
    #[must_use]
    pub fn of(kind: &UpstreamErrorKind) -> Self {
        match kind {
            UpstreamErrorKind::Failed | UpstreamErrorKind::Timeout => Self::Badly,
            // Our request, our key, or how much we ask for: none of it says that the model is ill.
            UpstreamErrorKind::Rejected
            | UpstreamErrorKind::ContextTooLong
            | UpstreamErrorKind::AudioTooShort
            | UpstreamErrorKind::TooLarge
            | UpstreamErrorKind::Auth
            | UpstreamErrorKind::Credits
            | UpstreamErrorKind::RateLimited
            | UpstreamErrorKind::Unavailable
            | UpstreamErrorKind::NotConfigured { .. } => Self::Neither,
        }
    }
}

/// What was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// In which life of the state: what was let through in an earlier one counts no more.
    life: u64,
    is_probe: bool,
}

/// What a breaker does, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets all through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets one through, to see.
    HalfOpen,
}

impl BreakerState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        /// It was open, and no call has ended since: one that goes badly opens it again.
        on_trial: bool,
    },
    Open {
        until: Instant,
    },
    /// Since when a probe is out.
    HalfOpen {
        probe: Instant,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    number: u64,
    calls: u32,
    bad: u32,
}

/// Counts how calls go, and stops them.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    began: Instant,
    pieces: [Piece; PIECES],
    state: State,
    life: u64,
    /// Times that it opened since calls went well.
    openings: u32,
    /// When a call was last let through, or ended.
    used: Instant,
}

impl Breaker {
    /// Closed, from `now` on.
    #[must_use]
    pub fn new(policy: BreakerPolicy, now: Instant) -> Self {
        Self {
            policy,
            began: now,
            pieces: [Piece::default(); PIECES],
            state: State::Closed { on_trial: false },
            life: 0,
            openings: 0,
            used: now,
        }
    }

    /// What it does.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How long it lets nothing through.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        match self.state {
            State::Open { until } => until.saturating_duration_since(now),
            State::Closed { .. } | State::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// Whether it knows nothing that would be missed.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        let is_blank =
            matches!(self.state, State::Closed { on_trial: false }) && self.counted(now).0 == 0;
        is_blank || self.is_forgotten(now)
    }

    /// What it knows is too old to mean anything: it may have been open as long as it ever is, and
    /// nobody has asked since.
    fn is_forgotten(&self, now: Instant) -> bool {
        let until = match self.state {
            State::Open { until } => until,
            State::HalfOpen { probe } => probe + PROBE_WAIT,
            State::Closed { .. } => self.used,
        };
        now > until.max(self.used) + self.policy.open_longest
    }

    /// Lets a call through, or says how long to wait.
    pub fn admit(&mut self, now: Instant) -> Result<Admitted, Duration> {
        let is_probe = match self.state {
            State::Closed { .. } => false,
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { probe } if now < probe + PROBE_WAIT => {
                return Err(self.policy.open_first.min(PROBE_WAIT));
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.life += 1;
                self.state = State::HalfOpen { probe: now };
                true
            }
        };
        self.used = now;
        Ok(Admitted {
            life: self.life,
            is_probe,
        })
    }

    /// A call brought its first token: a probe need not end for the others to go on.
    pub fn answered(&mut self, admitted: Admitted) {
        if admitted.is_probe && admitted.life == self.life {
            self.close();
        }
    }

    /// A call has ended.
    pub fn ended(&mut self, admitted: Admitted, end: CallEnd, now: Instant) {
        if admitted.life != self.life {
            return;
        }
        self.used = now;
        match (self.state, end) {
            (State::HalfOpen { .. }, CallEnd::Well) => self.close(),
            (State::HalfOpen { .. } | State::Closed { on_trial: true }, CallEnd::Badly) => {
                self.open(now);
            }
            // The next one is the probe.
            (State::HalfOpen { .. }, CallEnd::Neither) => self.state = State::Open { until: now },
            (State::Closed { .. }, CallEnd::Neither) | (State::Open { .. }, _) => {}
            (State::Closed { on_trial }, end) => {
                if on_trial {
                    self.openings = 0;
                    self.state = State::Closed { on_trial: false };
                }
                self.count(end == CallEnd::Badly, now);
                let (calls, bad) = self.counted(now);
                let share =
                    u64::from(bad) * 100 >= u64::from(calls) * u64::from(self.policy.percent);
                if self.policy.percent > 0 && bad > 0 && calls >= self.policy.calls_least && share {
                    self.open(now);
                }
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let doubled = 1_u32 << self.openings.min(16);
        let wait = self.policy.open_first.saturating_mul(doubled);
        self.openings += 1;
        self.life += 1;
        self.pieces = [Piece::default(); PIECES];
        self.state = State::Open {
            until: now + wait.min(self.policy.open_longest),
        };
    }

    /// On trial. What was let through as a probe counts from here on as any other call.
    fn close(&mut self) {
        self.state = State::Closed { on_trial: true };
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / PIECE.as_secs()
    }

    fn count(&mut self, bad: bool, now: Instant) {
        let number = self.number(now);
        let index = usize::try_from(number % PIECES as u64).unwrap_or_default();
        let piece = &mut self.pieces[index];
        if piece.number != number {
            *piece = Piece {
                number,
                ..Piece::default()
            };
        }
        piece.calls += 1;
        piece.bad += u32::from(bad);
    }

    /// Calls within the window, and how many of them went badly.
    fn counted(&self, now: Instant) -> (u32, u32) {
        let number = self.number(now);
        self.pieces
            .iter()
            .filter(|piece| piece.number + PIECES as u64 > number)
            .fold((0, 0), |(calls, bad), piece| {
                (calls + piece.calls, bad + piece.bad)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn call(breaker: &mut Breaker, end: CallEnd, now: Instant) {
        let admitted = breaker.admit(now).unwrap();
        breaker.ended(admitted, end, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(BreakerPolicy::default(), now);
        for _ in 0..10 {
            call(&mut breaker, CallEnd::Badly, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        breaker
    }

    #[test]
    fn a_share_of_failures_opens_it_and_a_few_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy::default(), now);
        for _ in 0..9 {
            call(&mut breaker, CallEnd::Badly, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        let mut mixed = Breaker::new(BreakerPolicy::default(), now);
        for _ in 0..50 {
            call(&mut mixed, CallEnd::Well, now);
            call(&mut mixed, CallEnd::Well, now);
            call(&mut mixed, CallEnd::Badly, now);
        }
        assert_eq!(mixed.state(now), BreakerState::Closed);
        call(&mut breaker, CallEnd::Badly, now);
        assert_eq!(breaker.admit(now), Err(seconds(5)));
    }

    #[test]
    fn what_says_nothing_and_what_is_long_ago_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy::default(), now);
        for _ in 0..100 {
            call(&mut breaker, CallEnd::Neither, now);
        }
        for _ in 0..9 {
            call(&mut breaker, CallEnd::Badly, now);
        }
        call(&mut breaker, CallEnd::Badly, now + seconds(31));
        assert_eq!(breaker.state(now + seconds(31)), BreakerState::Closed);
        assert!(breaker.is_idle(now + seconds(100)));
    }

    #[test]
    fn one_probe_decides() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + seconds(5);
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one probe at a time");
        breaker.answered(probe);
        assert_eq!(breaker.state(later), BreakerState::Closed);
        breaker.admit(later).unwrap();
        // It answers, and breaks off: open again, for longer.
        breaker.ended(probe, CallEnd::Badly, later);
        assert_eq!(breaker.admit(later), Err(seconds(10)));
        let probe = breaker.admit(later + seconds(10)).unwrap();
        breaker.answered(probe);
        breaker.ended(probe, CallEnd::Well, later + seconds(10));
        assert_eq!(breaker.state(later + seconds(10)), BreakerState::Closed);
        call(&mut breaker, CallEnd::Badly, later + seconds(10));
        assert_eq!(breaker.state(later + seconds(10)), BreakerState::Closed);
    }

    #[test]
    fn one_that_nobody_asks_any_more_is_forgotten_in_whatever_state() {
        let now = Instant::now();
        let longest = BreakerPolicy::default().open_longest;
        let open = opened(now);
        assert!(!open.is_idle(now + seconds(5) + longest));
        assert!(open.is_idle(now + seconds(6) + longest));
        let mut probed = opened(now);
        let probe = probed.admit(now + seconds(5)).unwrap();
        assert!(!probed.is_idle(now + seconds(5) + PROBE_WAIT));
        assert!(probed.is_idle(now + seconds(6) + PROBE_WAIT + longest));
        probed.ended(probe, CallEnd::Well, now + seconds(9));
        assert!(!probed.is_idle(now + seconds(9) + longest), "on trial");
        assert!(probed.is_idle(now + seconds(10) + longest));
    }

    #[test]
    fn a_probe_that_nobody_waited_for_leaves_room_for_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probe = breaker.admit(now + seconds(5)).unwrap();
        breaker.ended(probe, CallEnd::Neither, now + seconds(6));
        breaker.admit(now + seconds(6)).unwrap();
        // Nor does one that never ends hold it up for good.
        breaker.admit(now + seconds(37)).unwrap();
    }

    #[test]
    fn what_began_before_it_opened_counts_no_more() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy::default(), now);
        let old = breaker.admit(now).unwrap();
        for _ in 0..10 {
            call(&mut breaker, CallEnd::Badly, now);
        }
        let later = now + seconds(5);
        let probe = breaker.admit(later).unwrap();
        breaker.ended(old, CallEnd::Badly, later);
        breaker.ended(probe, CallEnd::Well, later);
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }

    #[test]
    fn with_a_share_of_zero_it_never_opens() {
        let now = Instant::now();
        let policy = BreakerPolicy {
            percent: 0,
            ..BreakerPolicy::default()
        };
        let mut breaker = Breaker::new(policy, now);
        for _ in 0..1_000 {
            call(&mut breaker, CallEnd::Badly, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    proptest! {
        #[test]
        fn it_always_comes_back(steps in proptest::collection::vec((0u8..6, 0u64..20), 0..300)) {
            let mut now = Instant::now();
            let policy = BreakerPolicy::default();
            let mut breaker = Breaker::new(policy, now);
            let mut out = Vec::new();
            for (step, wait) in steps {
                now += seconds(wait);
                match step {
                    0..3 => match breaker.admit(now) {
                        Ok(admitted) => out.push(admitted),
                        Err(wait) => prop_assert!(wait <= policy.open_longest),
                    },
                    3 => if let Some(it) = out.pop() { breaker.ended(it, CallEnd::Badly, now) },
                    4 => if let Some(it) = out.pop() { breaker.ended(it, CallEnd::Well, now) },
                    _ => if let Some(it) = out.last() { breaker.answered(*it) },
                }
            }
            // However it got here, after the longest wait a call is let through and closes it.
            now += policy.open_longest + PROBE_WAIT;
            let admitted = breaker.admit(now).unwrap();
            breaker.ended(admitted, CallEnd::Well, now);
            prop_assert_eq!(breaker.state(now), BreakerState::Closed);
            prop_assert!(breaker.admit(now).is_ok());
        }
    }
}

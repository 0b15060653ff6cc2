//! Whether Supabase is asked at all: after a failure that is not one document's, it is left alone
//! for a while. No clock, no I/O.

use std::time::Duration;

use tokio::time::Instant;

use crate::mirror::supabase::{Missing, SupabaseError, SupabaseErrorKind as Kind};

/// How long Supabase is left alone after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubles with each that follows.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
    /// At least, if the key is refused: only an operator can help then.
    pub key: Duration,
}

impl Default for Backoff {
    /// 1 s to 5 min; a minute for a refused key.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(300),
            key: Duration::from_secs(60),
        }
    }
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concerns {
    /// This document or row.
    One,
    /// Everything that might be sent.
    All,
    /// Everything, until somebody changes the key or a right.
    Key,
}

impl Concerns {
    pub(super) fn of(error: &SupabaseError) -> Self {
        match error.kind {
            Kind::Auth(_) | Kind::Forbidden => Self::Key,
            // An answer that did not come in time is an outage, too, until a probe says otherwise.
            Kind::Unavailable
            | Kind::RateLimited
            | Kind::Unknown
            | Kind::Malformed
            | Kind::NoRoute
            | Kind::NotFound(Missing::Bucket)
            | Kind::MissingTable => Self::All,
            Kind::NotFound(Missing::Object)
            | Kind::TooLarge
            | Kind::RejectedName
            | Kind::Duplicate
            | Kind::ForeignKey
            | Kind::BadUuid
            | Kind::Rejected => Self::One,
        }
    }
}

/// The door to a service.
#[derive(Debug)]
pub(super) struct Door {
    backoff: Backoff,
    failures: u32,
    shut_until: Option<Instant>,
}

impl Door {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failures: 0,
            shut_until: None,
        }
    }

    /// Shuts it. `jitter`: 0 to 1.
    ///
    /// Failures of calls that were under way when it was shut are of the same trouble.
    pub(super) fn failed(&mut self, now: Instant, error: &SupabaseError, jitter: f64) {
        if self.is_shut(now) {
            return;
        }
        let Backoff {
            first,
            longest,
            key,
        } = self.backoff;
        let doubled = first
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        let wait = match Concerns::of(error) {
            Concerns::Key => doubled.max(key),
            Concerns::One | Concerns::All => doubled,
        };
        let wait = wait.mul_f64(0.5 + jitter / 2.0);
        self.failures += 1;
        self.shut_until = Some(now + wait.max(error.retry_after.unwrap_or_default()));
    }

    /// Something went through.
    pub(super) fn passed(&mut self) {
        self.failures = 0;
        self.shut_until = None;
    }

    /// Whether nothing may be sent now.
    pub(super) fn is_shut(&self, now: Instant) -> bool {
        self.shut_until.is_some_and(|until| until > now)
    }

    /// When it is opened for a probe.
    pub(super) fn opens(&self) -> Option<Instant> {
        self.shut_until
    }

    /// Whether nothing went through since the last failure: one at a time, then.
    pub(super) fn is_doubtful(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> SupabaseError {
        SupabaseError {
            kind,
            message: String::new(),
            retry_after: None,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let start = Instant::now();
        let backoff = Backoff::default();
        let mut door = Door::new(backoff);
        let mut now = start;
        let mut waits = vec![];
        for _ in 0..12 {
            door.failed(now, &error(Kind::Unavailable), 1.0);
            // One of the same trouble.
            door.failed(now, &error(Kind::Unavailable), 1.0);
            assert!(door.is_shut(now) && door.is_doubtful());
            waits.push(door.opens().unwrap() - now);
            now = door.opens().unwrap();
            assert!(!door.is_shut(now));
        }
        assert_eq!(waits[0], backoff.first);
        assert_eq!(waits[1], backoff.first * 2);
        assert_eq!(waits.last(), Some(&backoff.longest));
        door.passed();
        assert!(!door.is_doubtful());
        door.failed(now, &error(Kind::Unavailable), 0.0);
        assert_eq!(door.opens(), Some(now + backoff.first / 2));
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait_and_a_bad_key_has_one() {
        let now = Instant::now();
        let mut door = Door::new(Backoff::default());
        let limited = SupabaseError {
            retry_after: Some(Duration::from_secs(700)),
            ..error(Kind::RateLimited)
        };
        door.failed(now, &limited, 1.0);
        assert_eq!(door.opens(), Some(now + Duration::from_secs(700)));
        let mut door = Door::new(Backoff::default());
        let expired = Kind::Auth(crate::mirror::supabase::AuthFault::Expired);
        door.failed(now, &error(expired), 1.0);
        assert_eq!(door.opens(), Some(now + Backoff::default().key));
    }
}

//! How long ago, by this process's own time, idempotency keys were accepted.
//!
//! The clock of the wall tells the age of a key in the log, and can be set. So a key is forgotten
//! only when the process has lived through its time, too. Pure: times are handed in.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{id::TurnId, limits::KEY_KEPT, time::Timestamp};

/// Keys whose acceptance is remembered; some 5 MiB. Those before them count as if accepted with the
/// last one that was let go: kept longer, never shorter.
const REMEMBERED_MAX: usize = 65_536;

/// When keys were accepted, by the turns that they began.
#[derive(Debug)]
pub(crate) struct KeyAges(Mutex<Ages>);

#[derive(Debug)]
struct Ages {
    accepted: HashMap<TurnId, Instant>,
    order: VecDeque<TurnId>,
    /// All keys that are not here were accepted until then.
    before: Instant,
}

impl KeyAges {
    /// Keys of earlier processes count from `start` on.
    pub(crate) fn new(start: Instant) -> Self {
        Self(Mutex::new(Ages {
            accepted: HashMap::new(),
            order: VecDeque::new(),
            before: start,
        }))
    }

    /// Notes that a turn was accepted with a key, or runs again.
    pub(crate) fn accepted(&self, turn: TurnId, now: Instant) {
        let mut ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ages.accepted.insert(turn, now).is_none() {
            ages.order.push_back(turn);
        }
        while let Some(oldest) = ages.order.front().copied() {
            let at = ages.accepted.get(&oldest).copied().unwrap_or(ages.before);
            if ages.order.len() <= REMEMBERED_MAX && now.duration_since(at) <= KEY_KEPT {
                break;
            }
            ages.order.pop_front();
            ages.accepted.remove(&oldest);
            ages.before = ages.before.max(at);
        }
    }

    /// Whether the key of a turn is remembered: it was accepted at `accepted_at` by the wall's clock.
    pub(crate) fn is_kept(
        &self,
        turn: Option<TurnId>,
        accepted_at: Timestamp,
        (clock, now): (Timestamp, Instant),
    ) -> bool {
        let kept = i64::try_from(KEY_KEPT.as_micros()).unwrap_or(i64::MAX);
        if clock.micros() - accepted_at.micros() <= kept {
            return true;
        }
        let ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = turn.and_then(|turn| ages.accepted.get(&turn).copied());
        now.duration_since(known.unwrap_or(ages.before)) <= KEY_KEPT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// The wall's clock after so many hours.
    fn clock(hours: u32) -> Timestamp {
        let hour = i64::try_from(HOUR.as_micros()).unwrap();
        Timestamp::from_micros(hour * i64::from(hours + 1_000))
    }

    #[test]
    fn a_key_is_forgotten_once_both_the_clock_and_the_process_have_counted_a_day() {
        let start = Instant::now();
        let keys = KeyAges::new(start);
        let (turn, accepted_at) = (TurnId::now(), start + HOUR * 30);
        keys.accepted(turn, accepted_at);
        let kept = |clock_hours, uptime| {
            keys.is_kept(Some(turn), clock(30), (clock(clock_hours), start + uptime))
        };
        assert!(kept(31, HOUR * 31));
        // The clock jumps ahead by two days, an hour later; the process has been up for long.
        assert!(kept(79, HOUR * 31));
        assert!(kept(79, HOUR * 54));
        assert!(!kept(103, HOUR * 55));
        // The clock stands still, or went back.
        assert!(kept(30, HOUR * 900) && kept(2, HOUR * 900));
    }

    #[test]
    fn keys_of_before_count_from_the_start_of_the_process() {
        let start = Instant::now();
        let keys = KeyAges::new(start);
        for turn in [None, Some(TurnId::now())] {
            let kept = |uptime| keys.is_kept(turn, clock(0), (clock(500), start + uptime));
            assert!(kept(HOUR * 23));
            assert!(!kept(HOUR * 25));
        }
    }

    #[test]
    fn what_is_let_go_to_bound_memory_is_kept_longer_and_not_forgotten_early() {
        let start = Instant::now();
        let keys = KeyAges::new(start);
        let first = TurnId::now();
        keys.accepted(first, start + HOUR * 40);
        for _ in 0..REMEMBERED_MAX {
            keys.accepted(TurnId::now(), start + HOUR * 41);
        }
        assert_eq!(keys.0.lock().unwrap().accepted.len(), REMEMBERED_MAX);
        let kept = |turn, uptime| keys.is_kept(turn, clock(0), (clock(500), start + uptime));
        assert!(kept(Some(first), HOUR * 63));
        assert!(!kept(Some(first), HOUR * 65));
        // Those of before cannot be told from it.
        assert!(kept(None, HOUR * 63));
        // A day later none of them takes memory any more.
        keys.accepted(TurnId::now(), start + HOUR * 66);
        assert_eq!(keys.0.lock().unwrap().accepted.len(), 1);
        assert!(kept(None, HOUR * 64));
    }
}

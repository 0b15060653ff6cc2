//! How many requests may be repeated, over all replies of an upstream. Pure: time is given.
//!
//! A repeat is paid for before it is made, and paid back if it ends well. So repeats go on for as
//! long as they help; where nothing helps, they stop after a fixed number, and from then on an
//! upstream in trouble gets hardly more requests than there are replies to be asked for: one in ten
//! more for what goes well, and a trickle by the clock, so that one that is well again is found to
//! be, however few replies are asked for.

use std::time::{Duration, Instant};

/// Units that a repeat costs.
const COST: u64 = 10;

/// Units that a reply which needed no repeat brings: one repeat for ten of them.
const EARNED: u64 = 1;

/// An empty budget is full again after so long, whatever happens meanwhile.
const FULL_AFTER: Duration = Duration::from_secs(300);

/// What is left for repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    units: u64,
    most: u64,
    /// Until when the clock has brought what it brings.
    counted: Instant,
}

impl RetryBudget {
    /// Pays for so many repeats that help nothing, from `now` on.
    #[must_use]
    pub fn new(repeats: u32, now: Instant) -> Self {
        let most = u64::from(repeats) * COST;
        Self {
            units: most,
            most,
            counted: now,
        }
    }

    /// Pays for a repeat; `false`: there is nothing left.
    #[must_use]
    pub fn pay(&mut self, now: Instant) -> bool {
        self.trickle(now);
        match self.units.checked_sub(COST) {
            Some(left) => {
                self.units = left;
                true
            }
            None => false,
        }
    }

    /// A repeat helped, or was not made.
    pub fn pay_back(&mut self) {
        self.earn(COST);
    }

    /// A reply needed no repeat.
    pub fn earned(&mut self) {
        self.earn(EARNED);
    }

    /// Repeats that can be paid for now.
    #[must_use]
    pub fn repeats(&self, now: Instant) -> u64 {
        let mut then = *self;
        then.trickle(now);
        then.units / COST
    }

    fn earn(&mut self, units: u64) {
        self.units = (self.units + units).min(self.most);
    }

    /// Takes what the clock has brought.
    fn trickle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        if self.units == self.most || passed >= FULL_AFTER {
            self.units = self.most;
            self.counted = now;
            return;
        }
        let whole = FULL_AFTER.as_nanos();
        let units = passed.as_nanos() * u128::from(self.most) / whole;
        // Of a unit that is not whole yet nothing is lost.
        let taken = (units * whole).div_ceil(u128::from(self.most));
        if let (Ok(units), Ok(taken)) = (u64::try_from(units), u64::try_from(taken)) {
            self.earn(units);
            self.counted += Duration::from_nanos(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_upstream_that_is_down_gets_no_repeats_after_a_while() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(100, now);
        let repeats = (0..10_000).filter(|_| budget.pay(now)).count();
        assert_eq!(repeats, 100);
        assert_eq!(budget.repeats(now), 0);
    }

    #[test]
    fn repeats_that_help_never_end() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(1, now);
        for _ in 0..1_000 {
            assert!(budget.pay(now));
            assert!(!budget.pay(now));
            budget.pay_back();
        }
    }

    #[test]
    fn where_no_repeat_helps_a_tenth_more_is_asked() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(5, now);
        let mut repeats = 0_u32;
        for _ in 0..10_000 {
            budget.earned();
            repeats += u32::from(budget.pay(now));
        }
        assert!((1_000..=1_005).contains(&repeats), "{repeats}");
    }

    #[test]
    fn one_that_is_spent_comes_back_with_time() {
        let mut now = Instant::now();
        let mut budget = RetryBudget::new(100, now);
        while budget.pay(now) {}
        now += Duration::from_secs(3);
        assert_eq!(budget.repeats(now), 1);
        assert!(budget.pay(now) && !budget.pay(now));
        // However often it is looked at, an hour brings what an hour brings.
        let mut repeats = 0_u32;
        for _ in 0..36_000 {
            now += Duration::from_millis(100);
            repeats += u32::from(budget.pay(now));
        }
        assert!((1_199..=1_200).contains(&repeats), "{repeats}");
        assert_eq!(budget.repeats(now + FULL_AFTER), 100);
        let none = RetryBudget::new(0, now);
        assert_eq!(none.repeats(now + FULL_AFTER), 0);
    }

    proptest! {
        #[test]
        fn repeats_that_help_nothing_are_bounded_by_what_went_well_and_by_time(
            repeats in 0u32..50, steps in proptest::collection::vec((0u8..3, 0u64..5_000), 0..2_000),
        ) {
            let began = Instant::now();
            let mut now = began;
            let mut budget = RetryBudget::new(repeats, now);
            let (mut lost, mut well) = (0_u64, 0_u64);
            for (step, wait) in steps {
                now += Duration::from_millis(wait);
                match step {
                    0 => lost += u64::from(budget.pay(now)),
                    1 => { budget.earned(); well += 1; }
                    _ => if budget.pay(now) { budget.pay_back() },
                }
                let units = (now - began).as_nanos() * u128::from(repeats) * u128::from(COST) / FULL_AFTER.as_nanos();
                let by_time = u64::try_from(units).unwrap();
                prop_assert!(lost * COST <= u64::from(repeats) * COST + well + by_time);
                prop_assert!(budget.repeats(now) <= u64::from(repeats));
            }
        }
    }
}

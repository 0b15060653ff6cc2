//! How many requests may be repeated, over all replies of an upstream. Pure.
//!
//! A repeat is paid for before it is made, and paid back if it ends well. So repeats go on for as
//! long as they help; where nothing helps, they stop after a fixed number, and from then on an
//! upstream in trouble gets no more requests than there are replies to be asked for.

/// Units that a repeat costs.
const COST: u64 = 10;

/// Units that a reply which needed no repeat brings: one repeat for ten of them.
const EARNED: u64 = 1;

/// What is left for repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    units: u64,
    most: u64,
}

impl RetryBudget {
    /// Pays for so many repeats that help nothing.
    #[must_use]
    pub fn new(repeats: u32) -> Self {
        let most = u64::from(repeats) * COST;
        Self { units: most, most }
    }

    /// Pays for a repeat; `false`: there is nothing left.
    #[must_use]
    pub fn pay(&mut self) -> bool {
        match self.units.checked_sub(COST) {
            Some(left) => {
                self.units = left;
                true
            }
            None => false,
        }
    }

    /// A repeat helped.
    pub fn pay_back(&mut self) {
        self.earn(COST);
    }

    /// A reply needed no repeat.
    pub fn earned(&mut self) {
        self.earn(EARNED);
    }

    /// Repeats that can be paid for now.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.units / COST
    }

    fn earn(&mut self, units: u64) {
        self.units = (self.units + units).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_upstream_that_is_down_gets_no_repeats_after_a_while() {
        let mut budget = RetryBudget::new(100);
        let repeats = (0..10_000).filter(|_| budget.pay()).count();
        assert_eq!(repeats, 100);
        assert_eq!(budget.repeats(), 0);
    }

    #[test]
    fn repeats_that_help_never_end() {
        let mut budget = RetryBudget::new(1);
        for _ in 0..1_000 {
            assert!(budget.pay());
            assert!(!budget.pay());
            budget.pay_back();
        }
    }

    #[test]
    fn where_no_repeat_helps_a_tenth_more_is_asked() {
        let mut budget = RetryBudget::new(5);
        let mut repeats = 0_u32;
        for _ in 0..10_000 {
            budget.earned();
            repeats += u32::from(budget.pay());
        }
        assert!((1_000..=1_005).contains(&repeats), "{repeats}");
    }

    proptest! {
        #[test]
        fn repeats_that_help_nothing_are_bounded_by_what_went_well(
            repeats in 0u32..50, steps in proptest::collection::vec(0u8..3, 0..2_000),
        ) {
            let mut budget = RetryBudget::new(repeats);
            let (mut lost, mut well) = (0_u64, 0_u64);
            for step in steps {
                match step {
                    0 => lost += u64::from(budget.pay()),
                    1 => { budget.earned(); well += 1; }
                    _ => if budget.pay() { budget.pay_back() },
                }
                prop_assert!(lost <= u64::from(repeats) + well / 10);
                prop_assert!(budget.repeats() <= u64::from(repeats));
            }
        }
    }
}

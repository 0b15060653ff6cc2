//! Medians, percentiles and ratios.

use serde::{Deserialize, Serialize};

/// The middle value, or between the two in the middle; zero of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), values.len() % 2) {
        (None, _) => 0.0,
        (Some(middle), 1) => *middle,
        (Some(upper), _) => f64::midpoint(values[half - 1], *upper),
    }
}

/// The smallest value that so large a part of all is not above; zero of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank in a list that fits the memory"
)]
pub(crate) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * part).ceil() as usize;
    let index = rank.clamp(1, values.len().max(1)) - 1;
    values.get(index).copied().unwrap_or_default()
}

/// The shape of a sample, in its own unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        Self {
            p50: percentile(&mut values, 0.5),
            p99: percentile(&mut values, 0.99),
            most: values.last().copied().unwrap_or_default(),
            count: values.len(),
        }
    }
}

/// A ratio over rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ratio {
    /// Of two lists in the same order of rounds; rounds without a base are left out.
    pub(crate) fn of(values: &[f64], bases: &[f64]) -> Option<Self> {
        let pairs = values.iter().zip(bases).filter(|(_, base)| **base > 0.0);
        let mut ratios: Vec<f64> = pairs.map(|(value, base)| value / base).collect();
        ratios.sort_by(f64::total_cmp);
        Some(Self {
            least: *ratios.first()?,
            most: *ratios.last()?,
            median: median(ratios),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn a_percentile_counts_from_below() {
        let mut values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 100.0);
        assert_eq!(percentile(&mut values, 0.0), 1.0);
    }

    #[test]
    fn ratios_pair_what_is_of_the_same_round() {
        let ratio = Ratio::of(&[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (1.0, 2.0, 3.0));
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
    }
}

//! What a run found, and whether it is what was aimed at.

use serde::{Deserialize, Serialize};

use crate::stats::Ratio;

/// A bound on a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// What is compared: a ratio, a difference, or the figure itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) value: f64,
    /// What it is: `x pass-through`, `ms over direct`, …
    pub(crate) to: String,
    /// The least and the most over rounds.
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) target: Option<Target>,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) scenario: String,
    pub(crate) what: String,
    pub(crate) unit: String,
    pub(crate) ours: f64,
    /// Of the pass-through, or of the bare echo for idle sockets.
    pub(crate) yardstick: Option<f64>,
    /// Of the upstream itself.
    pub(crate) direct: Option<f64>,
    pub(crate) compared: Option<Compared>,
}

impl Figure {
    pub(crate) fn new(scenario: &str, what: &str, unit: &str, ours: f64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            what: what.to_owned(),
            unit: unit.to_owned(),
            ours,
            yardstick: None,
            direct: None,
            compared: None,
        }
    }

    pub(crate) fn beside(mut self, yardstick: f64) -> Self {
        self.yardstick = Some(yardstick);
        self
    }

    pub(crate) fn and_direct(mut self, direct: f64) -> Self {
        self.direct = Some(direct);
        self
    }

    /// Compares it by a ratio over rounds.
    pub(crate) fn ratio(self, to: &str, ratio: Option<Ratio>, target: Option<Target>) -> Self {
        match ratio {
            None => self,
            Some(ratio) => self.compared(ratio, to, target),
        }
    }

    pub(crate) fn compared(mut self, over: Ratio, to: &str, target: Option<Target>) -> Self {
        self.compared = Some(Compared {
            value: over.median,
            to: to.to_owned(),
            range: Some((over.least, over.most)),
            target,
        });
        self
    }

    /// Judges a value of its own.
    pub(crate) fn judged(mut self, value: f64, to: &str, target: Target) -> Self {
        self.compared = Some(Compared {
            value,
            to: to.to_owned(),
            range: None,
            target: Some(target),
        });
        self
    }

    /// Judges the figure itself.
    pub(crate) fn aimed(self, target: Target) -> Self {
        let (value, unit) = (self.ours, self.unit.clone());
        self.judged(value, &unit, target)
    }

    /// Whether its target was met; none: it has none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let compared = self.compared.as_ref()?;
        Some(compared.target?.is_met(compared.value))
    }

    /// What tells it from the others of a run.
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.scenario, &self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_at_its_bound() {
        assert!(Target::AtLeast(0.6).is_met(0.6));
        assert!(!Target::AtLeast(0.6).is_met(0.59));
        assert!(Target::AtMost(1.0).is_met(1.0));
        let figure = Figure::new("a", "b", "ms", 3.0);
        assert_eq!(figure.is_met(), None);
        assert_eq!(figure.aimed(Target::AtMost(2.0)).is_met(), Some(false));
    }
}

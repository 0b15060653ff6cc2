//! What the calls to the upstream are at: for `/ready`, and as metrics.

use std::{fmt, sync::Arc};

use idol_actors::provider::{
    breaker::BreakerState,
    protection::{Protection, ProtectionState},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::wire::json::Object;

/// The part of `/ready`. A model that fails makes no server unready: others may answer.
#[must_use]
pub fn ready_part(state: &ProtectionState) -> Object {
    let word = match (state.reach, state.stopped.is_empty()) {
        (BreakerState::Closed, true) => "ok",
        (BreakerState::Closed, false) => "degraded",
        (BreakerState::Open | BreakerState::HalfOpen, _) => "unreachable",
    };
    let breakers = state
        .stopped
        .iter()
        .fold(Object::with_capacity(64), |object, (model, state)| {
            object.escaped(&escaped(model), state.as_str())
        });
    Object::with_capacity(256)
        .escaped("state", word)
        .number("calls", state.calls)
        .number("queued", state.queued)
        .number("retries_left", state.repeats_left)
        .raw("breakers", &breakers.end())
}

fn escaped(name: &str) -> String {
    idol_actors::json_text::JsonText::escape(name).into_escaped()
}

/// The same as metrics. Models are not labels: clients name them.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// What their names begin with.
    pub prefix: &'static str,
    /// Whose.
    pub protection: Arc<Protection>,
}

impl UpstreamMetrics {
    fn name(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }
}

impl Collector for UpstreamMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.protection.state();
        for (name, help, value) in [
            ("calls", "Calls under way", state.calls as u64),
            ("queued", "Calls that wait for room", state.queued as u64),
            (
                "retries_left",
                "Repeats that the budget pays for",
                state.repeats_left,
            ),
            (
                "models_stopped",
                "Models that are left alone because they fail",
                state.stopped.len() as u64,
            ),
            (
                "unreachable",
                "1 while the upstream cannot be reached",
                u64::from(state.reach != BreakerState::Closed),
            ),
        ] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let name = self.name(name);
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        for (name, help, value) in [
            (
                "retries",
                "Requests repeated before the first token",
                state.retries,
            ),
            (
                "fallbacks",
                "Requests of another model than the one before",
                state.fallbacks,
            ),
            (
                "continuations",
                "Requests to continue a reply that broke off",
                state.continuations,
            ),
            (
                "repaired",
                "Replies that broke off and came to their end",
                state.repaired,
            ),
            (
                "refused_open",
                "Calls not made because their model fails",
                state.refused_open,
            ),
            (
                "refused_full",
                "Calls not made because there was no room",
                state.refused_full,
            ),
            (
                "refused_budget",
                "Repeats not made because the budget was spent",
                state.refused_budget,
            ),
        ] {
            let name = self.name(name);
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

//! What the engine counts. Registered in a registry that the server exposes.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
        histogram::exponential_buckets,
    },
    registry::{Registry, Unit},
};

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnEnd {
    /// The upstream finished its reply.
    Complete,
    /// The upstream failed.
    Failed,
    /// A user stopped it.
    Cancelled,
    /// Nobody had listened for long.
    Abandoned,
    /// A shutdown or a restart cut it.
    Interrupted,
    /// Its messages were to be kept without a reply.
    Unanswered,
}

impl EncodeLabelValue for TurnEnd {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
            Self::Interrupted => "interrupted",
            Self::Unanswered => "unanswered",
        })
    }
}

/// Labels of the turn counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TurnLabels {
    /// How it ended.
    pub end: TurnEnd,
}

/// Labels of the provider error counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProviderErrorLabels {
    /// Who failed.
    pub provider: String,
    /// Public code of the failure.
    pub code: &'static str,
}

/// The engine's metrics. Cheap to clone: handles to shared counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Turns ended, by how.
    pub turns: Family<TurnLabels, Counter>,
    /// From acceptance to the first piece of the reply.
    pub first_token: Histogram,
    /// Pieces of reply text or reasoning, one per network read.
    pub deltas: Counter,
    /// Pieces of replies under way that reached the log before their end.
    pub pieces_kept: Counter,
    /// Tokens of replies, as upstreams count them.
    pub completion_tokens: Counter,
    /// Tokens of prompts, as upstreams count them.
    pub prompt_tokens: Counter,
    /// Prompts that an upstream found too long, and that were sent again with less of the history.
    pub prompts_cut: Counter,
    /// Upstream failures.
    pub provider_errors: Family<ProviderErrorLabels, Counter>,
    /// From queueing an append to its acknowledgement.
    pub append_latency: Histogram,
    /// Appends in one transaction.
    pub append_batch: Histogram,
    /// Conversation actors.
    pub conversations: Gauge,
    /// Bytes of history held in memory.
    pub resident_bytes: Gauge,
    /// Conversation actors that died of a panic or a failed log.
    pub restarts: Counter,
    /// Sessions detached because their client had stopped reading.
    pub stalled: Counter,
    /// Times that a session had something to read but no credit.
    pub credit_exhausted: Counter,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 18));
        let metrics = Self {
            turns: Family::default(),
            first_token: seconds(),
            deltas: Counter::default(),
            pieces_kept: Counter::default(),
            completion_tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            prompts_cut: Counter::default(),
            provider_errors: Family::default(),
            append_latency: seconds(),
            append_batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            conversations: Gauge::default(),
            resident_bytes: Gauge::default(),
            restarts: Counter::default(),
            stalled: Counter::default(),
            credit_exhausted: Counter::default(),
        };
        let it = metrics.clone();
        registry.register("turns", "Turns ended", it.turns);
        registry.register_with_unit(
            "time_to_first_token",
            "From a turn's acceptance to the first piece of its reply",
            Unit::Seconds,
            it.first_token,
        );
        registry.register("reply_deltas", "Pieces of replies received", it.deltas);
        registry.register(
            "reply_pieces_kept",
            "Pieces of replies under way that reached the log before their end",
            it.pieces_kept,
        );
        registry.register(
            "completion_tokens",
            "Tokens of replies",
            it.completion_tokens,
        );
        registry.register("prompt_tokens", "Tokens of prompts", it.prompt_tokens);
        registry.register(
            "prompts_cut",
            "Prompts that were too long for the upstream and were sent again, shorter",
            it.prompts_cut,
        );
        registry.register("provider_errors", "Upstream failures", it.provider_errors);
        registry.register_with_unit(
            "log_append_latency",
            "From queueing an append to its acknowledgement",
            Unit::Seconds,
            it.append_latency,
        );
        registry.register(
            "log_append_batch",
            "Appends in one transaction",
            it.append_batch,
        );
        registry.register(
            "conversation_actors",
            "Conversation actors",
            it.conversations,
        );
        registry.register_with_unit(
            "resident_history",
            "History held in memory",
            Unit::Bytes,
            it.resident_bytes,
        );
        registry.register(
            "conversation_restarts",
            "Conversation actors that died",
            it.restarts,
        );
        registry.register(
            "sessions_stalled",
            "Sessions detached for not reading",
            it.stalled,
        );
        registry.register(
            "credit_exhausted",
            "Times that a session had something to read but no credit",
            it.credit_exhausted,
        );
        metrics
    }

    pub(crate) fn turn_ended(&self, end: TurnEnd) {
        self.turns.get_or_create(&TurnLabels { end }).inc();
    }
}

/// Seconds, as histograms take them.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

//! What a reply is said to have cost.

use serde_json::{Value, json};

const PROMPT_PRICE: f64 = 0.000_000_15;
const COMPLETION_PRICE: f64 = 0.000_000_6;

/// What the usage of a reply is computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) prompt: u64,
    pub(crate) reasoning: usize,
    /// A fixed cost in place of the computed one.
    pub(crate) cost: Option<f64>,
}

impl Tally {
    /// Returns the usage once so many deltas are sent; each is a token.
    pub(crate) fn usage(&self, sent: usize) -> Value {
        let sent = sent as u64;
        let computed = self.prompt as f64 * PROMPT_PRICE + sent as f64 * COMPLETION_PRICE;
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": sent,
            "total_tokens": self.prompt + sent,
            "cost": self.cost.unwrap_or(computed),
            "is_byok": false,
            "prompt_tokens_details": {
                "cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "video_tokens": 0,
            },
            "cost_details": {"upstream_inference_cost": null},
            "completion_tokens_details": {
                "reasoning_tokens": sent.min(self.reasoning as u64),
            },
        })
    }
}

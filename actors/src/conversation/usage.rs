//! Reads token counts from an upstream's usage object.

use serde::Deserialize;

use crate::provider::RawJson;

/// Token counts; zero where the upstream does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Tokens {
    /// Of the prompt.
    #[serde(default, rename = "prompt_tokens")]
    pub(super) prompt: u64,
    /// Of the reply.
    #[serde(default, rename = "completion_tokens")]
    pub(super) completion: u64,
}

/// The counts of a usage object of any upstream.
#[must_use]
pub(super) fn tokens_of(usage: &RawJson) -> Tokens {
    serde_json::from_str(usage.get()).unwrap_or_default()
}

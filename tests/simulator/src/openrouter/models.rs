//! `GET /models` and `GET /key`.

use serde_json::{Value, json};

/// The models that are always listed.
const MODELS: &str = include_str!("../../fixtures/openrouter_models.json");
/// The answer of `GET /key`.
pub(crate) const KEY: &str = include_str!("../../fixtures/openrouter_key.json");

/// A model to list in `GET /models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// The model's id.
    pub id: String,
    /// The context length; `None` is listed as `null`.
    pub context_length: Option<u64>,
    /// The longest completion; `None` is listed as `null`.
    pub max_completion_tokens: Option<u64>,
}

impl ModelCard {
    /// Makes a card for a model with this context length.
    pub fn new(id: &str, context_length: u64) -> Self {
        Self {
            id: id.to_owned(),
            context_length: Some(context_length),
            max_completion_tokens: None,
        }
    }

    fn listed(&self) -> Value {
        json!({
            "id": self.id,
            "canonical_slug": self.id,
            "name": self.id,
            "created": 1_780_000_000,
            "context_length": self.context_length,
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "pricing": {"prompt": "0.00000015", "completion": "0.0000006"},
            "top_provider": {
                "context_length": self.context_length,
                "max_completion_tokens": self.max_completion_tokens,
                "is_moderated": false,
            },
            "per_request_limits": null,
            "supported_parameters": ["max_tokens", "temperature", "tools"],
            "expiration_date": null,
        })
    }
}

/// Renders the list: the fixture's models, then the added ones.
pub(crate) fn list(cards: &[ModelCard]) -> String {
    let mut list: Value = serde_json::from_str(MODELS).unwrap_or_default();
    if let Some(data) = list.get_mut("data").and_then(Value::as_array_mut) {
        data.extend(cards.iter().map(ModelCard::listed));
    }
    list.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_models_follow_the_fixture() {
        let list: Value = serde_json::from_str(&list(&[ModelCard::new("test/big", 7)])).unwrap();
        let data = list["data"].as_array().unwrap();
        assert_eq!(data[0]["context_length"], 131_072);
        assert_eq!(data[1]["context_length"], Value::Null);
        assert_eq!(data[2]["context_length"], 7);
    }

    #[test]
    fn the_key_is_json() {
        assert!(serde_json::from_str::<Value>(KEY).unwrap()["data"]["label"].is_string());
    }
}

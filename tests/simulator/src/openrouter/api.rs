//! The APIs that are simulated with scripts, and the shape that each gives an error.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::errors::ErrorCase;

/// An API whose errors have a shape of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    OpenRouter,
    ElevenLabs,
    OpenAi,
    Speaches,
    WhisperCpp,
}

impl Api {
    /// The APIs whose error cases carry their name.
    const NAMED: [Self; 4] = [
        Self::ElevenLabs,
        Self::OpenAi,
        Self::Speaches,
        Self::WhisperCpp,
    ];

    /// Finds the API that the error cases call so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|api| api.name() == name)
    }

    /// Returns the first known case of this status, or one of this API's shape.
    pub(crate) fn error(self, status: u16) -> ErrorCase {
        let known = ErrorCase::known().iter().find(|case| {
            let api = case.name.split_once(':').map_or("", |(api, _)| api);
            case.status == status && api == self.name()
        });
        known.cloned().unwrap_or_else(|| ErrorCase {
            name: format!("status {status}"),
            status,
            headers: BTreeMap::new(),
            body: self.shape(status),
        })
    }

    /// What the names of this API's cases have before the colon.
    fn name(self) -> &'static str {
        match self {
            Self::OpenRouter => "",
            Self::ElevenLabs => "elevenlabs",
            Self::OpenAi => "openai",
            Self::Speaches => "speaches",
            Self::WhisperCpp => "whispercpp",
        }
    }

    fn shape(self, status: u16) -> Value {
        let message = format!("Status {status}");
        match self {
            Self::OpenRouter => json!({"error": {"code": status, "message": message}}),
            Self::ElevenLabs => {
                json!({"detail": {"status": format!("status_{status}"), "message": message}})
            }
            Self::OpenAi => json!({"error": {
                "message": message, "type": "server_error", "param": null, "code": null,
            }}),
            Self::Speaches => json!({"detail": message}),
            Self::WhisperCpp => json!({"error": message}),
        }
    }
}

//! `GET /models` and `GET /voices`.

use serde_json::{Value, json};

/// The model of a request that names none.
pub(crate) const DEFAULT: &str = "eleven_multilingual_v2";
/// The models, and the longest text that each takes, in characters.
const MODELS: [(&str, usize); 6] = [
    ("eleven_v3", 5_000),
    ("eleven_multilingual_v2", 10_000),
    ("eleven_flash_v2_5", 40_000),
    ("eleven_turbo_v2_5", 40_000),
    ("eleven_flash_v2", 30_000),
    ("eleven_turbo_v2", 30_000),
];
/// The voices: their ids and names. Any other id is taken as well.
const VOICES: [(&str, &str); 2] = [
    ("VoiceOfTheTests00001", "Ada"),
    ("VoiceOfTheTests00002", "Ben"),
];

/// Returns the longest text that a model takes, in characters; an unknown model takes the most.
pub(crate) fn text_limit(model: &str) -> usize {
    let known = MODELS.iter().find(|(id, _)| *id == model);
    known.map_or(40_000, |(_, limit)| *limit)
}

pub(crate) fn models() -> Value {
    let models = MODELS.iter().map(|(id, limit)| {
        let group = if id.contains("flash") || id.contains("turbo") {
            "turbo"
        } else {
            "standard"
        };
        json!({
            "model_id": id,
            "name": id,
            "can_do_text_to_speech": true,
            "can_do_voice_conversion": false,
            "maximum_text_length_per_request": limit,
            "concurrency_group": group,
            "languages": [{"language_id": "en", "name": "English"}],
        })
    });
    models.collect()
}

pub(crate) fn voices() -> Value {
    let voices = VOICES.iter().map(|(id, name)| {
        json!({
            "voice_id": id,
            "name": name,
            "category": "premade",
            "labels": {"language": "en"},
            "preview_url": null,
            "settings": null,
        })
    });
    json!({"voices": voices.collect::<Value>()})
}

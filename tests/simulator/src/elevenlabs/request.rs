//! A request for speech, and what is wrong with it.

use serde_json::{Value, json};
use url::form_urlencoded;

use super::format::{AudioFormat, Delivery};
use super::models;
use crate::http::{Answer, Request};
use crate::openrouter::ErrorCase;

/// What a request for speech asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Speech {
    pub(crate) delivery: Delivery,
    pub(crate) content: Content,
    pub(crate) format: AudioFormat,
    pub(crate) model: String,
    pub(crate) text: String,
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The audio itself.
    Audio,
    /// JSON with the audio in base64 and the time of each character.
    Timestamps,
}

impl Speech {
    /// Reads a request; the error is what the schema is told to have found.
    pub(crate) fn parse(request: &Request) -> Result<Self, Answer> {
        let (delivery, content) = endpoint(request.path()).ok_or_else(|| named("not_found"))?;
        let body: Value = serde_json::from_slice(&request.body).map_err(|error| {
            let at = error.column();
            invalid(
                "json_invalid",
                json!(["body", at]),
                "JSON decode error",
                &Value::Null,
            )
        })?;
        let format = query(request, "output_format");
        let format = match &format {
            None => AudioFormat::DEFAULT,
            Some(name) => {
                AudioFormat::offered(name, delivery).ok_or_else(|| unknown_format(name))?
            }
        };
        let Some(text) = body["text"].as_str() else {
            return Err(named("missing_text"));
        };
        check_settings(&body["voice_settings"])?;
        Ok(Self {
            delivery,
            content,
            format,
            model: body["model_id"]
                .as_str()
                .unwrap_or(models::DEFAULT)
                .to_owned(),
            text: text.to_owned(),
        })
    }

    /// Returns what is wrong with a request that is well formed.
    pub(crate) fn refusal(&self) -> Option<Answer> {
        let length = self.text.chars().count();
        let limit = models::text_limit(&self.model);
        if self.text.trim().is_empty() {
            return Some(named("invalid_request"));
        }
        (length > limit).then(|| {
            let message = format!("Text is longer than {limit} characters");
            let status = "max_character_limit_exceeded";
            Answer::json(
                400,
                &json!({"detail": {"status": status, "message": message}}),
            )
        })
    }
}

/// Returns the value of the first query parameter of this name.
pub(crate) fn query(request: &Request, name: &str) -> Option<String> {
    let (_, query) = request.target.split_once('?')?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(known, value)| (known == name).then(|| value.into_owned()))
}

/// Returns a known error of this API.
pub(crate) fn named(name: &str) -> Answer {
    match ErrorCase::named(&format!("elevenlabs:{name}")) {
        Some(case) => case.answer(),
        None => Answer::json(500, &json!({"detail": name})),
    }
}

/// Makes the answer to a request for a format that this way of delivery does not have.
pub(crate) fn unknown_format(name: &str) -> Answer {
    let place = json!(["query", "output_format"]);
    let message = "Input should be a known output format";
    invalid("enum", place, message, &json!(name))
}

/// Makes the answer to a request that the schema refuses.
fn invalid(kind: &str, place: Value, message: &str, input: &Value) -> Answer {
    let detail = json!([{"type": kind, "loc": place, "msg": message, "input": input}]);
    Answer::json(422, &json!({"detail": detail}))
}

fn endpoint(path: &str) -> Option<(Delivery, Content)> {
    let (_, rest) = path.split_once("/text-to-speech/")?;
    let (voice, rest) = rest.split_once('/').unwrap_or((rest, ""));
    if voice.is_empty() {
        return None;
    }
    Some(match rest {
        "" => (Delivery::Whole, Content::Audio),
        "stream" => (Delivery::Streamed, Content::Audio),
        "with-timestamps" => (Delivery::Whole, Content::Timestamps),
        "stream/with-timestamps" => (Delivery::Streamed, Content::Timestamps),
        _ => return None,
    })
}

/// Checks the settings that have a range, as far as they are given.
pub(crate) fn check_settings(settings: &Value) -> Result<(), Answer> {
    let ranges = [
        ("stability", 0.0, 1.0),
        ("similarity_boost", 0.0, 1.0),
        ("style", 0.0, 1.0),
        ("speed", 0.7, 1.2),
    ];
    for (name, least, most) in ranges {
        let value = &settings[name];
        if value.is_null() {
            continue;
        }
        let place = json!(["body", "voice_settings", name]);
        let Some(number) = value.as_f64() else {
            return Err(invalid(
                "float_type",
                place,
                "Input should be a valid number",
                value,
            ));
        };
        let (kind, word, context) = if number > most {
            (
                "less_than_equal",
                "less than or equal to",
                json!({"le": most}),
            )
        } else if number < least {
            (
                "greater_than_equal",
                "greater than or equal to",
                json!({"ge": least}),
            )
        } else {
            continue;
        };
        let bound = if number > most { most } else { least };
        let detail = json!([{
            "type": kind, "loc": place, "msg": format!("Input should be {word} {bound}"),
            "input": value, "ctx": context,
        }]);
        return Err(Answer::json(422, &json!({"detail": detail})));
    }
    Ok(())
}

//! What a transcription request is answered with.

use serde_json::{Value, json};

use super::form::{FormError, Upload};
use crate::http::{Answer, Request};
use crate::openrouter::{Api, ErrorCase, Script};
use crate::server::Shared;

/// The extensions that OpenAI takes.
const EXTENSIONS: [&str; 10] = [
    "flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm",
];

/// Returns what an upload of so many bytes is heard as when no script says else.
pub fn transcript(bytes: usize) -> String {
    format!("transcript of {bytes} bytes")
}

/// Refuses what the head and the size of a request are reason enough for.
pub(crate) fn refusal(shared: &Shared, request: &Request, api: Api) -> Option<Answer> {
    if request.method != "POST" {
        return Some(api.error(405).answer());
    }
    if api == Api::WhisperCpp {
        return None;
    }
    let (key, limit) = shared.whisper.bounds();
    let given = request.header("authorization");
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    if key.is_some() && key.as_deref() != given {
        return Some(named("openai:invalid_api_key"));
    }
    let read = request.body.len();
    (read > limit).then(|| {
        let message =
            format!("413: Maximum content size limit ({limit}) exceeded ({read} bytes read)");
        let mut answer = json!({"error": error(&message, "server_error", None, None)});
        answer["usage"] = json!({"type": "duration", "seconds": 0});
        Answer::json(413, &answer)
    })
}

/// Answers a form that could not be read.
pub(crate) fn unreadable(api: Api, error: &FormError) -> Answer {
    match (api, error) {
        (Api::WhisperCpp, _) => {
            Answer::json(400, &json!({"error": "no 'file' field in the request"}))
        }
        (_, FormError::NoFile) => {
            invalid("Missing required parameter: 'file'.", Some("file"), None)
        }
        (_, FormError::Malformed(error)) => invalid(&error.to_string(), None, None),
    }
}

/// Answers a form.
pub(crate) fn answer(api: Api, upload: &Upload, script: &Script) -> Answer {
    let format = upload.field("response_format").unwrap_or("json");
    if api == Api::OpenAi
        && let Some(refusal) = refused(upload, format)
    {
        return refusal;
    }
    let text = match script.exact_text() {
        Some(text) => text,
        // That server tells each segment with a space before it and a line end behind.
        None if api == Api::WhisperCpp => format!(" {}\n", transcript(upload.file.len())),
        None => transcript(upload.file.len()),
    };
    let duration = duration(&upload.file);
    match format {
        "text" if api == Api::WhisperCpp => Answer::new(200, "text/html; charset=utf-8", text),
        "text" => Answer::new(200, "text/plain; charset=utf-8", format!("{text}\n")),
        "verbose_json" => Answer::json(200, &verbose(upload, &text, duration)),
        _ if api == Api::WhisperCpp => Answer::json(200, &json!({"text": text})),
        _ => Answer::json(
            200,
            &json!({"text": text, "usage": usage(upload, &text, duration)}),
        ),
    }
    .header("x-request-id", "req_simulated")
}

/// Refuses a form as OpenAI does.
fn refused(upload: &Upload, format: &str) -> Option<Answer> {
    let Some(model) = upload.field("model") else {
        let message = "you must provide a model parameter";
        return Some(invalid(message, None, None));
    };
    let extension = upload
        .file_name
        .as_deref()
        .and_then(|name| name.rsplit_once('.'));
    if !extension.is_some_and(|(_, extension)| EXTENSIONS.contains(&extension)) {
        return Some(named("openai:invalid_format"));
    }
    if !["json", "text", "verbose_json"].contains(&format) {
        let message = format!("response_format '{format}' is not simulated");
        return Some(invalid(
            &message,
            Some("response_format"),
            Some("unsupported_value"),
        ));
    }
    if model.starts_with("gpt-4o") && format == "verbose_json" {
        let message = format!(
            "response_format 'verbose_json' is not compatible with model '{model}'. \
             Use 'json' or 'text' instead."
        );
        return Some(invalid(
            &message,
            Some("response_format"),
            Some("unsupported_value"),
        ));
    }
    (duration(&upload.file) < 0.1).then(|| named("openai:audio_too_short"))
}

/// Estimates how long a file is, in seconds: a WAV tells it, else 16,000 bytes are a second.
fn duration(file: &[u8]) -> f64 {
    let number = |at: usize| {
        let bytes = file.get(at..at + 4)?.try_into().ok()?;
        Some(f64::from(u32::from_le_bytes(bytes)))
    };
    match (file.starts_with(b"RIFF"), number(28)) {
        (true, Some(rate)) if rate > 0.0 && file.len() >= 44 => (file.len() - 44) as f64 / rate,
        _ => file.len() as f64 / 16_000.0,
    }
}

fn verbose(upload: &Upload, text: &str, duration: f64) -> Value {
    let language = match upload.field("language") {
        Some("de") => "german",
        Some("fr") => "french",
        Some("ja") => "japanese",
        Some("es") => "spanish",
        _ => "english",
    };
    json!({
        "task": "transcribe",
        "language": language,
        "duration": duration,
        "text": text,
        "segments": [{
            "id": 0, "seek": 0, "start": 0.0, "end": duration, "text": format!(" {text}"),
            "tokens": [50364, 50439], "temperature": 0.0, "avg_logprob": -0.3,
            "compression_ratio": 0.8, "no_speech_prob": 0.01,
        }],
        "usage": {"type": "duration", "seconds": duration.ceil()},
    })
}

fn usage(upload: &Upload, text: &str, duration: f64) -> Value {
    if upload.field("model") == Some("whisper-1") {
        return json!({"type": "duration", "seconds": duration.ceil()});
    }
    let (heard, told) = (
        (duration * 10.0).ceil() as u64,
        text.split(' ').count() as u64,
    );
    json!({
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": told,
        "total_tokens": heard + told,
    })
}

fn invalid(message: &str, param: Option<&str>, code: Option<&str>) -> Answer {
    let error = error(message, "invalid_request_error", param, code);
    Answer::json(400, &json!({"error": error}))
}

fn error(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"message": message, "type": kind, "param": param, "code": code})
}

fn named(name: &str) -> Answer {
    match ErrorCase::named(name) {
        Some(case) => case.answer(),
        None => Answer::json(500, &json!({"error": {"message": name}})),
    }
}

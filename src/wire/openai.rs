//! Events of OpenAI's audio streams (its API reference, "Streaming events" of audio).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{
    json::Object,
    sse::{data, line},
};

/// A piece of audio.
#[must_use]
pub fn audio_delta(audio: &[u8]) -> Bytes {
    line(
        data(audio.len() / 3 * 4)
            .escaped("type", "speech.audio.delta")
            .escaped("audio", &STANDARD.encode(audio)),
    )
}

/// All of the audio was told. OpenAI tells tokens here, which nothing is charged by.
#[must_use]
pub fn audio_done() -> Bytes {
    let usage = r#"{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#;
    line(
        data(0)
            .escaped("type", "speech.audio.done")
            .raw("usage", usage),
    )
}

/// What was heard.
#[must_use]
pub fn transcript_delta(text: &str) -> Bytes {
    line(
        data(text.len())
            .escaped("type", "transcript.text.delta")
            .string("delta", text),
    )
}

/// All that was heard.
#[must_use]
pub fn transcript_done(text: &str) -> Bytes {
    line(
        data(text.len())
            .escaped("type", "transcript.text.done")
            .string("text", text),
    )
}

/// Nothing more comes; `error` is an object of OpenAI's shape, which its SDKs raise.
#[must_use]
pub fn failed(error: &str) -> Bytes {
    line(Object::raw(data(error.len()), "error", error))
}

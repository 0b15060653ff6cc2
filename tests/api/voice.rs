//! Speaking and listening, over real sockets, with the simulated ElevenLabs and Whisper.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use idol_simulator::elevenlabs::{AudioFormat, voice_audio};
use serde_json::Value;

use crate::helpers::{Setup, TestApp};

mod barge_in;
mod chaos;
mod listening;
mod openai;
mod sdk;
mod sockets;
mod sound;
mod stream;
mod transcribe;
mod tts;
mod uploads;
mod usage;

/// A server that speaks and listens.
async fn voiced() -> TestApp {
    Setup::new().voiced().start().await
}

/// What the simulator makes of a text.
fn audio_of(text: &str, format: &str) -> Vec<u8> {
    voice_audio(text, AudioFormat::named(format).unwrap())
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

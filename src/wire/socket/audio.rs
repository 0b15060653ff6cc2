//! What a client is told of speech over `/ws/chat`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use idol_actors::{
    error::EngineError,
    id::TurnId,
    speaker::Sums,
    voice::{alignment::TimedChar, format::AudioFormat},
};

use super::told::typed;
use crate::{error::public, wire::json::Object};

/// `audio`: a piece of a spoken reply, as text.
#[must_use]
pub fn audio(spelled: &str, turn: TurnId, piece: &AudioPiece<'_>, format: AudioFormat) -> String {
    audio_head(spelled, turn, piece, format)
        .escaped("audio_base64", &STANDARD.encode(piece.audio))
        .end()
}

/// `audio` before a binary frame: all but the audio.
#[must_use]
pub fn audio_head_alone(
    spelled: &str,
    turn: TurnId,
    piece: &AudioPiece<'_>,
    format: AudioFormat,
) -> String {
    audio_head(spelled, turn, piece, format)
        .number("audio_size_bytes", piece.audio.len())
        .end()
}

/// A piece of a spoken reply.
#[derive(Debug, Clone, Copy)]
pub struct AudioPiece<'a> {
    /// Counts what is told of the reply.
    pub sequence: u32,
    /// Counts its sentences.
    pub sentence: u32,
    /// The sentence.
    pub text: &'a str,
    /// The audio.
    pub audio: &'a [u8],
    /// Times of the characters that came with it.
    pub timed: &'a [TimedChar],
}

fn audio_head(spelled: &str, turn: TurnId, piece: &AudioPiece<'_>, format: AudioFormat) -> Object {
    let bytes = piece.audio.len() / 3 * 4 + piece.text.len() + piece.timed.len() * 16;
    let object = typed("audio", spelled, bytes)
        .shown("turn_id", turn)
        .number("sequence", piece.sequence)
        .number("sentence", piece.sentence)
        .string("text", piece.text)
        .escaped("format", format.as_str());
    if piece.timed.is_empty() {
        return object;
    }
    let numbers = |of: fn(&TimedChar) -> u32| {
        let numbers: Vec<_> = piece.timed.iter().map(|it| of(it).to_string()).collect();
        format!("[{}]", numbers.join(","))
    };
    let chars = piece.timed.iter().map(|it| it.c.to_string());
    let chars = serde_json::to_string(&chars.collect::<Vec<_>>()).unwrap_or_default();
    let alignment = Object::with_capacity(piece.timed.len() * 16)
        .raw("chars", &chars)
        .raw("char_start_times_ms", &numbers(|it| it.start_ms))
        .raw("char_durations_ms", &numbers(|it| it.duration_ms))
        .end();
    object.raw("alignment", &alignment)
}

/// A binary frame: the turn's UUID, the sequence number (big-endian), the audio.
#[must_use]
pub fn audio_frame(turn: TurnId, sequence: u32, audio: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(20 + audio.len());
    frame.extend_from_slice(turn.0.as_bytes());
    frame.extend_from_slice(&sequence.to_be_bytes());
    frame.extend_from_slice(audio);
    frame.into()
}

/// `audio_error`: there is no audio, or no more, of one sentence.
#[must_use]
pub fn audio_error(
    spelled: &str,
    turn: TurnId,
    (sequence, sentence): (u32, u32),
    error: &EngineError,
) -> String {
    let public = public(error);
    typed("audio_error", spelled, 64)
        .shown("turn_id", turn)
        .number("sequence", sequence)
        .number("sentence", sentence)
        .string("error", &public.sentence)
        .escaped("code", public.code)
        .maybe(public.retry_after, |it, wait| {
            it.number("retry_after", wait)
        })
        .end()
}

/// `audio_complete`: all of a reply was told, which this model spoke.
#[must_use]
pub fn audio_complete(spelled: &str, turn: TurnId, sums: &Sums, model: &str) -> String {
    typed("audio_complete", spelled, 64)
        .shown("turn_id", turn)
        .number("duration_ms", sums.duration.as_millis())
        .number("characters", sums.characters)
        .string("model", model)
        .end()
}

/// `audio_stop`: nothing more comes of a spoken reply; what waits to be played is to be dropped.
#[must_use]
pub fn audio_stop(spelled: &str, turn: TurnId) -> String {
    typed("audio_stop", spelled, 64)
        .shown("turn_id", turn)
        .end()
}

/// `transcript`: what was heard.
#[must_use]
pub fn transcript(spelled: &str, text: &str, client_message_id: Option<&str>) -> String {
    typed("transcript", spelled, text.len())
        .string("text", text)
        .maybe(client_message_id, |it, id| {
            it.string("client_message_id", id)
        })
        .end()
}

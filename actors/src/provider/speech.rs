//! What a provider of speech promises, and what it is asked.
//!
//! A provider is an actor that answers [`Speak`], and reports to the `Recipient` handed to it.

use std::{fmt, sync::Arc};

use actix::{Message, Recipient};
use bytes::Bytes;

use super::{Generation, UpstreamError};
use crate::voice::{alignment::TimedChar, format::AudioFormat};

/// Asks for a text to be spoken. The answer is a guard: dropping it closes the upstream call at
/// once.
#[derive(Message)]
#[rtype(result = "Generation")]
pub struct Speak {
    /// The listener's number for it, repeated in every [`Spoken`].
    pub number: u64,
    /// What is spoken.
    pub text: Arc<str>,
    /// What was spoken just before, so that the voice goes on in its tone; empty: nothing.
    pub before: Arc<str>,
    /// How.
    pub voice: Arc<Voice>,
    /// Whether it is to be told when each character is heard.
    pub timing: Timing,
    /// What it goes before.
    pub urgency: Urgency,
    /// Where it goes: one message per network read, the last with an `end`. A full mailbox holds
    /// up the call, and with it the network.
    pub reply_to: Recipient<Spoken>,
}

impl fmt::Debug for Speak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speak")
            .field("number", &self.number)
            .field("bytes", &self.text.len())
            .field("voice", &self.voice)
            .finish_non_exhaustive()
    }
}

/// A voice, and how it speaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Voice {
    /// The provider's id of the voice.
    pub voice_id: String,
    /// The provider's id of the model that speaks.
    pub model_id: String,
    /// How the audio is coded.
    pub format: AudioFormat,
    /// From 0, lively, to 1, even.
    pub stability: f64,
    /// How close to the original, from 0 to 1.
    pub similarity_boost: f64,
    /// How much of the original's style, from 0 to 1.
    pub style: f64,
    /// Whether likeness is boosted, at the cost of time.
    pub use_speaker_boost: bool,
    /// From 0.7 to 1.2; none: the voice's own.
    pub speed: Option<f64>,
}

/// Whether it is told when each character is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Audio alone.
    Plain,
    /// Each character with its time.
    Aligned,
}

/// What goes before what where there is no room for all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for the first sound of a reply.
    First,
    /// There is something to listen to meanwhile.
    Later,
}

/// What one network read brought. The last one of a call has an `end`, and nothing follows it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Spoken {
    /// The number in [`Speak`].
    pub number: u64,
    /// Audio, in order. Empty with some ends alone.
    pub audio: Bytes,
    /// When the characters are heard that the text goes on with, if that was asked for.
    pub timed: Vec<TimedChar>,
    /// Set on the last message: how it ended.
    pub end: Option<Result<SpeechEnd, UpstreamError>>,
}

/// How a speech ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechEnd {
    /// Characters that the provider charges for.
    pub characters: u64,
}

//! What a provider of transcription promises, and what it is asked.

use std::fmt;

use actix::Message;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Generation, UpstreamError};

/// Asks for audio to be written down. The answer is a guard: dropping it closes the upstream call
/// at once.
#[derive(Message)]
#[rtype(result = "Generation")]
pub struct Transcribe {
    /// What is uploaded, as it comes; the last is [`UploadPart::End`]. A sender that is dropped
    /// before that gives the upload up.
    pub parts: mpsc::Receiver<UploadPart>,
    /// Where the transcript goes.
    pub answer: oneshot::Sender<Result<Transcript, UpstreamError>>,
}

impl fmt::Debug for Transcribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transcribe")
    }
}

/// A part of an upload: a form's fields in any order, and one file, in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadPart {
    /// A field: `model`, `language`, `prompt`, `temperature`, `response_format`, …
    Field {
        /// Its name; letters, digits, `_`, `[` and `]`.
        name: String,
        /// Its value.
        value: String,
    },
    /// The file begins.
    File {
        /// Its name, whose ending tells the format.
        name: String,
        /// Its media type.
        content_type: String,
    },
    /// A piece of the file that began last.
    Audio(Bytes),
    /// All is there.
    End,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The text: trimmed, on one line.
    pub text: String,
    /// Seconds of audio, where the upstream tells them.
    pub seconds: Option<f64>,
    /// The answer as it came, and its media type.
    pub raw: (Bytes, String),
}

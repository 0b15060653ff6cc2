//! The handle with which a test steers the simulated transcription.

use std::sync::Arc;

use super::form::Upload;
use crate::openrouter::{Route, Script};
use crate::server::Shared;

/// The simulated transcription of a [`Simulator`](crate::Simulator).
#[derive(Debug, Clone)]
pub struct Whisper {
    shared: Arc<Shared>,
}

impl Whisper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Queues what the next transcription shall do; [`Script::text`] is what is heard.
    pub fn script(&self, script: impl Into<Script>) {
        self.shared
            .openrouter
            .queue(Route::Transcription, script.into());
    }

    /// Sets what a transcription does that nothing else speaks for.
    pub fn set_default(&self, script: impl Into<Script>) {
        self.shared
            .openrouter
            .set_default(Route::Transcription, script.into());
    }

    /// Sets the bearer key that requests must carry from now on; `None`, as at the start, asks
    /// for none. whisper.cpp's route never asks for one.
    pub fn require_key(&self, key: Option<&str>) {
        self.shared.whisper.require_key(key.map(str::to_owned));
    }

    /// Sets the longest request body in bytes, the form around the file included; 26,214,400 at
    /// the start. whisper.cpp's route has none.
    pub fn limit_bytes(&self, limit: usize) {
        self.shared.whisper.limit_bytes(limit);
    }

    /// Returns the last uploads, oldest first, those that were answered with an error included.
    ///
    /// That one has begun, and how much of it has arrived, is in [`Counters`](crate::Counters):
    /// `audio_uploads_begun` and `audio_bytes_received`.
    pub fn uploads(&self) -> Vec<Arc<Upload>> {
        self.shared.whisper.uploads()
    }
}

//! The key and the limit of the simulated transcription, and what was uploaded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::form::Upload;

/// The longest request body that OpenAI takes, in bytes.
const BODY_MAX: usize = 26_214_400;
/// The most uploads kept.
const KEPT: usize = 1024;
/// The most bytes of files kept; the newest upload is kept whatever its size.
const KEPT_BYTES: usize = 256 * 1024 * 1024;

/// What tests have told the simulated transcription, and what clients have.
#[derive(Debug)]
pub(crate) struct State {
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    key: Option<String>,
    limit: usize,
    uploads: VecDeque<Arc<Upload>>,
    bytes: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            told: Mutex::new(Told {
                key: None,
                limit: BODY_MAX,
                uploads: VecDeque::new(),
                bytes: 0,
            }),
        }
    }
}

impl State {
    pub(crate) fn require_key(&self, key: Option<String>) {
        self.lock().key = key;
    }

    pub(crate) fn limit_bytes(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Returns the key and the longest body in bytes.
    pub(crate) fn bounds(&self) -> (Option<String>, usize) {
        let told = self.lock();
        (told.key.clone(), told.limit)
    }

    pub(crate) fn keep(&self, upload: Arc<Upload>) {
        let mut told = self.lock();
        told.bytes += upload.file.len();
        told.uploads.push_back(upload);
        while told.uploads.len() > KEPT || (told.bytes > KEPT_BYTES && told.uploads.len() > 1) {
            let oldest = told.uploads.pop_front();
            told.bytes -= oldest.map_or(0, |oldest| oldest.file.len());
        }
    }

    pub(crate) fn uploads(&self) -> Vec<Arc<Upload>> {
        self.lock().uploads.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

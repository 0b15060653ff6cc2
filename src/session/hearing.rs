//! A transcription that a session feeds.

use actix::Recipient;
use idol_actors::{
    error::EngineError,
    provider::{
        Generation, UpstreamError,
        hearing::{Transcribe, Transcript, UploadPart},
    },
};
use tokio::sync::{mpsc, oneshot};

/// Pieces of an upload that wait to be passed on; with more, its client is not read from.
const PIECES_AHEAD: usize = 8;

/// A transcription under way. Dropping it closes the upstream call.
#[derive(Debug)]
pub struct Hearing {
    parts: mpsc::Sender<UploadPart>,
    answer: oneshot::Receiver<Result<Transcript, UpstreamError>>,
    _call: Generation,
}

impl Hearing {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// The provider is gone.
    pub async fn begin(provider: &Recipient<Transcribe>) -> Result<Self, EngineError> {
        let (parts, receiver) = mpsc::channel(PIECES_AHEAD);
        let (sender, answer) = oneshot::channel();
        let transcribe = Transcribe {
            parts: receiver,
            answer: sender,
        };
        let call = provider
            .send(transcribe)
            .await
            .map_err(|_gone| EngineError::Overloaded)?;
        Ok(Self {
            parts,
            answer,
            _call: call,
        })
    }

    /// Passes a part on, once there is room. What is not taken any more is dropped: the answer
    /// tells why.
    pub async fn pass(&self, part: UploadPart) {
        if self.parts.send(part).await.is_err() {
            tracing::debug!("the rest of an upload is not wanted");
        }
    }

    /// Where parts are passed on.
    #[must_use]
    pub fn parts(&self) -> &mpsc::Sender<UploadPart> {
        &self.parts
    }

    /// Whether nothing more is wanted: it was answered, or nothing more is taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // An upload that was refused amid it is still read to its end by some upstreams.
        !self.answer.is_empty() || self.parts.is_closed()
    }

    /// What was heard, once all is there.
    ///
    /// # Errors
    ///
    /// The upstream failed or refused it.
    pub async fn end(self) -> Result<Transcript, EngineError> {
        self.pass(UploadPart::End).await;
        let heard = self.answer.await.map_err(|_gone| EngineError::Restarted)?;
        heard.map_err(EngineError::Upstream)
    }
}

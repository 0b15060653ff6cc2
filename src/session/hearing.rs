//! A transcription that a session feeds.

use std::time::Duration;

use actix::Recipient;
use idol_actors::{
    error::EngineError,
    provider::{
        Generation, Upstream, UpstreamError, UpstreamErrorKind,
        hearing::{Transcribe, Transcript, UploadPart},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Pieces of an upload that wait to be passed on; with more, its client is not read from.
const PIECES_AHEAD: usize = 8;

/// Longest time that a piece may wait for the upstream to take it.
const PASS_DEADLINE: Duration = Duration::from_secs(10);

/// A transcription under way. Dropping it closes the upstream call.
#[derive(Debug)]
pub struct Hearing {
    parts: mpsc::Sender<UploadPart>,
    answer: Answer,
    _call: Generation,
}

#[derive(Debug)]
enum Answer {
    Awaited(oneshot::Receiver<Result<Transcript, UpstreamError>>),
    Here(Result<Transcript, EngineError>),
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
            answer: Answer::Awaited(answer),
            _call: call,
        })
    }

    /// Passes a part on, once there is room. What is not taken any more is dropped: the answer
    /// tells why.
    ///
    /// # Errors
    ///
    /// The upstream takes nothing for too long.
    pub async fn pass(&self, part: UploadPart) -> Result<(), EngineError> {
        pass(&self.parts, part).await
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
        let answered = match &self.answer {
            Answer::Awaited(answer) => !answer.is_empty(),
            Answer::Here(_) => true,
        };
        answered || self.parts.is_closed()
    }

    /// Whether nothing can be heard of it. To be asked once it is over: the answer is there, or comes.
    pub async fn is_refused(&mut self) -> bool {
        if let Answer::Awaited(answer) = &mut self.answer {
            let answer = received(answer.await);
            self.answer = Answer::Here(answer);
        }
        matches!(self.answer, Answer::Here(Err(_)))
    }

    /// What was heard, once all is there.
    ///
    /// # Errors
    ///
    /// The upstream failed or refused it.
    pub async fn end(self) -> Result<Transcript, EngineError> {
        self.pass(UploadPart::End).await?;
        match self.answer {
            Answer::Awaited(answer) => received(answer.await),
            Answer::Here(answer) => answer,
        }
    }
}

fn received(
    answer: Result<Result<Transcript, UpstreamError>, oneshot::error::RecvError>,
) -> Result<Transcript, EngineError> {
    let answer = answer.map_err(|_gone| EngineError::Restarted)?;
    answer.map_err(EngineError::Upstream)
}

/// See [`Hearing::pass`].
pub(super) async fn pass(
    parts: &mpsc::Sender<UploadPart>,
    part: UploadPart,
) -> Result<(), EngineError> {
    match timeout(PASS_DEADLINE, parts.send(part)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_closed)) => {
            tracing::debug!("the rest of an upload is not wanted");
            Ok(())
        }
        Err(_elapsed) => Err(EngineError::Upstream(UpstreamError {
            upstream: Upstream::Whisper,
            kind: UpstreamErrorKind::Timeout,
            message: "The transcription provider takes no more audio".to_owned(),
            retry_after: None,
            retryable: None,
            too_long: None,
        })),
    }
}

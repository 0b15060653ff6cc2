//! One transcription: the upload passed on as it comes, and its answer.

use std::{
    cell::Cell,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use reqwest::{
    Body, Response,
    header::{CONTENT_TYPE, HeaderMap},
};
use tokio::{
    select,
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Target, form::Form, length::Length, transcript};
use crate::provider::{
    Upstream, UpstreamError, UpstreamErrorKind,
    attempts::{Attempts, Next, Reached},
    breaker::CallEnd,
    endpoint::{Refusal, read_body},
    failure,
    hearing::{Transcribe, Transcript, UploadPart},
    protection::{Call, Counted, Payment, Protection, Went},
    report::Report,
};

/// Longest answer: some hours of speech with the time of each word.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A transcription that is asked for.
pub(super) struct Transcribing {
    pub(super) target: Arc<Target>,
    pub(super) protection: Arc<Protection>,
}

/// The upload, which one request after another may try to send, until one has begun to.
#[derive(Clone)]
struct Upload {
    source: Arc<Mutex<Source>>,
    /// Of what was sent. The source is locked while it waits for more.
    length: Arc<std::sync::Mutex<Length>>,
    /// Set when the first byte is asked for: from then on it cannot be sent again.
    begun: Arc<AtomicBool>,
    /// Set when there is an answer: who answers early may go on taking the upload.
    over: CancellationToken,
    content_type: Arc<str>,
}

struct Source {
    parts: mpsc::Receiver<UploadPart>,
    form: Form,
    length: Arc<std::sync::Mutex<Length>>,
    /// Told when the last part is taken.
    whole: Option<oneshot::Sender<()>>,
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Parts,
    Nothing,
}

/// Whether a failure is the upstream's own: it had the whole upload, or has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    No,
    Yes,
}

/// The client gave the upload up.
#[derive(Debug, thiserror::Error)]
#[error("the upload was given up")]
struct GivenUp;

impl Transcribing {
    /// Runs to the end, and answers unless nobody waits.
    pub(super) async fn run(self, transcribe: Transcribe) {
        let Transcribe { parts, answer } = transcribe;
        let (whole_sender, uploaded) = oneshot::channel();
        let form = Form::new(self.target.defaults.clone());
        let length = Arc::<std::sync::Mutex<Length>>::default();
        let upload = Upload {
            content_type: form.content_type().into(),
            begun: Arc::default(),
            over: CancellationToken::new(),
            length: length.clone(),
            source: Arc::new(Mutex::new(Source {
                parts,
                form,
                length,
                whole: Some(whole_sender),
                left: Left::Parts,
            })),
        };
        let whole = Instant::now() + self.target.deadlines.whole;
        let _over = upload.over.clone().drop_guard();
        let ended = self.ask(&upload, uploaded, whole).await;
        // Who is gone waits for nothing.
        drop(answer.send(ended));
    }

    async fn ask(
        &self,
        upload: &Upload,
        mut uploaded: oneshot::Receiver<()>,
        whole: Instant,
    ) -> Result<Transcript, UpstreamError> {
        let model: Arc<str> = self.target.defaults.model.as_str().into();
        let mut attempts = Attempts::new(self.target.retry, 1);
        let mut paid: Option<Payment> = None;
        loop {
            let error = match self.protection.admit(&model, whole).await {
                Err(error) => error,
                Ok(out) => {
                    attempts.asked();
                    let (ended, went) = self.request(upload, &mut uploaded, whole, &out).await;
                    out.ended(went);
                    match ended {
                        Ok(transcript) => {
                            if paid.is_none() {
                                self.protection.earned();
                            }
                            return Ok(upload.measured(transcript));
                        }
                        Err(error) => error,
                    }
                }
            };
            if let Some(paid) = paid.take() {
                paid.lose();
            }
            // What was sent in part is gone.
            if upload.begun.load(Ordering::Acquire) {
                return Err(error);
            }
            match attempts.failed(&error, Reached::Nothing, fastrand::f64()) {
                Next::Ask { after, .. } if Instant::now() + after < whole => {
                    paid = self.protection.pay();
                    if paid.is_none() {
                        return Err(error);
                    }
                    self.protection.count(Counted::Retry);
                    sleep_until(Instant::now() + after).await;
                }
                Next::Ask { .. } | Next::GiveUp => return Err(error),
            }
        }
    }

    async fn request(
        &self,
        upload: &Upload,
        uploaded: &mut oneshot::Receiver<()>,
        whole: Instant,
        out: &Call,
    ) -> (Result<Transcript, UpstreamError>, Went) {
        let http = &self.target.http;
        let request = http
            .post(&self.target.path)
            .header(CONTENT_TYPE, &*upload.content_type)
            .body(Body::wrap_stream(upload.clone().bytes()))
            .send();
        let answered = Cell::new(Blame::No);
        let answer = async {
            let response = request.await.map_err(|error| {
                let reach = match error.is_connect() {
                    true => CallEnd::Badly,
                    false => CallEnd::Well,
                };
                (http.transport(&error), reach)
            })?;
            out.reached();
            answered.set(Blame::Yes);
            if !response.status().is_success() {
                let refusal = http.refusal(response, whole).await;
                return Err((refused(refusal), CallEnd::Well));
            }
            read(response).await.map_err(|error| (error, CallEnd::Well))
        };
        tokio::pin!(answer);
        let late = || {
            let error = failure::timed_out(Upstream::Whisper, "did not answer in time");
            Err((error, CallEnd::Well))
        };
        // Until the upload is whole, its client's deadline and the whole one count; and what breaks
        // off by then may do so for a client that says nothing more.
        let mut whole_sent = Blame::No;
        let ended = select! {
            ended = answer.as_mut() => ended,
            _ = &mut *uploaded => {
                whole_sent = Blame::Yes;
                let until = whole.min(Instant::now() + self.target.deadlines.answer);
                timeout_at(until, answer.as_mut()).await.unwrap_or_else(|_| late())
            }
            () = sleep_until(whole) => late(),
        };
        match ended {
            Ok(transcript) => {
                let reach = CallEnd::Well;
                (
                    Ok(transcript),
                    Went {
                        reach,
                        model: CallEnd::Well,
                    },
                )
            }
            Err((error, reach)) => {
                let is_its = [whole_sent, answered.get()].contains(&Blame::Yes);
                let model = match reach {
                    CallEnd::Well if is_its => CallEnd::of(&error.kind),
                    CallEnd::Well | CallEnd::Badly | CallEnd::Neither => CallEnd::Neither,
                };
                (Err(error), Went { reach, model })
            }
        }
    }
}

impl Upload {
    /// A transcript with the length of what was heard, if the upstream did not tell it.
    fn measured(&self, transcript: Transcript) -> Transcript {
        let length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
        Transcript {
            seconds: transcript.seconds.or_else(|| length.seconds()),
            ..transcript
        }
    }

    /// The bytes of the form, as its parts come.
    fn bytes(self) -> impl Stream<Item = Result<Bytes, GivenUp>> + Send + 'static {
        let pieces = stream::unfold(self, |upload| async move {
            upload.begun.store(true, Ordering::Release);
            let next = async { upload.source.lock().await.next().await };
            let pieces = upload.over.run_until_cancelled(next).await;
            Some((pieces.unwrap_or(Some(Err(GivenUp)))?, upload))
        });
        pieces.flat_map(|pieces| match pieces {
            Ok(pieces) => stream::iter(pieces.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(given_up) => stream::iter(vec![Err(given_up)]),
        })
    }
}

impl Source {
    async fn next(&mut self) -> Option<Result<Vec<Bytes>, GivenUp>> {
        if self.left == Left::Nothing {
            return None;
        }
        let Some(part) = self.parts.recv().await else {
            self.left = Left::Nothing;
            return Some(Err(GivenUp));
        };
        if part == UploadPart::End {
            self.left = Left::Nothing;
            if let Some(whole) = self.whole.take() {
                // Who does not wait for the answer need not know.
                let _gone = whole.send(());
            }
        }
        if let UploadPart::Audio(bytes) = &part {
            let mut length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
            length.push(bytes);
        }
        Some(Ok(self.form.write(part)))
    }
}

async fn read(response: Response) -> Result<Transcript, UpstreamError> {
    let media = media(response.headers());
    let mut body = Vec::new();
    read_body(Upstream::Whisper, response, ANSWER_BYTES_MAX, &mut body).await?;
    transcript::read(&media, body.into())
}

fn media(headers: &HeaderMap) -> String {
    let media = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    media.unwrap_or("application/json").to_ascii_lowercase()
}

/// Says what of our request was wrong where the general table knows too little.
fn refused(
    Refusal {
        error,
        status,
        body,
    }: Refusal,
) -> UpstreamError {
    let report = Report::read(&body);
    let kind = match error.kind {
        UpstreamErrorKind::Rejected if report.has_word("audio_too_short") => {
            UpstreamErrorKind::AudioTooShort
        }
        UpstreamErrorKind::Rejected if status == 413 => UpstreamErrorKind::TooLarge,
        kind => kind,
    };
    UpstreamError { kind, ..error }
}

//! One speech: as many requests as it takes until its first audio, within bounds.

use std::{sync::Arc, time::Duration};

use actix::prelude::SendError;
use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    call::{Cue, Failed, Gone, Reached, call},
    config::Target,
    room::SpeechRoom,
};
use crate::provider::{
    UpstreamError,
    attempts::{self, Attempts, Next},
    protection::{Counted, Payment, Protection},
    speech::{Speak, SpeechEnd, Spoken},
};

/// Between two looks whether the account may speak again. ElevenLabs itself queues for some 50 ms.
const CROWDED_WAIT: Duration = Duration::from_millis(200);

/// A speech that is asked for.
pub(super) struct Speaking {
    pub(super) target: Arc<Target>,
    pub(super) protection: Arc<Protection>,
    pub(super) room: Arc<SpeechRoom>,
    pub(super) speak: Speak,
}

impl Speaking {
    /// Runs to the end. Exactly one message has an `end`, and it is the last, unless the listener
    /// is gone.
    pub(super) async fn run(self) {
        let whole = Instant::now() + self.target.deadlines.whole;
        let Ok(end) = self.ask(whole).await else {
            // Nobody listens: there is nothing left to stop.
            return;
        };
        let last = Spoken {
            number: self.speak.number,
            audio: Bytes::new(),
            timed: Vec::new(),
            end: Some(end),
        };
        if let Err(SendError::Full(last)) = self.speak.reply_to.try_send(last) {
            // Who does not take it by then has stopped to listen.
            drop(timeout_at(whole, self.speak.reply_to.send(last)).await);
        }
    }

    async fn ask(&self, whole: Instant) -> Result<Result<SpeechEnd, UpstreamError>, Gone> {
        let model: Arc<str> = self.speak.voice.model_id.as_str().into();
        let mut attempts = Attempts::new(self.target.retry, 1);
        let mut paid: Option<Payment> = None;
        let queued = whole.min(Instant::now() + self.target.deadlines.queue);
        let _place = match self.room.enter(self.speak.urgency, queued).await {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let mut first_audio = FirstAudio::new(self, whole);
        loop {
            let failed = match self.protection.admit(&model, whole).await {
                Err(error) => Failed {
                    error,
                    reached: Reached::Nothing,
                    cue: Cue::None,
                },
                Ok(out) => {
                    attempts.asked();
                    let deadlines = (first_audio.next(), whole);
                    let called = call(&self.target, &self.speak, deadlines, &out).await?;
                    out.ended(called.went);
                    match called.end {
                        Ok(end) => {
                            if paid.is_none() {
                                self.protection.earned();
                            }
                            return Ok(Ok(end));
                        }
                        Err(failed) => failed,
                    }
                }
            };
            if let Some(paid) = paid.take() {
                paid.lose();
            }
            let until = match failed.cue {
                Cue::Crowded => {
                    // No work was done: nothing is repeated.
                    attempts = Attempts::new(self.target.retry, 1);
                    first_audio = FirstAudio::new(self, whole);
                    let until = Instant::now() + CROWDED_WAIT.mul_f64(0.5 + fastrand::f64());
                    Some(until).filter(|until| *until < queued)
                }
                Cue::None => {
                    let after = self.next(&mut attempts, &failed);
                    paid = after.and_then(|_| self.protection.pay());
                    let until = after.map(|after| Instant::now() + after);
                    until.filter(|until| *until < first_audio.last && paid.is_some())
                }
            };
            let Some(until) = until else {
                return Ok(Err(failed.error));
            };
            self.protection.count(Counted::Retry);
            sleep_until(until).await;
        }
    }

    /// How long until it is asked for again; none: the failure stands.
    fn next(&self, attempts: &mut Attempts, failed: &Failed) -> Option<Duration> {
        // What was heard cannot be begun again.
        if failed.reached == Reached::Audio {
            return None;
        }
        match attempts.failed(&failed.error, attempts::Reached::Nothing, fastrand::f64()) {
            Next::Ask { after, .. } => Some(after),
            Next::GiveUp => None,
        }
    }
}

/// Until when a first sound is awaited.
struct FirstAudio {
    /// By the request that goes out next.
    next: Instant,
    /// By the last one.
    last: Instant,
}

impl FirstAudio {
    fn new(speaking: &Speaking, whole: Instant) -> Self {
        if !speaking.speak.voice.format.is_for_streams() {
            // All of it is made before the first of it is sent.
            return Self {
                next: whole,
                last: whole,
            };
        }
        let wait = speaking.target.deadlines.first_audio;
        let now = Instant::now();
        Self {
            // One that is never answered leaves time for another.
            next: whole.min(now + wait / 2),
            last: whole.min(now + wait),
        }
    }

    /// For one request; those behind it have what is left.
    fn next(&mut self) -> Instant {
        std::mem::replace(&mut self.next, self.last)
    }
}

//! A reply that is spoken into the answer of a request while it is written.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient,
    WrapFuture, prelude::SendError,
};
use bytes::Bytes;
use idol_actors::{
    accounting::VoiceAccount,
    conversation::{
        command::{Deliver, Hush, Listener, StartTurn, Started, Want},
        event::EventBody,
    },
    error::EngineError,
    handle::ConversationHandle,
    json_text::unescape,
    limits,
    provider::speech::{Speak, Timing, Voice},
    speaker::{More, Over, Piece, Silence, Speaker, SpeakerConfig, Voiced},
    voice::segmenter::SegmenterOptions,
};
use tokio::{sync::mpsc, time::timeout_at};

use super::{Broken, CreditBook, Given, pace::Pace};

/// Pieces that wait for whoever takes them; with more, nothing is synthesised.
const PIECES_AHEAD: usize = 2;

/// The session's number for its one attachment.
const ATTACHMENT: u64 = 0;

/// Audio of a reply, as it comes.
pub type AudioPieces = mpsc::Receiver<AudioPiece>;

/// A piece of it; none: that was all.
pub type AudioPiece = Result<Option<Bytes>, EngineError>;

/// The next piece; none at the end.
///
/// # Errors
///
/// The voice failed, or is gone without its end: it was not listened to in time.
pub async fn next(pieces: &mut AudioPieces) -> AudioPiece {
    pieces.recv().await.unwrap_or(Err(EngineError::Restarted))
}

/// How a reply is spoken.
#[derive(Debug)]
pub struct Speaking {
    /// Who speaks.
    pub provider: Recipient<Speak>,
    /// With which voice.
    pub voice: Arc<Voice>,
    /// Where characters are counted.
    pub account: VoiceAccount,
}

struct TtsStreamSession {
    book: Rc<RefCell<CreditBook>>,
    speaker: Option<Addr<Speaker>>,
    speaking: Option<(Speaking, StartedTurn)>,
    pace: Pace,
    pieces: Option<mpsc::Sender<AudioPiece>>,
}

type StartedTurn = idol_actors::id::TurnId;

/// Starts a turn, and has its reply spoken. Dropping the audio stops the voice; the turn goes on.
///
/// # Errors
///
/// The turn is not begun.
pub async fn stream(
    conversation: &ConversationHandle,
    command: StartTurn,
    speaking: Speaking,
) -> Result<(Started, AudioPieces), EngineError> {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let book = Rc::new(RefCell::new(CreditBook::default()));
    let session = TtsStreamSession {
        book: book.clone(),
        speaker: None,
        pace: Pace::of(speaking.voice.format),
        speaking: Some((speaking, command.turn)),
        pieces: Some(sender),
    }
    .start();
    let listener = Listener {
        attachment: ATTACHMENT,
        sink: session.clone().recipient(),
        want: Want::Everything,
        credit: limits::CREDIT_WINDOW,
    };
    book.borrow_mut().expect(ATTACHMENT, Given::Window);
    let mut started = conversation.start_turn(command, Some(listener)).await?;
    let mut attachment = started.attachment.take().ok_or(EngineError::Restarted)?;
    let lifeline = Lifeline(Box::pin(attachment.lifeline()));
    book.borrow_mut().open(ATTACHMENT, attachment);
    hand_over(&session, lifeline)?;
    // Whoever cancels the turn silences it, also when its text is whole.
    let attends = conversation.attend(started.turn, session.recipient()).await;
    if let Err(error) = attends {
        tracing::debug!(%error, turn = %started.turn, "who cancels does not silence a voice");
    }
    Ok((started, pieces))
}

/// Gives the session the lifeline of its attachment. A session that has ended meanwhile, as its
/// voice failed at once, needs none: what it had to tell stands in its pieces.
fn hand_over(session: &Addr<TtsStreamSession>, lifeline: Lifeline) -> Result<(), EngineError> {
    match session.try_send(lifeline) {
        Ok(()) | Err(SendError::Closed(_)) => Ok(()),
        Err(SendError::Full(_)) => Err(EngineError::Overloaded),
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Lifeline(futures::future::BoxFuture<'static, idol_actors::conversation::command::Detached>);

impl TtsStreamSession {
    /// Tells the voice something. Nothing more is taken until it has taken that.
    fn tell<M>(&self, message: M, ctx: &mut Context<Self>)
    where
        M: actix::Message<Result: Send> + Send + 'static,
        Speaker: Handler<M>,
    {
        let Some(speaker) = &self.speaker else { return };
        let told = speaker.send(message).into_actor(self);
        ctx.wait(told.map(|told, act, ctx| {
            if told.is_err() {
                act.fail(EngineError::Restarted, ctx);
            }
        }));
    }

    /// Somebody cancels the turn: the audio ends where it is. One that was cancelled before this
    /// began, and is told again, is spoken as far as it came.
    fn hush(&mut self, ctx: &mut Context<Self>) {
        self.tell(Silence, ctx);
        self.end(Ok(None), ctx);
    }

    fn fail(&mut self, error: EngineError, ctx: &mut Context<Self>) {
        self.end(Err(error), ctx);
    }

    /// Tells the last, and ends.
    fn end(&mut self, last: AudioPiece, ctx: &mut Context<Self>) {
        let Some(pieces) = self.pieces.take() else {
            return;
        };
        self.book.borrow_mut().close(ATTACHMENT);
        let takes_until = self.pace.takes_until();
        let tell = async move {
            // Who is gone need not know; who takes nothing finds that there is no end.
            drop(timeout_at(takes_until, pieces.send(last)).await);
        };
        ctx.wait(tell.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Actor for TtsStreamSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::SESSION_MAILBOX);
        self.speaker = self.speaking.take().map(|(speaking, turn)| {
            Speaker::new(SpeakerConfig {
                turn,
                provider: speaking.provider,
                voice: speaking.voice,
                timing: Timing::Plain,
                segmenter: SegmenterOptions::default(),
                listener: ctx.address().recipient(),
                account: speaking.account,
            })
            .start()
        });
        if let Some(pieces) = self.pieces.clone() {
            // Who leaves need not be noticed by the next piece alone.
            let left = async move { pieces.closed().await };
            ctx.spawn(left.into_actor(self).map(|(), _, ctx| ctx.stop()));
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Its syntheses hold it, and would go on without anybody who listens.
        if let Some(speaker) = self.speaker.take()
            && speaker.try_send(Silence).is_err()
        {
            // With what it has to do it finds that nobody listens.
            tracing::debug!("a voice is too busy to be told that its listener left");
        }
    }
}

impl Handler<Lifeline> for TtsStreamSession {
    type Result = ();

    fn handle(&mut self, Lifeline(lifeline): Lifeline, ctx: &mut Self::Context) {
        ctx.spawn(lifeline.into_actor(self).map(|why, _, ctx| {
            ctx.notify(Broken {
                attachment: ATTACHMENT,
                why,
            });
        }));
    }
}

impl Handler<Deliver> for TtsStreamSession {
    type Result = ();

    fn handle(&mut self, msg: Deliver, ctx: &mut Self::Context) {
        self.book.borrow_mut().skipped(ATTACHMENT);
        match &msg.event.body {
            EventBody::Text { text, .. } => self.tell(More(unescape(text.as_escaped())), ctx),
            EventBody::Ended(outcome) => {
                self.book.borrow_mut().close(ATTACHMENT);
                match &outcome.error {
                    Some(error) => self.fail(error.clone(), ctx),
                    None => self.tell(Over, ctx),
                }
            }
            _ => {}
        }
    }
}

impl Handler<Hush> for TtsStreamSession {
    type Result = ();

    fn handle(&mut self, _: Hush, ctx: &mut Self::Context) {
        self.hush(ctx);
    }
}

impl Handler<Broken> for TtsStreamSession {
    type Result = ();

    fn handle(&mut self, msg: Broken, ctx: &mut Self::Context) {
        // Its line is closed when the turn has ended: then all the text is here.
        if self.book.borrow().lines.contains_key(&ATTACHMENT) {
            self.fail(msg.error(), ctx);
        }
    }
}

impl Handler<Voiced> for TtsStreamSession {
    type Result = ();

    fn handle(&mut self, msg: Voiced, ctx: &mut Self::Context) {
        match msg.piece {
            Piece::Audio { audio, .. } => {
                let Some(pieces) = self.pieces.clone() else {
                    return;
                };
                let takes_until = self.pace.takes_until();
                self.pace.gave(audio.len());
                // Nothing more is taken until there is room; but not for ever.
                let pass = async move {
                    let sent = timeout_at(takes_until, pieces.send(Ok(Some(audio)))).await;
                    matches!(sent, Ok(Ok(())))
                };
                ctx.wait(pass.into_actor(self).map(|passed, _, ctx| {
                    if !passed {
                        ctx.stop();
                    }
                }));
            }
            Piece::Failed { error, .. } => self.fail(EngineError::Upstream(error), ctx),
            Piece::Complete(_) => self.end(Ok(None), ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::clock::timeout;
    use idol_actors::{
        id::TurnId,
        provider::{Upstream, UpstreamError, UpstreamErrorKind},
        speaker::Rest,
        voice::format::AudioFormat,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn lifeline() -> Lifeline {
        Lifeline(Box::pin(std::future::pending()))
    }

    #[actix::test]
    async fn a_session_whose_voice_failed_at_once_has_told_why() {
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let session = TtsStreamSession {
            book: Rc::default(),
            speaker: None,
            speaking: None,
            pace: Pace::of(AudioFormat::PCM_8000),
            pieces: Some(sender),
        }
        .start();
        let error = UpstreamError {
            upstream: Upstream::ElevenLabs,
            kind: UpstreamErrorKind::Auth,
            message: "no such key".into(),
            retry_after: None,
            retryable: None,
            too_long: None,
        };
        let failed = Piece::Failed {
            sequence: 0,
            sentence: 0,
            text: "Hi.".into(),
            error: error.clone(),
            rest: Rest::Silent,
        };
        let voiced = Voiced {
            turn: TurnId::now(),
            piece: failed,
        };
        session.send(voiced).await.unwrap();
        let ended = async { while session.send(lifeline()).await.is_ok() {} };
        timeout(DEADLINE, ended).await.expect("the session's end");

        hand_over(&session, lifeline()).unwrap();

        let told = next(&mut pieces).await.unwrap_err();
        assert_eq!(told, EngineError::Upstream(error));
    }

    #[actix::test]
    async fn who_takes_nothing_for_long_finds_no_end() {
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let session = TtsStreamSession {
            book: Rc::default(),
            speaker: None,
            speaking: None,
            pace: Pace::of(AudioFormat::PCM_8000),
            pieces: Some(sender),
        }
        .start();
        tokio::time::pause();
        let turn = TurnId::now();
        for sequence in 0..3 {
            let piece = Piece::Audio {
                sequence,
                sentence: 0,
                text: "Hi.".into(),
                audio: vec![0; 16_000].into(),
                timed: Vec::new(),
            };
            session.send(Voiced { turn, piece }).await.unwrap();
        }
        // The third finds no room, and time passes.
        let piece = Piece::Complete(idol_actors::speaker::Sums::default());
        assert!(session.send(Voiced { turn, piece }).await.is_err());

        for _ in 0..PIECES_AHEAD {
            assert!(next(&mut pieces).await.unwrap().is_some());
        }
        assert_eq!(next(&mut pieces).await, Err(EngineError::Restarted));
    }
}

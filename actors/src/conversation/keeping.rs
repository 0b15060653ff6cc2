//! Keeping the text of the running reply in the log while it comes.
//!
//! All conversations with new text are asked at once, a few times a second, so that their pieces
//! share a transaction. What was shown and is not kept yet is never older than
//! [`limits::UNKEPT_SHOWN_MAX`]: from then on nothing more is shown until the log has caught up.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::time::timeout;

use super::{Conversation, ending::Why};
use crate::{
    error::EngineError,
    id::TurnId,
    limits,
    log::{Checkpoint, LogError},
    shared::Failpoint,
};

/// How much of the running reply's text is in the log.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Escaped bytes that are.
    bytes: usize,
    stage: Stage,
    /// When the oldest text came that is not.
    oldest: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Rests,
    /// Will be asked at the next tick.
    Joined,
    /// A piece is on its way.
    Sent,
}

/// Asks a conversation to hand the log what it has not kept.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Keep;

impl Conversation {
    /// Whether showing must wait for the log.
    pub(super) fn is_paused(&self) -> bool {
        let oldest = self.running.as_ref().and_then(|it| it.kept.oldest);
        oldest.is_some_and(|oldest| oldest.elapsed() > limits::UNKEPT_SHOWN_MAX)
    }

    /// Text came: it is kept at the next tick.
    pub(super) fn text_came(&mut self, ctx: &mut Context<Self>) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.kept.oldest.get_or_insert_with(Instant::now);
        if running.kept.stage == Stage::Rests {
            running.kept.stage = Stage::Joined;
            self.shared.ticker.join(ctx.address().recipient());
        }
    }

    fn keep(&mut self, ctx: &mut Context<Self>) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.kept.stage != Stage::Joined {
            return;
        }
        let text = match self.streams.get(running.ordinal) {
            // A piece that came before the turn's acceptance would have nobody to belong to.
            Some(stream) if stream.received().is_none() => {
                running.kept.stage = Stage::Rests;
                self.text_came(ctx);
                return;
            }
            Some(stream) => stream.text_from(running.kept.bytes),
            None => return,
        };
        if text.is_empty() {
            running.kept.stage = Stage::Rests;
            running.kept.oldest = None;
            return;
        }
        running.kept.stage = Stage::Sent;
        let (turn, reached) = (running.turn, running.kept.bytes + text.len());
        let sent_at = Instant::now();
        let kept = self.shared.loader.log.checkpoint(Checkpoint {
            turn,
            attempt: running.attempt,
            offset: running.kept.bytes as u64,
            text,
        });
        let kept = timeout(limits::APPEND_DEADLINE, kept);
        ctx.spawn(kept.into_actor(self).map(move |kept, act, ctx| {
            let outcome = match kept {
                Ok(Ok(())) => Ok(()),
                Ok(Err(LogError::Unavailable(reason))) => Err(reason),
                Ok(Err(error @ LogError::Corrupt { .. })) => Err(error.to_string().into()),
                Err(_elapsed) => Err("no answer in time".into()),
            };
            act.piece_kept(turn, reached, sent_at, outcome, ctx);
        }));
    }

    fn piece_kept(
        &mut self,
        turn: TurnId,
        reached: usize,
        sent_at: Instant,
        outcome: Result<(), std::sync::Arc<str>>,
        ctx: &mut Context<Self>,
    ) {
        let paused = self.is_paused();
        let Some(running) = self.running.as_mut().filter(|it| it.turn == turn) else {
            return;
        };
        running.kept.stage = Stage::Rests;
        match outcome {
            Ok(()) => {
                running.kept.bytes = reached;
                self.shared.metrics.pieces_kept.inc();
                let more = self
                    .streams
                    .get(running.ordinal)
                    .is_some_and(|stream| stream.text_bytes() > reached);
                running.kept.oldest = more.then_some(sent_at);
                if more {
                    self.text_came(ctx);
                }
                self.at(Failpoint::Kept);
                if paused {
                    self.pump_all(ctx);
                }
            }
            Err(reason) => {
                let oldest = running
                    .kept
                    .oldest
                    .map_or(Duration::ZERO, |it| it.elapsed());
                if oldest > limits::UNKEPT_MAX {
                    tracing::warn!(conversation = %self.id, %reason, "a reply cannot be kept, ending it");
                    self.finish(Why::Failed(EngineError::StorageUnavailable), ctx);
                    return;
                }
                tracing::debug!(conversation = %self.id, %reason, "a reply is not kept yet");
                self.text_came(ctx);
            }
        }
    }
}

impl Handler<Keep> for Conversation {
    type Result = ();

    fn handle(&mut self, _: Keep, ctx: &mut Self::Context) {
        self.keep(ctx);
    }
}

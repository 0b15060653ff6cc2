//! Giving up a reply that nobody has listened to for long, where the operator wants that.

use std::time::{Duration, Instant};

use actix::{AsyncContext, Context};

use super::{Call, Conversation, ending::Why};
use crate::id::TurnId;

impl Conversation {
    /// Looks after the listeners of the turn that has just started.
    pub(super) fn mind_listeners(&mut self, ctx: &mut Context<Self>) {
        let Some(limit) = self.shared.config.abandon_after else {
            return;
        };
        if let Some(running) = &self.running {
            let (turn, attempt) = (running.turn, running.attempt);
            self.look_again(turn, attempt, limit, ctx);
        }
    }

    /// Notes that somebody has listened to the running turn until now, if that is so.
    ///
    /// To be called before a listener leaves.
    pub(super) fn note_listeners(&mut self) {
        if let Some(running) = &mut self.running {
            let (ordinal, streams) = (running.ordinal, &self.streams);
            // Whoever asked for it listens as soon as its messages are in the log.
            let accepted = streams
                .get(ordinal)
                .is_some_and(|it| it.received().is_some());
            if !accepted || self.subscribers.hears(ordinal) {
                running.last_heard = Instant::now();
            }
        }
    }

    fn look_again(&self, turn: TurnId, attempt: u32, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, move |act, ctx| {
            act.abandon_unheard(turn, attempt, ctx)
        });
    }

    fn abandon_unheard(&mut self, turn: TurnId, attempt: u32, ctx: &mut Context<Self>) {
        self.subscribers.retain(|sink| sink.to.connected());
        self.note_listeners();
        let (Some(limit), Some(running)) = (self.shared.config.abandon_after, &self.running) else {
            return;
        };
        let over = matches!(running.call, Call::Over);
        if over || (running.turn, running.attempt) != (turn, attempt) {
            return;
        }
        let unheard = running.last_heard.elapsed();
        if unheard >= limit {
            tracing::info!(conversation = %self.id, %turn, "nobody listens to a reply: it is given up");
            self.finish(Why::Abandoned, ctx);
        } else {
            self.look_again(turn, attempt, limit - unheard, ctx);
        }
    }
}

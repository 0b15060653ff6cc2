//! Interrupting a reply that is being listened to: what was heard of it is the reply.
//!
//! The reply of a turn under way is stored as it was heard, in the entry that ends the turn. That of
//! one that is over is cut by an entry of its own, and the next prompt waits for that.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};

use super::{
    Call, Conversation, Parked, Pending, Then, answer,
    command::{Effect, Hush, Interrupt, Interrupted, Reply},
    document::TurnRecord,
    ending::Why,
    event::{Cursor, Event, EventBody},
};
use crate::{
    id::TurnId,
    json_text::JsonText,
    limits,
    log::entry::{CANCELLED, EntryHead, Heard},
    time::Timestamp,
};

/// Whether an entry that cuts a reply is on its way to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    No,
    Yes,
}

impl Conversation {
    /// Carries out an interruption; `effect` is what it has done already.
    pub(super) fn interrupt(
        &mut self,
        command: Interrupt,
        effect: Effect,
        reply: Reply<Interrupted>,
        ctx: &mut Context<Self>,
    ) {
        if let Err(refusal) = self.may_stop(&command.caller) {
            answer(reply, Err(refusal.into()));
            return;
        }
        if let Some(effect) = self.stop_heard(&command, ctx) {
            // Its end is awaited, and then there is nothing left to do.
            let command = Parked::Interrupt(command, effect, reply);
            self.parked.push_back(command);
            return;
        }
        let known = self.document().and_then(|it| it.turn(command.turn));
        let said = known.and_then(TurnRecord::reply).cloned();
        let Some(said) = said.filter(|_| !self.was_replaced(command.turn)) else {
            answer(reply, Ok(Interrupted { effect, heard: 0 }));
            return;
        };
        let (Some(id), Some(_less)) = (said.id(), said.heard(command.heard)) else {
            let heard = said.text_len();
            answer(reply, Ok(Interrupted { effect, heard }));
            return;
        };
        self.hearing = Hearing::Yes;
        self.pending.push(Pending {
            head: EntryHead::Heard(Heard {
                at: Timestamp::now().max(self.last_stamp),
                turn: command.turn,
                reply: id,
                bytes: command.heard,
            }),
            messages: Vec::new(),
            then: Then::Heard {
                turn: command.turn,
                reply,
            },
        });
        self.flush(ctx);
    }

    /// Stops the turn if it runs or waits; tells what that is to the one who interrupted it.
    fn stop_heard(&mut self, command: &Interrupt, ctx: &mut Context<Self>) -> Option<Effect> {
        let waits = self.waiting.iter().position(|it| it.turn == command.turn);
        if let Some(waiting) = waits.and_then(|index| self.waiting.remove(index)) {
            self.end_unstarted(&waiting, CANCELLED, None);
            self.flush(ctx);
            return Some(Effect::Stopped);
        }
        let running = self.running.as_ref()?;
        if running.turn != command.turn || matches!(running.call, Call::Over) {
            return None;
        }
        let text = self.streams.get(running.ordinal).map(|it| it.text_len());
        // One that has its finish reason is whole.
        let whole = running.finish.is_some() && text <= Some(command.heard as u64);
        self.finish(Why::Heard(command.heard), ctx);
        Some(match whole {
            true => Effect::Nothing,
            false => Effect::Stopped,
        })
    }

    /// Whether an interruption has to wait: for the end of its turn, or for another one.
    pub(super) fn awaits_hearing(&self, command: &Parked) -> bool {
        let Parked::Interrupt(command, ..) = command else {
            return false;
        };
        self.hearing == Hearing::Yes || self.is_ending(command.turn)
    }

    /// Whether the end of a turn is on its way to the log.
    fn is_ending(&self, turn: TurnId) -> bool {
        let stream = self.streams.find(turn).and_then(|it| self.streams.get(it));
        let runs = self
            .running
            .as_ref()
            .is_some_and(|running| running.turn == turn && !matches!(running.call, Call::Over));
        let waits = || self.waiting.iter().any(|it| it.turn == turn);
        stream.is_some_and(|it| !it.ended()) && !runs && !waits()
    }

    fn was_replaced(&self, turn: TurnId) -> bool {
        self.document().is_some_and(|it| it.was_replaced(turn))
    }

    /// What was heard of a reply is in the log: it is told so from now on, and who watches is told
    /// that it is less than it was.
    pub(super) fn tell_as_heard(&mut self, turn: TurnId) {
        if let Some(retold) = self.retold.get() {
            retold.forget(turn);
        }
        let record = self.document().and_then(|it| it.turn(turn));
        let Some(said) = record.and_then(TurnRecord::reply).cloned() else {
            return;
        };
        let (Some(reply), Some(unsaid)) = (said.id(), said.unsaid()) else {
            return;
        };
        let stream = self.streams.find(turn);
        if let Some(stream) = stream.and_then(|it| self.streams.get_mut(it)) {
            stream.cut(&said);
        }
        let mut text = JsonText::default();
        text.push_escaped(unsaid);
        let cut = EventBody::Cut {
            offset: said.text_len() as u64,
            unsaid: text,
        };
        let cut = Event::new(turn, reply, Cursor::START, cut);
        self.subscribers.tell_watchers(&Arc::new(cut));
    }

    /// Notes who speaks the reply of a turn.
    pub(super) fn attend(&mut self, turn: TurnId, voice: Recipient<Hush>) {
        self.voices
            .retain(|(_, known)| known.connected() && *known != voice);
        if self.voices.len() >= limits::VOICES_MAX {
            self.voices.remove(0);
        }
        self.voices.push((turn, voice));
    }

    /// Silences those who speak a turn, or any. No prompt is made meanwhile: they say what was heard.
    pub(super) fn hush(&mut self, wanted: Option<TurnId>, ctx: &mut Context<Self>) {
        let is_wanted = |turn| wanted.is_none_or(|wanted| wanted == turn);
        let voices = self.voices.extract_if(.., |(turn, _)| is_wanted(*turn));
        for (turn, voice) in voices.collect::<Vec<_>>() {
            self.hushing += 1;
            let hushed = voice.send(Hush(turn)).timeout(limits::HUSH_DEADLINE);
            ctx.spawn(hushed.into_actor(self).map(|hushed, act, ctx| {
                if let Err(error) = hushed {
                    tracing::debug!(%error, "a voice is gone, or its client reads nothing");
                }
                act.hushing -= 1;
                act.run_next(ctx);
            }));
        }
    }

    /// Answers the one who interrupted a turn that was over.
    pub(super) fn heard(&mut self, turn: TurnId, reply: Reply<Interrupted>) {
        self.hearing = Hearing::No;
        let record = self.document().and_then(|it| it.turn(turn));
        let said = record.and_then(TurnRecord::reply);
        let said = said.filter(|_| !self.was_replaced(turn));
        let interrupted = Interrupted {
            effect: said.map_or(Effect::Nothing, |_| Effect::Cut),
            heard: said.map_or(0, |it| it.text_len()),
        };
        answer(reply, Ok(interrupted));
    }
}

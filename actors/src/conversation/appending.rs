//! Appending to the log, and what follows when an append is there, refused, or lost.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::timeout;

use super::{
    Appending, Begun, Conversation, History, Parked, Pending, Recovering, Running, Then, answer,
    command::{Adopting, Listener, Reply, Started, Took},
    document::Document,
    elsewhere::TakingOver,
    event::Outcome,
    interrupting::Hearing,
    message::StoredMessage,
    stream::Position,
};
use crate::{
    error::EngineError,
    limits,
    log::{
        Append, AppendError,
        entry::{Entry, EntryHead},
    },
    mirror::Changed,
    shared::Failpoint,
};

impl Conversation {
    /// Appends all that is pending, unless an append is under way: then its end calls this again.
    pub(super) fn flush(&mut self, ctx: &mut Context<Self>) {
        if self.appending == Appending::UnderWay || self.pending.is_empty() {
            return;
        }
        self.at(Failpoint::BeforeAppend);
        let after_wait = match self.appending {
            Appending::Retrying(wait) => wait,
            Appending::No | Appending::UnderWay => Duration::ZERO,
        };
        let batch = std::mem::take(&mut self.pending);
        let append = Append {
            id: self.id.clone(),
            expected_seq: self.seq(),
            entries: batch.iter().map(Pending::entry).collect(),
        };
        self.appending = Appending::UnderWay;
        let append = self.shared.loader.log.append(append);
        let appended = async move {
            match timeout(limits::APPEND_DEADLINE, append).await {
                Ok(result) => result,
                Err(_elapsed) => Err(AppendError::Unknown("no answer in time".into())),
            }
        };
        ctx.spawn(appended.into_actor(self).map(move |result, act, ctx| {
            act.appending = Appending::No;
            act.appended(result, batch, after_wait, ctx);
        }));
    }

    fn appended(
        &mut self,
        result: Result<u64, AppendError>,
        batch: Vec<Pending>,
        after_wait: Duration,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Ok(_seq) => self.committed(batch, ctx),
            Err(AppendError::Unavailable(reason)) => {
                tracing::warn!(conversation = %self.id, %reason, "the log refuses to write");
                let hearing = self.hearing;
                self.not_written(batch, after_wait, ctx);
                if hearing != self.hearing {
                    // The next turn waited for what was not written.
                    self.run_next(ctx);
                }
            }
            Err(error @ AppendError::Unknown(_)) => {
                self.lost(&error, EngineError::StorageUnavailable, batch, ctx);
            }
            Err(error @ AppendError::Refused { .. }) => {
                self.lost(&error, EngineError::Moved, batch, ctx);
            }
            Err(error @ AppendError::Duplicate { .. }) => {
                self.lost(&error, EngineError::Restarted, batch, ctx);
            }
        }
    }

    fn committed(&mut self, batch: Vec<Pending>, ctx: &mut Context<Self>) {
        self.at(Failpoint::Committed);
        let messages = batch.iter().flat_map(|pending| &pending.messages);
        let bytes = messages.map(|message| message.bytes() as u64).sum();
        for pending in batch {
            let deletes = matches!(pending.then, Then::Deleted);
            if let Err(error) = if deletes { Ok(()) } else { self.fold(&pending) } {
                tracing::error!(conversation = %self.id, %error, "an own entry does not fit the history");
                self.fail(&EngineError::Restarted, ctx);
                return;
            }
            if let EntryHead::Heard(heard) = &pending.head {
                self.tell_as_heard(heard.turn);
            }
            match pending.then {
                Then::Recovered => self.recovering = Recovering::No,
                Then::Adopted { messages, reply } => {
                    self.taking_over = TakingOver::No;
                    if let Some(reply) = reply {
                        answer(reply, Ok(Adopting::Messages(messages)));
                    }
                }
                Then::Deleted => {
                    self.deleted(ctx);
                    self.end_deletion(&Ok(()), ctx);
                }
                Then::Begun => {
                    for (first, reply) in self.beginners.drain(..).enumerate() {
                        answer(reply, Ok(first == 0));
                    }
                }
                Then::Accepted {
                    ordinal,
                    listener,
                    reply,
                } => self.accepted(ordinal, listener, reply, ctx),
                Then::Ended {
                    ordinal, outcome, ..
                } => self.turn_over(ordinal, *outcome),
                Then::Heard { turn, reply } => self.heard(turn, reply),
                Then::Counted {
                    reply: Some(reply), ..
                } => answer(reply, Ok(())),
                Then::Counted { reply: None, .. } => {}
            }
        }
        self.count_what_is_not(None);
        self.account();
        self.shared.changed(&Changed {
            id: self.id.clone(),
            seq: self.seq(),
            bytes,
        });
        self.touch();
        if self.recovering == Recovering::No {
            self.carry_out_parked(ctx);
        }
        self.delete_once_settled(ctx);
        self.adopt_found(ctx);
        self.run_next(ctx);
        self.pump_all(ctx);
        self.flush(ctx);
        self.drained_check();
    }

    fn fold(&mut self, pending: &Pending) -> Result<(), super::document::FoldError> {
        if let History::Here(document) = &mut self.history {
            document.apply_parsed(&pending.head, pending.messages.clone())?;
            self.last_stamp = document.next_timestamp(self.last_stamp);
        } else {
            let document = Document::begin(&pending.entry(), self.seq() + 1)?;
            self.history = History::Here(Box::new(document));
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        ordinal: u64,
        listener: Option<Listener>,
        reply: Reply<Started>,
        ctx: &mut Context<Self>,
    ) {
        let Some(stream) = self.streams.get(ordinal) else {
            return;
        };
        let (turn, reply_id) = (stream.turn(), stream.reply());
        let received = self.received(turn);
        let started = Started {
            turn,
            reply: reply_id,
            message: received.message,
            attachment: None,
            took: Took::New,
        };
        if let Some(stream) = self.streams.get_mut(ordinal) {
            stream.show(received);
        }
        self.claims.retain(|claim| claim.ordinal != ordinal);
        let beginning = Position {
            ordinal,
            ..Position::default()
        };
        let started = self.listen_to(ordinal, beginning, started, listener, ctx);
        answer(reply, started.map_err(Into::into));
        for follower in self.take_followers(ordinal) {
            self.follow(
                ordinal,
                follower.seen,
                follower.listener,
                follower.reply,
                ctx,
            );
        }
    }

    fn turn_over(&mut self, ordinal: u64, outcome: Outcome) {
        self.shared.metrics.turn_ended(outcome.kind());
        if let Some(stream) = self.streams.get_mut(ordinal) {
            stream.end(Arc::new(outcome));
        }
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.ordinal == ordinal)
        {
            self.running = None;
        }
        // Messages that waited behind this reply may have been given later times.
        let waiting: Vec<_> = self
            .waiting
            .iter()
            .map(|it| (it.ordinal, it.turn))
            .collect();
        for (ordinal, turn) in waiting {
            let received = self.received(turn);
            if let Some(stream) = self.streams.get_mut(ordinal) {
                stream.receive_again(received);
            }
        }
    }

    /// Nothing was written: what was asked is refused, the end of a turn is held and offered again.
    fn not_written(&mut self, batch: Vec<Pending>, after_wait: Duration, ctx: &mut Context<Self>) {
        let mut held = Vec::new();
        let mut refused = Vec::new();
        for pending in batch {
            match pending.then {
                // A turn that was stopped before it was accepted: it has nothing to end.
                Then::Ended { ordinal, .. } if refused.contains(&ordinal) => {}
                Then::Ended { ref since, .. } if since.elapsed() < limits::END_RETRY_TOTAL => {
                    held.push(pending);
                }
                Then::Recovered => held.push(pending),
                Then::Heard { reply, .. } => {
                    self.hearing = Hearing::No;
                    answer(reply, Err(EngineError::StorageUnavailable.into()));
                }
                // With the next one.
                Then::Counted { usage, reply } => {
                    self.uncounted += usage;
                    if let Some(reply) = reply {
                        answer(reply, Err(EngineError::StorageUnavailable.into()));
                    }
                }
                // A mirror offers it again.
                Then::Adopted { reply, .. } => {
                    self.taking_over = TakingOver::No;
                    if let Some(reply) = reply {
                        answer(reply, Err(EngineError::StorageUnavailable.into()));
                    }
                }
                Then::Deleted => {
                    self.end_deletion(&Err(EngineError::StorageUnavailable), ctx);
                }
                Then::Ended { .. } => {
                    self.fail(&EngineError::StorageUnavailable, ctx);
                    return;
                }
                Then::Begun => {
                    self.begun = Begun::No;
                    for reply in self.beginners.drain(..) {
                        answer(reply, Err(EngineError::StorageUnavailable.into()));
                    }
                }
                Then::Accepted { ordinal, reply, .. } => {
                    refused.push(ordinal);
                    self.forget_turn(ordinal, ctx);
                    answer(reply, Err(EngineError::StorageUnavailable.into()));
                }
            }
        }
        if !held.is_empty() {
            held.append(&mut self.pending);
            self.pending = held;
            let (first, longest) = limits::END_RETRY;
            let wait = (after_wait * 2).clamp(first, longest);
            self.appending = Appending::Retrying(wait);
            // Jitter: every conversation of a full disk would otherwise come at the same moment.
            let jittered = wait.mul_f64(0.5 + fastrand::f64());
            let retry = ctx.run_later(jittered, |act, ctx| {
                act.retry = None;
                act.flush(ctx);
            });
            // One at a time: each turn that is refused meanwhile would otherwise add another.
            if let Some(earlier) = self.retry.replace(retry) {
                ctx.cancel_future(earlier);
            }
            if self.recovering == Recovering::Yes {
                for command in std::mem::take(&mut self.parked) {
                    match command {
                        reads @ Parked::Snapshot(..) => self.carry_out(reads, ctx),
                        changes => changes.refuse(EngineError::StorageUnavailable),
                    }
                }
                self.drained_check();
            } else {
                self.carry_out_parked(ctx);
            }
            return;
        }
        // What was pending behind counts on a beginning that is not there.
        if self.begun == Begun::No && !matches!(self.history, History::Here(_)) {
            let behind = std::mem::take(&mut self.pending);
            if !behind.is_empty() {
                self.not_written(behind, after_wait, ctx);
                return;
            }
            self.import_found(ctx);
            self.carry_out_parked(ctx);
            self.delete_once_settled(ctx);
            self.drained_check();
            return;
        }
        self.carry_out_parked(ctx);
        self.flush(ctx);
        self.delete_once_settled(ctx);
        self.drained_check();
    }

    /// Takes back a turn that the log did not take; dropping the call cancels it.
    fn forget_turn(&mut self, ordinal: u64, ctx: &mut Context<Self>) {
        self.streams.remove(ordinal);
        self.claims.retain(|claim| claim.ordinal != ordinal);
        for follower in self.take_followers(ordinal) {
            answer(follower.reply, Err(EngineError::StorageUnavailable.into()));
        }
        self.waiting.retain(|waiting| waiting.ordinal != ordinal);
        self.pending.retain(|pending| {
            !matches!(pending.then, Then::Ended { ordinal: ended, .. } if ended == ordinal)
        });
        let runs = |running: &mut Box<Running>| running.ordinal == ordinal;
        let deadline = self.running.take_if(runs).and_then(|it| it.deadline);
        if let Some(deadline) = deadline {
            ctx.cancel_future(deadline);
        }
    }

    /// What the log holds is not known: the truth is read again by the next actor.
    fn lost(
        &mut self,
        error: &AppendError,
        told: EngineError,
        batch: Vec<Pending>,
        ctx: &mut Context<Self>,
    ) {
        tracing::error!(conversation = %self.id, %error, "an append is lost, reading the log again");
        let pending = std::mem::take(&mut self.pending);
        for pending in batch.into_iter().chain(pending) {
            match pending.then {
                Then::Accepted { reply, .. } => answer(reply, Err(told.clone().into())),
                Then::Heard { reply, .. } => answer(reply, Err(told.clone().into())),
                Then::Counted {
                    reply: Some(reply), ..
                } => answer(reply, Err(told.clone().into())),
                Then::Adopted {
                    reply: Some(reply), ..
                } => answer(reply, Err(told.clone().into())),
                Then::Begun
                | Then::Counted { reply: None, .. }
                | Then::Ended { .. }
                | Then::Recovered
                | Then::Deleted
                | Then::Adopted { reply: None, .. } => {}
            }
        }
        for follower in std::mem::take(&mut self.followers) {
            answer(follower.reply, Err(told.clone().into()));
        }
        for command in std::mem::take(&mut self.parked) {
            command.refuse(told.clone());
        }
        self.end_deletion(&Err(told.clone()), ctx);
        for reply in self.beginners.drain(..) {
            answer(reply, Err(told.clone().into()));
        }
        self.fail(&told, ctx);
    }
}

impl Pending {
    fn entry(&self) -> Entry {
        Entry {
            head: self.head.clone(),
            messages: self.messages.iter().map(StoredMessage::whole).collect(),
        }
    }
}

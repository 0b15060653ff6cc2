//! Deleting a conversation: what runs is stopped, what is owed is written, then all of it goes.

use actix::Context;

use super::{
    Begun, Conversation, History, Pending, Then, answer,
    command::{CancelTurn, Delete, Detached, Reply},
    document::Document,
};
use crate::{
    error::EngineError,
    log::entry::{Deleted, EntryHead},
    time::Timestamp,
};

/// Who waits for the deletion that is under way. Everything else that is asked waits, too.
#[derive(Debug, Default)]
pub(super) struct Deleting {
    waiting: Vec<Reply<()>>,
    logged: Logged,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Logged {
    /// Turns are still to be ended.
    #[default]
    NotYet,
    /// The entry is on its way to the log.
    OnItsWay,
}

impl Conversation {
    pub(super) fn delete(&mut self, command: &Delete, reply: Reply<()>, ctx: &mut Context<Self>) {
        let exists = self.document().is_some() || self.begun == Begun::Yes;
        let owner = self.document().and_then(Document::user_id);
        if !exists || !command.caller.may_use(owner) {
            answer(reply, Err(EngineError::NotFound.into()));
            return;
        }
        let deleting = self.deleting.get_or_insert_default();
        deleting.waiting.push(reply);
        let stop = CancelTurn {
            caller: command.caller.clone(),
            turn: None,
        };
        if let Err(error) = self.cancel(&stop, ctx) {
            tracing::debug!(conversation = %self.id, %error, "nothing to stop before the deletion");
        }
        self.delete_once_settled(ctx);
    }

    /// Writes the deletion when every turn has its end and nothing is on its way.
    pub(super) fn delete_once_settled(&mut self, ctx: &mut Context<Self>) {
        let settled = self.running.is_none()
            && self.waiting.is_empty()
            && self.pending.is_empty()
            && self.appending == super::Appending::No;
        let deleting = self.deleting.as_ref();
        if !settled || deleting.is_none_or(|it| it.logged == Logged::OnItsWay) {
            return;
        }
        if self.document().is_none() {
            // The beginning was refused after the deletion was asked for: there is nothing.
            self.end_deletion(&Err(EngineError::NotFound), ctx);
            return;
        }
        if let Some(deleting) = &mut self.deleting {
            deleting.logged = Logged::OnItsWay;
        }
        self.pending.push(Pending {
            head: EntryHead::Deleted(Deleted {
                at: Timestamp::now(),
                incarnation: fastrand::u64(..),
            }),
            messages: Vec::new(),
            then: Then::Deleted,
        });
        self.flush(ctx);
    }

    /// The log holds nothing of it any more: whoever listens is told, and the id is free.
    pub(super) fn deleted(&mut self, ctx: &mut Context<Self>) {
        self.history = History::None {
            seq: self.seq() + 1,
        };
        self.begun = Begun::No;
        // Whatever was stored elsewhere is what was deleted: it must not come back.
        self.forget_elsewhere();
        // The ends of the turns that were stopped come first.
        self.pump_all(ctx);
        for sink in self.subscribers.take_all() {
            if sink.lifeline.send(Detached::Deleted).is_err() {
                tracing::trace!("a session had left before it was told of the deletion");
            }
        }
        self.streams.clear_ended(self.streams.end());
        tracing::info!(conversation = %self.id, "deleted");
    }

    /// Answers those who wait for the deletion, and carries out what was asked meanwhile.
    pub(super) fn end_deletion(
        &mut self,
        outcome: &Result<(), EngineError>,
        ctx: &mut Context<Self>,
    ) {
        let deleting = self.deleting.take();
        for reply in deleting.into_iter().flat_map(|it| it.waiting) {
            answer(reply, outcome.clone().map_err(Into::into));
        }
        self.carry_out_parked(ctx);
    }
}

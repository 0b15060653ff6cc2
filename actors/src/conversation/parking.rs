//! Commands wait until the history is read, and for whatever else must come first.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{
    Appending, Begun, Conversation, History, Recovering, answer,
    command::{
        self, Adopting, Attachment, Cancelled, CommandError, Effect, Interrupted, KeyedMessage,
        Listener, Reply, Resumed, Started,
    },
    document::{Document, Folded, Snapshot},
    elsewhere::TakingOver,
};
use crate::{
    caller::Caller, error::EngineError, limits, loading::Found, mirror::imported::ImportedDocument,
    voice::usage::VoiceUsage,
};

#[derive(Debug)]
pub(super) enum Parked {
    Begin(command::Begin, Reply<bool>),
    Start(Box<command::StartTurn>, Option<Listener>, Reply<Started>),
    Attach(command::Attach, Listener, Reply<Attachment>),
    Resume(command::Resume, Listener, Reply<Resumed>),
    Snapshot(Caller, Reply<Option<Snapshot>>),
    Keyed(Caller, String, Reply<Option<KeyedMessage>>),
    Cancel(command::CancelTurn, Reply<Cancelled>),
    /// With what it has done already.
    Interrupt(command::Interrupt, Effect, Reply<Interrupted>),
    Count(VoiceUsage, Reply<()>),
    Delete(command::Delete, Reply<()>),
    Adopt(Box<ImportedDocument>, Reply<Adopting>),
}

/// Commands that may wait for the history.
const PARKED_MAX: usize = 256;

impl Parked {
    /// How many may wait already where it is to wait, too. All who watched a conversation come back
    /// at once when its server has started again.
    fn parked_max(&self) -> usize {
        match self {
            Self::Attach(..) | Self::Resume(..) => limits::SUBSCRIBERS_MAX,
            Self::Begin(..)
            | Self::Start(..)
            | Self::Snapshot(..)
            | Self::Keyed(..)
            | Self::Cancel(..)
            | Self::Interrupt(..)
            | Self::Count(..)
            | Self::Delete(..)
            | Self::Adopt(..) => PARKED_MAX,
        }
    }

    pub(super) fn refuse(self, error: EngineError) {
        match self {
            Self::Begin(_, reply) => answer(reply, Err(error.into())),
            Self::Start(_, _, reply) => answer(reply, Err(error.into())),
            Self::Attach(_, _, reply) => answer(reply, Err(error.into())),
            Self::Resume(_, _, reply) => answer(reply, Err(error.into())),
            Self::Snapshot(_, reply) => answer(reply, Err(error.into())),
            Self::Keyed(_, _, reply) => answer(reply, Err(error.into())),
            Self::Cancel(_, reply) => answer(reply, Err(error.into())),
            Self::Interrupt(_, _, reply) => answer(reply, Err(error.into())),
            Self::Count(_, reply) => answer(reply, Err(error.into())),
            Self::Delete(_, reply) => answer(reply, Err(error.into())),
            Self::Adopt(_, reply) => answer(reply, Err(error.into())),
        }
    }
}

impl Conversation {
    /// Parks a command until the history is there; gives it back if it is.
    pub(super) fn park(&mut self, command: Parked, ctx: &mut Context<Self>) -> Option<Parked> {
        // What is read waits, too, as what is about to be written was seen by somebody; but not for
        // a log that refuses to write.
        let reads = matches!(command, Parked::Snapshot(..))
            && matches!(self.appending, Appending::Retrying(_));
        let held = self.deleting.is_some()
            || (self.recovering == Recovering::Yes && !reads)
            || (command.replaces() && self.awaits_log())
            || (command.may_reopen() && self.taking_over == TakingOver::Yes)
            || self.awaits_hearing(&command)
            || self.awaits_elsewhere(&command);
        match &self.history {
            History::None { .. } if self.cannot_tell(&command) => {
                command.refuse(EngineError::MirrorUnavailable);
            }
            History::None { .. } | History::Here(_) if !held => return Some(command),
            History::Failed(error) => {
                command.refuse((**error).clone());
                // The next command gets a fresh actor, which reads again.
                self.retire(ctx);
            }
            _ if self.parked.len() >= command.parked_max() => {
                command.refuse(EngineError::Overloaded);
            }
            History::Reading | History::None { .. } | History::Here(_) => {
                self.parked.push_back(command);
            }
            History::Absent => {
                self.parked.push_back(command);
                self.read_history(ctx);
            }
        }
        None
    }

    pub(super) fn read_history(&mut self, ctx: &mut Context<Self>) {
        self.history = History::Reading;
        let loader = self.shared.loader.clone();
        let id = self.id.clone();
        let load = async move { loader.load(id).await };
        ctx.spawn(load.into_actor(self).map(|found, act, ctx| {
            act.history_read(found, ctx);
        }));
    }

    pub(super) fn history_read(
        &mut self,
        found: Result<Found, EngineError>,
        ctx: &mut Context<Self>,
    ) {
        let mut partials = Vec::new();
        self.history = match found {
            Ok(found) => {
                partials = found.partials;
                match found.history {
                    Folded::Here(document) => {
                        self.begun = Begun::Yes;
                        self.last_stamp = document.next_timestamp(self.last_stamp);
                        History::Here(document)
                    }
                    Folded::Over { seq } => History::None { seq },
                }
            }
            Err(error) => History::Failed(Box::new(error)),
        };
        self.account();
        self.end_orphans(partials, ctx);
        self.look_elsewhere(ctx);
        self.carry_out_parked(ctx);
        self.drained_check();
    }

    pub(super) fn carry_out_parked(&mut self, ctx: &mut Context<Self>) {
        for command in std::mem::take(&mut self.parked) {
            self.carry_out(command, ctx);
        }
    }

    pub(super) fn carry_out(&mut self, command: Parked, ctx: &mut Context<Self>) {
        match self.park(command, ctx) {
            None => {}
            Some(Parked::Begin(command, reply)) => self.begin(command, reply, ctx),
            Some(Parked::Start(command, listener, reply)) => {
                self.start_turn(*command, listener, reply, ctx);
            }
            Some(Parked::Attach(command, listener, reply)) => {
                let attached = self.attach(&command, listener, ctx);
                answer(reply, attached.map_err(CommandError::Engine));
            }
            Some(Parked::Resume(command, listener, reply)) => {
                let resumed = self.resume(&command, listener, ctx);
                answer(reply, resumed.map_err(CommandError::Engine));
            }
            Some(Parked::Cancel(command, reply)) => {
                let cancelled = self.cancel(&command, ctx);
                answer(reply, cancelled.map_err(CommandError::Engine));
            }
            Some(Parked::Interrupt(command, effect, reply)) => {
                self.interrupt(command, effect, reply, ctx);
            }
            Some(Parked::Count(usage, reply)) => self.count(usage, reply, ctx),
            Some(Parked::Delete(command, reply)) => self.delete(&command, reply, ctx),
            Some(Parked::Adopt(document, reply)) => self.adopt(&document, Some(reply), ctx),
            Some(Parked::Keyed(caller, key, reply)) => {
                answer(reply, Ok(self.keyed_message(&caller, &key)));
            }
            Some(Parked::Snapshot(caller, reply)) => {
                let found = self.document().filter(|it| caller.may_use(it.user_id()));
                answer(reply, Ok(found.map(Document::snapshot)));
            }
        }
    }
}

//! Documents of this conversation that are not in the log: looked for when it is first used, or
//! offered by a mirror that found one.
//!
//! What only reads waits for the answer: a read that fails is never "not there". What begins the
//! conversation waits a moment (see `patience`), so that the companion remembers, and then goes on
//! without: its
//! beginning is marked as unverified, and what is found later is placed before it.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use std::time::Instant;

use tokio::time::timeout;

use super::{
    Appending, Begun, Conversation, History, Parked, Pending, Then, answer,
    command::{Adopting, At, Reply},
    document::{Folded, TurnRecord},
};
use crate::{
    adopting::{self, Offer},
    error::EngineError,
    id::Origin,
    limits,
    log::entry::EntryHead,
    mirror::{RemoteError, imported::ImportedDocument},
    time::Timestamp,
};

/// What is known of documents elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// There is nothing to ask, or the answer is there.
    Settled,
    /// Everything waits for the answer.
    Awaited,
    /// What was found is on its way to the log; everything waits.
    Importing,
    /// What begins the conversation goes on without the answer.
    Late,
    /// There is no answer.
    Unknown,
}

/// Whether what a copy has more is on its way to the log. It may replace a turn that ended without a
/// word: what could run that turn again waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakingOver {
    No,
    Yes,
}

impl Conversation {
    /// Whether a command has to wait for an answer from elsewhere.
    pub(super) fn awaits_elsewhere(&self, command: &Parked) -> bool {
        match self.elsewhere {
            Elsewhere::Awaited | Elsewhere::Importing => true,
            Elsewhere::Late => self.begun == Begun::No && !command.begins(),
            Elsewhere::Settled | Elsewhere::Unknown => false,
        }
    }

    /// Whether it cannot be told what a command asks.
    pub(super) fn cannot_tell(&self, command: &Parked) -> bool {
        self.elsewhere == Elsewhere::Unknown && self.begun == Begun::No && !command.begins()
    }

    /// Looks for a document of an id that the log has never had and that a client made up.
    pub(super) fn look_elsewhere(&mut self, ctx: &mut Context<Self>) {
        if self.origin == Origin::Minted || !matches!(self.history, History::None { seq: 0 }) {
            return;
        }
        let Some(remote) = &self.shared.config.remote else {
            return;
        };
        self.elsewhere = Elsewhere::Awaited;
        let asked = Instant::now();
        let found = timeout(limits::REMOTE_DEADLINE, remote.find(self.id.clone()));
        ctx.spawn(found.into_actor(self).map(move |found, act, ctx| {
            let found = found.unwrap_or_else(|_elapsed| {
                Err(RemoteError::Unavailable("no answer in time".into()))
            });
            match &found {
                Ok(_) | Err(RemoteError::Unreadable(_)) => {
                    act.shared.patience.answered_after(asked.elapsed());
                }
                Err(RemoteError::Unavailable(_)) => act.shared.patience.in_vain(),
            }
            act.answered_elsewhere(found, ctx);
        }));
        let grace = self.shared.patience.grace(|it| remote.is_prompt(it));
        ctx.run_later(grace, |act, ctx| {
            if act.elsewhere == Elsewhere::Awaited {
                act.shared.patience.in_vain();
                act.elsewhere = Elsewhere::Late;
                act.carry_out_parked(ctx);
            }
        });
    }

    fn answered_elsewhere(
        &mut self,
        found: Result<Option<ImportedDocument>, RemoteError>,
        ctx: &mut Context<Self>,
    ) {
        match self.elsewhere {
            Elsewhere::Awaited | Elsewhere::Late => {}
            // The conversation was deleted meanwhile: nobody wants the answer.
            Elsewhere::Settled | Elsewhere::Importing | Elsewhere::Unknown => return,
        }
        match found {
            Ok(None) => self.elsewhere = Elsewhere::Settled,
            Ok(Some(document)) if self.begun == Begun::No => {
                self.import(document, ctx);
                return;
            }
            Ok(Some(document)) => {
                self.elsewhere = Elsewhere::Settled;
                self.found_late = Some(Box::new(document));
                self.adopt_found(ctx);
            }
            Err(RemoteError::Unavailable(reason)) => {
                tracing::warn!(conversation = %self.id, %reason, "whether there is a stored document cannot be told");
                self.elsewhere = Elsewhere::Unknown;
            }
            Err(error @ RemoteError::Unreadable(_)) => {
                tracing::error!(conversation = %self.id, %error, "a stored document cannot be read");
                if self.begun == Begun::No {
                    let reason = error.to_string();
                    let error = EngineError::Unreadable { reason };
                    self.history = History::Failed(Box::new(error));
                }
                self.elsewhere = Elsewhere::Settled;
            }
        }
        self.carry_out_parked(ctx);
        self.drained_check();
    }

    /// Makes the document that was found the beginning of this conversation.
    fn import(&mut self, document: ImportedDocument, ctx: &mut Context<Self>) {
        self.elsewhere = Elsewhere::Importing;
        let (loader, id) = (self.shared.loader.clone(), self.id.clone());
        let import = async move {
            let import = loader.import(&id, &document);
            let imported = timeout(limits::LOAD_DEADLINE, import).await;
            imported.unwrap_or(Err(EngineError::StorageUnavailable))
        };
        ctx.spawn(import.into_actor(self).map(|imported, act, ctx| {
            act.elsewhere = Elsewhere::Settled;
            match imported {
                Ok(Folded::Here(document)) => {
                    act.begun = Begun::Yes;
                    act.last_stamp = document.next_timestamp(act.last_stamp);
                    act.history = History::Here(document);
                }
                Ok(Folded::Over { seq }) => act.history = History::None { seq },
                Err(error) => act.history = History::Failed(Box::new(error)),
            }
            act.account();
            act.carry_out_parked(ctx);
            act.drained_check();
        }));
    }

    /// Takes over what was found after the conversation had begun, once its beginning is synced.
    pub(super) fn adopt_found(&mut self, ctx: &mut Context<Self>) {
        if self.document().is_some()
            && self.is_written()
            && let Some(document) = self.found_late.take()
        {
            self.adopt(&document, None, ctx);
        }
    }

    /// The beginning that was made without knowing of a document was refused: the document is the
    /// beginning, then.
    pub(super) fn import_found(&mut self, ctx: &mut Context<Self>) {
        if let Some(document) = self.found_late.take() {
            self.import(*document, ctx);
        }
    }

    /// Nothing that is, or was, elsewhere belongs to this conversation any more.
    pub(super) fn forget_elsewhere(&mut self) {
        self.elsewhere = Elsewhere::Settled;
        self.found_late = None;
    }

    /// Whether a command that replaces something has to wait until all that was accepted is in the
    /// document: nothing that came before it may be unknown to it. A log that refuses to write is
    /// not waited for.
    pub(super) fn awaits_log(&self) -> bool {
        !matches!(self.appending, Appending::Retrying(_)) && !self.is_written()
    }

    /// Whether the log has all that this actor knows of: only then can a copy be compared with it.
    fn is_written(&self) -> bool {
        self.appending == Appending::No && self.pending.is_empty()
    }

    /// Takes over what a copy has more than the log.
    pub(super) fn adopt(
        &mut self,
        copy: &ImportedDocument,
        reply: Option<Reply<Adopting>>,
        ctx: &mut Context<Self>,
    ) {
        let tell = |reply: Option<Reply<Adopting>>, adopting| {
            if let Some(reply) = reply {
                answer(reply, Ok(adopting));
            }
        };
        let Some(document) = self.document() else {
            return tell(reply, Adopting::Parted);
        };
        if !self.is_written() {
            // The mirror offers it again.
            if let Some(reply) = reply {
                answer(reply, Err(EngineError::StorageUnavailable.into()));
            }
            return;
        }
        let entries = match adopting::offer(&self.id, document, copy, Timestamp::now()) {
            Ok(Offer::Nothing) => return tell(reply, Adopting::Nothing),
            Ok(Offer::Entries(entries)) => entries,
            Ok(Offer::Parted) => return tell(reply, Adopting::Parted),
            Err(error) => {
                tracing::warn!(conversation = %self.id, %error, "a copy cannot be taken over");
                return tell(reply, Adopting::Parted);
            }
        };
        // A turn that runs here has its end to come.
        let is_open = |turn| document.turn(turn).is_some_and(TurnRecord::is_open);
        let ends = |(head, _): &(EntryHead, _)| match head {
            EntryHead::TurnEnded(ended) => is_open(ended.turn),
            _ => false,
        };
        if entries.iter().any(ends) {
            return tell(reply, Adopting::Parted);
        }
        let messages = entries.iter().map(|(_, messages)| messages.len()).sum();
        tracing::info!(conversation = %self.id, messages, "taking over what a copy has more than the log");
        self.taking_over = TakingOver::Yes;
        let mut reply = reply;
        let last = entries.len();
        for (index, (head, added)) in entries.into_iter().enumerate() {
            self.pending.push(Pending {
                head,
                messages: added,
                then: Then::Adopted {
                    messages,
                    reply: if index + 1 == last {
                        reply.take()
                    } else {
                        None
                    },
                },
            });
        }
        self.flush(ctx);
    }
}

impl Parked {
    /// Whether it may run a turn again that has ended.
    pub(super) fn may_reopen(&self) -> bool {
        matches!(self, Self::Start(command, ..) if command.key.is_some())
    }

    /// Whether it replaces something of the history.
    pub(super) fn replaces(&self) -> bool {
        matches!(self, Self::Start(command, ..) if command.at != At::End)
    }

    /// Whether it is carried out also where there is no conversation yet.
    fn begins(&self) -> bool {
        match self {
            // What is asked of a key is whether it may begin.
            Self::Begin(..) | Self::Keyed(..) => true,
            Self::Start(command, ..) => command.at == At::End,
            Self::Attach(..)
            | Self::Resume(..)
            | Self::Snapshot(..)
            | Self::Cancel(..)
            | Self::Interrupt(..)
            | Self::Count(..)
            | Self::Delete(..)
            | Self::Adopt(..) => false,
        }
    }
}

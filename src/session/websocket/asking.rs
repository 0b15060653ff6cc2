//! Carrying out what a client asks for.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use idol_actors::{
    conversation::command::{
        At, Attach, Attachment, Begin, CancelTurn, Cancelled, From, Listener, Want,
    },
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    limits,
};

use super::{Broken, Busy, Ctx, Wanted, WsSession, saying::Saying};
use crate::{
    session::Given,
    wire::{
        chat::{Named, PromptChoice},
        idempotency,
        page::PageRequest,
        socket::{self, ClientMessage, Reasoning, Refused, Watch},
    },
};

/// Most bytes of messages in one `history`.
const HISTORY_BYTES_MAX: usize = 1 << 20;

impl WsSession {
    /// Carries out the messages that wait, one after the other.
    pub(super) fn next_message(&mut self, ctx: &mut Ctx) {
        while self.busy == Busy::No && !self.is_interrupting() && self.may_go_on() {
            let Some(message) = self.inbox.front() else {
                // What was said aloud comes behind what was written before it was written down.
                self.answer_written(ctx);
                return;
            };
            // A reply may have begun to sound since it was said; it goes on when that is silenced.
            let is_new = message.is_said() && !self.repeats(message.key());
            if is_new && self.barge_in(ctx) {
                return;
            }
            let Some(message) = self.inbox.pop_front() else {
                return;
            };
            match *message {
                // Carried out when they came.
                ClientMessage::Ping
                | ClientMessage::Played { .. }
                | ClientMessage::AudioEnd
                | ClientMessage::AudioAbort
                | ClientMessage::AudioStart(_) => {}
                ClientMessage::Leave { conversation } => self.leave(conversation),
                ClientMessage::Cancel { conversation, turn } => {
                    if let Some(named) = self.meant(conversation, ctx) {
                        self.cancel(named, turn, ctx);
                    }
                }
                ClientMessage::History { conversation, part } => {
                    if let Some(named) = self.meant(conversation, ctx) {
                        self.history(named, part, ctx);
                    }
                }
                ClientMessage::Resume {
                    conversation,
                    after,
                    cursor,
                    reasoning,
                } => {
                    if let Some(named) = self.meant(conversation, ctx) {
                        self.current = Some(named.clone());
                        self.resume(named, after, cursor, reasoning, ctx);
                    }
                }
                ClientMessage::Start {
                    conversation,
                    message,
                    choice,
                    client_message_id,
                    watch,
                    reasoning,
                    voice,
                } => {
                    let named = match (conversation, &message, &client_message_id) {
                        (Some(named), _, _) => named,
                        // A repeat of the message means the same conversation.
                        (None, Some(_), Some(key)) => idempotency::conversation(&self.caller, key),
                        (None, _, _) => Named::random(),
                    };
                    self.remember(&named, &choice);
                    let first = message.map(|text| Saying {
                        named: named.clone(),
                        at: At::End,
                        text: Some(text),
                        choice: choice.clone(),
                        client_message_id,
                        reasoning,
                        voice,
                    });
                    self.begin(named, &choice, first, watch, reasoning, ctx);
                }
                ClientMessage::Message {
                    conversation,
                    message,
                    choice,
                    client_message_id,
                    reasoning,
                    voice,
                } => {
                    let Some(named) = self.meant(conversation, ctx) else {
                        continue;
                    };
                    self.remember(&named, &choice);
                    let choice = self.completed(choice);
                    let saying = Saying {
                        named,
                        at: At::End,
                        text: Some(message),
                        choice,
                        client_message_id,
                        reasoning,
                        voice,
                    };
                    self.start_turn(saying, ctx);
                }
                ClientMessage::Replace {
                    conversation,
                    at,
                    message,
                    choice,
                    client_message_id,
                    reasoning,
                    voice,
                } => {
                    let Some(named) = self.meant(conversation, ctx) else {
                        continue;
                    };
                    let saying = Saying {
                        named,
                        at,
                        text: message,
                        choice,
                        client_message_id,
                        reasoning,
                        voice,
                    };
                    self.start_turn(saying, ctx);
                }
            }
        }
    }

    /// The conversation that a message names, else the one of before it; the client is told if there
    /// is none.
    fn meant(&self, named: Option<Named>, ctx: &mut Ctx) -> Option<Named> {
        let named = named.or_else(|| self.current.clone());
        if named.is_none() {
            ctx.text(socket::refused(&Refused::no_conversation()));
        }
        named
    }

    /// Whether the next message is carried out although many turns of this client are not over.
    fn may_go_on(&self) -> bool {
        self.own.len() < limits::OWN_TURNS_MAX
            || matches!(
                self.inbox.front().map(|message| &**message),
                Some(ClientMessage::Cancel { .. })
            )
    }

    /// Stops turns, when all that was asked before it is carried out.
    fn cancel(&mut self, named: Named, turn: Option<TurnId>, ctx: &mut Ctx) {
        self.busy = Busy::Yes;
        let cancel = self.cancelling(&named, turn);
        ctx.spawn(cancel.into_actor(self).map(move |cancelled, act, ctx| {
            // Whoever listens to a turn that was stopped is told its end.
            if let Err(error) = cancelled {
                ctx.text(socket::turn_error(&named.spelled, None, &error));
            }
            act.ready(ctx);
        }));
    }

    /// Stops what there is to be stopped if what was asked before is still being carried out:
    /// a message on its way to the log has its upstream call already.
    pub(super) fn cancel_early(
        &self,
        conversation: Option<&Named>,
        turn: Option<TurnId>,
        ctx: &mut Ctx,
    ) {
        // What waits before it may name another conversation.
        let current = self.current.as_ref().filter(|_| self.inbox.is_empty());
        let Some(named) = conversation.or(current) else {
            return;
        };
        if self.busy == Busy::No && self.inbox.is_empty() {
            return;
        }
        let cancel = self.cancelling(named, turn);
        // What comes of it is told when its turn has come.
        ctx.spawn(cancel.into_actor(self).map(|_, _, _| {}));
    }

    fn cancelling(
        &self,
        named: &Named,
        turn: Option<TurnId>,
    ) -> impl Future<Output = Result<Cancelled, EngineError>> + 'static {
        let conversation = self.handle_of(named);
        let command = CancelTurn {
            caller: self.caller.clone(),
            turn,
        };
        async move { conversation.cancel(command).await }
    }

    /// The next message is carried out when this one is.
    pub(super) fn ready(&mut self, ctx: &mut Ctx) {
        self.busy = Busy::No;
        self.next_message(ctx);
        self.go_when_all_is_told(ctx);
    }

    fn begin(
        &mut self,
        named: Named,
        choice: &PromptChoice,
        first: Option<Saying>,
        watch: Watch,
        reasoning: Reasoning,
        ctx: &mut Ctx,
    ) {
        let room = self.watched.len() < limits::WATCHED_MAX;
        let known = self.watched.iter_mut().find(|it| it.named.id == named.id);
        let attach = match (watch, known) {
            (Watch::Own, _) => false,
            (Watch::All, Some(watched)) => {
                watched.wanted = Wanted::All;
                false
            }
            (Watch::All, None) if !room => {
                ctx.text(socket::refused(&Refused::watching_too_many()));
                return;
            }
            (Watch::All, None) => true,
        };
        self.busy = Busy::Yes;
        let conversation = self.handle_of(&named);
        let command = Begin {
            caller: self.caller.clone(),
            user_id: choice.user_id.clone(),
            character_id: choice.character_id.clone(),
        };
        let number = self.number_attachment();
        // Held back, so that the answer is told before any event.
        let watching = attach.then(|| (self.attach(From::Now), self.listener(number, 0, ctx)));
        if attach {
            self.book.borrow_mut().expect(number, Given::Nothing);
        }
        let begin = async move {
            conversation.begin(command).await?;
            match watching {
                Some((attach, listener)) => conversation.attach(attach, listener).await.map(Some),
                None => Ok(None),
            }
        };
        ctx.spawn(begin.into_actor(self).map(move |begun, act, ctx| {
            match begun {
                Ok(attachment) => {
                    ctx.text(socket::conversation_started(&named.spelled));
                    if let Some(attachment) = attachment {
                        act.watch(number, named, reasoning);
                        act.attached(number, attachment, ctx);
                        act.book.borrow_mut().release_held(number);
                    }
                    if let Some(first) = first {
                        act.start_turn(first, ctx);
                        return;
                    }
                }
                Err(error) => {
                    act.book.borrow_mut().close(number);
                    ctx.text(socket::turn_error(&named.spelled, None, &error));
                }
            }
            act.ready(ctx);
        }));
    }

    /// Tells a part of a conversation's history.
    fn history(&mut self, named: Named, part: PageRequest, ctx: &mut Ctx) {
        self.busy = Busy::Yes;
        let conversation = self.handle_of(&named);
        let caller = self.caller.clone();
        let read = async move { conversation.snapshot(caller).await };
        ctx.spawn(read.into_actor(self).map(move |read, act, ctx| {
            let found = read.and_then(|found| found.ok_or(EngineError::NotFound));
            ctx.text(match found {
                Ok(snapshot) => match part.of(&snapshot) {
                    Ok(page) => {
                        let page = page.within(HISTORY_BYTES_MAX);
                        socket::history(&named.spelled, page, act.server.timestamps)
                    }
                    Err(error) => socket::refused(&Refused::invalid(format!("after: {error}"))),
                },
                Err(error) => socket::turn_error(&named.spelled, None, &error),
            });
            act.ready(ctx);
        }));
    }

    pub(super) fn handle_of(&self, named: &Named) -> ConversationHandle {
        self.server.conversation(named)
    }

    pub(super) fn number_attachment(&mut self) -> u64 {
        self.next_attachment += 1;
        self.next_attachment
    }

    fn attach(&self, from: From) -> Attach {
        Attach {
            caller: self.caller.clone(),
            from,
        }
    }

    pub(super) fn listener(&self, attachment: u64, credit: u32, ctx: &mut Ctx) -> Listener {
        Listener {
            attachment,
            sink: ctx.address().recipient(),
            want: Want::Everything,
            credit,
        }
    }

    /// Notes an attachment that was asked for, and listens for its end.
    pub(super) fn attached(&self, number: u64, mut attachment: Attachment, ctx: &mut Ctx) {
        let lifeline = attachment.lifeline();
        ctx.spawn(lifeline.into_actor(self).map(move |why, _, ctx| {
            ctx.notify(Broken {
                attachment: number,
                why,
            });
        }));
        self.book.borrow_mut().open(number, attachment);
    }

    /// Attaches again under the same number; `failed` is called if that cannot be.
    pub(super) fn attach_again(
        &mut self,
        number: u64,
        named: &Named,
        from: From,
        failed: impl FnOnce(&mut Self, EngineError, &mut Ctx) + 'static,
        ctx: &mut Ctx,
    ) {
        self.book.borrow_mut().expect(number, Given::Window);
        let command = self.attach(from);
        let listener = self.listener(number, limits::CREDIT_WINDOW, ctx);
        let conversation = self.handle_of(named);
        let attach = async move { conversation.attach(command, listener).await };
        ctx.spawn(
            attach
                .into_actor(self)
                .map(move |attached, act, ctx| match attached {
                    Ok(attachment) => act.attached(number, attachment, ctx),
                    Err(error) => failed(act, error, ctx),
                }),
        );
    }
}

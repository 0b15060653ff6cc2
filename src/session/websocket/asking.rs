//! Carrying out what a client asks for.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use idol_actors::{
    conversation::command::{Attach, Attachment, Begin, From, Listener, StartTurn, Want},
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    limits,
};

use super::{Broken, Busy, Ctx, Own, Via, Wanted, Watched, WsSession};
use crate::{
    session::Given,
    wire::{
        chat::{ChatRequest, Named, PromptChoice},
        socket::{self, ClientMessage, Reasoning, Refused, Watch},
    },
};

/// Something a client says.
struct Saying {
    named: Named,
    text: String,
    choice: PromptChoice,
    client_message_id: Option<String>,
    reasoning: Reasoning,
}

impl WsSession {
    /// Carries out the messages that wait, one after the other.
    pub(super) fn next_message(&mut self, ctx: &mut Ctx) {
        while self.busy == Busy::No && self.own.len() < limits::OWN_TURNS_MAX {
            let Some(message) = self.inbox.pop_front() else {
                return;
            };
            match message {
                ClientMessage::Ping => {}
                ClientMessage::Leave { conversation } => self.leave(conversation),
                ClientMessage::Start {
                    conversation,
                    message,
                    choice,
                    client_message_id,
                    watch,
                    reasoning,
                } => {
                    let named = conversation.unwrap_or_else(Named::random);
                    self.remember(&named, &choice);
                    let first = message.map(|text| Saying {
                        named: named.clone(),
                        text,
                        choice: choice.clone(),
                        client_message_id,
                        reasoning,
                    });
                    self.begin(named, &choice, first, watch, reasoning, ctx);
                }
                ClientMessage::Message {
                    conversation,
                    message,
                    choice,
                    client_message_id,
                    reasoning,
                } => {
                    let Some(named) = conversation.or_else(|| self.current.clone()) else {
                        let sentence =
                            "conversation_id is required. Send start_conversation first.";
                        ctx.text(socket::refused(&Refused::invalid(sentence)));
                        continue;
                    };
                    self.remember(&named, &choice);
                    let choice = PromptChoice {
                        user_id: choice.user_id.or_else(|| self.user_id.clone()),
                        character_id: choice.character_id.or_else(|| self.character_id.clone()),
                        ..choice
                    };
                    let saying = Saying {
                        named,
                        text: message,
                        choice,
                        client_message_id,
                        reasoning,
                    };
                    self.start_turn(saying, ctx);
                }
            }
        }
    }

    fn remember(&mut self, named: &Named, choice: &PromptChoice) {
        self.current = Some(named.clone());
        for (known, given) in [
            (&mut self.character_id, &choice.character_id),
            (&mut self.user_id, &choice.user_id),
        ] {
            if given.is_some() {
                known.clone_from(given);
            }
        }
    }

    /// The next message is carried out when this one is.
    fn ready(&mut self, ctx: &mut Ctx) {
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

    fn watch(&mut self, attachment: u64, named: Named, reasoning: Reasoning) {
        let own = self.own.iter().filter(|own| own.named.id == named.id);
        let told_elsewhere = own.map(|own| own.turn).collect();
        self.watched.push(Watched {
            attachment,
            named,
            reasoning,
            wanted: Wanted::All,
            cursor: None,
            under_way: None,
            told_elsewhere,
        });
    }

    fn leave(&mut self, conversation: Option<Named>) {
        let Some(named) = conversation.or_else(|| self.current.clone()) else {
            return;
        };
        if let Some(watched) = self.watched.iter_mut().find(|it| it.named.id == named.id) {
            watched.wanted = Wanted::OwnTurns;
        }
        self.forget_left_watches();
    }

    /// Ends the watches that were left and tell no own turn any more.
    pub(super) fn forget_left_watches(&mut self) {
        let (own, book) = (&self.own, &self.book);
        self.watched.retain(|watched| {
            let tells = |own: &Own| own.via == Via::Watch && own.named.id == watched.named.id;
            let stays = watched.wanted == Wanted::All || own.iter().any(tells);
            if !stays {
                book.borrow_mut().close(watched.attachment);
            }
            stays
        });
    }

    fn start_turn(&mut self, saying: Saying, ctx: &mut Ctx) {
        self.busy = Busy::Yes;
        let turn = TurnId::now();
        let watched = |it: &Watched| it.named.id == saying.named.id;
        let (via, listener) = if self.watched.iter().any(watched) {
            (Via::Watch, None)
        } else {
            // Held back until the turns before it are over.
            let (given, credit) = match self.own.is_empty() {
                true => (Given::Window, limits::CREDIT_WINDOW),
                false => (Given::Nothing, 0),
            };
            let number = self.number_attachment();
            self.book.borrow_mut().expect(number, given);
            (Via::Turn(number), Some(self.listener(number, credit, ctx)))
        };
        let command = self.command(&saying, turn);
        let conversation = self.handle_of(&saying.named);
        self.own.push_back(Own {
            turn,
            named: saying.named,
            client_message_id: saying.client_message_id,
            reasoning: saying.reasoning,
            via,
            cursor: None,
            failed: None,
        });
        let start = async move { conversation.start_turn(command, listener).await };
        ctx.spawn(start.into_actor(self).map(move |started, act, ctx| {
            match (started, via) {
                (Ok(started), Via::Turn(number)) => {
                    if let Some(attachment) = started.attachment {
                        act.attached(number, attachment, ctx);
                    }
                    // The turn before it may have ended while this one was being synced.
                    act.advance(ctx);
                }
                (Ok(_), Via::Watch) => {}
                (Err(error), _) => act.fail(turn, error, ctx),
            }
            act.ready(ctx);
        }));
    }

    fn command(&self, saying: &Saying, turn: TurnId) -> StartTurn {
        ChatRequest::of_text(&saying.text, saying.choice.clone(), &self.server.defaults)
            .into_command(self.caller.clone(), turn)
    }

    pub(super) fn handle_of(&self, named: &Named) -> ConversationHandle {
        self.server.conversation(named)
    }

    fn number_attachment(&mut self) -> u64 {
        self.next_attachment += 1;
        self.next_attachment
    }

    fn attach(&self, from: From) -> Attach {
        Attach {
            caller: self.caller.clone(),
            from,
        }
    }

    fn listener(&self, attachment: u64, credit: u32, ctx: &mut Ctx) -> Listener {
        Listener {
            attachment,
            sink: ctx.address().recipient(),
            want: Want::Everything,
            credit,
        }
    }

    /// Notes an attachment that was asked for, and listens for its end.
    fn attached(&self, number: u64, mut attachment: Attachment, ctx: &mut Ctx) {
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

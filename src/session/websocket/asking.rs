//! Carrying out what a client asks for.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{
            At, Attach, Attachment, Begin, CancelTurn, Cancelled, From, Listener, Manner, Resume,
            Resumed, Said, StartTurn, Started, Took, Want,
        },
        event::Cursor,
        stream::Passing,
    },
    error::EngineError,
    handle::ConversationHandle,
    id::{MessageId, TurnId},
    limits,
};

use super::{Broken, Busy, Ctx, Own, Resuming, Via, Wanted, Watched, WsSession};
use crate::{
    server::Server,
    session::Given,
    wire::{
        chat::{ChatRequest, Named, PromptChoice},
        idempotency,
        page::PageRequest,
        socket::{self, ClientMessage, Reasoning, Refused, SpokenReply, Watch},
    },
};

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// Most bytes of messages in one `history`.
const HISTORY_BYTES_MAX: usize = 1 << 20;

/// Something a client says.
pub(super) struct Saying {
    pub(super) named: Named,
    pub(super) at: At,
    /// None: a reply is to be made again.
    pub(super) text: Option<String>,
    pub(super) choice: PromptChoice,
    pub(super) client_message_id: Option<String>,
    pub(super) reasoning: Reasoning,
    pub(super) voice: Option<SpokenReply>,
}

impl Saying {
    /// The turn that it begins.
    pub(super) fn command(&self, server: &Server, caller: &Caller, turn: TurnId) -> StartTurn {
        let choice = &self.choice;
        let key = self.client_message_id.clone().map(|key| {
            let (model, system) = (choice.model.as_deref(), choice.system_prompt.as_deref());
            let text = self.text.as_deref();
            idempotency::of_message(key, self.at, text, model, system)
        });
        let (choice, defaults) = (choice.clone(), &server.defaults);
        let request = match &self.text {
            Some(text) => ChatRequest::of_text(text, choice, defaults),
            None => ChatRequest::of_choice(choice, defaults),
        };
        StartTurn {
            key,
            at: self.at,
            ..request.into_command(caller.clone(), turn)
        }
    }
}

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
            if message.is_said() && self.barge_in(ctx) {
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
                    match conversation.or_else(|| self.current.clone()) {
                        Some(named) => self.cancel(named, turn, ctx),
                        None => ctx.text(socket::refused(&Refused::no_conversation())),
                    }
                }
                ClientMessage::History { conversation, part } => {
                    match conversation.or_else(|| self.current.clone()) {
                        Some(named) => self.history(named, part, ctx),
                        None => ctx.text(socket::refused(&Refused::no_conversation())),
                    }
                }
                ClientMessage::Resume {
                    conversation,
                    after,
                    cursor,
                    reasoning,
                } => match conversation.or_else(|| self.current.clone()) {
                    Some(named) => {
                        self.current = Some(named.clone());
                        self.resume(named, after, cursor, reasoning, ctx);
                    }
                    None => ctx.text(socket::refused(&Refused::no_conversation())),
                },
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
                    let Some(named) = conversation.or_else(|| self.current.clone()) else {
                        ctx.text(socket::refused(&Refused::no_conversation()));
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
                    let Some(named) = conversation.or_else(|| self.current.clone()) else {
                        ctx.text(socket::refused(&Refused::no_conversation()));
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

    /// Whether something can be said now.
    pub(super) fn may_say(&self) -> bool {
        self.busy == Busy::No
            && !self.is_interrupting()
            && self.inbox.is_empty()
            && self.own.len() < limits::OWN_TURNS_MAX
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

    pub(super) fn remember(&mut self, named: &Named, choice: &PromptChoice) {
        self.current = Some(named.clone());
        for (known, given) in [
            (&mut self.character_id, &choice.character_id),
            (&mut self.user_id, &choice.user_id),
        ] {
            if let Some(given) = given {
                *known = Some(given.as_str().into());
            }
        }
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

    /// Goes on where the client had come to; from then on it watches the conversation.
    fn resume(
        &mut self,
        named: Named,
        after: Said<MessageId>,
        cursor: Said<Cursor>,
        reasoning: Reasoning,
        ctx: &mut Ctx,
    ) {
        let known = self.watched.iter().any(|it| it.named.id == named.id);
        if !known && self.watched.len() >= limits::WATCHED_MAX {
            ctx.text(socket::refused(&Refused::watching_too_many()));
            return;
        }
        self.busy = Busy::Yes;
        let number = self.number_attachment();
        let command = Resume {
            after,
            ..self.resumption(cursor, reasoning, Manner::CaughtUp)
        };
        // Held back, so that what was missed is told before any event.
        let listener = self.listener(number, 0, ctx);
        self.book.borrow_mut().expect(number, Given::Nothing);
        let conversation = self.handle_of(&named);
        self.resuming = Some(Box::new(Resuming {
            conversation: named.id.clone(),
            held: Vec::new(),
        }));
        let resume = async move { conversation.resume(command, listener).await };
        ctx.spawn(resume.into_actor(self).map(move |resumed, act, ctx| {
            let held = act.resuming.take().map(|it| it.held);
            match resumed {
                Ok(resumed) => {
                    act.leave_to_watch(&named, &resumed, ctx);
                    act.resumed(number, named, reasoning, resumed, ctx);
                }
                Err(error) => {
                    act.book.borrow_mut().close(number);
                    ctx.text(socket::turn_error(&named.spelled, None, &error));
                }
            }
            for held in held.into_iter().flatten() {
                act.deliver(&held, ctx);
            }
            act.ready(ctx);
        }));
    }

    /// Own turns that are not over are told by the watch from now on, with places to go on from,
    /// and by no attachment of their own.
    fn leave_to_watch(&mut self, named: &Named, resumed: &Resumed, ctx: &mut Ctx) {
        let under_way = resumed.caught_up.as_ref().and_then(|it| it.turn.as_ref());
        let under_way = under_way.map(|it| it.turn);
        for own in &mut self.own {
            let open = resumed.open.contains(&own.turn) && own.failed.is_none();
            if own.via != Via::Attachment || own.named.id != named.id || !open {
                continue;
            }
            own.via = Via::Watch;
            self.book.borrow_mut().close(own.number);
            if under_way == Some(own.turn) && own.cursor.is_none() {
                // What comes with `resumed` is behind it.
                let id = own.client_message_id.as_deref();
                let (turn, message) = (own.turn, own.message);
                ctx.text(socket::message_received(
                    &named.spelled,
                    turn,
                    message,
                    id,
                    None,
                ));
            }
        }
    }

    /// What follows comes over this attachment, and over no earlier one.
    pub(super) fn resumed(
        &mut self,
        number: u64,
        named: Named,
        reasoning: Reasoning,
        resumed: Resumed,
        ctx: &mut Ctx,
    ) {
        let (spelled, timestamps) = (&named.spelled, self.server.timestamps);
        if let Some(reset) = &resumed.reset {
            ctx.text(socket::reset(spelled, reset));
        }
        if let Some(caught_up) = &resumed.caught_up {
            ctx.text(socket::resumed(spelled, caught_up, timestamps));
            if let Some(end) = &caught_up.end {
                ctx.text(socket::missed_end(spelled, end, timestamps));
            }
        }
        let earlier = self.watched.iter().position(|it| it.named.id == named.id);
        if let Some(earlier) = earlier {
            let earlier = self.watched.swap_remove(earlier);
            if earlier.attachment != number {
                self.book.borrow_mut().close(earlier.attachment);
            }
        }
        // Own turns that are over were told among the messages.
        let goes_on = |own: &Own| {
            own.via == Via::Attachment
                || own.named.id != named.id
                || resumed.open.contains(&own.turn)
        };
        let over = self.own.iter().filter(|own| !goes_on(own));
        for number in over.map(|own| own.number).collect::<Vec<_>>() {
            self.speak_to_the_end(number);
        }
        self.own.retain(goes_on);
        let under_way = resumed.caught_up.as_ref().and_then(|it| it.turn.as_ref());
        let (cursor, turn) = (
            resumed.caught_up.as_ref().map(|it| it.cursor),
            under_way.map(|it| it.turn),
        );
        self.watch(number, named, reasoning);
        if let Some(watched) = self.watched.last_mut() {
            watched.cursor = cursor;
            watched.under_way = turn.filter(|turn| !watched.told_elsewhere.contains(turn));
        }
        self.attached(number, resumed.attachment, ctx);
        self.book.borrow_mut().release_held(number);
        self.advance(ctx);
    }

    pub(super) fn resumption(
        &self,
        cursor: Said<Cursor>,
        reasoning: Reasoning,
        manner: Manner,
    ) -> Resume {
        Resume {
            caller: self.caller.clone(),
            after: Said::Nothing,
            cursor,
            manner,
            passing: match reasoning {
                Reasoning::Hidden => Passing::Reasoning,
                Reasoning::Shown => Passing::Silence,
            },
        }
    }

    fn watch(&mut self, attachment: u64, named: Named, reasoning: Reasoning) {
        let own = self.own.iter().filter(|own| {
            // A watch that takes the place of another tells what that one told.
            own.named.id == named.id && own.via == Via::Attachment
        });
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

    pub(super) fn start_turn(&mut self, saying: Saying, ctx: &mut Ctx) {
        self.busy = Busy::Yes;
        let turn = TurnId::now();
        let number = self.number_attachment();
        let watched = |it: &Watched| it.named.id == saying.named.id;
        let via = match self.watched.iter().any(watched) {
            true => Via::Watch,
            false => Via::Attachment,
        };
        let command = saying.command(&self.server, &self.caller, turn);
        // Held back until the turns before it are over. A turn that a watch tells needs no
        // attachment, unless it turns out to be the turn of an earlier request.
        let (given, credit) = match (via, self.own.is_empty()) {
            (Via::Attachment, true) => (Given::Window, limits::CREDIT_WINDOW),
            (Via::Attachment, false) | (Via::Watch, _) => (Given::Nothing, 0),
        };
        let listens = via == Via::Attachment || command.key.is_some();
        let listener = listens.then(|| self.listener(number, credit, ctx));
        if listens {
            self.book.borrow_mut().expect(number, given);
        }
        let conversation = self.handle_of(&saying.named);
        if let Some(voice) = saying.voice {
            self.speak(number, turn, &saying.named, voice, ctx);
        }
        self.own.push_back(Own {
            number,
            turn,
            named: saying.named,
            message: None,
            client_message_id: saying.client_message_id,
            reasoning: saying.reasoning,
            via,
            cursor: None,
            failed: None,
        });
        let start = async move { conversation.start_turn(command, listener).await };
        ctx.spawn(start.into_actor(self).map(move |started, act, ctx| {
            match started {
                Ok(started) => act.turn_started(number, started, ctx),
                Err(error) => act.fail(number, error, ctx),
            }
            act.ready(ctx);
        }));
    }

    /// An own turn is in the log, or was there before. A watch may be telling one that was, or runs
    /// again, as somebody else's: its own attachment tells it from the beginning, as this client's.
    fn turn_started(&mut self, number: u64, started: Started, ctx: &mut Ctx) {
        if started.took == Took::Repeat {
            self.speaks_again(number);
        }
        let mut own = self.own.iter_mut().find(|own| own.number == number);
        if let Some(own) = &mut own {
            own.message = started.message;
        }
        if let Some(own) = own
            && let Some(attachment) = started.attachment
        {
            let begun_here = started.took == Took::New && started.turn == own.turn;
            own.turn = started.turn;
            if own.via == Via::Watch && begun_here {
                self.book.borrow_mut().close(number);
            } else {
                own.via = Via::Attachment;
                let conversation = own.named.id.clone();
                let watched = self.watched.iter_mut();
                for watched in watched.filter(|it| it.named.id == conversation) {
                    watched.leave_to_another(started.turn);
                }
                self.attached(number, attachment, ctx);
            }
        }
        // The turn before it may have ended while this one was being synced.
        self.advance(ctx);
    }

    /// What a message leaves out is what was named before it.
    pub(super) fn completed(&self, choice: PromptChoice) -> PromptChoice {
        PromptChoice {
            user_id: choice.user_id.or_else(|| owned(self.user_id.as_deref())),
            character_id: choice
                .character_id
                .or_else(|| owned(self.character_id.as_deref())),
            ..choice
        }
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

//! What a client says, and the turns that it begins.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use idol_actors::{
    caller::Caller,
    conversation::command::{At, StartTurn, Started, Took},
    id::TurnId,
    limits,
};

use super::{Busy, Ctx, Own, Via, Watched, WsSession};
use crate::{
    server::Server,
    session::Given,
    wire::{
        chat::{ChatRequest, Named, PromptChoice},
        idempotency,
        socket::{Reasoning, SpokenReply},
    },
};

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
    /// Whether something can be said now.
    pub(super) fn may_say(&self) -> bool {
        self.busy == Busy::No
            && !self.is_interrupting()
            && self.inbox.is_empty()
            && self.own.len() < limits::OWN_TURNS_MAX
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
            let key = saying.client_message_id.as_deref();
            self.speak((number, turn), &saying.named, key, voice, ctx);
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
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

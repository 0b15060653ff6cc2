//! The conversations that a client watches, and going on with one.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use idol_actors::{
    conversation::{
        command::{Manner, Resume, Resumed, Said},
        event::Cursor,
        stream::Passing,
    },
    id::MessageId,
    limits,
};

use super::{Busy, Ctx, Own, Resuming, Via, Wanted, Watched, WsSession};
use crate::{
    session::Given,
    wire::{
        chat::Named,
        socket::{self, Reasoning, Refused},
    },
};

impl WsSession {
    /// Goes on where the client had come to; from then on it watches the conversation.
    pub(super) fn resume(
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

    pub(super) fn watch(&mut self, attachment: u64, named: Named, reasoning: Reasoning) {
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

    pub(super) fn leave(&mut self, conversation: Option<Named>) {
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
}

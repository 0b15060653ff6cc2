//! Telling a client what happens in its conversations.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use bytestring::ByteString;
use idol_actors::{
    conversation::{
        command::{Deliver, Detached, From, Manner, Said},
        event::{Event, EventBody, Transport},
    },
    error::EngineError,
    id::TurnId,
    limits,
};

use super::{Broken, Ctx, Own, Via, Wanted, Watched, WsSession};
use crate::{
    session::Given,
    wire::{
        chat::Named,
        socket::{self, Reasoning},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Something,
}

/// Whose turn an event is of.
enum Whose {
    /// This client's, told by this; with its id of the message.
    Own(Option<String>, Via),
    /// The same, told beside a watch on its conversation.
    OwnBeside(Option<String>),
    /// Somebody else's.
    Others,
}

impl Own {
    /// Whether this attachment's event is of it. What comes over its own attachment is, before it
    /// is known which turn that is; a watch tells no turn of another conversation.
    fn is_told_by(&self, attachment: u64, event: &Event) -> bool {
        match self.via {
            Via::Attachment => self.number == attachment,
            Via::Watch => self.turn == event.turn,
        }
    }
}

impl Watched {
    /// Notes an event. True if it is to be told to a client that wants all.
    fn passes(&mut self, event: &Event) -> bool {
        self.cursor = Some(event.cursor);
        if let Some(index) = self.told_elsewhere.iter().position(|it| *it == event.turn) {
            if event.is_last() {
                self.told_elsewhere.remove(index);
            }
            return false;
        }
        self.under_way = (!event.is_last()).then_some(event.turn);
        self.wanted == Wanted::All
    }

    /// From now on an attachment of its own tells a turn, which is perhaps over already.
    pub(super) fn leave_to_another(&mut self, turn: TurnId) {
        if self.under_way == Some(turn) {
            self.under_way = None;
        }
        if !self.told_elsewhere.contains(&turn) {
            self.told_elsewhere.push_back(turn);
        }
        // More turns than a client may ask for at once are not under way.
        if self.told_elsewhere.len() > limits::OWN_TURNS_MAX {
            self.told_elsewhere.pop_front();
        }
    }
}

impl WsSession {
    pub(super) fn deliver(&mut self, msg: &Deliver, ctx: &mut Ctx) {
        let (number, event) = (msg.attachment, &*msg.event);
        if let EventBody::Cut { .. } = event.body {
            self.deliver_beside(msg, ctx);
            return;
        }
        let watched = self
            .watched
            .iter_mut()
            .find(|it| it.attachment == number)
            .and_then(|it| it.passes(event).then_some(&*it));
        let own = self
            .own
            .iter_mut()
            .find(|own| own.is_told_by(number, event));
        if let Some(own) = &own
            && own.via == Via::Attachment
            && let Some(resuming) = &mut self.resuming
            && resuming.conversation == own.named.id
        {
            // No more of them than there is credit for.
            resuming.held.push(Deliver {
                attachment: number,
                event: msg.event.clone(),
            });
            return;
        }
        let own_turn = own.as_ref().map(|own| own.number);
        let told = match (own, watched) {
            (Some(own), _) => {
                own.cursor = Some(event.cursor);
                own.turn = event.turn;
                let id = own.client_message_id.clone();
                // Beside a watch, which tells the conversation in order, its place would lead back or ahead.
                let beside = |it: &Watched| it.named.id == own.named.id;
                let whose = match own.via == Via::Attachment && self.watched.iter().any(beside) {
                    true => Whose::OwnBeside(id),
                    false => Whose::Own(id, own.via),
                };
                Some((own.named.clone(), own.reasoning, whose))
            }
            (None, Some(watched)) => {
                Some((watched.named.clone(), watched.reasoning, Whose::Others))
            }
            // Left, over, or told by another attachment.
            (None, None) => None,
        };
        if let Some(own) = own_turn {
            self.hear_text(own, event, ctx);
        }
        let wrote = match told {
            Some((named, reasoning, whose)) => self.write(event, &named, reasoning, whose, ctx),
            None => Wrote::Nothing,
        };
        self.wrote(number, wrote);
        if event.is_last() {
            if let Some(own) = own_turn {
                self.turn_over(own, ctx);
            }
            self.go_when_all_is_told(ctx);
        }
    }

    /// Tells what is no event of a turn.
    fn deliver_beside(&self, msg: &Deliver, ctx: &mut Ctx) {
        let is_its = |it: &&Watched| it.attachment == msg.attachment && it.wanted == Wanted::All;
        let wrote = match self.watched.iter().find(is_its) {
            Some(watched) => {
                let (named, reasoning) = (&watched.named, watched.reasoning);
                self.write(&msg.event, named, reasoning, Whose::Others, ctx)
            }
            None => Wrote::Nothing,
        };
        self.wrote(msg.attachment, wrote);
    }

    fn wrote(&self, attachment: u64, wrote: Wrote) {
        let mut book = self.book.borrow_mut();
        match wrote {
            Wrote::Something => book.encoded(attachment),
            Wrote::Nothing => book.skipped(attachment),
        }
    }

    fn write(
        &self,
        event: &Event,
        named: &Named,
        reasoning: Reasoning,
        whose: Whose,
        ctx: &mut Ctx,
    ) -> Wrote {
        let timestamps = self.server.timestamps;
        let beside = matches!(whose, Whose::OwnBeside(_));
        let placed = |text| match beside {
            true => socket::unplaced(text),
            false => text,
        };
        match &event.body {
            EventBody::Received(received) => match whose {
                Whose::Own(ref id, _) | Whose::OwnBeside(ref id) => {
                    let (spelled, id) = (&named.spelled, id.as_deref());
                    // Older messages are for who watches: the others get their own turns alone.
                    let watches = matches!(whose, Whose::Own(_, Via::Watch));
                    let skipped = match watches {
                        true => 0,
                        false => u32::try_from(received.before.len()).unwrap_or(u32::MAX),
                    };
                    let received = received.behind(skipped);
                    let told = socket::received_of_own(spelled, event, &received, id, timestamps);
                    told.into_iter().for_each(|text| ctx.text(placed(text)));
                }
                Whose::Others => {
                    let told =
                        socket::received_of_others(&named.spelled, event, received, timestamps);
                    if told.is_empty() {
                        return Wrote::Nothing;
                    }
                    told.into_iter().for_each(|(_, text)| ctx.text(text));
                }
            },
            EventBody::Ended(outcome) => {
                let text = socket::ended(&named.spelled, event, outcome, timestamps);
                ctx.text(placed(text));
            }
            EventBody::Reasoning { .. } if reasoning == Reasoning::Hidden => return Wrote::Nothing,
            EventBody::Started { .. }
            | EventBody::Text { .. }
            | EventBody::Reasoning { .. }
            | EventBody::Delta { .. }
            | EventBody::Finish { .. }
            | EventBody::Seam { .. }
            | EventBody::Cut { .. }
            | EventBody::Usage { .. } => {
                let canonical = named.id.as_str();
                let bytes = if beside {
                    let text = socket::event(&named.spelled, event);
                    let text = text.and_then(|text| String::from_utf8(text.into()).ok());
                    text.map(|text| socket::unplaced(text).into())
                } else if named.spelled == canonical {
                    // Sessions that spell the id alike share the bytes.
                    let bytes = event.encoded(Transport::WebSocket, |event| {
                        socket::event(canonical, event).unwrap_or_default()
                    });
                    Some(bytes.clone()).filter(|bytes| !bytes.is_empty())
                } else {
                    socket::event(&named.spelled, event)
                };
                let Some(text) = bytes.and_then(|bytes| ByteString::try_from(bytes).ok()) else {
                    return Wrote::Nothing;
                };
                ctx.text(text);
            }
        }
        Wrote::Something
    }

    /// Takes an own turn off the list; the next one may come.
    fn turn_over(&mut self, number: u64, ctx: &mut Ctx) {
        self.own.retain(|own| own.number != number);
        self.book.borrow_mut().close(number);
        self.advance(ctx);
    }

    /// No more events of an own turn will come.
    pub(super) fn fail(&mut self, number: u64, error: EngineError, ctx: &mut Ctx) {
        self.speak_to_the_end(number);
        if let Some(own) = self.own.iter_mut().find(|own| own.number == number) {
            own.failed = Some(error);
            self.book.borrow_mut().close(number);
        }
        self.advance(ctx);
    }

    /// Lets the first own turn be told, past those that have failed.
    pub(super) fn advance(&mut self, ctx: &mut Ctx) {
        while let Some(own) = self.own.front() {
            let Some(error) = &own.failed else {
                if own.via == Via::Attachment {
                    self.book.borrow_mut().release_held(own.number);
                }
                break;
            };
            let (spelled, turn) = (&own.named.spelled, own.turn);
            ctx.text(socket::turn_error(spelled, Some(turn), error));
            self.own.pop_front();
        }
        self.forget_left_watches();
        self.next_message(ctx);
        self.go_when_all_is_told(ctx);
    }

    /// An attachment has ended: its conversation died or was deleted, or it gave up on a client
    /// that did not read.
    pub(super) fn broken(&mut self, msg: &Broken, ctx: &mut Ctx) {
        let number = msg.attachment;
        let own = |own: &&Own| own.via == Via::Attachment && own.number == number;
        if let Some(own) = self.own.iter().find(own) {
            let (named, cursor) = (own.named.clone(), own.cursor);
            match (msg.why, cursor) {
                _ if own.failed.is_some() => {}
                (Detached::Stalled, Some(cursor)) => {
                    let failed = move |act: &mut Self, error, ctx: &mut Ctx| {
                        act.fail(number, error, ctx);
                    };
                    self.attach_again(number, &named, From::TurnAt(cursor), failed, ctx);
                }
                (Detached::Stalled | Detached::Lost | Detached::Deleted, _) => {
                    self.fail(number, msg.error(), ctx);
                }
            }
        } else if self.watched.iter().any(|it| it.attachment == number) {
            match msg.why {
                Detached::Deleted => self.watch_over(number, msg.error(), ctx),
                Detached::Stalled | Detached::Lost => self.watch_on(number, ctx),
            }
        }
    }

    /// The attachment of a watch has ended: goes on where it had come to.
    fn watch_on(&mut self, number: u64, ctx: &mut Ctx) {
        let Some(watched) = self.watched.iter().find(|it| it.attachment == number) else {
            return;
        };
        let Some(cursor) = watched.cursor else {
            self.watch_lost(number, ctx);
            return;
        };
        let (named, reasoning) = (watched.named.clone(), watched.reasoning);
        let command = self.resumption(Said::This(cursor), reasoning, Manner::Events);
        // Held back, so that a reset is told before any event.
        self.book.borrow_mut().expect(number, Given::Nothing);
        let listener = self.listener(number, 0, ctx);
        let conversation = self.handle_of(&named);
        let resume = async move { conversation.go_on(command, listener).await };
        ctx.spawn(resume.into_actor(self).map(move |resumed, act, ctx| {
            let watches = act.watched.iter().any(|it| it.attachment == number);
            match resumed {
                // It was left, or resumed by its client, in the meantime.
                Ok(_unwanted) if !watches => act.book.borrow_mut().close(number),
                Ok(resumed) if resumed.caught_up.is_some() => {
                    act.resumed(number, named, reasoning, resumed, ctx);
                }
                Ok(resumed) => {
                    act.attached(number, resumed.attachment, ctx);
                    act.book.borrow_mut().release_held(number);
                }
                Err(error @ EngineError::NotFound) => act.watch_over(number, error, ctx),
                Err(_gone) => act.watch_lost(number, ctx),
            }
        }));
    }

    /// Events of a watched conversation are lost: says so, and watches on from now.
    fn watch_lost(&mut self, number: u64, ctx: &mut Ctx) {
        let Some(watched) = self.watched.iter_mut().find(|it| it.attachment == number) else {
            return;
        };
        watched.cursor = None;
        let (named, wanted) = (watched.named.clone(), watched.wanted);
        let under_way = watched.under_way.take();
        let mut lost = Vec::new();
        let own: Vec<_> = self
            .own
            .iter_mut()
            .filter(|own| own.named.id == named.id)
            .map(|own| {
                if own.via == Via::Watch {
                    own.failed.get_or_insert(EngineError::Restarted);
                    lost.push(own.number);
                }
                own.turn
            })
            .collect();
        for own in lost {
            self.speak_to_the_end(own);
        }
        // The errors of own turns tell it already.
        let untold = under_way.map_or(own.is_empty(), |turn| !own.contains(&turn));
        if untold && wanted == Wanted::All {
            let error = EngineError::Restarted;
            ctx.text(socket::turn_error(&named.spelled, under_way, &error));
        }
        self.advance(ctx);
        if self.watched.iter().any(|it| it.attachment == number) {
            let failed = move |act: &mut Self, error, ctx: &mut Ctx| {
                act.watch_over(number, error, ctx);
            };
            self.attach_again(number, &named, From::Now, failed, ctx);
        }
    }

    /// A conversation cannot be watched any more.
    fn watch_over(&mut self, number: u64, error: EngineError, ctx: &mut Ctx) {
        self.book.borrow_mut().close(number);
        let Some(position) = self.watched.iter().position(|it| it.attachment == number) else {
            return;
        };
        let watched = self.watched.swap_remove(position);
        let mut lost = Vec::new();
        for own in &mut self.own {
            if own.via == Via::Watch && own.named.id == watched.named.id {
                own.failed.get_or_insert_with(|| error.clone());
                lost.push(own.number);
            }
        }
        for own in lost {
            self.speak_to_the_end(own);
        }
        if watched.wanted == Wanted::All {
            let spelled = &watched.named.spelled;
            ctx.text(match error {
                // It was there, as it was watched.
                EngineError::NotFound => socket::conversation_deleted(spelled),
                error => socket::turn_error(spelled, None, &error),
            });
        }
        self.advance(ctx);
    }
}

//! All events of a conversation as Server-Sent Events, for a browser's `EventSource`.
//!
//! The events are those of a socket that watches, each with its cursor as its id: the browser sends
//! the last one when it connects again, and is told what it missed.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Handler, WrapFuture};
use actix_web::{body::BoxBody, web};
use actix_web_actors::HttpContext;
use bytes::Bytes;
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{
            CaughtUp, Deliver, Detached, Listener, Manner, Reset, Resume, Resumed, Said, Want,
        },
        event::{Cursor, EventBody, Transport},
        stream::Passing,
    },
    error::EngineError,
    handle::ConversationHandle,
    id::{MessageId, TurnId},
};

use super::{Broken, CreditBook, Given, KEEP_ALIVE, SessionBody, Taken};
use crate::{
    server::Server,
    sockets::Notice,
    wire::{
        chat::Named,
        events,
        socket::{self, Reasoning},
        sse,
    },
};

/// What a client wants to be told.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The last message that it has whole.
    pub after: Said<MessageId>,
    /// The last event that it has seen.
    pub cursor: Said<Cursor>,
    /// Whether reasoning is wanted.
    pub reasoning: Reasoning,
}

impl Wanted {
    fn place(&self) -> Option<Cursor> {
        match self.cursor {
            Said::This(cursor) => Some(cursor),
            Said::Nothing | Said::Nonsense => None,
        }
    }

    fn resume(&self, caller: Caller) -> Resume {
        Resume {
            caller,
            after: self.after,
            cursor: self.cursor,
            manner: Manner::Events,
            passing: match self.reasoning {
                Reasoning::Hidden => Passing::Reasoning,
                Reasoning::Shown => Passing::Silence,
            },
        }
    }
}

/// The session of `GET /conversation/{id}/events`. Polled as the body of its response.
struct EventsSession {
    server: web::Data<Server>,
    conversation: ConversationHandle,
    caller: Caller,
    named: Named,
    reasoning: Reasoning,
    number: u64,
    book: Rc<RefCell<CreditBook>>,
    cursor: Option<Cursor>,
    /// The turn that is being told: a server that stops lets it be told to its end.
    under_way: Option<TurnId>,
    wrote: Wrote,
    going: Option<Duration>,
    over: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Something,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    No,
    Yes,
}

/// The session has one attachment.
const ATTACHMENT: u64 = 0;

/// Attaches; returns the body that tells what was missed, then what happens.
pub async fn stream(
    server: web::Data<Server>,
    named: Named,
    caller: Caller,
    wanted: Wanted,
) -> Result<BoxBody, EngineError> {
    let conversation = server.conversation(&named);
    let book = Rc::new(RefCell::new(CreditBook::default()));
    let address: Rc<RefCell<Option<Addr<EventsSession>>>> = Rc::default();
    let body = {
        let (conversation, book) = (conversation.clone(), book.clone());
        let (address, caller) = (address.clone(), caller.clone());
        let number = server.sockets.next_number();
        let cursor = wanted.place();
        HttpContext::with_factory(move |ctx| {
            *address.borrow_mut() = Some(ctx.address());
            EventsSession {
                server,
                conversation,
                caller,
                named,
                reasoning: wanted.reasoning,
                number,
                book,
                cursor,
                under_way: None,
                wrote: Wrote::Nothing,
                going: None,
                over: Over::No,
            }
        })
    };
    let session = address.borrow_mut().take().ok_or(EngineError::Overloaded)?;
    let resumed = conversation
        .resume(wanted.resume(caller), listener(&session))
        .await?;
    book.borrow_mut().expect(ATTACHMENT, Given::Nothing);
    if session.try_send(Begin(resumed)).is_err() {
        return Err(EngineError::Overloaded);
    }
    Ok(BoxBody::new(SessionBody {
        stream: Box::pin(body),
        book,
        takes: Taken::OneEvent,
    }))
}

/// Held back, so that what was missed is told before any event.
fn listener(session: &Addr<EventsSession>) -> Listener {
    Listener {
        attachment: ATTACHMENT,
        sink: session.clone().recipient(),
        want: Want::Everything,
        credit: 0,
    }
}

/// What the attachment brought.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Begin(Resumed);

type Ctx = HttpContext<EventsSession>;

impl EventsSession {
    fn write(&mut self, bytes: Bytes, ctx: &mut Ctx) {
        self.wrote = Wrote::Something;
        ctx.write(bytes);
    }

    fn keep_alive(&mut self, ctx: &mut Ctx) {
        if self.wrote == Wrote::Nothing && self.over == Over::No {
            ctx.write(Bytes::from_static(sse::KEEP_ALIVE));
        }
        self.wrote = Wrote::Nothing;
    }

    fn go_on(&mut self, resumed: Resumed, ctx: &mut Ctx) {
        if let Some(reset) = &resumed.reset {
            self.tell_reset(reset, ctx);
        }
        if let Some(caught_up) = &resumed.caught_up {
            self.tell_caught_up(caught_up, ctx);
        }
        let mut attachment = resumed.attachment;
        let lifeline = attachment.lifeline();
        ctx.spawn(lifeline.into_actor(self).map(|why, _, ctx| {
            ctx.notify(Broken {
                attachment: ATTACHMENT,
                why,
            });
        }));
        let mut book = self.book.borrow_mut();
        book.open(ATTACHMENT, attachment);
        book.release_held(ATTACHMENT);
    }

    fn tell_reset(&mut self, reset: &Reset, ctx: &mut Ctx) {
        let told = socket::reset(&self.named.spelled, reset);
        self.write(events::unplaced(&told), ctx);
    }

    fn tell_caught_up(&mut self, caught_up: &CaughtUp, ctx: &mut Ctx) {
        self.cursor = Some(caught_up.cursor);
        self.under_way = caught_up.turn.as_ref().map(|turn| turn.turn);
        let told = socket::resumed(&self.named.spelled, caught_up, self.server.timestamps);
        self.write(events::placed(caught_up.cursor, &told), ctx);
        if let Some(end) = &caught_up.end {
            let told = socket::missed_end(&self.named.spelled, end, self.server.timestamps);
            self.write(events::unplaced(&told), ctx);
        }
    }

    /// Its conversation died, or it was detached while its client did not read: goes on where it
    /// had come to.
    fn attach_again(&mut self, ctx: &mut Ctx) {
        let wanted = Wanted {
            after: Said::Nothing,
            cursor: self.cursor.map_or(Said::Nothing, Said::This),
            reasoning: self.reasoning,
        };
        let command = wanted.resume(self.caller.clone());
        let listener = listener(&ctx.address());
        self.book.borrow_mut().expect(ATTACHMENT, Given::Nothing);
        let conversation = self.conversation.clone();
        let resume = async move { conversation.go_on(command, listener).await };
        ctx.spawn(
            resume
                .into_actor(self)
                .map(|resumed, act, ctx| match resumed {
                    Ok(resumed) => act.go_on(resumed, ctx),
                    Err(EngineError::NotFound) => act.deleted(ctx),
                    // The client comes back, at its cursor.
                    Err(_later) => act.end(ctx),
                }),
        );
    }

    fn deleted(&mut self, ctx: &mut Ctx) {
        if self.over == Over::No {
            let told = socket::conversation_deleted(&self.named.spelled);
            self.write(events::unplaced(&told), ctx);
            self.end(ctx);
        }
    }

    fn end(&mut self, ctx: &mut Ctx) {
        if self.over == Over::No {
            self.over = Over::Yes;
            if let Some(retry_after) = self.going {
                self.write(events::retry(retry_after), ctx);
            }
            self.book.borrow_mut().close(ATTACHMENT);
            ctx.write_eof();
        }
    }

    fn go_when_all_is_told(&mut self, ctx: &mut Ctx) {
        if self.going.is_some() && self.under_way.is_none() {
            self.end(ctx);
        }
    }

    fn frames(&self, msg: &Deliver) -> Option<Bytes> {
        let (event, spelled) = (&*msg.event, &*self.named.spelled);
        let timestamps = self.server.timestamps;
        match &event.body {
            EventBody::Received(received) => {
                let told = socket::received_of_others(spelled, event, received, timestamps);
                events::all(&told)
            }
            EventBody::Ended(outcome) => {
                let told = socket::ended(spelled, event, outcome, timestamps);
                Some(events::placed(event.cursor, &told))
            }
            EventBody::Reasoning { .. } if self.reasoning == Reasoning::Hidden => None,
            EventBody::Cut { .. } => {
                let told = socket::event(spelled, event)?;
                Some(events::unplaced(std::str::from_utf8(&told).ok()?))
            }
            _ if spelled == self.named.id.as_str() => {
                let bytes = event.encoded(Transport::Events, |event| {
                    socket::event(spelled, event)
                        .map(|told| events::placed(event.cursor, &told))
                        .unwrap_or_default()
                });
                (!bytes.is_empty()).then(|| bytes.clone())
            }
            _ => socket::event(spelled, event).map(|told| events::placed(event.cursor, &told)),
        }
    }
}

impl Actor for EventsSession {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        let sockets = &self.server.sockets;
        sockets.add_stream(self.number, ctx.address().recipient());
        ctx.run_interval(KEEP_ALIVE, Self::keep_alive);
        let wait = Duration::from_millis(fastrand::u64(events::RETRY_MS));
        self.write(events::retry(wait), ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.server.sockets.remove(self.number);
    }
}

impl Handler<Begin> for EventsSession {
    type Result = ();

    fn handle(&mut self, msg: Begin, ctx: &mut Self::Context) {
        self.go_on(msg.0, ctx);
    }
}

impl Handler<Deliver> for EventsSession {
    type Result = ();

    fn handle(&mut self, msg: Deliver, ctx: &mut Self::Context) {
        if self.over == Over::Yes {
            return;
        }
        let event = &msg.event;
        if !matches!(event.body, EventBody::Cut { .. }) {
            self.cursor = Some(event.cursor);
            self.under_way = (!event.is_last()).then_some(event.turn);
        }
        match self.frames(&msg) {
            Some(bytes) => {
                self.book.borrow_mut().encoded(msg.attachment);
                self.write(bytes, ctx);
            }
            None => self.book.borrow_mut().skipped(msg.attachment),
        }
        self.go_when_all_is_told(ctx);
    }
}

impl Handler<Broken> for EventsSession {
    type Result = ();

    fn handle(&mut self, msg: Broken, ctx: &mut Self::Context) {
        match msg.why {
            _ if self.over == Over::Yes => {}
            Detached::Stalled | Detached::Lost => self.attach_again(ctx),
            Detached::Deleted => self.deleted(ctx),
        }
    }
}

impl Handler<Notice> for EventsSession {
    type Result = ();

    fn handle(&mut self, msg: Notice, ctx: &mut Self::Context) {
        match msg {
            // It keeps its connection alive by itself.
            Notice::Beat { .. } => {}
            Notice::GoAway { retry_after } => {
                self.going = Some(retry_after);
                self.go_when_all_is_told(ctx);
            }
        }
    }
}

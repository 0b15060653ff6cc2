//! Streams one turn as Server-Sent Events.

use std::{cell::RefCell, rc::Rc};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Handler, WrapFuture};
use actix_web::body::BoxBody;
use actix_web_actors::HttpContext;
use bytes::Bytes;
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{Attach, Deliver, Detached, From, Listener, StartTurn, Want},
        event::{Cursor, Event, EventBody, Transport},
    },
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    limits,
};

use super::{Broken, CreditBook, Given, KEEP_ALIVE, SessionBody, Taken};
use crate::wire::sse;

/// Whether events carry `id:` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// One line an event, as the ancestor's clients split it.
    Off,
    /// An `id:` line before each, for clients that resume.
    On,
}

/// The session of `POST /chat/stream`. Polled as the body of its response.
struct SseSession {
    conversation: ConversationHandle,
    caller: Caller,
    spelled: String,
    turn: TurnId,
    ids: Ids,
    book: Rc<RefCell<CreditBook>>,
    cursor: Option<Cursor>,
    wrote: Wrote,
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

/// Starts a turn; returns the body that streams it once its message is in the log.
pub async fn stream(
    conversation: ConversationHandle,
    spelled: String,
    command: StartTurn,
    ids: Ids,
) -> Result<BoxBody, EngineError> {
    let book = Rc::new(RefCell::new(CreditBook::default()));
    let address: Rc<RefCell<Option<Addr<SseSession>>>> = Rc::default();
    let body = {
        let (conversation, book, turn) = (conversation.clone(), book.clone(), command.turn);
        let (address, caller) = (address.clone(), command.caller.clone());
        HttpContext::with_factory(move |ctx| {
            *address.borrow_mut() = Some(ctx.address());
            SseSession {
                conversation,
                caller,
                spelled,
                turn,
                ids,
                book,
                cursor: None,
                wrote: Wrote::Nothing,
                over: Over::No,
            }
        })
    };
    let session = address.borrow_mut().take().ok_or(EngineError::Overloaded)?;
    let mut started = conversation
        .start_turn(command, Some(listener(&session, limits::CREDIT_WINDOW)))
        .await?;
    let mut attachment = started.attachment.take().ok_or(EngineError::Restarted)?;
    let guard = Guard {
        turn: started.turn,
        lifeline: Box::pin(attachment.lifeline()),
    };
    book.borrow_mut().expect(ATTACHMENT, Given::Window);
    book.borrow_mut().open(ATTACHMENT, attachment);
    if session.try_send(guard).is_err() {
        return Err(EngineError::Overloaded);
    }
    Ok(BoxBody::new(SessionBody {
        stream: Box::pin(body),
        book,
        takes: Taken::OneEvent,
    }))
}

fn listener(session: &Addr<SseSession>, credit: u32) -> Listener {
    Listener {
        attachment: ATTACHMENT,
        sink: session.clone().recipient(),
        want: Want::Everything,
        credit,
    }
}

/// What the start of the turn brought: which turn it is, that of an earlier request perhaps, and
/// the lifeline of the attachment.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Guard {
    turn: TurnId,
    lifeline: futures::future::BoxFuture<'static, Detached>,
}

impl SseSession {
    fn write(&mut self, bytes: Bytes, ctx: &mut HttpContext<Self>) {
        self.wrote = Wrote::Something;
        ctx.write(bytes);
    }

    fn finish(&mut self, last: Bytes, ctx: &mut HttpContext<Self>) {
        if self.over == Over::No {
            self.over = Over::Yes;
            self.book.borrow_mut().close(ATTACHMENT);
            self.write(last, ctx);
            ctx.write_eof();
        }
    }

    fn keep_alive(&mut self, ctx: &mut HttpContext<Self>) {
        if self.wrote == Wrote::Nothing && self.over == Over::No {
            ctx.write(Bytes::from_static(sse::KEEP_ALIVE));
        }
        self.wrote = Wrote::Nothing;
    }

    fn encode(&self, event: &Event) -> Option<Bytes> {
        match self.ids {
            Ids::Off => {
                let bytes = event.encoded(Transport::Sse, |event| {
                    sse::chunk(event).unwrap_or_default()
                });
                (!bytes.is_empty()).then(|| bytes.clone())
            }
            Ids::On => sse::chunk(event).map(|chunk| self.with_id(event, chunk)),
        }
    }

    fn with_id(&self, event: &Event, bytes: Bytes) -> Bytes {
        match self.ids {
            Ids::Off => bytes,
            Ids::On => {
                let mut with_id = format!("id: {}\n", event.cursor).into_bytes();
                with_id.extend_from_slice(&bytes);
                with_id.into()
            }
        }
    }

    fn watch(
        lifeline: impl Future<Output = Detached> + 'static,
        ctx: &mut HttpContext<Self>,
        act: &Self,
    ) {
        ctx.spawn(lifeline.into_actor(act).map(|why, _, ctx| {
            ctx.notify(Broken {
                attachment: ATTACHMENT,
                why,
            });
        }));
    }

    /// The client reads again after it had stopped for so long that it was detached.
    fn attach_again(&mut self, ctx: &mut HttpContext<Self>) {
        let Some(cursor) = self.cursor else {
            self.lost(&EngineError::Restarted, ctx);
            return;
        };
        let command = Attach {
            caller: self.caller.clone(),
            from: From::TurnAt(cursor),
        };
        let listener = listener(&ctx.address(), limits::CREDIT_WINDOW);
        self.book.borrow_mut().expect(ATTACHMENT, Given::Window);
        let conversation = self.conversation.clone();
        let attach = async move { conversation.attach(command, listener).await };
        ctx.spawn(
            attach
                .into_actor(self)
                .map(|attached, act, ctx| match attached {
                    Ok(mut attachment) => {
                        Self::watch(attachment.lifeline(), ctx, act);
                        act.book.borrow_mut().open(ATTACHMENT, attachment);
                    }
                    // It was deleted meanwhile.
                    Err(error @ EngineError::NotFound) => act.lost(&error, ctx),
                    Err(_gone) => act.lost(&EngineError::Restarted, ctx),
                }),
        );
    }

    fn lost(&mut self, error: &EngineError, ctx: &mut HttpContext<Self>) {
        let last = sse::error(&self.spelled, self.turn, error);
        self.finish(last, ctx);
    }
}

impl Actor for SseSession {
    type Context = HttpContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(KEEP_ALIVE, Self::keep_alive);
    }
}

impl Handler<Guard> for SseSession {
    type Result = ();

    fn handle(&mut self, guard: Guard, ctx: &mut Self::Context) {
        self.turn = guard.turn;
        Self::watch(guard.lifeline, ctx, self);
    }
}

impl Handler<Deliver> for SseSession {
    type Result = ();

    fn handle(&mut self, msg: Deliver, ctx: &mut Self::Context) {
        if self.over == Over::Yes {
            return;
        }
        let event = msg.event;
        self.cursor = Some(event.cursor);
        let bytes = match &event.body {
            EventBody::Ended(outcome) => {
                let last = match &outcome.error {
                    None => sse::done(&self.spelled, &event, outcome),
                    Some(error) => sse::error(&self.spelled, event.turn, error),
                };
                self.finish(self.with_id(&event, last), ctx);
                return;
            }
            EventBody::Received(received) => {
                let first = sse::conversation_start(&self.spelled, &event, received);
                Some(self.with_id(&event, first))
            }
            _ => self.encode(&event),
        };
        let mut book = self.book.borrow_mut();
        match bytes {
            Some(bytes) => {
                book.encoded(msg.attachment);
                drop(book);
                self.write(bytes, ctx);
            }
            None => book.skipped(msg.attachment),
        }
    }
}

impl Handler<Broken> for SseSession {
    type Result = ();

    fn handle(&mut self, msg: Broken, ctx: &mut Self::Context) {
        if self.over == Over::Yes {
            return;
        }
        match msg.why {
            Detached::Stalled => self.attach_again(ctx),
            Detached::Lost | Detached::Deleted => self.lost(&msg.error(), ctx),
        }
    }
}

//! A WebSocket, for as many conversations and turns as its client likes.
//!
//! The actor is polled as the body of the upgraded response: a client that does not read freezes
//! it, timers and all, so nothing here may be relied on to happen in time. What must happen, the
//! conversation does: it sends no more events than it has credit for, and detaches in the end.
//!
//! Turns of one client are never interleaved: the attachment of each turn is held back until the
//! turn before it is over. Client messages are carried out one after the other.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, StreamHandler, WrapFuture,
};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, CloseCode, CloseReason, ProtocolError, WebsocketContext};
use bytestring::ByteString;
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{Attach, Begin, Deliver, Detached, From, Listener, StartTurn, Want},
        event::{Cursor, Event, EventBody, Transport},
    },
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    limits,
};

use super::{Broken, CreditBook, Given, SessionBody};
use crate::{
    error::ApiError,
    server::Server,
    sockets::GoAway,
    wire::{
        chat::{ChatRequest, Named, PromptChoice},
        socket::{self, ClientMessage, Reasoning, Refused, Watch},
    },
};

mod frames;

use frames::{Assembled, Assembler};

/// Messages of one client that wait to be carried out; more are refused.
const INBOX_MAX: usize = 32;

/// Pings without any answer after which the peer counts as dead.
const PINGS_MAX: u32 = 2;

/// The session of `/ws/chat`.
struct WsSession {
    server: web::Data<Server>,
    caller: Caller,
    book: Rc<RefCell<CreditBook>>,
    number: u64,
    next_attachment: u64,
    /// What `message` means where it names nothing.
    current: Option<Named>,
    character_id: Option<String>,
    user_id: Option<String>,
    inbox: VecDeque<ClientMessage>,
    busy: Busy,
    /// Turns of this client whose events are to come, in order; the first has credit.
    own: VecDeque<Own>,
    watched: Vec<Watched>,
    assembler: Assembler,
    pings_unanswered: u32,
    speaks_added: Added,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    No,
    Yes,
}

/// Whether the client used anything that the ancestor did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    No,
    Yes,
}

/// A turn that this client began.
struct Own {
    turn: TurnId,
    named: Named,
    client_message_id: Option<String>,
    reasoning: Reasoning,
    via: Via,
    cursor: Option<Cursor>,
}

/// Where the events of an own turn come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    /// An attachment of its own.
    Turn(u64),
    /// The watch on its conversation.
    Watch,
}

/// A conversation all of whose events are wanted.
struct Watched {
    attachment: u64,
    named: Named,
    reasoning: Reasoning,
}

/// Upgrades a request to a socket.
pub fn start(
    server: web::Data<Server>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let mut response = ws::handshake(request).map_err(|error| ApiError::BadRequest {
        sentence: format!("This address speaks WebSocket: {error}"),
    })?;
    let book = Rc::new(RefCell::new(CreditBook::default()));
    let session = WsSession {
        number: server.sockets.next_number(),
        caller: Caller::Anonymous,
        book: book.clone(),
        next_attachment: 0,
        current: None,
        character_id: None,
        user_id: None,
        inbox: VecDeque::new(),
        busy: Busy::No,
        own: VecDeque::new(),
        watched: Vec::new(),
        assembler: Assembler::new(server.limits.frame_bytes),
        pings_unanswered: 0,
        speaks_added: Added::No,
        server,
    };
    let codec = actix_http_codec(session.server.limits.frame_bytes);
    let stream = WebsocketContext::with_codec(session, payload, codec);
    Ok(response.body(SessionBody {
        stream: Box::pin(stream),
        book,
    }))
}

fn actix_http_codec(frame_bytes: usize) -> actix_http::ws::Codec {
    actix_http::ws::Codec::new().max_size(frame_bytes)
}

type Ctx = WebsocketContext<WsSession>;

impl WsSession {
    fn handle_of(&self, named: &Named) -> ConversationHandle {
        self.server.conversation(named)
    }

    fn say(&self, text: String, ctx: &mut Ctx) {
        ctx.text(text);
    }

    fn take_text(&mut self, text: &str, ctx: &mut Ctx) {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Ping) => ctx.text(socket::PONG),
            Ok(_) if self.inbox.len() >= INBOX_MAX => {
                let refused = Refused {
                    sentence: EngineError::Busy.to_string(),
                    code: EngineError::Busy.code(),
                };
                self.say(socket::refused(&refused), ctx);
            }
            Ok(message) => {
                if message.is_added() {
                    self.speaks_added = Added::Yes;
                }
                self.inbox.push_back(message);
                self.next_message(ctx);
            }
            Err(refused) => self.say(socket::refused(&refused), ctx),
        }
    }

    fn next_message(&mut self, ctx: &mut Ctx) {
        while self.busy == Busy::No {
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
                        let refused = Refused {
                            sentence: "conversation_id is required. Send start_conversation first."
                                .into(),
                            code: "invalid_request",
                        };
                        self.say(socket::refused(&refused), ctx);
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
        self.busy = Busy::Yes;
        let conversation = self.handle_of(&named);
        let command = Begin {
            caller: self.caller.clone(),
            user_id: choice.user_id.clone(),
            character_id: choice.character_id.clone(),
        };
        let wanted = watch == Watch::All && !self.watches(&named);
        let number = self.number_attachment();
        let watching = wanted.then(|| {
            let attach = Attach {
                caller: self.caller.clone(),
                from: From::Now,
            };
            (attach, self.listener(number, limits::CREDIT_WINDOW, ctx))
        });
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
                    act.say(socket::conversation_started(&named.spelled), ctx);
                    if let Some(mut attachment) = attachment {
                        act.guard(number, attachment.lifeline(), ctx);
                        act.book
                            .borrow_mut()
                            .open(number, attachment, Given::Window);
                        act.watched.push(Watched {
                            attachment: number,
                            named,
                            reasoning,
                        });
                    }
                    if let Some(first) = first {
                        act.start_turn(first, ctx);
                        return;
                    }
                }
                Err(error) => act.say(socket::turn_error(&named.spelled, None, &error), ctx),
            }
            act.ready(ctx);
        }));
    }

    fn watches(&self, named: &Named) -> bool {
        self.watched
            .iter()
            .any(|watched| watched.named.id == named.id)
    }

    fn leave(&mut self, conversation: Option<Named>) {
        let Some(named) = conversation.or_else(|| self.current.clone()) else {
            return;
        };
        let book = &self.book;
        self.watched.retain(|watched| {
            let stays = watched.named.id != named.id;
            if !stays {
                book.borrow_mut().close(watched.attachment);
            }
            stays
        });
        self.own
            .retain(|own| own.named.id != named.id || own.via != Via::Watch);
    }

    fn number_attachment(&mut self) -> u64 {
        self.next_attachment += 1;
        self.next_attachment
    }

    fn listener(&self, attachment: u64, credit: u32, ctx: &mut Ctx) -> Listener {
        Listener {
            attachment,
            sink: ctx.address().recipient(),
            want: Want::Everything,
            credit,
        }
    }

    fn start_turn(&mut self, saying: Saying, ctx: &mut Ctx) {
        self.busy = Busy::Yes;
        let turn = TurnId::now();
        let number = self.number_attachment();
        let given = if self.own.is_empty() {
            Given::Window
        } else {
            Given::Nothing
        };
        let (via, listener) = if self.watches(&saying.named) {
            (Via::Watch, None)
        } else {
            // Held back until the turns before it are over.
            let credit = match given {
                Given::Window => limits::CREDIT_WINDOW,
                Given::Nothing => 0,
            };
            (Via::Turn(number), Some(self.listener(number, credit, ctx)))
        };
        let command = self.command(&saying, turn);
        let named = saying.named.clone();
        self.own.push_back(Own {
            turn,
            named: saying.named,
            client_message_id: saying.client_message_id,
            reasoning: saying.reasoning,
            via,
            cursor: None,
        });
        let conversation = self.handle_of(&named);
        let start = async move { conversation.start_turn(command, listener).await };
        ctx.spawn(start.into_actor(self).map(move |started, act, ctx| {
            match started {
                Ok(mut started) => {
                    if let Some(mut attachment) = started.attachment.take() {
                        act.guard(number, attachment.lifeline(), ctx);
                        act.book.borrow_mut().open(number, attachment, given);
                        // The turn before it may have ended while this one was being synced.
                        act.release_first();
                    }
                }
                Err(error) => {
                    act.say(socket::turn_error(&named.spelled, Some(turn), &error), ctx);
                    act.turn_over(turn);
                }
            }
            act.ready(ctx);
        }));
    }

    fn command(&self, saying: &Saying, turn: TurnId) -> StartTurn {
        ChatRequest::of_text(&saying.text, saying.choice.clone(), &self.server.defaults)
            .into_command(self.caller.clone(), turn)
    }

    fn guard(
        &self,
        attachment: u64,
        lifeline: impl Future<Output = Detached> + 'static,
        ctx: &mut Ctx,
    ) {
        ctx.spawn(lifeline.into_actor(self).map(move |why, _, ctx| {
            ctx.notify(Broken { attachment, why });
        }));
    }

    /// Takes an own turn off the list; the next one may come.
    fn turn_over(&mut self, turn: TurnId) {
        if let Some(position) = self.own.iter().position(|own| own.turn == turn) {
            if let Some(Via::Turn(number)) = self.own.remove(position).map(|own| own.via) {
                self.book.borrow_mut().close(number);
            }
            if position == 0 {
                self.release_first();
            }
        }
    }

    fn release_first(&mut self) {
        if let Some(Via::Turn(number)) = self.own.front().map(|own| &own.via) {
            self.book.borrow_mut().release_held(*number);
        }
    }

    fn deliver(&mut self, msg: &Deliver, ctx: &mut Ctx) {
        let event = &*msg.event;
        let own = self.own.iter_mut().find(|own| own.turn == event.turn);
        let watched = self
            .watched
            .iter()
            .find(|watched| watched.attachment == msg.attachment);
        let (spelled, reasoning) = match (&own, watched) {
            (Some(own), _) => (own.named.clone(), own.reasoning),
            (None, Some(watched)) => (watched.named.clone(), watched.reasoning),
            // Left, or over: the event was on its way.
            (None, None) => return,
        };
        let client_message_id = match own {
            Some(own) => {
                own.cursor = Some(event.cursor);
                Some(own.client_message_id.clone())
            }
            None => None,
        };
        let wrote = self.write(event, &spelled, reasoning, client_message_id, ctx);
        let mut book = self.book.borrow_mut();
        match wrote {
            Wrote::Something => book.encoded(msg.attachment),
            Wrote::Nothing => book.skipped(msg.attachment),
        }
        drop(book);
        if event.is_last() {
            self.turn_over(event.turn);
        }
    }

    /// Writes an event; `own` is set for the client's own turns, to its id of the message.
    fn write(
        &self,
        event: &Event,
        named: &Named,
        reasoning: Reasoning,
        own: Option<Option<String>>,
        ctx: &mut Ctx,
    ) -> Wrote {
        let timestamps = self.server.timestamps;
        match &event.body {
            EventBody::Received(received) => match own {
                Some(id) => {
                    self.say(
                        socket::message_received(&named.spelled, event, id.as_deref()),
                        ctx,
                    );
                }
                None => {
                    for message in &received.messages {
                        if let Some(text) =
                            socket::user_message(&named.spelled, event.turn, message, timestamps)
                        {
                            self.say(text, ctx);
                        }
                    }
                }
            },
            EventBody::Ended(outcome) => {
                self.say(
                    socket::ended(&named.spelled, event, outcome, timestamps),
                    ctx,
                );
            }
            EventBody::Reasoning { .. } if reasoning == Reasoning::Hidden => return Wrote::Nothing,
            EventBody::Started { .. }
            | EventBody::Text { .. }
            | EventBody::Reasoning { .. }
            | EventBody::Delta { .. }
            | EventBody::Finish { .. }
            | EventBody::Usage { .. } => {
                let canonical = named.id.as_str();
                let bytes = if named.spelled == canonical {
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

    fn heartbeat(&mut self, ctx: &mut Ctx) {
        if self.pings_unanswered >= PINGS_MAX {
            ctx.stop();
            return;
        }
        self.pings_unanswered += 1;
        ctx.ping(b"");
    }

    fn close(&self, code: CloseCode, why: &str, ctx: &mut Ctx) {
        ctx.close(Some(CloseReason {
            code,
            description: Some(why.to_owned()),
        }));
        ctx.stop();
    }

    /// An own turn's conversation died, or gave up on a client that did not read.
    fn own_broken(&mut self, attachment: u64, why: Detached, ctx: &mut Ctx) {
        let Some(own) = self.own.iter().find(|own| own.via == Via::Turn(attachment)) else {
            return;
        };
        let (turn, named) = (own.turn, own.named.clone());
        let cursor = own.cursor.filter(|_| why == Detached::Stalled);
        let Some(cursor) = cursor else {
            let error = EngineError::Restarted;
            self.say(socket::turn_error(&named.spelled, Some(turn), &error), ctx);
            self.turn_over(turn);
            return;
        };
        self.attach_again(attachment, named, From::TurnAt(cursor), Some(turn), ctx);
    }

    fn watch_broken(&mut self, attachment: u64, ctx: &mut Ctx) {
        let Some(watched) = self.watched.iter().find(|it| it.attachment == attachment) else {
            return;
        };
        let named = watched.named.clone();
        let error = EngineError::Restarted;
        self.say(socket::turn_error(&named.spelled, None, &error), ctx);
        self.own
            .retain(|own| own.via != Via::Watch || own.named.id != named.id);
        self.attach_again(attachment, named, From::Now, None, ctx);
    }

    fn attach_again(
        &mut self,
        attachment: u64,
        named: Named,
        from: From,
        turn: Option<TurnId>,
        ctx: &mut Ctx,
    ) {
        self.book.borrow_mut().close(attachment);
        let command = Attach {
            caller: self.caller.clone(),
            from,
        };
        let listener = self.listener(attachment, limits::CREDIT_WINDOW, ctx);
        let conversation = self.handle_of(&named);
        let attach = async move { conversation.attach(command, listener).await };
        ctx.spawn(
            attach
                .into_actor(self)
                .map(move |attached, act, ctx| match attached {
                    Ok(mut again) => {
                        act.guard(attachment, again.lifeline(), ctx);
                        act.book.borrow_mut().open(attachment, again, Given::Window);
                    }
                    Err(error) => {
                        act.say(socket::turn_error(&named.spelled, turn, &error), ctx);
                        act.watched
                            .retain(|watched| watched.attachment != attachment);
                        if let Some(turn) = turn {
                            act.turn_over(turn);
                        }
                    }
                }),
        );
    }
}

/// Something a client says.
struct Saying {
    named: Named,
    text: String,
    choice: PromptChoice,
    client_message_id: Option<String>,
    reasoning: Reasoning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Something,
}

impl Actor for WsSession {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::SESSION_MAILBOX);
        self.server
            .sockets
            .add(self.number, ctx.address().recipient());
        ctx.run_interval(self.server.ws_ping, Self::heartbeat);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.server.sockets.remove(self.number);
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for WsSession {
    fn handle(&mut self, item: Result<ws::Message, ProtocolError>, ctx: &mut Ctx) {
        self.pings_unanswered = 0;
        let frame = match item {
            Ok(frame) => frame,
            Err(ProtocolError::Overflow) => {
                self.close(CloseCode::Size, "the frame is too large", ctx);
                return;
            }
            Err(ProtocolError::Io(error)) if error.kind() == std::io::ErrorKind::Other => {
                self.close(CloseCode::Invalid, "the text is not UTF-8", ctx);
                return;
            }
            Err(error) => {
                self.close(CloseCode::Protocol, &error.to_string(), ctx);
                return;
            }
        };
        match frame {
            ws::Message::Text(text) => self.take_text(&text, ctx),
            ws::Message::Binary(_) => {
                let refused = Refused {
                    sentence: "Binary frames are not understood: send JSON text".into(),
                    code: "invalid_request",
                };
                self.say(socket::refused(&refused), ctx);
            }
            ws::Message::Continuation(piece) => match self.assembler.take(piece) {
                Assembled::More => {}
                Assembled::Text(text) => self.take_text(&text, ctx),
                Assembled::Binary => {
                    let refused = Refused {
                        sentence: "Binary frames are not understood: send JSON text".into(),
                        code: "invalid_request",
                    };
                    self.say(socket::refused(&refused), ctx);
                }
                Assembled::TooLarge => self.close(CloseCode::Size, "the message is too large", ctx),
                Assembled::NotUtf8 => {
                    self.close(CloseCode::Invalid, "the text is not UTF-8", ctx);
                }
            },
            ws::Message::Ping(payload) => ctx.pong(&payload),
            ws::Message::Pong(_) | ws::Message::Nop => {}
            ws::Message::Close(reason) => {
                ctx.close(reason);
                ctx.stop();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        ctx.stop();
    }
}

impl Handler<Deliver> for WsSession {
    type Result = ();

    fn handle(&mut self, msg: Deliver, ctx: &mut Ctx) {
        self.deliver(&msg, ctx);
    }
}

impl Handler<Broken> for WsSession {
    type Result = ();

    fn handle(&mut self, msg: Broken, ctx: &mut Ctx) {
        self.own_broken(msg.attachment, msg.why, ctx);
        self.watch_broken(msg.attachment, ctx);
    }
}

impl Handler<GoAway> for WsSession {
    type Result = ();

    fn handle(&mut self, msg: GoAway, ctx: &mut Ctx) {
        if self.speaks_added == Added::Yes {
            self.say(socket::going_away(msg.retry_after.as_secs()), ctx);
        }
        self.close(CloseCode::Away, "the server is shutting down", ctx);
    }
}

//! A WebSocket, for as many conversations and turns as its client likes.
//!
//! The actor is polled as the body of the upgraded response: a client that does not read freezes
//! it, timers and all, so nothing here may be relied on to happen in time. What must happen, the
//! conversation does: it sends no more events than it has credit for, and detaches in the end.
//!
//! Turns of one client are never interleaved: the attachment of each turn is held back until the
//! turn before it is over; only what a client watches is told as it happens. Client messages are
//! carried out one after the other.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Handler, StreamHandler};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, CloseCode, CloseReason, ProtocolError, WebsocketContext};
use futures::stream;
use idol_actors::{
    caller::Caller,
    conversation::{command::Deliver, event::Cursor},
    error::EngineError,
    id::{ConversationId, MessageId, TurnId},
    limits,
};

use super::{Broken, CreditBook, SessionBody, Taken};
use crate::{
    error::ApiError,
    server::Server,
    sockets::Notice,
    wire::{
        chat::Named,
        socket::{self, ClientMessage, Reasoning},
    },
};

mod asking;
mod frames;
mod hearing;
mod saying;
mod speaking;
mod telling;
mod watching;

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
    character_id: Option<Box<str>>,
    user_id: Option<Box<str>>,
    /// Boxed, as it keeps room for some: most clients are quiet.
    inbox: VecDeque<Box<ClientMessage>>,
    busy: Busy,
    /// Turns of this client whose events are to come, in order; the first has credit.
    own: VecDeque<Own>,
    watched: Vec<Watched>,
    resuming: Option<Box<Resuming>>,
    /// The reply that is being spoken, or was last.
    speech: Option<Box<speaking::SpeechUnderWay>>,
    /// A piece of it that is not told while the client speaks.
    held_piece: Option<Box<speaking::HeldPiece>>,
    /// Replies that are being cut to what was heard of them: what was asked behind them waits.
    interrupting: Vec<speaking::Interrupting>,
    /// Whether the client says what it plays.
    reports: Reports,
    /// What the client is saying aloud.
    utterance: Option<hearing::Utterance>,
    /// What it said before that is still being written down, in order.
    written: VecDeque<hearing::Written>,
    next_utterance: u64,
    pings_unanswered: u32,
    speaks_added: Added,
    /// Set once the server stops: the socket closes when its turns are told.
    going: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    No,
    Yes,
}

/// Whether a client says what it plays. One that does so has not heard what it has not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reports {
    No,
    Yes,
}

/// Whether the client used anything that the ancestor did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    No,
    Yes,
}

/// A conversation that is being resumed.
struct Resuming {
    conversation: ConversationId,
    /// Events of own turns there that came meanwhile: perhaps the watch will tell those turns.
    held: Vec<Deliver>,
}

/// A turn that this client asked for.
struct Own {
    /// The session's number for it, which its attachment has, too.
    number: u64,
    /// As minted here; once the turn is known to be that of an earlier request, that one's.
    turn: TurnId,
    named: Named,
    /// Id of its message, once that is in the log.
    message: Option<MessageId>,
    client_message_id: Option<String>,
    reasoning: Reasoning,
    via: Via,
    cursor: Option<Cursor>,
    /// Why no more events will come: told when the turns before it are over, since an error that
    /// names the conversation seems to end the turn that is being told.
    failed: Option<EngineError>,
}

/// Where the events of an own turn come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    /// An attachment of its own.
    Attachment,
    /// The watch on its conversation.
    Watch,
}

/// A conversation that is attached to as a whole.
struct Watched {
    attachment: u64,
    named: Named,
    reasoning: Reasoning,
    wanted: Wanted,
    cursor: Option<Cursor>,
    /// The turn that is being told.
    under_way: Option<TurnId>,
    /// Own turns begun before the watch, and turns asked for again: their own attachments tell them.
    told_elsewhere: VecDeque<TurnId>,
}

/// What of a watched conversation is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All of it.
    All,
    /// The client has left; own turns are told to their end.
    OwnTurns,
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
        resuming: None,
        speech: None,
        held_piece: None,
        interrupting: Vec::new(),
        reports: Reports::No,
        utterance: None,
        written: VecDeque::new(),
        next_utterance: 0,
        pings_unanswered: 0,
        speaks_added: Added::No,
        going: None,
        server,
    };
    // The context's own reader would gather a frame of any size: it is given nothing to read.
    let stream = WebsocketContext::with_factory(stream::pending(), move |ctx: &mut Ctx| {
        let bytes_max = session.server.limits.frame_bytes;
        ctx.add_stream(frames::Messages::new(payload, bytes_max));
        session
    });
    Ok(response.body(SessionBody {
        stream: Box::pin(stream),
        book,
        takes: Taken::Everything,
    }))
}

type Ctx = WebsocketContext<WsSession>;

impl WsSession {
    fn take_text(&mut self, text: &str, ctx: &mut Ctx) {
        match ClientMessage::parse(text, &self.server.voices.defaults) {
            Ok(ClientMessage::Ping) => ctx.text(socket::PONG),
            Ok(ClientMessage::Played { turn, sequence, ms }) => self.played(turn, sequence, ms),
            Ok(ClientMessage::AudioEnd) => self.utterance_ends(ctx),
            Ok(ClientMessage::AudioAbort) => self.utterance_is_lost(ctx),
            Ok(message) if self.inbox.len() >= INBOX_MAX => {
                ctx.text(socket::refused(&EngineError::Busy.into()));
                if let ClientMessage::AudioStart(_) = message {
                    self.start_is_refused(ctx);
                }
            }
            Ok(message) => {
                if message.is_added() {
                    self.speaks_added = Added::Yes;
                }
                match &message {
                    ClientMessage::Cancel { conversation, turn } => {
                        let speaks = self.speaks_for(conversation.as_ref(), *turn);
                        if !speaks || !self.barge_in(ctx) {
                            self.cancel_early(conversation.as_ref(), *turn, ctx);
                        }
                    }
                    message if message.is_said() && !self.repeats(message.key()) => {
                        self.barge_in(ctx);
                    }
                    _ => {}
                }
                match message {
                    // Its audio comes right behind, whatever waits.
                    ClientMessage::AudioStart(start) => self.utterance_begins(*start, ctx),
                    message => self.inbox.push_back(Box::new(message)),
                }
                self.next_message(ctx);
            }
            Err(refused) => {
                ctx.text(socket::refused(&refused));
                if socket::is_audio_start(text) {
                    self.start_is_refused(ctx);
                }
            }
        }
    }

    fn heartbeat(&mut self, ctx: &mut Ctx) {
        if self.pings_unanswered >= PINGS_MAX {
            ctx.stop();
            return;
        }
        self.pings_unanswered += 1;
        self.look_after_utterance(ctx);
        ctx.ping(b"");
    }

    fn close(&self, code: CloseCode, why: &str, ctx: &mut Ctx) {
        ctx.close(Some(CloseReason {
            code,
            description: Some(why.to_owned()),
        }));
        ctx.stop();
    }

    /// Closes the socket of a server that stops, once nothing is left to be told.
    fn go_when_all_is_told(&mut self, ctx: &mut Ctx) {
        let told = self.busy == Busy::No
            && self.own.is_empty()
            && !self.is_speaking()
            && !self.is_interrupting()
            && self.written.is_empty()
            && self.watched.iter().all(|it| it.under_way.is_none());
        let Some(retry_after) = self.going.filter(|_| told) else {
            return;
        };
        self.going = None;
        if self.speaks_added == Added::Yes {
            ctx.text(socket::going_away(retry_after.as_secs()));
        }
        self.close(CloseCode::Away, "the server is shutting down", ctx);
    }
}

impl Actor for WsSession {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::SESSION_MAILBOX);
        self.server
            .sockets
            .add(self.number, ctx.address().recipient());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.leave_written();
        self.server.sockets.remove(self.number);
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for WsSession {
    fn handle(&mut self, item: Result<ws::Message, ProtocolError>, ctx: &mut Ctx) {
        self.pings_unanswered = 0;
        match item {
            Ok(ws::Message::Text(text)) => self.take_text(&text, ctx),
            Ok(ws::Message::Binary(audio)) => self.utterance_goes_on(audio, ctx),
            Ok(ws::Message::Ping(payload)) => ctx.pong(&payload),
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            // Pieces are put together before they come here.
            Ok(ws::Message::Pong(_) | ws::Message::Nop | ws::Message::Continuation(_)) => {}
            Err(ProtocolError::Overflow) => {
                self.close(CloseCode::Size, "the message is too large", ctx);
            }
            Err(error) if frames::is_not_utf8(&error) => {
                self.close(CloseCode::Invalid, "the text is not UTF-8", ctx);
            }
            Err(error) => self.close(CloseCode::Protocol, &error.to_string(), ctx),
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
        self.broken(&msg, ctx);
    }
}

impl Handler<Notice> for WsSession {
    type Result = ();

    fn handle(&mut self, msg: Notice, ctx: &mut Ctx) {
        match msg {
            Notice::Beat { at } if at.elapsed() < self.server.ws_ping => self.heartbeat(ctx),
            // The client did not read, so that this froze; it reads again.
            Notice::Beat { .. } => {}
            Notice::GoAway { retry_after } => {
                self.going = Some(retry_after);
                self.go_when_all_is_told(ctx);
            }
        }
    }
}

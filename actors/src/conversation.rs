//! The conversation: one actor per `conversation_id`, the only owner of its history.
//!
//! It makes a user's message durable, asks a provider for the reply, fans the reply out to every
//! attached session, and makes the reply durable. One turn runs at a time, in order of arrival.
//! It never waits on a network inside its mailbox, never shows what is not synced, and dies of a
//! panic or of a log that gives no clear answer; the supervisor then starts another from the log.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, Response,
    SpawnHandle, WrapFuture, prelude::SendError,
};
use tokio::sync::oneshot;

use crate::{
    error::EngineError,
    id::{ConversationId, MessageId, Origin, TurnId},
    limits,
    loading::Found,
    log::entry::{EntryHead, Owed},
    mirror::imported::ImportedDocument,
    provider::Generation,
    shared::{Failpoint, Home, Shared, Vitals},
    supervisor::{End, Stopped},
    time::Timestamp,
    voice::usage::VoiceUsage,
};

mod abandoning;
mod appending;
pub mod backlog;
pub mod command;
pub mod context;
mod counting;
mod deleting;
pub mod document;
mod elsewhere;
pub mod event;
mod interrupting;
mod keeping;
pub mod message;
pub mod orphan;
pub mod prompt;
mod repeating;
mod resuming;
mod running;
mod starting;
pub mod stream;
pub mod subscribers;
pub mod tool_calls;
mod usage;

use backlog::{Backlog, Retold};
use command::{
    Adopting, Answer, AskAdopt, AskAttach, AskAttend, AskBegin, AskCancel, AskCount, AskDelete,
    AskDrain, AskInterrupt, AskKeyed, AskResume, AskSnapshot, AskStart, Attachment, Cancelled,
    CommandError, Control, ControlKind, Deliver, Detached, Effect, From, Hush, Interrupted,
    KeyedMessage, Listener, Reply, Resumed, Shed, Started,
};
use deleting::Deleting;
use document::{Document, Folded, Snapshot};
use elsewhere::{Elsewhere, TakingOver};
use interrupting::Hearing;
pub(crate) use keeping::Keep;
use keeping::Kept;
use message::StoredMessage;
use prompt::Parameters;
use repeating::{Claim, Follower};
use stream::{Position, Streams, TurnStream};
use subscribers::{Interest, Sent, SubscriberKey, Subscribers};
use tool_calls::ToolCalls;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Conversation {
    id: ConversationId,
    generation: u64,
    shared: Arc<Shared>,
    home: Arc<Home>,
    vitals: Arc<Vitals>,
    stage: Stage,
    history: History,
    /// Commands that came while the history was being read.
    parked: VecDeque<Parked>,
    streams: Streams,
    retold: OnceCell<Box<Retold>>,
    subscribers: Subscribers<Sink>,
    /// Who speaks replies, of turns that may be over.
    voices: Vec<(TurnId, Recipient<Hush>)>,
    /// Voices that are being silenced.
    hushing: usize,
    running: Option<Box<Running>>,
    waiting: VecDeque<Waiting>,
    /// What is to be appended next; one append is under way at a time.
    pending: Vec<Pending>,
    appending: Appending,
    /// When the end of a turn that was refused is offered again.
    retry: Option<SpawnHandle>,
    begun: Begun,
    /// Keys of turns whose acceptance is on its way to the log.
    claims: Vec<Claim>,
    /// Repeats of requests whose turn is on its way to the log.
    followers: Vec<Follower>,
    /// The deletion that is under way.
    deleting: Option<Box<Deleting>>,
    origin: Origin,
    elsewhere: Elsewhere,
    /// A document that was found after the conversation had begun.
    found_late: Option<Box<ImportedDocument>>,
    taking_over: TakingOver,
    /// Turns that an actor before this one left open are being ended: commands wait.
    recovering: Recovering,
    /// A reply is being cut to what was heard of it: the next prompt waits.
    hearing: Hearing,
    /// What was spoken and heard, and no entry tells yet.
    uncounted: VoiceUsage,
    /// Who waits for the first entry to be synced.
    beginners: Vec<Reply<bool>>,
    last_stamp: Timestamp,
    last_active: Instant,
    stall_check: Option<SpawnHandle>,
    drained: Vec<Reply<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Finishes what runs, takes nothing new.
    Draining,
    /// Out of the directory, or on the way out: takes nothing and writes nothing.
    Retired(End),
}

#[derive(Debug)]
enum History {
    /// Not read, or dropped to save memory.
    Absent,
    Reading,
    /// There is no such conversation; the log holds so many entries, the last one a deletion.
    None {
        seq: u64,
    },
    Here(Box<Document>),
    /// It could not be read.
    Failed(Box<EngineError>),
}

/// Whether the turns that were found open have got their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovering {
    No,
    Yes,
}

/// Whether the log has, or is being given, the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    No,
    Yes,
}

#[derive(Debug)]
enum Parked {
    Begin(command::Begin, Reply<bool>),
    Start(Box<command::StartTurn>, Option<Listener>, Reply<Started>),
    Attach(command::Attach, Listener, Reply<Attachment>),
    Resume(command::Resume, Listener, Reply<Resumed>),
    Snapshot(crate::caller::Caller, Reply<Option<Snapshot>>),
    Keyed(crate::caller::Caller, String, Reply<Option<KeyedMessage>>),
    Cancel(command::CancelTurn, Reply<Cancelled>),
    /// With what it has done already.
    Interrupt(command::Interrupt, Effect, Reply<Interrupted>),
    Count(VoiceUsage, Reply<()>),
    Delete(command::Delete, Reply<()>),
    Adopt(Box<ImportedDocument>, Reply<Adopting>),
}

/// Commands that may wait for the history.
const PARKED_MAX: usize = 256;

impl Parked {
    /// How many may wait already where it is to wait, too. All who watched a conversation come back
    /// at once when its server has started again.
    fn parked_max(&self) -> usize {
        match self {
            Self::Attach(..) | Self::Resume(..) => limits::SUBSCRIBERS_MAX,
            Self::Begin(..)
            | Self::Start(..)
            | Self::Snapshot(..)
            | Self::Keyed(..)
            | Self::Cancel(..)
            | Self::Interrupt(..)
            | Self::Count(..)
            | Self::Delete(..)
            | Self::Adopt(..) => PARKED_MAX,
        }
    }
}

#[derive(Debug)]
struct Sink {
    attachment: u64,
    to: actix::Recipient<Deliver>,
    lifeline: oneshot::Sender<Detached>,
}

impl Sink {
    fn send(&self, event: Arc<event::Event>) -> Sent {
        let deliver = Deliver {
            attachment: self.attachment,
            event,
        };
        match self.to.try_send(deliver) {
            Ok(()) => Sent::Yes,
            Err(SendError::Full(_)) => Sent::Full,
            Err(SendError::Closed(_)) => Sent::Gone,
        }
    }
}

/// The turn that is being answered.
#[derive(Debug)]
struct Running {
    ordinal: u64,
    turn: TurnId,
    attempt: u32,
    /// The message in whose place it is to stand.
    replaces: Option<MessageId>,
    model: Arc<str>,
    kept: Kept,
    accepted_at: Instant,
    /// When somebody was last known to listen, where that matters; else when it started.
    last_heard: Instant,
    first_token: Option<Duration>,
    call: Call,
    asked: Asked,
    finish: Option<(String, Option<String>)>,
    usage: Option<crate::provider::RawJson>,
    /// Models that wrote text, in the order of their first.
    writers: Vec<String>,
    tool_calls: ToolCalls,
    deadline: Option<SpawnHandle>,
}

/// What the provider was asked for the running turn.
#[derive(Debug, Default)]
struct Asked {
    /// How often it was asked.
    calls: u32,
    prompt_bytes: usize,
    /// The context length that the prompt was made for.
    context_tokens: u32,
    /// What it takes to ask once more; none: it was, or the reply has begun.
    again: Option<Waiting>,
    /// How the model failed that was asked for, while one after it is asked with a shorter prompt.
    told: Option<crate::provider::UpstreamError>,
}

/// Where the upstream call of the running turn is.
#[derive(Debug)]
enum Call {
    /// Asked for, the guard is on its way.
    Asked,
    /// Under way.
    Guarded(#[expect(dead_code, reason = "dropping it cancels the call")] Generation),
    /// Over, or owed to nobody; the turn's end waits for its acceptance to be synced, or is on its
    /// way to the log.
    Over,
}

/// A turn that is accepted, or on its way to the log, and does not run yet.
#[derive(Debug)]
struct Waiting {
    ordinal: u64,
    turn: TurnId,
    attempt: u32,
    /// The message in whose place it is to stand.
    replaces: Option<MessageId>,
    owed: Owed,
    parameters: Parameters,
    /// Its messages, for the prompt of a turn whose acceptance is not synced yet.
    messages: Vec<StoredMessage>,
    accepted_at: Instant,
}

/// An entry on its way to the log, and what to do when it is there.
#[derive(Debug)]
struct Pending {
    head: EntryHead,
    messages: Vec<StoredMessage>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Begun,
    Accepted {
        ordinal: u64,
        listener: Option<Listener>,
        reply: Reply<Started>,
    },
    Ended {
        ordinal: u64,
        outcome: Box<event::Outcome>,
        since: Instant,
    },
    /// A turn that an actor before this one left open.
    Recovered,
    Deleted,
    /// The reply of this turn was heard in part.
    Heard {
        turn: TurnId,
        reply: Reply<Interrupted>,
    },
    /// What was spoken and heard.
    Counted {
        usage: VoiceUsage,
        reply: Option<Reply<()>>,
    },
    /// What a copy had more; whoever offered it is told with the last entry.
    Adopted {
        messages: usize,
        reply: Option<Reply<Adopting>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appending {
    No,
    UnderWay,
    /// The end of a turn was refused and will be offered again after a wait.
    Retrying(Duration),
}

impl Conversation {
    pub(crate) fn new(
        id: ConversationId,
        origin: Origin,
        generation: u64,
        shared: Arc<Shared>,
        home: Arc<Home>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self {
            id,
            origin,
            elsewhere: Elsewhere::Settled,
            found_late: None,
            taking_over: TakingOver::No,
            generation,
            shared,
            home,
            vitals,
            stage: Stage::Open,
            history: History::Absent,
            parked: VecDeque::new(),
            streams: Streams::new(fastrand::u32(..)),
            retold: OnceCell::new(),
            subscribers: Subscribers::default(),
            voices: Vec::new(),
            hushing: 0,
            running: None,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            appending: Appending::No,
            retry: None,
            begun: Begun::No,
            claims: Vec::new(),
            followers: Vec::new(),
            deleting: None,
            recovering: Recovering::No,
            hearing: Hearing::No,
            uncounted: VoiceUsage::default(),
            beginners: Vec::new(),
            last_stamp: Timestamp::from_micros(0),
            last_active: Instant::now(),
            stall_check: None,
            drained: Vec::new(),
        }
    }

    fn document(&self) -> Option<&Document> {
        match &self.history {
            History::Here(document) => Some(document),
            History::Absent | History::Reading | History::None { .. } | History::Failed(_) => None,
        }
    }

    /// Entries that the log holds, as this actor knows.
    fn seq(&self) -> u64 {
        match &self.history {
            History::Here(document) => document.seq(),
            History::None { seq } => *seq,
            History::Absent | History::Reading | History::Failed(_) => 0,
        }
    }

    fn touch(&mut self) {
        self.last_active = Instant::now();
        self.vitals.touch();
    }

    /// Refuses what nobody may do now.
    fn admit<T>(&self, reply: Reply<T>) -> Option<Reply<T>> {
        match self.stage {
            Stage::Open => Some(reply),
            Stage::Draining => {
                let error = EngineError::ShuttingDown {
                    retry_after: self.shared.retry_after(),
                };
                answer(reply, Err(error.into()));
                None
            }
            Stage::Retired(_) => {
                answer(reply, Err(CommandError::Retired));
                None
            }
        }
    }

    /// Parks a command until the history is there; gives it back if it is.
    fn park(&mut self, command: Parked, ctx: &mut Context<Self>) -> Option<Parked> {
        // What is read waits, too, as what is about to be written was seen by somebody; but not for
        // a log that refuses to write.
        let reads = matches!(command, Parked::Snapshot(..))
            && matches!(self.appending, Appending::Retrying(_));
        let held = self.deleting.is_some()
            || (self.recovering == Recovering::Yes && !reads)
            || (command.replaces() && self.awaits_log())
            || (command.may_reopen() && self.taking_over == TakingOver::Yes)
            || self.awaits_hearing(&command)
            || self.awaits_elsewhere(&command);
        match &self.history {
            History::None { .. } if self.cannot_tell(&command) => {
                command.refuse(EngineError::MirrorUnavailable);
            }
            History::None { .. } | History::Here(_) if !held => return Some(command),
            History::Failed(error) => {
                command.refuse((**error).clone());
                // The next command gets a fresh actor, which reads again.
                self.retire(ctx);
            }
            _ if self.parked.len() >= command.parked_max() => {
                command.refuse(EngineError::Overloaded);
            }
            History::Reading | History::None { .. } | History::Here(_) => {
                self.parked.push_back(command);
            }
            History::Absent => {
                self.parked.push_back(command);
                self.read_history(ctx);
            }
        }
        None
    }

    fn read_history(&mut self, ctx: &mut Context<Self>) {
        self.history = History::Reading;
        let loader = self.shared.loader.clone();
        let id = self.id.clone();
        let load = async move { loader.load(id).await };
        ctx.spawn(load.into_actor(self).map(|found, act, ctx| {
            act.history_read(found, ctx);
        }));
    }

    fn history_read(&mut self, found: Result<Found, EngineError>, ctx: &mut Context<Self>) {
        let mut partials = Vec::new();
        self.history = match found {
            Ok(found) => {
                partials = found.partials;
                match found.history {
                    Folded::Here(document) => {
                        self.begun = Begun::Yes;
                        self.last_stamp = document.next_timestamp(self.last_stamp);
                        History::Here(document)
                    }
                    Folded::Over { seq } => History::None { seq },
                }
            }
            Err(error) => History::Failed(Box::new(error)),
        };
        self.account();
        self.end_orphans(partials, ctx);
        self.look_elsewhere(ctx);
        self.carry_out_parked(ctx);
        self.drained_check();
    }

    fn carry_out_parked(&mut self, ctx: &mut Context<Self>) {
        for command in std::mem::take(&mut self.parked) {
            self.carry_out(command, ctx);
        }
    }

    fn carry_out(&mut self, command: Parked, ctx: &mut Context<Self>) {
        match self.park(command, ctx) {
            None => {}
            Some(Parked::Begin(command, reply)) => self.begin(command, reply, ctx),
            Some(Parked::Start(command, listener, reply)) => {
                self.start_turn(*command, listener, reply, ctx);
            }
            Some(Parked::Attach(command, listener, reply)) => {
                let attached = self.attach(&command, listener, ctx);
                answer(reply, attached.map_err(CommandError::Engine));
            }
            Some(Parked::Resume(command, listener, reply)) => {
                let resumed = self.resume(&command, listener, ctx);
                answer(reply, resumed.map_err(CommandError::Engine));
            }
            Some(Parked::Cancel(command, reply)) => {
                let cancelled = self.cancel(&command, ctx);
                answer(reply, cancelled.map_err(CommandError::Engine));
            }
            Some(Parked::Interrupt(command, effect, reply)) => {
                self.interrupt(command, effect, reply, ctx);
            }
            Some(Parked::Count(usage, reply)) => self.count(usage, reply, ctx),
            Some(Parked::Delete(command, reply)) => self.delete(&command, reply, ctx),
            Some(Parked::Adopt(document, reply)) => self.adopt(&document, Some(reply), ctx),
            Some(Parked::Keyed(caller, key, reply)) => {
                answer(reply, Ok(self.keyed_message(&caller, &key)));
            }
            Some(Parked::Snapshot(caller, reply)) => {
                let found = self.document().filter(|it| caller.may_use(it.user_id()));
                answer(reply, Ok(found.map(Document::snapshot)));
            }
        }
    }

    /// Keeps the books on memory.
    fn account(&self) {
        let bytes = self.document().map_or(0, Document::bytes);
        let before = self.vitals.bytes.swap(bytes, Ordering::Relaxed);
        self.shared.resident.fetch_add(bytes, Ordering::Relaxed);
        self.shared.resident.fetch_sub(before, Ordering::Relaxed);
    }

    fn attach(
        &mut self,
        command: &command::Attach,
        listener: Listener,
        ctx: &mut Context<Self>,
    ) -> Result<Attachment, EngineError> {
        let document = self.document().ok_or(EngineError::NotFound)?;
        if !command.caller.may_use(document.user_id()) {
            return Err(EngineError::NotFound);
        }
        let (interest, position) = match command.from {
            From::Now => {
                let position = Position {
                    ordinal: self.first_untold(),
                    ..Position::default()
                };
                (Interest::All, position)
            }
            From::TurnAt(cursor) => match self.streams.locate(cursor) {
                Some(Ok(position)) => (Interest::Turn(position.ordinal), position),
                Some(Err(_misplaced)) => return Err(EngineError::Restarted),
                None => {
                    let record = document.turn(cursor.turn);
                    let told = record.and_then(TurnStream::from_record);
                    let told = told.ok_or(EngineError::Restarted)?;
                    let at = told.place(0, cursor);
                    let at = at.map_err(|_misplaced| EngineError::Restarted)?;
                    let backlog = Backlog::of(told, at).ok_or(EngineError::Restarted)?;
                    let history = (Position::default(), Some(backlog));
                    return self.subscribe(listener, Interest::History, history, ctx);
                }
            },
        };
        self.subscribe(listener, interest, (position, None), ctx)
    }

    fn subscribe(
        &mut self,
        listener: Listener,
        interest: Interest,
        (position, backlog): (Position, Option<Box<Backlog>>),
        ctx: &mut Context<Self>,
    ) -> Result<Attachment, EngineError> {
        if self.subscribers.len() >= limits::SUBSCRIBERS_MAX {
            return Err(EngineError::Overloaded);
        }
        let (lifeline, broken) = oneshot::channel();
        let sink = Sink {
            attachment: listener.attachment,
            to: listener.sink,
            lifeline,
        };
        let key = self
            .subscribers
            .add(sink, interest, position, listener.credit);
        if let Some(backlog) = backlog {
            self.subscribers.tell_first(key, backlog);
        }
        let attachment = Attachment::new(key, ctx.address().recipient(), broken);
        self.pump(key, ctx);
        Ok(attachment)
    }

    fn pump(&mut self, key: SubscriberKey, ctx: &mut Context<Self>) {
        if self.is_paused() {
            return;
        }
        self.subscribers.pump(
            key,
            &mut self.streams,
            limits::EVENT_TEXT_BYTES_MAX,
            Instant::now(),
            Sink::send,
        );
        self.after_pump(ctx);
    }

    fn pump_all(&mut self, ctx: &mut Context<Self>) {
        if self.is_paused() {
            return;
        }
        self.subscribers.pump_all(
            &mut self.streams,
            limits::EVENT_TEXT_BYTES_MAX,
            Instant::now(),
            Sink::send,
        );
        self.after_pump(ctx);
    }

    fn after_pump(&mut self, ctx: &mut Context<Self>) {
        let needed = self.subscribers.oldest_needed(self.streams.end());
        self.streams.trim(needed);
        if self.stall_check.is_none() && self.subscribers.anyone_waits() {
            self.shared.metrics.credit_exhausted.inc();
            let deadline = self.shared.config.stall_deadline;
            self.stall_check = Some(ctx.run_later(deadline, Self::check_stalled));
        }
    }

    fn check_stalled(&mut self, ctx: &mut Context<Self>) {
        self.stall_check = None;
        self.note_listeners();
        let deadline = self.shared.config.stall_deadline;
        let turns = limits::RESUME_TURNS_MAX as u64;
        let oldest = self.first_untold().saturating_sub(turns);
        let now = Instant::now();
        for sink in self.subscribers.take_stalled(now, deadline, oldest) {
            self.shared.metrics.stalled.inc();
            // Its session finds out when its client reads again.
            if sink.lifeline.send(Detached::Stalled).is_err() {
                tracing::trace!("a stalled session had left already");
            }
        }
        // Those whose mailbox was full are offered their events again.
        self.pump_all(ctx);
    }

    /// Whether something is owed: an answer, an append, a reply.
    fn owes(&self) -> bool {
        self.running.is_some()
            || !self.waiting.is_empty()
            || !self.pending.is_empty()
            || !self.parked.is_empty()
            || self.deleting.is_some()
            || matches!(self.elsewhere, Elsewhere::Awaited | Elsewhere::Importing)
            || self.found_late.is_some()
            || self.appending != Appending::No
            || matches!(self.history, History::Reading)
    }

    fn idle_check(&mut self, ctx: &mut Context<Self>) {
        self.subscribers.retain(|sink| sink.to.connected());
        let limit = match self.history {
            History::Here(_) => self.shared.config.conversation_idle,
            History::Absent | History::Reading | History::None { .. } | History::Failed(_) => {
                limits::EMPTY_IDLE
            }
        };
        let idle = self.last_active.elapsed();
        if self.owes() || !self.subscribers.is_empty() || idle < limit {
            // One timer per conversation, and a rare one: thousands of them idle at once.
            let left = limit.saturating_sub(idle);
            let wait = if left.is_zero() { limit } else { left };
            ctx.run_later(wait, Self::idle_check);
        } else {
            self.retire(ctx);
        }
    }

    /// Leaves the directory first; from then on refuses everything; then stops.
    fn retire(&mut self, ctx: &mut Context<Self>) {
        if self.owes() {
            return;
        }
        self.drained_check();
        self.stage = Stage::Retired(End::Idle);
        self.shared.directory.remove(&self.id, self.generation);
        ctx.stop();
    }

    /// Gives up after the log failed: tells everybody, and stops, to be read again from the log.
    fn fail(&mut self, error: &EngineError, ctx: &mut Context<Self>) {
        self.stage = Stage::Retired(End::Failed);
        self.shared.directory.remove(&self.id, self.generation);
        for ordinal in self.streams.ordinals() {
            let Some(stream) = self.streams.get_mut(ordinal) else {
                continue;
            };
            if !stream.ended() {
                stream.end(Arc::new(event::Outcome::failed(
                    stream.head().clone(),
                    crate::log::entry::INTERRUPTED,
                    error.clone(),
                )));
            }
        }
        self.pump_all(ctx);
        ctx.stop();
    }

    fn drained_check(&mut self) {
        // Ends of turns of before that find no room are the next start's to write.
        let no_room =
            self.recovering == Recovering::Yes && matches!(self.appending, Appending::Retrying(_));
        if self.stage == Stage::Draining && (no_room || !self.owes()) {
            for reply in self.drained.drain(..) {
                answer(reply, Ok(()));
            }
        }
    }

    fn at(&self, failpoint: Failpoint) {
        if let Some(hook) = &self.shared.config.failpoints {
            hook.reached(failpoint, &self.id);
        }
    }
}

impl Parked {
    fn refuse(self, error: EngineError) {
        match self {
            Self::Begin(_, reply) => answer(reply, Err(error.into())),
            Self::Start(_, _, reply) => answer(reply, Err(error.into())),
            Self::Attach(_, _, reply) => answer(reply, Err(error.into())),
            Self::Resume(_, _, reply) => answer(reply, Err(error.into())),
            Self::Snapshot(_, reply) => answer(reply, Err(error.into())),
            Self::Keyed(_, _, reply) => answer(reply, Err(error.into())),
            Self::Cancel(_, reply) => answer(reply, Err(error.into())),
            Self::Interrupt(_, _, reply) => answer(reply, Err(error.into())),
            Self::Count(_, reply) => answer(reply, Err(error.into())),
            Self::Delete(_, reply) => answer(reply, Err(error.into())),
            Self::Adopt(_, reply) => answer(reply, Err(error.into())),
        }
    }
}

/// Answers a command. Nobody may be waiting any more: that is fine.
fn answer<T>(reply: Reply<T>, result: Answer<T>) {
    drop(reply.send(result));
}

impl Actor for Conversation {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::CONVERSATION_MAILBOX);
        self.shared.metrics.conversations.inc();
        self.read_history(ctx);
        ctx.run_later(limits::EMPTY_IDLE, Self::idle_check);
    }

    /// May follow a panic: trusts nothing of the state but what never changes.
    fn stopped(&mut self, _: &mut Self::Context) {
        self.shared.metrics.conversations.dec();
        self.shared.directory.remove(&self.id, self.generation);
        let before = self.vitals.bytes.swap(0, Ordering::Relaxed);
        self.shared.resident.fetch_sub(before, Ordering::Relaxed);
        let end = match self.stage {
            Stage::Retired(end) => end,
            Stage::Open | Stage::Draining => End::Died,
        };
        if end != End::Idle {
            self.shared.metrics.restarts.inc();
        }
        let stopped = Stopped {
            id: self.id.clone(),
            end,
        };
        if let Err(error) = self.shared.supervisor.try_send(stopped) {
            tracing::debug!(%error, conversation = %self.id, "the supervisor was not told of a stop");
        }
    }
}

/// Hands a command over with a reply to await; an actor that dies drops the reply.
macro_rules! handle {
    ($ask:ty, $answer:ty, |$act:ident, $msg:ident, $reply:ident, $ctx:ident| $body:expr) => {
        impl Handler<$ask> for Conversation {
            type Result = Response<Answer<$answer>>;

            fn handle(&mut self, $msg: $ask, $ctx: &mut Self::Context) -> Self::Result {
                self.touch();
                let ($reply, answer) = oneshot::channel();
                let $act = self;
                $body;
                Response::fut(async move {
                    answer
                        .await
                        .unwrap_or(Err(CommandError::Engine(EngineError::Restarted)))
                })
            }
        }
    };
}

handle!(AskBegin, bool, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Begin(msg.command, reply), ctx);
    }
});
handle!(AskStart, Started, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Start(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskAttach, Attachment, |act, msg, reply, ctx| {
    // A session that had stalled is told its turn to the end while the server drains.
    let goes_on = matches!(msg.command.from, From::TurnAt(_));
    let reply = match act.stage {
        Stage::Draining if goes_on => Some(reply),
        _ => act.admit(reply),
    };
    if let Some(reply) = reply {
        act.carry_out(Parked::Attach(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskResume, Resumed, |act, msg, reply, ctx| {
    // A session that had listened goes on while the server drains: the handle turns others away.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Resume(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskSnapshot, Option<Snapshot>, |act, msg, reply, ctx| {
    // Reading goes on while the server drains.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Snapshot(msg.caller, reply), ctx);
    }
});
handle!(AskCancel, Cancelled, |act, msg, reply, ctx| {
    // Stopping goes on while the server drains, as reading does.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Cancel(msg.command, reply), ctx);
    }
});
handle!(AskInterrupt, Interrupted, |act, msg, reply, ctx| {
    // As stopping does.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        let command = Parked::Interrupt(msg.command, Effect::Nothing, reply);
        act.carry_out(command, ctx);
    }
});
handle!(AskKeyed, Option<KeyedMessage>, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Keyed(msg.caller, msg.key, reply), ctx);
    }
});
handle!(AskAttend, (), |act, msg, reply, _ctx| {
    act.attend(msg.turn, msg.voice);
    answer(reply, Ok(()));
});
handle!(AskCount, (), |act, msg, reply, ctx| {
    // What was used while the server drains was used, too.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Count(msg.usage, reply), ctx);
    }
});
handle!(AskDelete, (), |act, msg, reply, ctx| {
    // What somebody wants gone must not stay because the server is about to stop.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Delete(msg.command, reply), ctx);
    }
});
handle!(AskAdopt, Adopting, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Adopt(msg.document, reply), ctx);
    }
});
handle!(AskDrain, (), |act, msg, reply, ctx| {
    act.drained.push(reply);
    act.drain(msg.grace, ctx);
});

impl Handler<Control> for Conversation {
    type Result = ();

    fn handle(&mut self, msg: Control, ctx: &mut Self::Context) {
        match msg.what {
            ControlKind::Credit(events) => {
                self.subscribers.credit(msg.key, events);
                self.pump(msg.key, ctx);
            }
            ControlKind::Detach => {
                self.note_listeners();
                self.subscribers.remove(msg.key);
                self.touch();
                self.after_pump(ctx);
            }
        }
    }
}

impl Handler<Shed> for Conversation {
    type Result = ();

    fn handle(&mut self, _: Shed, ctx: &mut Self::Context) {
        if self.owes() || self.stage != Stage::Open {
            return;
        }
        if self.subscribers.is_empty() {
            self.retire(ctx);
        } else if self.document().is_some() {
            let needed = self.subscribers.oldest_needed(self.streams.end());
            self.streams.clear_ended(needed);
            self.history = History::Absent;
            self.account();
        }
    }
}

fn message_id(messages: &[StoredMessage]) -> Option<MessageId> {
    messages.last().and_then(StoredMessage::id)
}

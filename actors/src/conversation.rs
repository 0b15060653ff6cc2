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

use actix::{Actor, ActorContext, AsyncContext, Context, Recipient, SpawnHandle};

use crate::{
    error::EngineError,
    id::{ConversationId, MessageId, Origin, TurnId},
    limits,
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
mod ending;
pub mod event;
mod interrupting;
mod keeping;
pub mod message;
pub mod orphan;
mod parking;
pub mod prompt;
mod receiving;
mod repeating;
mod resuming;
mod running;
mod starting;
pub mod stream;
pub mod streams;
pub mod subscribers;
pub mod tool_calls;
mod usage;
mod watching;

use backlog::Retold;
use command::{Adopting, Answer, Hush, Interrupted, Listener, Reply, Started};
use deleting::Deleting;
use document::Document;
use elsewhere::{Elsewhere, TakingOver};
use interrupting::Hearing;
pub(crate) use keeping::Keep;
use keeping::Kept;
use message::StoredMessage;
use parking::Parked;
use prompt::Parameters;
use repeating::{Claim, Follower};
use streams::Streams;
use subscribers::Subscribers;
use tool_calls::ToolCalls;
use watching::Sink;

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

    /// Keeps the books on memory.
    fn account(&self) {
        let bytes = self.document().map_or(0, Document::bytes);
        let before = self.vitals.bytes.swap(bytes, Ordering::Relaxed);
        self.shared.resident.fetch_add(bytes, Ordering::Relaxed);
        self.shared.resident.fetch_sub(before, Ordering::Relaxed);
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

fn message_id(messages: &[StoredMessage]) -> Option<MessageId> {
    messages.last().and_then(StoredMessage::id)
}

//! One object per conversation in a bucket of Supabase, and a row of `chats` where there can be one.
//!
//! Behind the log by seconds, or by hours if Supabase is away: then the log is what remembers. A
//! write is recorded before it is sent, since one without an answer may land long after it; nothing
//! of ours is sent after it until it cannot any more. What another hand put in our place is kept.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use actix::{
    Actor, ActorFutureExt as _, Addr, Arbiter, AsyncContext as _, Context, Handler, ResponseFuture,
    SpawnHandle, WrapFuture as _,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use self::{
    chat_rows::ChatRows,
    door::Door,
    standing::Standings,
    work::{Memory, Refusal, Tools, Work},
};
use super::{
    Adopter, Changed, Flush, Render,
    schedule::Schedule,
    supabase::{Bucket, SupabaseError},
};
use crate::{
    id::ConversationId,
    log::sqlite::{LaggingCursor, SqliteLog},
};

mod chat_rows;
mod documents;
mod door;
mod finding;
mod lineage;
mod removal;
mod settings;
mod settling;
mod standing;
mod work;

pub use documents::SupabaseDocuments;
pub use door::Backoff;
pub use settings::{SupabaseOptions, SupabaseState, Waits};

/// Name under which the log keeps this mirror's progress.
pub const MIRROR: &str = "supabase";

/// Notices that may wait. More are dropped by their sender: the next sweep finds what they told of.
const MAILBOX: usize = 1024;

/// Documents on their way at once.
const IN_FLIGHT_MAX: usize = 8;

/// Rows of the log looked at in one step of a sweep.
const SWEEP_PAGE: usize = 256;

/// Objects of which it is remembered whose they are. To forget one costs a question.
const MEMORY_MAX: usize = 100_000;

/// Refused documents that are remembered. One beyond them is tried again after a few minutes.
const REFUSED_MAX: usize = 100_000;

/// A running mirror.
#[derive(Debug)]
pub struct Running {
    /// Takes [`Changed`] and [`Flush`]. Each sender keeps one clone.
    pub address: Addr<SupabaseMirror>,
    /// Always the newest state.
    pub state: watch::Receiver<SupabaseState>,
    adopter: Arc<OnceLock<Arc<dyn Adopter>>>,
    arbiter: Arbiter,
}

impl Running {
    /// Names who takes over what only the bucket holds. Until then documents that need it wait.
    pub fn connect(&self, adopter: Arc<dyn Adopter>) {
        if self.adopter.set(adopter).is_err() {
            tracing::error!("the mirror has an adopter already");
        }
    }

    /// Ends the mirror's thread. What is pending is found in the log by the next run.
    pub fn stop(&self) {
        self.arbiter.stop();
    }
}

/// The mirror. Owns the schedule; works on a few documents at a time, beside its mailbox.
///
/// Dies only with its arbiter. Nothing in it needs saving.
pub struct SupabaseMirror {
    tools: Tools,
    schedule: Schedule,
    standings: Standings,
    state: watch::Sender<SupabaseState>,
    door: Door,
    /// As it was described last. Nothing is sent before.
    bucket: Option<Bucket>,
    probing: bool,
    in_flight: usize,
    memory: HashMap<ConversationId, Memory>,
    refused: HashMap<ConversationId, Refused>,
    rows: ChatRows,
    /// A step of a sweep is under way.
    looking: bool,
    /// Where the sweep goes on.
    sweep: Option<LaggingCursor>,
    alarm: Option<(Instant, SpawnHandle)>,
    flushes: Vec<oneshot::Sender<usize>>,
}

/// A document that the server does not take.
#[derive(Debug, Clone, Copy)]
struct Refused {
    seq: u64,
    why: Refusal,
    /// The bucket was described anew since.
    reread: bool,
}

impl SupabaseMirror {
    /// Starts the mirror on a thread of its own. Needs a running actix system.
    #[must_use]
    pub fn run(log: Arc<SqliteLog>, render: Arc<dyn Render>, options: SupabaseOptions) -> Running {
        let arbiter = Arbiter::new();
        let adopter = Arc::new(OnceLock::new());
        let (sender, state) = watch::channel(SupabaseState::default());
        let tools = Tools {
            log,
            render,
            client: options.client,
            adopter: adopter.clone(),
            hook: options.hook,
            waits: Arc::new(options.waits),
        };
        let address = Self::start_in_arbiter(&arbiter.handle(), move |_| Self {
            door: Door::new(tools.waits.backoff),
            rows: ChatRows::new(tools.waits.backoff),
            schedule: Schedule::new(options.idle),
            standings: Standings::default(),
            state: sender,
            bucket: None,
            probing: false,
            in_flight: 0,
            memory: HashMap::new(),
            refused: HashMap::new(),
            looking: false,
            sweep: Some(LaggingCursor::default()),
            alarm: None,
            flushes: vec![],
            tools,
        });
        Running {
            address,
            state,
            adopter,
            arbiter,
        }
    }
}

impl Actor for SupabaseMirror {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let waits = self.tools.waits.clone();
        ctx.run_interval(waits.sweep, |actor, ctx| {
            actor.sweep.get_or_insert_default();
            actor.pump(ctx);
        });
        ctx.run_interval(waits.limit, |actor, ctx| {
            if !actor.refused.is_empty() && actor.bucket.is_some() && !actor.probing {
                actor.probe(ctx);
            }
        });
        ctx.run_interval(waits.rows, |actor, ctx| {
            let oldest = actor.schedule.oldest();
            actor
                .state
                .send_if_modified(|state| std::mem::replace(&mut state.oldest, oldest) != oldest);
            actor.pump_rows(ctx);
        });
        self.pump(ctx);
    }
}

impl Handler<Changed> for SupabaseMirror {
    type Result = ();

    fn handle(&mut self, changed: Changed, ctx: &mut Self::Context) {
        let now = Instant::now();
        let Changed { id, seq, bytes } = changed;
        self.rows.changed(&id);
        self.schedule.changed(now, id, seq, bytes);
        self.report(|state| {
            state.oldest.get_or_insert(now);
        });
        self.pump(ctx);
    }
}

impl Handler<Flush> for SupabaseMirror {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.flushes.push(reply);
        self.sweep = Some(LaggingCursor::default());
        self.schedule.hasten(Instant::now());
        ctx.run_later(flush.deadline, |actor, _| actor.answer_flushes());
        self.pump(ctx);
        self.pump_rows(ctx);
        // Unanswered only if the actor ends, and then nothing counts.
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl SupabaseMirror {
    /// Begins whatever can be begun.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let waiting = |due: Option<Instant>| due.is_none_or(|due| due > now);
        if let Some(cursor) = self.sweep
            && !self.looking
            && (self.schedule.backlog() < SWEEP_PAGE || waiting(self.schedule.next_due()))
        {
            self.look(cursor, ctx);
        }
        let shut = self.door.is_shut(now);
        if self.bucket.is_none() && !shut && !self.probing {
            self.probe(ctx);
        }
        let sweeping = self.looking || self.sweep.is_some();
        if !self.flushes.is_empty() && !sweeping && waiting(self.schedule.next_due()) {
            self.schedule.hasten_untried(now);
        }
        while self.in_flight < self.at_once(now) {
            let Some(id) = self.schedule.take_due(now, 1).pop() else {
                break;
            };
            self.work_on(id, ctx);
        }
        // While Supabase is away a flush is in vain, and a shutdown need not wait for it.
        let idle = self.in_flight == 0
            && !self.probing
            && (shut || (!sweeping && self.rows.is_idle(now) && waiting(self.schedule.next_due())));
        if idle {
            self.answer_flushes();
        }
        self.set_alarm(now, ctx);
    }

    /// Documents that may be on their way now.
    fn at_once(&self, now: Instant) -> usize {
        if self.bucket.is_none() || self.door.is_shut(now) {
            0
        } else if self.door.is_doubtful() {
            1
        } else {
            IN_FLIGHT_MAX
        }
    }

    fn work_on(&mut self, id: ConversationId, ctx: &mut Context<Self>) {
        self.in_flight += 1;
        let bytes_max = self.bucket.as_ref().and_then(|it| it.file_size_limit);
        let memory = self.memory.get(&id).copied().unwrap_or_default();
        let refused = self.refused.get(&id).map(|refused| refused.why);
        let work = Work::new(self.tools.clone(), id, memory, bytes_max, refused);
        let work = work.run().into_actor(self);
        ctx.spawn(work.map(|done, actor, ctx| {
            actor.in_flight -= 1;
            actor.settle(done);
            actor.pump(ctx);
        }));
    }

    /// Asks for the bucket: whether Supabase is there, and what it takes.
    fn probe(&mut self, ctx: &mut Context<Self>) {
        self.probing = true;
        let client = self.tools.client.clone();
        let asked = async move { client.ensure_bucket().await }.into_actor(self);
        ctx.spawn(asked.map(|found, actor, ctx| {
            actor.probing = false;
            actor.probed(found);
            actor.pump(ctx);
        }));
    }

    fn probed(&mut self, found: Result<Bucket, SupabaseError>) {
        match found {
            Ok(bucket) => {
                if self.bucket.is_none() && bucket.public {
                    tracing::warn!("the bucket is public: everybody can read the conversations");
                }
                let limit = bucket.file_size_limit;
                for refused in self.refused.values_mut() {
                    refused.reread = true;
                }
                self.refused.retain(|_, refused| match refused.why {
                    Refusal::OverLimit { bytes } => limit.is_some_and(|limit| limit < bytes),
                    Refusal::TooLarge | Refusal::Name => true,
                });
                self.bucket = Some(bucket);
                if self.backlog() == 0 {
                    // Nothing waits that could tell better.
                    self.door.passed();
                }
                if !self.door.is_doubtful() {
                    self.troubled(None);
                }
                self.report(|_| {});
            }
            Err(error) => self.service_failed(&error),
        }
    }

    /// Leaves Supabase alone for a while.
    fn service_failed(&mut self, error: &SupabaseError) {
        self.door.failed(Instant::now(), error, fastrand::f64());
        self.bucket = None;
        self.troubled(Some(error.message.as_str().into()));
    }

    /// Whether a document is not worth another try.
    fn is_refused(&mut self, id: &ConversationId, seq: u64) -> bool {
        let Some(refused) = self.refused.get(id) else {
            return false;
        };
        if refused.reread && seq > refused.seq {
            self.refused.remove(id);
            return false;
        }
        true
    }

    fn pump_rows(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if let Some(from) = self.rows.look(now) {
            let page = chat_rows::lagging(self.tools.log.clone(), from).into_actor(self);
            ctx.spawn(page.map(|page, actor, ctx| {
                let failed = page.is_err();
                actor.rows.found(page);
                actor.report(|_| {});
                // While the log fails, the next round is soon enough.
                if !failed {
                    actor.pump_rows(ctx);
                }
                actor.pump(ctx);
            }));
            return;
        }
        let Some(ids) = self.rows.take(now) else {
            return;
        };
        let (log, client) = (self.tools.log.clone(), self.tools.client.clone());
        let round = chat_rows::write(log, client, ids).into_actor(self);
        ctx.spawn(round.map(|done, actor, ctx| {
            let log_failed = done.log_failed();
            actor.rows.settle(Instant::now(), done);
            actor.report(|_| {});
            if !actor.flushes.is_empty() && !log_failed {
                actor.pump_rows(ctx);
            }
            actor.pump(ctx);
        }));
    }

    /// Says once that the mirror is in trouble, and once that it no longer is.
    fn troubled(&mut self, trouble: Option<Arc<str>>) {
        let before = self.state.borrow().trouble.clone();
        match (before, &trouble) {
            (None, Some(reason)) => {
                tracing::warn!(%reason, "the Supabase mirror waits; the log has everything");
            }
            (Some(_), None) => tracing::info!("the Supabase mirror works again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.report(|state| state.trouble = trouble);
    }

    /// Documents that lack something; those that are only looked after do not.
    fn backlog(&self) -> usize {
        let removed = self.standings.removed();
        self.schedule.backlog().saturating_sub(removed)
    }

    fn report(&self, change: impl FnOnce(&mut SupabaseState)) {
        let backlog = self.backlog();
        let names = self
            .refused
            .values()
            .filter(|refused| refused.why == Refusal::Name)
            .count();
        self.state.send_modify(|state| {
            state.backlog = backlog;
            state.unconfirmed = self.standings.unconfirmed_count();
            state.deletions = self.standings.deletions();
            state.too_large = self.refused.len() - names;
            state.refused_names = names;
            state.rows_backlog = self.rows.dirty();
            state.rows_trouble = self.rows.trouble();
            if state.backlog == 0 {
                state.oldest = None;
            }
            change(state);
        });
    }

    fn answer_flushes(&mut self) {
        let left = self.backlog();
        for flush in self.flushes.drain(..) {
            // Who no longer waits needs no answer.
            flush.send(left).ok();
        }
    }

    /// Wakes when the next thing is to be done.
    fn set_alarm(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let opens = self.door.opens().filter(|opens| *opens > now);
        let due = match opens {
            Some(opens) => Some(opens),
            // What waits for a place is begun when one is free.
            None if self.in_flight < self.at_once(now) => self.schedule.next_due(),
            None => None,
        };
        let Some(due) = due else {
            return;
        };
        if let Some((set_for, alarm)) = self.alarm {
            if set_for <= due {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let wait = due.saturating_duration_since(Instant::now());
        let alarm = ctx.run_later(wait, |actor, ctx| {
            actor.alarm = None;
            actor.pump(ctx);
        });
        self.alarm = Some((due, alarm));
    }
}

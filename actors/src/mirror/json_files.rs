//! One JSON file per conversation, in the form that the ancestor wrote: readable without us.
//!
//! Behind the log by seconds; caught up from it after a restart. A file that somebody edited is
//! kept beside the new one, never overwritten.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt as _, Addr, Arbiter, AsyncContext as _, Context, Handler, ResponseFuture,
    SpawnHandle, WrapFuture as _,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use self::batch::{Outcome, Tools};
use super::{Adopter, Changed, Flush, MirrorHook, Render, schedule::Schedule};
use crate::{
    id::ConversationId,
    log::{
        LogError,
        space::DiskSpace,
        sqlite::{FileStamp, LaggingCursor, LaggingPage, Progress, SqliteLog, Step},
    },
};

mod batch;
mod compare;
mod files;
mod read;
#[cfg(test)]
mod tests;

pub use compare::{CopyState, compare, file_stamp, files_by_conversation};
pub use read::{DOCUMENT_BYTES_MAX, ReadError, read, read_strange};

/// Name under which the log keeps this mirror's progress.
pub const MIRROR: &str = "json";

/// Notices that may wait. More are dropped by their sender: the next sweep finds what they told of.
const MAILBOX: usize = 1024;

/// Documents written together: they share two syncs of the directory and of the log.
const BATCH: usize = 32;

/// Rows of the log looked at in one step of a sweep.
const SWEEP_PAGE: usize = 256;

/// How often it is looked whether there is room on the disk again.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// How often the log is asked for what no notice told.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the mirror is at.
#[derive(Debug, Clone, Default)]
pub struct MirrorState {
    /// Documents that lack something.
    pub backlog: usize,
    /// Since when the one that lacks something longest does.
    pub oldest: Option<Instant>,
    /// Documents written since the start.
    pub written: u64,
    /// Edited files that were set aside since the start.
    pub set_aside: u64,
    /// The log was looked through for what the last run left; before, the backlog is not all.
    pub caught_up: bool,
    /// Why the last round failed; `None` while all is well.
    pub trouble: Option<Arc<str>>,
}

/// A running mirror.
#[derive(Debug)]
pub struct Running {
    /// Takes [`Changed`] and [`Flush`]. Each sender keeps one clone.
    pub address: Addr<JsonFiles>,
    /// Always the newest state.
    pub state: watch::Receiver<MirrorState>,
    arbiter: Arbiter,
    adopter: Arc<OnceLock<Arc<dyn Adopter>>>,
}

impl Running {
    /// Names the owner of conversations, who is started after the mirrors: a file that is ahead of
    /// the log waits for it.
    pub fn connect(&self, adopter: Arc<dyn Adopter>) {
        if self.adopter.set(adopter).is_err() {
            tracing::error!("the conversations have an owner already");
        }
    }

    /// Ends the mirror's thread. What is pending is found in the log by the next run.
    pub fn stop(&self) {
        self.arbiter.stop();
    }
}

/// How the mirror runs.
#[derive(Debug, Clone)]
pub struct JsonFilesOptions {
    /// The directory of the files, which this process alone writes to.
    pub dir: PathBuf,
    /// Quiet after which a conversation that changed is written (`MIRROR_IDLE_SECS`).
    pub idle: Duration,
    /// For fault injection.
    pub hook: Option<MirrorHook>,
    /// The room on the disk: while it is low, nothing is written.
    pub space: Option<Arc<DiskSpace>>,
}

/// The step to record when a document read by [`read`] has become a conversation of the log.
///
/// Without it the first write takes the file for an edited one and sets it aside. The document is
/// written anew in any case.
#[must_use]
pub fn adopted(id: ConversationId, incarnation: u64, file: FileStamp) -> Progress {
    Progress {
        id,
        incarnation,
        step: Step::FileKnown(file),
    }
}

/// The step to record when files of a deleted conversation are there again: they are removed.
#[must_use]
pub fn unremoved(id: ConversationId, incarnation: u64) -> Progress {
    Progress {
        id,
        incarnation,
        step: Step::Reached { seq: 0 },
    }
}

/// The mirror. Owns the schedule; reads and writes in rounds, one at a time, beside its mailbox.
///
/// Dies only with its arbiter. Nothing in it needs saving.
pub struct JsonFiles {
    tools: Tools,
    schedule: Schedule,
    space: Option<Arc<DiskSpace>>,
    state: watch::Sender<MirrorState>,
    /// A round or a step of a sweep is under way.
    busy: bool,
    /// Where the sweep goes on.
    sweep: Option<LaggingCursor>,
    alarm: Option<(Instant, SpawnHandle)>,
    flushes: Vec<oneshot::Sender<usize>>,
    /// What failed is due again after what is under way.
    then: Then,
}

/// What comes after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    /// It began before all was to be written: what fails in it has another try.
    Hasten,
}

impl JsonFiles {
    /// Starts the mirror on a thread of its own. Needs a running actix system.
    #[must_use]
    pub fn run(log: Arc<SqliteLog>, render: Arc<dyn Render>, options: JsonFilesOptions) -> Running {
        let arbiter = Arbiter::new();
        let (sender, state) = watch::channel(MirrorState::default());
        let adopter = Arc::new(OnceLock::new());
        let tools = Tools {
            log,
            render,
            dir: options.dir,
            adopter: adopter.clone(),
            hook: options.hook,
        };
        let address = Self::start_in_arbiter(&arbiter.handle(), move |_| Self {
            tools,
            schedule: Schedule::new(options.idle),
            space: options.space,
            state: sender,
            busy: false,
            sweep: Some(LaggingCursor::default()),
            alarm: None,
            flushes: vec![],
            then: Then::GoOn,
        });
        Running {
            address,
            state,
            arbiter,
            adopter,
        }
    }
}

impl Actor for JsonFiles {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        if let Err(error) = files::remove_temporaries(&self.tools.dir) {
            self.troubled(Some(Arc::from(error.to_string())));
        }
        ctx.run_interval(SWEEP_EVERY, |actor, ctx| {
            actor.sweep.get_or_insert_default();
            actor.pump(ctx);
        });
        self.pump(ctx);
    }
}

impl Handler<Changed> for JsonFiles {
    type Result = ();

    fn handle(&mut self, changed: Changed, ctx: &mut Self::Context) {
        let now = Instant::now();
        let Changed { id, seq, bytes } = changed;
        self.schedule.changed(now, id, seq, bytes);
        let backlog = self.schedule.backlog();
        self.state.send_if_modified(|state| {
            let grew = state.backlog != backlog;
            state.backlog = backlog;
            state.oldest.get_or_insert(now);
            grew
        });
        self.pump(ctx);
    }
}

impl Handler<Flush> for JsonFiles {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.flushes.push(reply);
        self.sweep = Some(LaggingCursor::default());
        self.schedule.hasten(Instant::now());
        if self.busy {
            self.then = Then::Hasten;
        }
        ctx.run_later(flush.deadline, |actor, _| actor.answer_flushes());
        self.pump(ctx);
        // Unanswered only if the actor ends, and then nothing counts.
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl JsonFiles {
    /// Begins the next thing to do, if nothing is under way.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        let now = Instant::now();
        let waiting = |due: Option<Instant>| due.is_none_or(|due| due > now);
        if let Some(cursor) = self.sweep
            && (self.schedule.backlog() < SWEEP_PAGE || waiting(self.schedule.next_due()))
        {
            return self.look(cursor, ctx);
        }
        if !self.flushes.is_empty() && waiting(self.schedule.next_due()) {
            self.schedule.hasten_untried(now);
        }
        if self.space.as_ref().is_some_and(|space| space.is_low()) {
            // What room there is belongs to the log.
            self.answer_flushes();
            return self.wake_at(now + SPACE_EVERY, ctx);
        }
        let due = self.schedule.take_due(now, BATCH);
        if due.is_empty() {
            self.answer_flushes();
            return self.set_alarm(ctx);
        }
        self.busy = true;
        let round = self.tools.clone().write(due).into_actor(self);
        ctx.spawn(round.map(|outcomes, actor, ctx| {
            actor.busy = false;
            actor.settle(outcomes);
            if std::mem::replace(&mut actor.then, Then::GoOn) == Then::Hasten {
                actor.schedule.hasten(Instant::now());
            }
            actor.pump(ctx);
        }));
    }

    /// Asks the log for documents that lack something.
    fn look(&mut self, cursor: LaggingCursor, ctx: &mut Context<Self>) {
        self.busy = true;
        let page = self.tools.log.lagging(MIRROR, cursor, SWEEP_PAGE);
        ctx.spawn(page.into_actor(self).map(|page, actor, ctx| {
            actor.busy = false;
            actor.found(page);
            actor.pump(ctx);
        }));
    }

    fn found(&mut self, page: Result<LaggingPage, LogError>) {
        match page {
            Ok(page) => {
                let now = Instant::now();
                for row in page.rows {
                    self.schedule.behind(now, row.id, row.seq);
                }
                self.sweep = page.next;
                let caught_up = self.sweep.is_none();
                self.report(|state| state.caught_up |= caught_up);
            }
            Err(error) => {
                // The next sweep begins anew.
                self.sweep = None;
                self.troubled(Some(Arc::from(error.to_string())));
            }
        }
    }

    fn settle(&mut self, outcomes: Vec<(ConversationId, Outcome)>) {
        let now = Instant::now();
        let (mut written, mut set_aside, mut trouble) = (0, 0, None);
        for (id, outcome) in outcomes {
            match outcome {
                Outcome::Written {
                    seq,
                    size,
                    set_aside: edited,
                } => {
                    written += 1;
                    self.schedule.written(now, &id, seq, size);
                    if let Some(kept) = edited {
                        set_aside += 1;
                        tracing::warn!(conversation = %id, kept = %kept.display(), "a document was edited by another hand; it is set aside");
                    }
                }
                Outcome::Removed { seq } => {
                    written += 1;
                    self.schedule.written(now, &id, seq, 0);
                }
                Outcome::Gone => self.schedule.gone(&id),
                Outcome::Postponed => self.schedule.postponed(now, &id),
                Outcome::Damaged(reason) => {
                    // Said once, tried for ever: the next release may be able to read it.
                    if self.schedule.failed(now, &id, fastrand::f64()) == 1 {
                        tracing::error!(conversation = %id, reason, "a conversation cannot be mirrored");
                    }
                }
                Outcome::Failed(reason) => {
                    self.schedule.failed(now, &id, fastrand::f64());
                    trouble = Some(reason);
                }
            }
        }
        if written > 0 || trouble.is_some() {
            self.troubled(trouble);
        }
        self.report(|state| {
            state.written += written;
            state.set_aside += set_aside;
        });
    }

    /// Says once that the mirror is in trouble, and once that it no longer is.
    fn troubled(&mut self, trouble: Option<Arc<str>>) {
        let before = self.state.borrow().trouble.clone();
        match (before, &trouble) {
            (None, Some(reason)) => {
                tracing::warn!(%reason, "the JSON files cannot be written; the log has everything");
            }
            (Some(_), None) => tracing::info!("the JSON files are written again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.report(|state| state.trouble = trouble);
    }

    fn report(&self, change: impl FnOnce(&mut MirrorState)) {
        let (backlog, oldest) = (self.schedule.backlog(), self.schedule.oldest());
        self.state.send_modify(|state| {
            state.backlog = backlog;
            state.oldest = oldest;
            change(state);
        });
    }

    fn answer_flushes(&mut self) {
        for flush in self.flushes.drain(..) {
            // Who no longer waits needs no answer.
            flush.send(self.schedule.backlog()).ok();
        }
    }

    /// Wakes when the next document is due.
    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        if let Some(due) = self.schedule.next_due() {
            self.wake_at(due, ctx);
        }
    }

    fn wake_at(&mut self, due: Instant, ctx: &mut Context<Self>) {
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

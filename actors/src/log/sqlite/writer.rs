//! The one thread that writes: everything queued becomes one transaction, one sync.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::Instant,
};

use rusqlite::{Connection, ErrorCode, config::DbConfig};
use tokio::sync::oneshot;

use super::{
    Injected, SqliteOptions,
    apply::{self, EncodedAppend},
    encode::Encoded,
    partials::Partials,
    progress::{self, Progress},
    reader::{Read, Readers},
    shared::{Life, Shared},
    wal::{Upkeep, WalCheckpoint},
};
use crate::log::{AppendError, Checkpoint, LogError, entry::EntryHead};

/// What the writer is asked, in the order of asking.
pub(super) enum Job {
    Append {
        append: EncodedAppend,
        queued_at: Instant,
        reply: oneshot::Sender<Result<u64, AppendError>>,
    },
    Progress {
        mirror: &'static str,
        rows: Vec<Progress>,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
    Checkpoint {
        checkpoint: Checkpoint,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
    /// Goes on to the readers once everything queued before it is committed.
    Read(Read),
    /// Nothing to do but look whether the log is closing.
    Wake,
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::Progress { rows, .. } => rows.len() * size_of::<Progress>(),
            Self::Checkpoint { checkpoint, .. } => checkpoint.text.len(),
            Self::Read(_) | Self::Wake => 0,
        }
    }
}

/// Why a transaction did not end well.
enum Failure {
    /// It was rolled back: nothing of it will ever be found.
    NotWritten(Arc<str>),
    /// It may be found after a restart, or not. The log must not go on.
    Unknown(Arc<str>),
}

/// What a member's statements found, valid once the transaction is committed.
enum Verdict {
    Append(Result<u64, AppendError>),
    Done,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) wal: PathBuf,
    pub(super) jobs: Receiver<Job>,
    pub(super) readers: Readers,
    pub(super) shared: Arc<Shared>,
    pub(super) options: SqliteOptions,
    pub(super) upkeep: Upkeep,
    pub(super) partials: Partials,
}

impl Writer {
    /// Serves until the log is closed and its queue empty.
    pub(super) fn run(mut self) {
        while let Some(job) = self.next() {
            let (members, reads, bytes) = self.gather(job);
            if !members.is_empty() {
                self.settle(members);
                if self.partials.has_many_dead() {
                    self.remove_dead_partials();
                }
            }
            // Reads leave no moment of rest, either.
            self.keep_wal_small();
            if self.shared.is_alive() {
                for read in reads {
                    self.readers.queue(read);
                }
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.finish();
    }

    /// Waits for work, and looks after the WAL when there is none for a moment.
    fn next(&mut self) -> Option<Job> {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            if self.shared.closing.load(Ordering::SeqCst) {
                return None;
            }
            if !self.upkeep.stirred {
                return self.jobs.recv().ok();
            }
            match self.jobs.recv_timeout(self.options.checkpoint_idle) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) => self.rest(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Takes what is queued, up to a batch.
    fn gather(&self, first: Job) -> (Vec<Job>, Vec<Read>, usize) {
        let (mut members, mut reads, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            self.shared.queued_jobs.fetch_sub(1, Ordering::Relaxed);
            bytes += job.bytes();
            match job {
                Job::Read(read) => reads.push(read),
                Job::Wake => {}
                job @ (Job::Append { .. } | Job::Progress { .. } | Job::Checkpoint { .. }) => {
                    members.push(job);
                }
            }
            let full =
                members.len() >= self.options.batch_jobs || bytes >= self.options.batch_bytes;
            next = if full {
                None
            } else {
                self.jobs.try_recv().ok()
            };
        }
        (members, reads, bytes)
    }

    /// Commits a batch and answers its members, in order.
    fn settle(&mut self, members: Vec<Job>) {
        if !self.shared.is_alive() {
            return self.refuse(members);
        }
        match self.attempt(&members) {
            Ok(verdicts) => self.acknowledge(members, verdicts),
            Err(Failure::NotWritten(reason)) if members.len() == 1 => {
                for member in members {
                    self.answer(member, Err(&Failure::NotWritten(Arc::clone(&reason))));
                }
            }
            // One member's trouble (too large for what is left of the disk, say) must not be the others'.
            Err(Failure::NotWritten(_)) => {
                for member in members {
                    self.settle(vec![member]);
                }
            }
            Err(failure @ Failure::Unknown(_)) => {
                if let Failure::Unknown(reason) = &failure {
                    tracing::error!(%reason, "the log does not know whether it wrote; it stops");
                    self.shared.die(Arc::clone(reason));
                }
                for member in members {
                    self.answer(member, Err(&failure));
                }
            }
        }
    }

    /// Runs one transaction over the members.
    fn attempt(&mut self, members: &[Job]) -> Result<Vec<Verdict>, Failure> {
        self.upkeep.stirred = true;
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            return Err(self.give_up(&error));
        }
        let mut verdicts = Vec::with_capacity(members.len());
        for member in members {
            match self.apply(member) {
                Ok(verdict) => verdicts.push(verdict),
                // The error may have ended the transaction by itself; the rest must not run outside one.
                Err(error) => return Err(self.give_up(&error)),
            }
        }
        self.commit()?;
        Ok(verdicts)
    }

    fn apply(&mut self, member: &Job) -> rusqlite::Result<Verdict> {
        match member {
            Job::Append { append, .. } => {
                apply::append(&self.connection, &self.partials, append).map(Verdict::Append)
            }
            Job::Progress { mirror, rows, .. } => {
                progress::record(&self.connection, mirror, rows).map(|()| Verdict::Done)
            }
            Job::Checkpoint { checkpoint, .. } => {
                let added = self.partials.add(&self.connection, checkpoint);
                added.map(|()| Verdict::Done)
            }
            Job::Read(_) | Job::Wake => Ok(Verdict::Done),
        }
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let injected = self.options.before_commit.as_ref().map(|it| it());
        match injected {
            None | Some(Injected::Nothing) => {}
            Some(Injected::CommitError) => {
                drop(self.roll_back());
                return Err(Failure::Unknown(Arc::from("injected before the commit")));
            }
            Some(Injected::DiskFull) => {
                drop(self.roll_back());
                return Err(Failure::NotWritten(Arc::from("injected: the disk is full")));
            }
        }
        if let Err(error) = self.execute("COMMIT") {
            let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            let failure = self.give_up(&error);
            // No room is found while the frames are written, of which the last one is the commit
            // record: without it nothing of the transaction is ever found. Any other error may come
            // from the sync, after which the record may be on disk or not.
            return Err(match failure {
                Failure::NotWritten(reason) if !full => Failure::Unknown(reason),
                other => other,
            });
        }
        if let Some(after_commit) = &self.options.after_commit
            && after_commit() == Injected::CommitError
        {
            return Err(Failure::Unknown(Arc::from("injected after the commit")));
        }
        Ok(())
    }

    /// Rolls back after an error before the end of the commit.
    fn give_up(&mut self, error: &rusqlite::Error) -> Failure {
        let reason = Arc::from(error.to_string());
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            self.upkeep.pressed = true;
        }
        match self.roll_back() {
            Ok(()) => Failure::NotWritten(reason),
            Err(error) => Failure::Unknown(Arc::from(format!("{reason}, then: {error}"))),
        }
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        // Some errors roll back by themselves.
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.execute("ROLLBACK")
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn acknowledge(&mut self, members: Vec<Job>, verdicts: Vec<Verdict>) {
        let appended = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Append(Ok(_))))
            .count();
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared
            .appends
            .fetch_add(appended as u64, Ordering::Relaxed);
        if appended > 0
            && let Some(observer) = &self.options.observer
        {
            observer.committed(appended);
        }
        for (member, verdict) in members.into_iter().zip(verdicts) {
            if let (Job::Append { append, .. }, Verdict::Append(Ok(_))) = (&member, &verdict) {
                self.note(&append.entries);
            }
            self.answer(member, Ok(verdict));
        }
    }

    /// Keeps account of what committed entries leave to be tidied up.
    fn note(&mut self, entries: &[Encoded]) {
        for entry in entries {
            match &entry.head {
                EntryHead::TurnEnded(ended) => self.partials.ended(ended.turn),
                // What was deleted still stands in the WAL.
                EntryHead::Deleted(_) => {
                    self.upkeep.purge.get_or_insert_with(Instant::now);
                }
                EntryHead::Begun(_)
                | EntryHead::TurnAccepted(_)
                | EntryHead::TurnReopened(_)
                | EntryHead::Heard(_)
                | EntryHead::VoiceUsed(_)
                | EntryHead::Appended(_)
                | EntryHead::Prepended(_) => {}
            }
        }
    }

    fn refuse(&self, members: Vec<Job>) {
        let failure = Failure::NotWritten(self.shared.stopped());
        for member in members {
            self.answer(member, Err(&failure));
        }
    }

    // Who no longer waits gets no answer: that is no error of ours, so the sends' results are dropped.
    fn answer(&self, member: Job, outcome: Result<Verdict, &Failure>) {
        match member {
            Job::Append {
                queued_at, reply, ..
            } => {
                let answer = match outcome {
                    Ok(Verdict::Append(result)) => result,
                    Ok(Verdict::Done) => return,
                    Err(Failure::NotWritten(reason)) => {
                        Err(AppendError::Unavailable(Arc::clone(reason)))
                    }
                    Err(Failure::Unknown(reason)) => Err(AppendError::Unknown(Arc::clone(reason))),
                };
                if answer.is_ok()
                    && let Some(observer) = &self.options.observer
                {
                    observer.appended(queued_at.elapsed());
                }
                drop(reply.send(answer));
            }
            Job::Progress { reply, .. } | Job::Checkpoint { reply, .. } => {
                drop(reply.send(match outcome {
                    Ok(_) => Ok(()),
                    Err(Failure::NotWritten(reason) | Failure::Unknown(reason)) => {
                        Err(LogError::Unavailable(Arc::clone(reason)))
                    }
                }));
            }
            Job::Read(_) | Job::Wake => {}
        }
    }

    /// Leaves one tidy file behind; or, after a commit of unknown outcome, everything as it is.
    fn finish(mut self) {
        self.readers.stop();
        match *self.shared.life.borrow() {
            Life::Running => {}
            Life::Dead(_) | Life::Closed => {
                drop(
                    self.connection
                        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
                );
                return;
            }
        }
        self.checkpoint(WalCheckpoint::Truncate);
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the log's database was not closed cleanly");
        }
    }
}

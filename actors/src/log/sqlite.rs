//! The log in one SQLite file: WAL, every commit synced, one writer thread with group commit.
//!
//! Callers never block: an append is encoded on their thread, queued, and answered when the
//! transaction that holds it is on disk. Reads pass through the same queue, so that each sees every
//! append queued before it, and are then served by connections of their own.
//!
//! A statement that fails is rolled back, and the log goes on. A commit whose outcome is not known
//! ends it: see [`SqliteLog::died`].

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use rusqlite::Connection;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::{
    apply::EncodedAppend,
    encode::Encoded,
    partials::Partials,
    reader::Readers,
    shared::{EndGuard, Life, Shared},
    wal::Upkeep,
    writer::{Job, Writer},
};
use super::{Append, AppendError, Checkpoint, Loaded, Log, LogError, data_dir::DataDir};
use crate::id::ConversationId;

mod apply;
mod backup;
mod catalogue;
mod encode;
mod integrity;
mod partials;
mod progress;
mod reader;
mod schema;
mod shared;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

pub use backup::{BackupError, BackupProgress, backup};
pub use catalogue::{
    CatalogueCursor, CatalogueFilter, CataloguePage, CatalogueRow, InvalidCatalogueCursor,
};
pub use integrity::{Depth, IntegrityError, check_file};
pub use progress::{
    ContentHash, FileStamp, LaggingCursor, LaggingPage, Look, MirrorRow, Progress, Step,
};
pub use reader::OpenTurn;

/// Sees what the log does, on its writer's thread: must be quick and must not panic.
pub trait LogObserver: Send + Sync {
    /// An append was acknowledged, this long after it was queued.
    fn appended(&self, latency: Duration);

    /// A transaction with this many appends was committed.
    fn committed(&self, batch: usize);
}

/// What a failpoint does to the commit it stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// Nothing: the commit goes on (once the failpoint returns).
    Nothing,
    /// The commit is taken to have failed, with an unknown outcome.
    CommitError,
    /// Before the commit: the disk is full, nothing is written. After it: nothing.
    DiskFull,
}

/// A place for fault injection: called on the writer's thread, may block it.
pub type Failpoint = Arc<dyn Fn() -> Injected + Send + Sync>;

/// How a log is kept. The default is for production.
#[derive(Clone)]
pub struct SqliteOptions {
    /// Sees appends and commits.
    pub observer: Option<Arc<dyn LogObserver>>,
    /// Appends and reads that may wait for the writer; beyond it they are refused at once.
    pub queue_jobs: usize,
    /// Bytes of appends that may wait for the writer.
    pub queue_bytes: usize,
    /// Appends in one transaction: bounds how long the first waits for the last.
    pub batch_jobs: usize,
    /// Bytes in one transaction.
    pub batch_bytes: usize,
    /// How long the queue must be empty before the WAL is looked after.
    pub checkpoint_idle: Duration,
    /// Pages in the WAL that make moving them into the database worth two syncs.
    pub checkpoint_pages: i64,
    /// Size above which the WAL is emptied even if the writer is busy.
    pub wal_truncate_bytes: u64,
    /// For fault injection: the database takes no more pages than this.
    pub page_count_max: Option<u32>,
    /// For fault injection: called just before each commit.
    pub before_commit: Option<Failpoint>,
    /// For fault injection: called after each commit, before its members are answered.
    pub after_commit: Option<Failpoint>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            observer: None,
            queue_jobs: 8192,
            queue_bytes: 256 << 20,
            batch_jobs: 1024,
            batch_bytes: 16 << 20,
            checkpoint_idle: Duration::from_millis(20),
            checkpoint_pages: 1000,
            wal_truncate_bytes: 64 << 20,
            page_count_max: None,
            before_commit: None,
            after_commit: None,
        }
    }
}

/// Why the log cannot be opened. The server must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Built with a SQLite that can lose data.
    #[error("this build has SQLite {found}, but the log needs 3.51.3 or later")]
    OldSqlite {
        /// The one built in.
        found: &'static str,
    },
    /// The file is of a later release.
    #[error(
        "the log was written by a newer release (version {found}, this one knows {known}); run that release"
    )]
    Newer {
        /// Version in the file.
        found: i64,
        /// Version that this release writes.
        known: i64,
    },
    /// The file system cannot hold a write-ahead log (shared memory is missing).
    #[error("the log cannot be kept in this directory: its journal mode stays {mode:?}")]
    NoWal {
        /// What SQLite offers in its place.
        mode: String,
    },
    /// The database cannot be opened or migrated.
    #[error("the log cannot be opened: {0}")]
    Database(#[from] rusqlite::Error),
    /// No thread can be started.
    #[error("the log's threads cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// A moment's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Size of the write-ahead log's file.
    pub wal_bytes: u64,
    /// Appends and reads that wait for the writer.
    pub queued_jobs: usize,
    /// Bytes of appends that wait or are being written.
    pub queued_bytes: usize,
    /// Transactions committed since the start.
    pub commits: u64,
    /// Appends acknowledged since the start.
    pub appends: u64,
    /// Times that the WAL was moved into the database since the start.
    pub checkpoints: u64,
    /// Whether it still writes; see [`SqliteLog::died`].
    pub alive: bool,
}

/// The log of one process, in one directory.
pub struct SqliteLog {
    // Present until the drop, which closes the queue by dropping it.
    queue: Option<SyncSender<Job>>,
    queue_bytes: usize,
    shared: Arc<Shared>,
    wal: PathBuf,
    log_id: Uuid,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteLog {
    /// Opens the log of a locked directory, making or migrating it.
    ///
    /// Blocks for the moment this takes. Call [`crate::recovery::recover`] next.
    pub fn open(dir: &DataDir, options: SqliteOptions) -> Result<Self, OpenError> {
        let path = dir.log_file();
        let connection = schema::open_writer(&path, options.page_count_max)?;
        let log_id = schema::log_id(&connection)?;
        let partials = Partials::open(&connection)?;
        let readers = Readers::start(&path)?;
        let mut wal = path.into_os_string();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let shared = Arc::new(Shared::new());
        let (queue, jobs) = sync_channel(options.queue_jobs);
        let queue_bytes = options.queue_bytes;
        let writer = Writer {
            connection,
            wal: wal.clone(),
            jobs,
            readers,
            shared: Arc::clone(&shared),
            options,
            upkeep: Upkeep::at_start(),
            partials,
        };
        let guard = EndGuard(Arc::clone(&shared));
        let dir = dir.clone();
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                // Dropped last: whoever waits for the end may lock the directory then.
                let _guard = guard;
                let _locked = dir;
                writer.run();
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            queue_bytes,
            shared,
            wal,
            log_id,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Tells this log's copies from another log's; a restored backup has its original's.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Resolves when the log has stopped for good: the process must end and let recovery decide.
    ///
    /// The answer says why. A log that is closed properly never resolves it.
    pub fn died(&self) -> BoxFuture<'static, Arc<str>> {
        let mut life = self.shared.life.subscribe();
        async move {
            let reason = match life.wait_for(|life| matches!(life, Life::Dead(_))).await {
                Ok(life) => match &*life {
                    Life::Dead(reason) => Some(Arc::clone(reason)),
                    Life::Running | Life::Closed => None,
                },
                Err(_) => None,
            };
            if let Some(reason) = reason {
                return reason;
            }
            // The log is gone without having died.
            futures::future::pending().await
        }
        .boxed()
    }

    /// Whether the log has stopped for good.
    #[must_use]
    pub fn has_died(&self) -> bool {
        matches!(*self.shared.life.borrow(), Life::Dead(_))
    }

    /// Refuses new work, finishes what is queued, moves the WAL into the database, lets go of the files.
    pub fn close(&self) -> BoxFuture<'static, ()> {
        self.shared.closing.store(true, Ordering::SeqCst);
        // A full queue needs no waking: the writer looks at the flag after it.
        drop(self.enqueue(Job::Wake));
        let mut ended = self.shared.ended.subscribe();
        async move {
            drop(ended.wait_for(|ended| *ended).await);
        }
        .boxed()
    }

    /// The moment's figures.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            wal_bytes: std::fs::metadata(&self.wal).map_or(0, |file| file.len()),
            queued_jobs: self.shared.queued_jobs.load(Ordering::Relaxed),
            queued_bytes: self.shared.queued_bytes.load(Ordering::Relaxed),
            commits: self.shared.commits.load(Ordering::Relaxed),
            appends: self.shared.appends.load(Ordering::Relaxed),
            checkpoints: self.shared.checkpoints.load(Ordering::Relaxed),
            alive: self.shared.is_alive(),
        }
    }

    /// A page of the conversations that have entries which the mirror does not show.
    pub fn lagging(
        &self,
        mirror: &'static str,
        after: LaggingCursor,
        limit: usize,
    ) -> BoxFuture<'static, Result<LaggingPage, LogError>> {
        self.read(move |connection| {
            progress::lagging(connection, mirror, after, limit)
                .map_err(|error| reader::unavailable(&error))
        })
    }

    /// How far the mirror is with one conversation; `None`: the log has none.
    pub fn mirror_row(
        &self,
        mirror: &'static str,
        id: ConversationId,
    ) -> BoxFuture<'static, Result<Option<MirrorRow>, LogError>> {
        self.read(move |connection| {
            progress::of(connection, mirror, &id).map_err(|error| reader::unavailable(&error))
        })
    }

    /// Records what a mirror did; `Ok` means: synced.
    pub fn record_progress(
        &self,
        mirror: &'static str,
        rows: Vec<Progress>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        let (reply, answer) = oneshot::channel();
        if let Err(reason) = self.submit(Job::Progress {
            mirror,
            rows,
            reply,
        }) {
            return futures::future::ready(Err(LogError::Unavailable(reason))).boxed();
        }
        async move { answer.await.unwrap_or_else(|_| Err(no_reader())) }.boxed()
    }

    /// Conversations that are not deleted, the one that changed last first.
    pub fn newest(
        &self,
        filter: CatalogueFilter,
        after: Option<CatalogueCursor>,
        limit: usize,
    ) -> BoxFuture<'static, Result<CataloguePage, LogError>> {
        self.read(move |connection| {
            catalogue::newest(connection, &filter, after, limit)
                .map_err(|error| reader::unavailable(&error))
        })
    }

    /// All conversations, deleted ones too, in the order in which they first came.
    pub fn catalogue(
        &self,
        after: Option<CatalogueCursor>,
        limit: usize,
    ) -> BoxFuture<'static, Result<CataloguePage, LogError>> {
        self.read(move |connection| {
            catalogue::all(connection, after, limit).map_err(|error| reader::unavailable(&error))
        })
    }

    /// The catalogue's rows of these conversations, as far as the log has them; in no order.
    pub fn catalogue_rows(
        &self,
        ids: Vec<ConversationId>,
    ) -> BoxFuture<'static, Result<Vec<CatalogueRow>, LogError>> {
        self.read(move |connection| {
            catalogue::of(connection, &ids).map_err(|error| reader::unavailable(&error))
        })
    }

    /// Turns without an end, in the order of their acceptance within each conversation.
    pub fn open_turns(&self, limit: u32) -> BoxFuture<'static, Result<Vec<OpenTurn>, LogError>> {
        self.read(move |connection| reader::open_turns(connection, limit))
    }

    /// Runs a query on a reader, after everything queued before it.
    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LogError>> {
        let (read, answer) = reader::read(query);
        if let Err(reason) = self.submit(Job::Read(read)) {
            return futures::future::ready(Err(LogError::Unavailable(reason))).boxed();
        }
        async move { answer.await.unwrap_or_else(|_| Err(no_reader())) }.boxed()
    }

    /// Queues a job, or says why not.
    fn submit(&self, job: Job) -> Result<(), Arc<str>> {
        if !self.shared.is_alive() || self.shared.closing.load(Ordering::SeqCst) {
            return Err(self.shared.stopped());
        }
        self.enqueue(job)
    }

    fn enqueue(&self, job: Job) -> Result<(), Arc<str>> {
        let Some(queue) = &self.queue else {
            return Err(self.shared.stopped());
        };
        let bytes = job.bytes();
        let waiting = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.queued_jobs.fetch_add(1, Ordering::Relaxed);
        // An append larger than the queue still passes when nothing else waits.
        let refusal = if waiting > 0 && waiting + bytes > self.queue_bytes {
            Arc::from("queue full")
        } else {
            match queue.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => Arc::from("queue full"),
                Err(TrySendError::Disconnected(_)) => self.shared.stopped(),
            }
        };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.queued_jobs.fetch_sub(1, Ordering::Relaxed);
        Err(refusal)
    }
}

fn no_reader() -> LogError {
    LogError::Unavailable(Arc::from("too many reads wait, or the log has stopped"))
}

impl Log for SqliteLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<u64, AppendError>> {
        let refused =
            |reason| futures::future::ready(Err(AppendError::Unavailable(reason))).boxed();
        let entries = append.entries.into_iter().map(Encoded::new);
        let entries = match entries.collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return refused(Arc::from(error.to_string())),
        };
        let (reply, answer) = oneshot::channel();
        let job = Job::Append {
            append: EncodedAppend {
                id: append.id,
                expected_seq: append.expected_seq,
                entries,
            },
            queued_at: Instant::now(),
            reply,
        };
        if let Err(reason) = self.submit(job) {
            return refused(reason);
        }
        async move {
            answer.await.unwrap_or_else(|_| {
                Err(AppendError::Unknown(Arc::from(
                    "the log ended before it answered",
                )))
            })
        }
        .boxed()
    }

    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'static, Result<(), LogError>> {
        let (reply, answer) = oneshot::channel();
        if let Err(reason) = self.submit(Job::Checkpoint { checkpoint, reply }) {
            return futures::future::ready(Err(LogError::Unavailable(reason))).boxed();
        }
        async move { answer.await.unwrap_or_else(|_| Err(no_reader())) }.boxed()
    }

    fn load(&self, id: ConversationId) -> BoxFuture<'static, Result<Option<Loaded>, LogError>> {
        self.read(move |connection| reader::load(connection, &id))
    }
}

impl fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLog")
            .field("wal", &self.wal)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for SqliteLog {
    /// Finishes what is queued. Blocks until it is done: prefer [`SqliteLog::close`] before.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.queue = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

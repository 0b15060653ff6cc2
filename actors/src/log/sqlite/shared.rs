//! What the callers and the writer thread both see.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

use tokio::sync::watch;

/// The states of a log.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Running,
    /// A commit's outcome is unknown, or the writer panicked.
    Dead(Arc<str>),
    Closed,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// No new work is taken; the writer ends when its queue is empty.
    pub(super) closing: AtomicBool,
    pub(super) queued_jobs: AtomicUsize,
    pub(super) queued_bytes: AtomicUsize,
    pub(super) commits: AtomicU64,
    pub(super) appends: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) life: watch::Sender<Life>,
    /// Set once the writer's thread has let go of everything.
    pub(super) ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            closing: AtomicBool::new(false),
            queued_jobs: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            appends: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            life: watch::Sender::new(Life::Running),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(*self.life.borrow(), Life::Running)
    }

    /// Why nothing is written any more.
    pub(super) fn stopped(&self) -> Arc<str> {
        match &*self.life.borrow() {
            Life::Dead(reason) => Arc::from(format!("the log has stopped: {reason}")),
            Life::Running | Life::Closed => Arc::from("the log is closed"),
        }
    }

    pub(super) fn die(&self, reason: Arc<str>) {
        self.life.send_replace(Life::Dead(reason));
    }
}

/// Says that the writer's thread has ended, however it ended.
pub(super) struct EndGuard(pub(super) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.die(Arc::from("its writer panicked"));
        }
        self.0.life.send_if_modified(|life| match life {
            Life::Running => {
                *life = Life::Closed;
                true
            }
            Life::Dead(_) | Life::Closed => false,
        });
        self.0.ended.send_replace(true);
    }
}

//! When the WAL is moved into the database: by the writer alone, and while nobody waits if it can be.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{schema::BUSY, writer::Writer};

/// How long what was deleted may stay in the WAL of a writer that is never at rest.
const PURGE_MAX: Duration = Duration::from_secs(1);

/// What the writer remembers of the WAL between batches.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Something was committed since the last look at the WAL.
    pub(super) stirred: bool,
    /// The disk was full: moving the WAL into the database makes room inside it.
    pub(super) pressed: bool,
    /// Since when the WAL may hold something that was deleted. From the start: the run before may
    /// have been killed before it came to rest.
    pub(super) purge: Option<Instant>,
    /// A checkpoint failed, and it was said.
    failing: bool,
    /// Size from which the next truncation is tried, after one that a reader stood in the way of.
    truncate_above: u64,
}

impl Upkeep {
    pub(super) fn at_start() -> Self {
        Self {
            stirred: true,
            purge: Some(Instant::now()),
            ..Self::default()
        }
    }
}

/// How a checkpoint is run: SQLite's own words.
#[derive(Clone, Copy)]
pub(super) enum WalCheckpoint {
    Look,
    Passive,
    Truncate,
}

/// What a checkpoint says.
pub(super) struct Frames {
    busy: bool,
    in_wal: i64,
    moved: i64,
}

impl Writer {
    /// Bounds the WAL under load that leaves no moment of rest.
    pub(super) fn keep_wal_small(&mut self) {
        // Under a load that leaves no rest, what was deleted must not stay readable all the same.
        if self.shared.is_alive()
            && self
                .upkeep
                .purge
                .is_some_and(|since| since.elapsed() > PURGE_MAX)
        {
            self.upkeep.purge = Some(Instant::now());
            self.purge();
        }
        let size = fs::metadata(&self.wal).map_or(0, |file| file.len());
        let limit = self.options.wal_truncate_bytes;
        if !self.shared.is_alive() || size <= limit.max(self.upkeep.truncate_above) {
            return;
        }
        let moved = self.checkpoint(WalCheckpoint::Truncate);
        // A reader in the way: not again at the very next batch.
        self.upkeep.truncate_above = match moved {
            Some(Frames { busy: false, .. }) => 0,
            Some(_) | None => size + limit / 4,
        };
    }

    /// Empties the WAL of what was deleted.
    fn purge(&mut self) {
        let emptied = self.checkpoint(WalCheckpoint::Truncate);
        if emptied.is_some_and(|frames| !frames.busy) {
            self.upkeep.purge = None;
        }
    }

    /// Moves the WAL into the database while nobody waits.
    pub(super) fn rest(&mut self) {
        self.upkeep.stirred = false;
        if !self.shared.is_alive() {
            return;
        }
        if self.partials.has_dead() {
            self.remove_dead_partials();
        }
        if self.upkeep.purge.is_some() {
            self.purge();
            // A reader in the way: again when there is nothing else to do.
            self.upkeep.stirred = self.upkeep.purge.is_some();
            return;
        }
        let waiting = self
            .checkpoint(WalCheckpoint::Look)
            .map_or(0, |frames| frames.in_wal - frames.moved);
        if waiting >= self.options.checkpoint_pages || (self.upkeep.pressed && waiting > 0) {
            self.upkeep.pressed = false;
            self.checkpoint(WalCheckpoint::Passive);
        }
    }

    /// Outside any batch: nobody waits for it, and its failure is nobody's but its own.
    pub(super) fn remove_dead_partials(&mut self) {
        if !self.shared.is_alive() {
            return;
        }
        if let Err(error) = self.partials.remove_dead(&self.connection) {
            tracing::debug!(%error, "text of replies that have ended stays for now");
        }
    }

    pub(super) fn checkpoint(&mut self, how: WalCheckpoint) -> Option<Frames> {
        let sql = match how {
            WalCheckpoint::Look => "PRAGMA wal_checkpoint(NOOP)",
            WalCheckpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            WalCheckpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        // Readers must not hold up the appends behind us: what they keep is moved the next time.
        let outcome = self.with_busy_timeout(Duration::ZERO, |connection| {
            connection.query_row(sql, [], |row| {
                Ok(Frames {
                    busy: row.get(0)?,
                    in_wal: row.get(1)?,
                    moved: row.get(2)?,
                })
            })
        });
        match outcome {
            Ok(frames) => {
                if !matches!(how, WalCheckpoint::Look) {
                    self.upkeep.failing = false;
                    self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
                }
                Some(frames)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.upkeep.failing, true) {
                    tracing::warn!(%error, "the WAL cannot be moved into the database");
                }
                None
            }
        }
    }

    fn with_busy_timeout<T>(
        &self,
        timeout: Duration,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.busy_timeout(timeout)?;
        let outcome = query(&self.connection);
        self.connection.busy_timeout(BUSY)?;
        outcome
    }
}

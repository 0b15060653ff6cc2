//! How much room is left on the disk of the log, and what is kept back for the worst.
//!
//! Below a floor nothing new is begun: what is under way must still be able to end, to be
//! checkpointed, to be deleted. For that a file of some size, the ballast, is kept and given up when
//! the floor is reached. When there is room again, it is kept again, and service goes on by itself.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Largest ballast: enough for the ends of some ten thousand turns.
const BALLAST_MAX: u64 = 16 << 20;

/// Tells the free bytes of a file system; for fault injection.
pub type Probe = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// The room on one file system. Shared by all who begin something that grows.
pub struct DiskSpace {
    ballast: PathBuf,
    ballast_bytes: u64,
    floor: u64,
    probe: Probe,
    free: AtomicU64,
    low: AtomicBool,
    /// The log found no room for what must be written before anything else.
    owes: AtomicBool,
}

impl DiskSpace {
    /// Watches the file system of a directory; with a `floor` of 0 there is always enough.
    ///
    /// Call [`DiskSpace::check`] now and then: nothing is looked at in between.
    #[must_use]
    pub fn new(directory: &Path, floor: u64) -> Self {
        let watched = directory.to_owned();
        Self::probed(directory, floor, Arc::new(move || free_bytes(&watched)))
    }

    /// The same, with another way to tell what is free.
    #[must_use]
    pub fn probed(directory: &Path, floor: u64, probe: Probe) -> Self {
        Self {
            ballast: directory.join("ballast"),
            ballast_bytes: BALLAST_MAX.min(floor / 4),
            floor,
            probe,
            free: AtomicU64::new(u64::MAX),
            low: AtomicBool::new(false),
            owes: AtomicBool::new(false),
        }
    }

    /// Whether nothing new may begin.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed) || self.owes.load(Ordering::Acquire)
    }

    /// Lets nothing begin, whatever is free: the log has no room for what it owes.
    pub fn owe(&self) {
        self.owes.store(true, Ordering::Release);
    }

    /// The log has written what it owed.
    pub fn settle(&self) {
        self.owes.store(false, Ordering::Release);
    }

    /// Bytes that were free at the last check.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Looks, and keeps or gives up the ballast. Blocks for a moment.
    pub fn check(&self) {
        let free = match (self.probe)() {
            Ok(free) => free,
            Err(error) => {
                // Whether there is room is not known: the log itself will tell.
                tracing::debug!(%error, "the free space cannot be read");
                return;
            }
        };
        self.free.store(free, Ordering::Relaxed);
        if self.floor == 0 {
            return;
        }
        let kept = fs::metadata(&self.ballast).is_ok_and(|it| it.len() >= self.ballast_bytes);
        // Some way above the floor: else the ballast given up would end the alarm that it is for.
        let enough = self.floor + self.floor / 8 + if kept { 0 } else { self.ballast_bytes };
        if free < self.floor {
            if !self.low.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    free,
                    floor = self.floor,
                    "the disk is nearly full: no new turns"
                );
            }
            if kept {
                self.give_up();
            }
        } else if free >= enough {
            if self.low.swap(false, Ordering::Relaxed) {
                tracing::info!(free, "there is room on the disk again");
            }
            if !kept && let Err(error) = self.keep() {
                tracing::debug!(%error, "no ballast can be kept");
            }
        }
    }

    fn give_up(&self) {
        match fs::remove_file(&self.ballast) {
            Ok(()) => tracing::info!(bytes = self.ballast_bytes, "gave up the ballast"),
            Err(error) => tracing::warn!(%error, "the ballast cannot be given up"),
        }
    }

    fn keep(&self) -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.ballast)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes) {
            Ok(()) => Ok(()),
            // A file system that cannot reserve: what is written is taken, too.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1 << 16];
                let mut left = self.ballast_bytes;
                while left > 0 {
                    let piece = left.min(zeros.len() as u64);
                    file.write_all(&zeros[..usize::try_from(piece).unwrap_or(zeros.len())])?;
                    left -= piece;
                }
                file.sync_all()
            }
            Err(error) => {
                drop(file);
                fs::remove_file(&self.ballast)?;
                Err(error.into())
            }
        }
    }
}

impl fmt::Debug for DiskSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSpace")
            .field("floor", &self.floor)
            .field("free", &self.free_bytes())
            .field("low", &self.is_low())
            .finish_non_exhaustive()
    }
}

/// Bytes that a process without privileges may still write.
fn free_bytes(directory: &Path) -> io::Result<u64> {
    let room = statvfs(directory)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_ballast_is_given_up_below_the_floor_and_kept_again_with_room_to_spare() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(100 * MIB));
        let probe = {
            let free = free.clone();
            Arc::new(move || Ok(free.load(Ordering::Relaxed)))
        };
        let space = DiskSpace::probed(dir.path(), 8 * MIB, probe);
        let ballast = dir.path().join("ballast");
        let at = |mib: u64| {
            free.store(mib * MIB, Ordering::Relaxed);
            space.check();
            (space.is_low(), ballast.exists())
        };
        assert_eq!(at(100), (false, true));
        assert_eq!(fs::metadata(&ballast).unwrap().len(), 2 * MIB);
        assert_eq!(at(7), (true, false));
        // What was given up is free now: that alone ends nothing.
        assert_eq!(at(9), (true, false));
        assert_eq!(at(10), (true, false));
        assert_eq!(at(11), (false, true));
        assert_eq!(at(8), (false, true), "at the floor is not below it");
        assert_eq!(space.free_bytes(), 8 * MIB);
    }

    #[test]
    fn a_floor_of_nothing_watches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let space = DiskSpace::probed(dir.path(), 0, Arc::new(|| Ok(0)));
        space.check();
        assert!(!space.is_low());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_told_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(|| Err(io::Error::other("no")));
        let space = DiskSpace::probed(dir.path(), MIB, failing);
        space.check();
        assert!(!space.is_low());
        let real = DiskSpace::new(dir.path(), 4 * MIB);
        real.check();
        assert!(real.free_bytes() < u64::MAX, "the file system told");
    }
}

//! The directory that holds everything this process keeps, and the lock that makes it ours alone.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use crate::limits;

/// A data directory that this process alone uses.
///
/// The lock lives as long as the last clone: whatever keeps a file open in the directory holds one.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    // Held, never read: closing it gives the lock back.
    _lock: Arc<File>,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Somebody else holds the lock.
    #[error("another process uses DATA_DIR {}; stop it or choose another directory", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be made or written to.
    #[error("DATA_DIR {} cannot be written to", .path.display())]
    NotWritable {
        /// The directory, or what in it refuses.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system cannot lock files.
    #[error("DATA_DIR {} cannot be locked", .path.display())]
    NotLockable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if it is missing and locks it, before anything in it is opened.
    ///
    /// Blocks for [`limits::LOCK_PATIENCE`] at most.
    pub fn lock(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let not_writable = |path: &Path| {
            let path = path.to_owned();
            |source| DataDirError::NotWritable { path, source }
        };
        make_directory(&path).map_err(not_writable(&path))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(not_writable(&lock_path))?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path }),
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::NotLockable { path, source });
            }
        }
        tolerate_full_disk(note_process(&mut lock)).map_err(not_writable(&lock_path))?;
        tolerate_full_disk(probe(&path)).map_err(not_writable(&path))?;
        let dir = Self {
            path,
            _lock: Arc::new(lock),
        };
        let conversations = dir.conversations();
        make_directory(&conversations).map_err(not_writable(&conversations))?;
        Ok(dir)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's database.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.path.join("log.sqlite")
    }

    /// Where the JSON documents stand.
    #[must_use]
    pub fn conversations(&self) -> PathBuf {
        self.path.join("conversations")
    }
}

/// Conversations are private: what we make is readable by its owner alone. What is there stays as it is.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A lock may outlive its process for a moment: whoever forked from it holds it, too, until it runs
/// a program of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "a start waits, before anything else runs"
)]
fn lock_soon(lock: &File) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < limits::LOCK_PATIENCE => {
                thread::sleep(limits::LOCK_PATIENCE / 20);
            }
            answer => return answer,
        }
    }
}

/// Leaves the process id in the lock file, for the operator who wonders who holds it.
fn note_process(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

/// A lock file made by an earlier run can be writable in a directory that is not.
fn probe(path: &Path) -> io::Result<()> {
    let probe = path.join("writable");
    File::create(&probe)?;
    fs::remove_file(probe)
}

/// A full disk is no reason not to start: saved conversations can still be read.
fn tolerate_full_disk(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::lock(&path).unwrap();
        let kept_by_the_log = first.clone();
        let refused = DataDir::lock(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }));
        assert!(
            refused
                .to_string()
                .starts_with("another process uses DATA_DIR /"),
            "{refused}"
        );
        drop(first);
        assert!(DataDir::lock(&path).is_err());
        drop(kept_by_the_log);
        let again = DataDir::lock(&path).unwrap();
        assert!(again.conversations().is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_made_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::lock(dir.path().join("a/b")).unwrap();
        for path in [data.path(), &data.conversations()] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
    }

    #[test]
    fn a_file_in_the_way_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(matches!(
            DataDir::lock(path),
            Err(DataDirError::NotWritable { .. })
        ));
    }
}

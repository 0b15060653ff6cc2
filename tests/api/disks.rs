//! Disks that are full, cannot be written, or fail: the real server, on a file system of its own.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

mod failing;
mod full;
mod read_only;

/// A small file system in memory; gone when it is dropped.
struct Disk {
    directory: TempDir,
}

impl Disk {
    /// None, with a word about it, where this machine lets nobody mount anything.
    fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs"],
            directory.path(),
        );
        match mounted {
            Ok(()) => Some(Self { directory }),
            Err(reason) => {
                eprintln!("no file system can be mounted here ({reason}): faults are injected");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all the room there is.
    fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 1 << 14, 1 << 12] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Filler(path)
    }

    fn make_read_only(&self) {
        run("mount", &["-o", "remount,ro"], self.path()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that a failing test has left is still there.
        if let Err(reason) = run("umount", &["-l"], self.path()) {
            eprintln!("a file system stays mounted: {reason}");
        }
    }
}

/// What fills a disk.
struct Filler(PathBuf);

impl Filler {
    fn remove(self) {
        fs::remove_file(self.0).unwrap();
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), String> {
    let output = Command::new(program).args(arguments).arg(path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

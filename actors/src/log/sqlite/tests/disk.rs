//! A log whose disk is full or fails, and what it keeps small.

use super::*;

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let (_temp, dir, log) = open(SqliteOptions {
        page_count_max: Some(40),
        ..SqliteOptions::default()
    });
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    let large = vec![accepted(1, &"x".repeat(400_000))];
    // In one batch, the small one must not suffer from the large one.
    let both = [
        log.append(append("a", 1, large.clone())),
        log.append(append("b", 0, vec![begun()])),
    ];
    let both = wait("both", futures::future::join_all(both));
    assert!(
        matches!(both[0], Err(AppendError::Unavailable(_))),
        "{both:?}"
    );
    assert_eq!(both[1], Ok(1));
    assert!(log.stats().alive);
    let small = wait("append", log.append(append("a", 1, vec![accepted(1, "x")])));
    assert_eq!(small, Ok(2));
    drop(log);
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    assert_eq!(entries(&log, "a").len(), 2);
}

/// A file system of a few MB in memory; gone when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None, with a word about it, where this machine lets nobody mount anything.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        match mount.arg(directory.path()).output() {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr);
                eprintln!("no file system can be mounted here: {reason}");
                None
            }
            Err(error) => {
                eprintln!("no file system can be mounted here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the log of a failing test may still hold its files.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

/// The whole disk, not only the database: SQLite meets it while it commits.
#[test]
fn a_disk_that_others_filled_refuses_and_recovers_by_itself() {
    let Some(temp) = SmallDisk::mount() else {
        return a_full_disk_refuses_and_recovers_by_itself();
    };
    let dir = DataDir::lock(temp.path().join("data")).unwrap();
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    for round in 0..20_u64 {
        let filler = temp.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        // Fills by ever smaller pieces, leaving a different rest each time.
        for size in [1 << 20, 1 << 14, 1 << 12] {
            while io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
        }
        drop(file);
        if round % 2 == 0 {
            let room = fs::metadata(&filler).unwrap().len() - round * 2048;
            fs::File::options()
                .write(true)
                .open(&filler)
                .unwrap()
                .set_len(room)
                .unwrap();
        }
        let text = "x".repeat(100_000);
        let entry = || vec![accepted(u128::from(round), &text)];
        let answers: Vec<_> = (0..3)
            .map(|_| wait("append", log.append(append("a", round + 1, entry()))))
            .collect();
        for answer in &answers {
            assert!(
                matches!(answer, Err(AppendError::Unavailable(_))),
                "{answer:?}"
            );
        }
        assert_eq!(entries(&log, "a").len() as u64, round + 1);
        fs::remove_file(&filler).unwrap();
        let answer = wait("append", log.append(append("a", round + 1, entry())));
        assert_eq!(answer, Ok(round + 2));
    }
    drop(log);
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    assert_eq!(entries(&log, "a").len(), 21);
}

#[test]
fn the_wal_is_moved_into_the_database_at_rest() {
    let (_temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::ZERO,
        checkpoint_pages: 1,
        ..SqliteOptions::default()
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    let mut number = 0;
    while log.stats().checkpoints < 3 {
        assert!(Instant::now() < deadline, "no checkpoint at rest");
        number += 1;
        let entry = accepted(number.into(), "x");
        wait("append", log.append(append("a", number, vec![entry]))).unwrap();
    }
    // What was moved is in the file by itself.
    let copy = dir.path().join("copy");
    fs::copy(dir.log_file(), &copy).unwrap();
    let count: i64 = Connection::open(copy)
        .unwrap()
        .query_row("SELECT count(*) FROM entries", [], |row| row.get(0))
        .unwrap();
    assert!(count >= 2, "{count}");
}

#[test]
fn an_unknown_commit_stops_the_log() {
    for committed in [false, true] {
        let fail = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fail);
        let failpoint: Option<Failpoint> = Some(Arc::new(move || {
            if failing.load(Ordering::SeqCst) {
                Injected::CommitError
            } else {
                Injected::Nothing
            }
        }));
        let mut options = SqliteOptions::default();
        if committed {
            options.after_commit = failpoint;
        } else {
            options.before_commit = failpoint;
        }
        let (_temp, dir, log) = open(options);
        wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
        let mut died = log.died();
        assert!(!is_ready(&mut died));
        fail.store(true, Ordering::SeqCst);
        let answer = wait("append", log.append(append("a", 1, vec![accepted(1, "x")])));
        assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
        wait("the death", log.died());
        let later = wait("append", log.append(append("b", 0, vec![begun()])));
        assert!(
            matches!(later, Err(AppendError::Unavailable(_))),
            "{later:?}"
        );
        assert!(matches!(load(&log, "a"), Err(LogError::Unavailable(_))));
        drop(log);
        let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
        let recovered = wait("recovery", recover(&log, None))
            .unwrap()
            .turns_interrupted;
        assert_eq!(recovered, u64::from(committed));
        assert_eq!(entries(&log, "a").len(), if committed { 3 } else { 1 });
    }
}

#[test]
fn a_full_queue_refuses_at_once() {
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let (_temp, _dir, log) = open(SqliteOptions {
        before_commit: gate.failpoint(),
        queue_jobs: 4,
        queue_bytes: 1000,
        ..SqliteOptions::default()
    });
    let full = || Err(AppendError::Unavailable(Arc::from("queue full")));
    let held = log.append(append("held", 0, vec![begun()]));
    gate.await_arrival(1);
    let large = vec![begun(), accepted(1, &"x".repeat(2000))];
    let refused = wait("refusal", log.append(append("large", 0, large.clone())));
    assert_eq!(refused, full());
    let waiting: Vec<_> = (0..4)
        .map(|number| log.append(append(&format!("w{number}"), 0, vec![begun()])))
        .collect();
    assert_eq!(log.stats().queued_jobs, 4);
    assert_eq!(
        wait("refusal", log.append(append("w4", 0, vec![begun()]))),
        full()
    );
    assert!(matches!(load(&log, "held"), Err(LogError::Unavailable(_))));
    gate.set(false);
    assert_eq!(wait("held", held), Ok(1));
    for answer in wait("waiting", futures::future::join_all(waiting)) {
        assert_eq!(answer, Ok(1));
    }
    // Passes behind the last batch, whose bytes are given back by then.
    assert!(load(&log, "held").unwrap().is_some());
    assert_eq!(log.stats().queued_bytes, 0);
    let alone = wait("append", log.append(append("large", 0, large)));
    assert_eq!(alone, Ok(2));
}

#[test]
fn the_wal_stays_bounded() {
    let (_temp, _dir, log) = open(SqliteOptions {
        wal_truncate_bytes: 200_000,
        checkpoint_idle: Duration::from_secs(60),
        ..SqliteOptions::default()
    });
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    let mut largest = 0;
    for number in 1..=60 {
        let entry = accepted(number.into(), &"x".repeat(20_000));
        wait("append", log.append(append("a", number, vec![entry]))).unwrap();
        largest = largest.max(log.stats().wal_bytes);
    }
    assert!(largest < 300_000, "{largest}");
    assert_eq!(entries(&log, "a").len(), 61);
}

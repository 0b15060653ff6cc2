use std::{
    fs,
    future::Future,
    io,
    path::Path,
    process::Command,
    sync::{
        Condvar,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    id::{MessageId, TurnId},
    log::{
        Partial,
        entry::{
            Begun, Deleted, Entry, EntryHead, INTERRUPTED, Owed, TurnAccepted, TurnEnded,
            TurnReopened,
        },
    },
    recovery::{Recovery, recover},
    time::Timestamp,
};

/// Drives a future of the log, which needs no runtime; fails if it takes too long.
fn wait<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await })
        .unwrap_or_else(|_| panic!("{what} took too long"))
}

fn open(options: SqliteOptions) -> (TempDir, DataDir, SqliteLog) {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::lock(temp.path().join("data")).unwrap();
    let log = SqliteLog::open(&dir, options).unwrap();
    (temp, dir, log)
}

fn id(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

fn turn(number: u128) -> TurnId {
    TurnId(Uuid::from_u128(number))
}

fn begun() -> Entry {
    Entry {
        head: EntryHead::Begun(Begun {
            at: Timestamp::from_micros(1),
            incarnation: u64::MAX - 1,
            user_id: None,
            character_id: None,
            imported_updated_at: None,
            voice_usage: None,
            unverified: false,
        }),
        messages: vec![],
    }
}

fn accepted(number: u128, text: &str) -> Entry {
    Entry {
        head: EntryHead::TurnAccepted(TurnAccepted {
            at: Timestamp::from_micros(2),
            turn: turn(number),
            reply: MessageId(Uuid::from_u128(number)),
            user_id: Some("alice".to_owned()),
            character_id: None,
            model: "some/model".to_owned(),
            key: None,
            replaces: None,
            owed: Owed::Reply,
        }),
        messages: vec![Arc::from(text)],
    }
}

fn ended(number: u128, text: &str) -> Entry {
    Entry {
        head: EntryHead::TurnEnded(TurnEnded {
            at: Timestamp::from_micros(3),
            turn: turn(number),
            attempt: 1,
            finish_reason: "stop".to_owned(),
            usage: None,
            error: None,
        }),
        messages: vec![Arc::from(text), Arc::from("")],
    }
}

fn append(name: &str, expected_seq: u64, entries: Vec<Entry>) -> Append {
    Append {
        id: id(name),
        expected_seq,
        entries,
    }
}

fn load(log: &SqliteLog, name: &str) -> Result<Option<Loaded>, LogError> {
    wait("a load", log.load(id(name)))
}

fn entries(log: &SqliteLog, name: &str) -> Vec<Entry> {
    load(log, name)
        .unwrap()
        .map_or(vec![], |loaded| loaded.entries)
}

/// A gate at a failpoint: commits wait while it is shut.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    moved: Condvar,
    arrivals: AtomicUsize,
}

impl Gate {
    fn failpoint(self: &Arc<Self>) -> Option<Failpoint> {
        let gate = Arc::clone(self);
        Some(Arc::new(move || {
            gate.arrivals.fetch_add(1, Ordering::SeqCst);
            gate.moved.notify_all();
            let shut = gate.shut.lock().unwrap();
            let (shut, timeout) = gate
                .moved
                .wait_timeout_while(shut, Duration::from_secs(20), |shut| *shut)
                .unwrap();
            drop(shut);
            assert!(!timeout.timed_out(), "nobody opened the gate");
            Injected::Nothing
        }))
    }

    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.moved.notify_all();
    }

    /// Waits until a commit stands at the gate.
    fn await_arrival(&self, count: usize) {
        let shut = self.shut.lock().unwrap();
        let (_shut, timeout) = self
            .moved
            .wait_timeout_while(shut, Duration::from_secs(20), |_| {
                self.arrivals.load(Ordering::SeqCst) < count
            })
            .unwrap();
        assert!(!timeout.timed_out(), "no commit came to the gate");
    }
}

/// Whether a future has an answer already.
fn is_ready<T>(future: &mut BoxFuture<'static, T>) -> bool {
    future.now_or_never().is_some()
}

#[test]
fn what_was_acknowledged_is_read_back_also_after_a_restart() {
    let (_temp, dir, log) = open(SqliteOptions::default());
    assert!(load(&log, "a").unwrap().is_none());
    let written = vec![begun(), accepted(1, r#"{"role":"user"}"#), ended(1, "ré")];
    let seq = wait("append", log.append(append("a", 0, written[..2].to_vec())));
    assert_eq!(seq, Ok(2));
    let seq = wait("append", log.append(append("a", 2, written[2..].to_vec())));
    assert_eq!(seq, Ok(3));
    assert_eq!(entries(&log, "a"), written);
    wait("close", log.close());
    assert!(matches!(
        wait("append", log.append(append("a", 3, vec![accepted(2, "")]))),
        Err(AppendError::Unavailable(_))
    ));
    drop(log);
    assert!(
        !dir.path().join("log.sqlite-wal").exists(),
        "a clean close leaves one file"
    );
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    assert_eq!(entries(&log, "a"), written);
}

#[test]
fn refusals_and_duplicates_write_nothing_and_harm_no_neighbour() {
    let gate = Arc::new(Gate::default());
    let (_temp, _dir, log) = open(SqliteOptions {
        before_commit: gate.failpoint(),
        ..SqliteOptions::default()
    });
    wait(
        "append",
        log.append(append(
            "a",
            0,
            vec![begun(), accepted(1, "one"), ended(1, "two")],
        )),
    )
    .unwrap();
    // Held at the gate, so that what follows is one batch.
    gate.set(true);
    let held = log.append(append("held", 0, vec![begun()]));
    gate.await_arrival(2);
    let before = log.stats().commits;
    let answers = [
        log.append(append("b", 0, vec![begun(), accepted(2, "x")])),
        log.append(append("a", 2, vec![accepted(3, "x")])),
        log.append(append("nowhere", 4, vec![accepted(3, "x")])),
        log.append(append("a", 3, vec![accepted(1, "one")])),
        log.append(append("a", 3, vec![ended(1, "two")])),
        log.append(append(
            "a",
            3,
            vec![accepted(4, "x"), ended(4, "x"), ended(4, "x")],
        )),
        log.append(append("a", 3, vec![accepted(5, "x")])),
        log.append(append("a", 4, vec![ended(5, "x")])),
        log.append(append("a", 4, vec![accepted(6, "x")])),
    ];
    gate.set(false);
    assert_eq!(wait("the held append", held), Ok(1));
    let answers = wait("answers", futures::future::join_all(answers));
    let duplicate = |number| Err(AppendError::Duplicate { turn: turn(number) });
    let refused = |actual_seq| Err(AppendError::Refused { actual_seq });
    assert_eq!(
        answers,
        [
            Ok(2),
            refused(3),
            refused(0),
            duplicate(1),
            duplicate(1),
            duplicate(4),
            Ok(4),
            Ok(5),
            refused(5),
        ]
    );
    assert_eq!(
        log.stats().commits,
        before + 2,
        "one batch after the held one"
    );
    let texts: Vec<_> = entries(&log, "a")
        .into_iter()
        .filter_map(|entry| entry.messages.first().cloned())
        .collect();
    assert_eq!(texts, ["one", "two", "x", "x"].map(Arc::from));
    assert!(load(&log, "nowhere").unwrap().is_none());
}

#[test]
fn requests_that_make_no_sense_are_kept_out() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    for entries in [
        vec![],
        vec![accepted(1, "")],
        vec![begun(), begun()],
        vec![begun(), ended(1, "")],
    ] {
        let answer = wait("append", log.append(append("a", 0, entries)));
        assert!(
            matches!(answer, Err(AppendError::Unavailable(_))),
            "{answer:?}"
        );
    }
    wait(
        "append",
        log.append(append("a", 0, vec![begun(), accepted(1, "")])),
    )
    .unwrap();
    wait("append", log.append(append("b", 0, vec![begun()]))).unwrap();
    let elsewhere = wait("append", log.append(append("b", 1, vec![ended(1, "")])));
    assert!(matches!(elsewhere, Err(AppendError::Unavailable(_))));
    assert_eq!(entries(&log, "b").len(), 1);
}

#[test]
fn nothing_is_acknowledged_before_its_commit() {
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let (temp, dir, log) = open(SqliteOptions {
        before_commit: gate.failpoint(),
        ..SqliteOptions::default()
    });
    let mut pending = log.append(append("a", 0, vec![begun()]));
    let mut later: BoxFuture<'static, _> = log.load(id("a"));
    gate.await_arrival(1);
    assert!(!is_ready(&mut pending), "acknowledged before the commit");
    assert!(!is_ready(&mut later), "a load overtook an append");
    // What a crash would leave now has no trace of it.
    let crashed = copy(&temp, &dir);
    assert!(entries(&crashed.1, "a").is_empty());
    gate.set(false);
    assert_eq!(wait("append", pending), Ok(1));
    assert!(wait("load", later).unwrap().is_some());
}

/// What would be found if the process were killed now.
fn copy(temp: &TempDir, dir: &DataDir) -> (DataDir, SqliteLog) {
    let to = temp.path().join(Uuid::new_v4().to_string());
    fs::create_dir(&to).unwrap();
    for name in ["log.sqlite", "log.sqlite-wal"] {
        fs::copy(dir.path().join(name), to.join(name)).unwrap();
    }
    let copy = DataDir::lock(to).unwrap();
    let log = SqliteLog::open(&copy, SqliteOptions::default()).unwrap();
    (copy, log)
}

#[test]
fn a_kill_at_any_moment_leaves_what_was_acknowledged() {
    let (temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_secs(60),
        ..SqliteOptions::default()
    });
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    for number in 1..=20_u64 {
        let text = "t".repeat(usize::try_from(number).unwrap() * 700);
        let entry = accepted(number.into(), &text);
        wait("append", log.append(append("a", number, vec![entry]))).unwrap();
        if number % 5 == 0 {
            // Others are under way while it dies.
            let under_way: Vec<_> = (0..20)
                .map(|other| log.append(append(&format!("o{number}-{other}"), 0, vec![begun()])))
                .collect();
            let (_copy, after) = copy(&temp, &dir);
            assert_eq!(entries(&after, "a").len() as u64, number + 1);
            assert_eq!(
                wait("recovery", recover(&after, None))
                    .unwrap()
                    .turns_interrupted,
                number
            );
            for answer in wait("others", futures::future::join_all(under_way)) {
                answer.unwrap();
            }
        }
    }
}

#[test]
fn a_torn_wal_leaves_a_valid_prefix() {
    let (temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_secs(60),
        ..SqliteOptions::default()
    });
    wait("append", log.append(append("a", 0, vec![begun()]))).unwrap();
    for number in 1..=10 {
        let entry = accepted(number.into(), &"x".repeat(3000));
        wait("append", log.append(append("a", number, vec![entry]))).unwrap();
    }
    let whole = fs::read(dir.path().join("log.sqlite-wal")).unwrap();
    let mut lengths = vec![];
    for part in (0..=10).rev() {
        let to = temp.path().join(format!("torn{part}"));
        fs::create_dir(&to).unwrap();
        fs::copy(dir.path().join("log.sqlite"), to.join("log.sqlite")).unwrap();
        fs::write(to.join("log.sqlite-wal"), &whole[..whole.len() / 10 * part]).unwrap();
        let torn = DataDir::lock(to).unwrap();
        let log = SqliteLog::open(&torn, SqliteOptions::default()).unwrap();
        lengths.push(entries(&log, "a").len());
    }
    assert!(
        lengths.is_sorted_by(|longer, shorter| longer >= shorter),
        "{lengths:?}"
    );
    assert!(
        lengths.first() >= Some(&10) && lengths.last() == Some(&0),
        "{lengths:?}"
    );
}

#[test]
fn recovery_ends_open_turns_once_and_in_order() {
    let (temp, dir, log) = open(SqliteOptions::default());
    let first = vec![
        begun(),
        accepted(9, "q"),
        accepted(3, "queued"),
        accepted(1, "queued"),
    ];
    wait("append", log.append(append("a", 0, first))).unwrap();
    let whole = vec![begun(), accepted(5, "q"), ended(5, "r")];
    wait("append", log.append(append("b", 0, whole))).unwrap();
    for number in 0..700 {
        let entries = vec![begun(), accepted(1000 + number, "q")];
        let many = append(&format!("many{number}"), 0, entries);
        wait("append", log.append(many)).unwrap();
    }
    let (_copy, after) = copy(&temp, &dir);
    let recovery = wait("recovery", recover(&after, None)).unwrap();
    assert_eq!(recovery.turns_interrupted, 703);
    let ends: Vec<_> = entries(&after, "a")[4..]
        .iter()
        .map(|entry| match &entry.head {
            EntryHead::TurnEnded(end) if end.finish_reason == INTERRUPTED => end.turn,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends, [turn(9), turn(3), turn(1)]);
    assert_eq!(entries(&after, "b").len(), 3);
    assert_eq!(entries(&after, "many699").len(), 3);
    assert_eq!(
        wait("recovery", recover(&after, None)).unwrap(),
        Recovery::default()
    );
    let late = wait(
        "append",
        after.append(append("a", 7, vec![ended(9, "late")])),
    );
    assert_eq!(late, Err(AppendError::Duplicate { turn: turn(9) }));
}

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

#[test]
fn damage_is_an_error_with_its_place() {
    for (damage, at) in [
        ("DELETE FROM entries WHERE kind = 2", 2),
        ("DELETE FROM entries WHERE kind = 3", 3),
        ("UPDATE entries SET version = 7 WHERE kind = 3", 3),
        ("UPDATE entries SET kind = 9 WHERE kind = 2", 2),
        ("UPDATE entries SET body = x'ff' WHERE kind = 2", 2),
        ("UPDATE entries SET head = x'7b' WHERE kind = 1", 1),
        ("UPDATE conversations SET seq = 2", 3),
    ] {
        let (_temp, dir, log) = open(SqliteOptions::default());
        let whole = vec![begun(), accepted(1, "q"), ended(1, "r")];
        wait("append", log.append(append("a", 0, whole))).unwrap();
        drop(log);
        Connection::open(dir.log_file())
            .unwrap()
            .execute_batch(damage)
            .unwrap();
        let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
        match load(&log, "a") {
            Err(LogError::Corrupt { seq, .. }) => assert_eq!(seq, at, "{damage}"),
            other => panic!("{damage}: {other:?}"),
        }
    }
}

#[test]
fn mirrors_find_what_they_lack() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    for name in ["a", "b", "c"] {
        wait("append", log.append(append(name, 0, vec![begun()]))).unwrap();
    }
    let stamp = FileStamp {
        size: 10,
        mtime_ns: 7,
    };
    let progress = |name, reached| Progress {
        id: id(name),
        incarnation: u64::MAX - 1,
        step: match reached {
            Some(seq) => Step::FileWritten { seq, stamp },
            None => Step::FileIntended(stamp),
        },
    };
    let rows = vec![
        progress("a", Some(1)),
        progress("b", None),
        progress("nowhere", Some(1)),
    ];
    wait("progress", log.record_progress("json", rows)).unwrap();
    let first = wait("lagging", log.lagging("json", LaggingCursor::default(), 1)).unwrap();
    assert_eq!(first.rows.len(), 1);
    assert_eq!(
        (first.rows[0].id.as_str(), first.rows[0].mirrored_seq),
        ("b", 0)
    );
    assert_eq!(
        (first.rows[0].written, first.rows[0].intended),
        (None, Some(stamp))
    );
    let second = wait("lagging", log.lagging("json", first.next.unwrap(), 5)).unwrap();
    assert_eq!(second.rows.len(), 1);
    assert_eq!(second.rows[0].id.as_str(), "c");
    assert_eq!(second.next, None);
    let row = wait("row", log.mirror_row("json", id("a")))
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.seq, row.mirrored_seq, row.written),
        (1, 1, Some(stamp))
    );
    wait("append", log.append(append("a", 1, vec![accepted(1, "x")]))).unwrap();
    let all = wait("lagging", log.lagging("json", LaggingCursor::default(), 10)).unwrap();
    assert_eq!(all.rows.len(), 3);
    let other = wait(
        "lagging",
        log.lagging("other", LaggingCursor::default(), 10),
    )
    .unwrap();
    assert!(other.rows.iter().all(|row| row.mirrored_seq == 0));
}

#[test]
fn the_observer_sees_appends_and_batches() {
    #[derive(Default)]
    struct Counts(AtomicUsize, AtomicUsize);
    impl LogObserver for Counts {
        fn appended(&self, _: Duration) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn committed(&self, batch: usize) {
            self.1.fetch_add(batch, Ordering::SeqCst);
        }
    }
    let counts = Arc::new(Counts::default());
    let (_temp, _dir, log) = open(SqliteOptions {
        observer: Some(Arc::clone(&counts) as Arc<dyn LogObserver>),
        ..SqliteOptions::default()
    });
    let all = (0..50).map(|number| log.append(append(&format!("c{number}"), 0, vec![begun()])));
    wait(
        "appends",
        futures::future::join_all(all.collect::<Vec<_>>()),
    );
    assert_eq!(counts.0.load(Ordering::SeqCst), 50);
    assert_eq!(counts.1.load(Ordering::SeqCst), 50);
}

fn reopened(number: u128, attempt: u32) -> Entry {
    Entry {
        head: EntryHead::TurnReopened(TurnReopened {
            at: Timestamp::from_micros(4),
            turn: turn(number),
            attempt,
            model: "another/model".to_owned(),
        }),
        messages: vec![],
    }
}

fn ended_at(number: u128, at: u32) -> Entry {
    let mut entry = ended(number, "");
    if let EntryHead::TurnEnded(ended) = &mut entry.head {
        ended.attempt = at;
    }
    entry
}

fn deleted() -> Entry {
    Entry {
        head: EntryHead::Deleted(Deleted {
            at: Timestamp::from_micros(9),
            incarnation: 77,
        }),
        messages: vec![],
    }
}

fn piece(number: u128, offset: u64, text: &str) -> Checkpoint {
    Checkpoint {
        turn: turn(number),
        attempt: 1,
        offset,
        text: text.to_owned(),
    }
}

#[test]
fn text_under_way_is_found_until_its_turn_ends() {
    let (temp, dir, log) = open(SqliteOptions::default());
    let begin = vec![begun(), accepted(1, "q")];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    for (offset, text) in [(0, "one "), (4, "two "), (4, "two "), (8, "three")] {
        wait("checkpoint", log.checkpoint(piece(1, offset, text))).unwrap();
    }
    let partials = load(&log, "a").unwrap().unwrap().partials;
    let whole = Partial {
        turn: turn(1),
        text: "one two three".to_owned(),
    };
    assert_eq!(partials, [whole]);
    // Of a crash here the reply is left, as far as it came.
    let (_copy, after) = copy(&temp, &dir);
    let recovery = wait("recovery", recover(&after, None)).unwrap();
    assert_eq!((recovery.turns_interrupted, recovery.replies_kept), (1, 1));
    let end = entries(&after, "a").pop().unwrap();
    let reply: serde_json::Value = serde_json::from_str(&end.messages[0]).unwrap();
    assert_eq!(reply["content"], "one two three");
    assert_eq!(reply["finish_reason"], INTERRUPTED);
    assert_eq!(reply["model"], "some/model");
    assert_eq!(reply["id"], Uuid::from_u128(1).to_string());
    // The end takes the pieces with it, and a late one finds nobody to belong to.
    wait("append", log.append(append("a", 2, vec![ended(1, "r")]))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 13, "late"))).unwrap();
    wait("checkpoint", log.checkpoint(piece(2, 0, "nobody's"))).unwrap();
    assert!(load(&log, "a").unwrap().unwrap().partials.is_empty());
    wait("append", log.append(append("a", 3, vec![accepted(2, "q")]))).unwrap();
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "");
}

#[test]
fn a_gap_ends_the_text_that_is_recovered() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    let begin = vec![begun(), accepted(1, "q")];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 0, "one "))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 8, "three"))).unwrap();
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "one ");
}

#[test]
fn a_turn_runs_again_once_it_has_ended() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    let begin = vec![begun(), accepted(1, "q")];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    let early = wait("append", log.append(append("a", 2, vec![reopened(1, 2)])));
    assert!(matches!(early, Err(AppendError::Unavailable(_))));
    wait("append", log.append(append("a", 2, vec![ended(1, "")]))).unwrap();
    for attempt in [1, 3] {
        let wrong = wait(
            "append",
            log.append(append("a", 3, vec![reopened(1, attempt)])),
        );
        assert!(
            matches!(wrong, Err(AppendError::Unavailable(_))),
            "{wrong:?}"
        );
    }
    wait("append", log.append(append("a", 3, vec![reopened(1, 2)]))).unwrap();
    let twice = wait("append", log.append(append("a", 4, vec![reopened(1, 2)])));
    assert_eq!(twice, Err(AppendError::Duplicate { turn: turn(1) }));
    let stale = wait("append", log.append(append("a", 4, vec![ended(1, "")])));
    assert_eq!(stale, Err(AppendError::Duplicate { turn: turn(1) }));
    wait("append", log.append(append("a", 4, vec![ended_at(1, 2)]))).unwrap();
    assert!(wait("open turns", log.open_turns(9)).unwrap().is_empty());
    wait("append", log.append(append("a", 5, vec![reopened(1, 3)]))).unwrap();
    let open = wait("open turns", log.open_turns(9)).unwrap();
    assert_eq!(open[0].orphan.attempt, 3);
    assert_eq!(open[0].orphan.model, "another/model");
}

#[test]
fn a_deletion_leaves_nothing_but_itself() {
    const SECRET: &str = "a very particular secret";
    let (temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_millis(1),
        ..SqliteOptions::default()
    });
    let begin = vec![
        begun(),
        accepted(1, SECRET),
        ended(1, SECRET),
        accepted(2, SECRET),
    ];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    wait("checkpoint", log.checkpoint(piece(2, 0, SECRET))).unwrap();
    wait("append", log.append(append("a", 4, vec![deleted()]))).unwrap();
    let loaded = load(&log, "a").unwrap().unwrap();
    assert_eq!(loaded.first_seq, 5);
    assert_eq!(loaded.entries, [deleted()]);
    assert!(wait("open turns", log.open_turns(9)).unwrap().is_empty());
    // An import, which expects nothing to be there, does not bring it back.
    let import = wait("append", log.append(append("a", 0, vec![begun()])));
    assert_eq!(import, Err(AppendError::Refused { actual_seq: 5 }));
    let row = wait("row", log.mirror_row("json", id("a")))
        .unwrap()
        .unwrap();
    assert!(row.is_deleted() && row.owes_removal());
    assert_eq!(row.incarnation, 77);
    // A new life of the id goes on behind the deletion.
    let orphan = wait("append", log.append(append("a", 5, vec![accepted(3, "")])));
    assert!(matches!(orphan, Err(AppendError::Unavailable(_))));
    let anew = vec![begun(), accepted(3, "hello")];
    wait("append", log.append(append("a", 5, anew.clone()))).unwrap();
    let loaded = load(&log, "a").unwrap().unwrap();
    assert_eq!(loaded.entries[1..], anew);
    let row = wait("row", log.mirror_row("json", id("a")))
        .unwrap()
        .unwrap();
    assert!(!row.is_deleted() && row.owes_removal());
    assert_known_files_change_no_removal(&log);
    // Nothing of it is left in the files, once the writer has come to rest.
    let deadline = Instant::now() + Duration::from_secs(20);
    while holds(&temp.path().join("data"), SECRET) {
        assert!(Instant::now() < deadline, "the text is still in the files");
        // Passes through the writer, which comes to rest after it.
        load(&log, "a").unwrap();
    }
    drop((log, dir));
}

/// A file that becomes known is to be replaced; what was removed stays removed, and what was not
/// is still to be.
fn assert_known_files_change_no_removal(log: &SqliteLog) {
    let stamp = FileStamp {
        size: 1,
        mtime_ns: 2,
    };
    let row = |steps: &[Step]| {
        let row = || {
            let row = wait("row", log.mirror_row("json", id("a")));
            row.unwrap().unwrap()
        };
        let incarnation = row().incarnation;
        let steps = steps.iter().map(|step| Progress {
            id: id("a"),
            incarnation,
            step: *step,
        });
        wait("steps", log.record_progress("json", steps.collect())).unwrap();
        row()
    };
    let known = Step::FileKnown(stamp);
    let owing = row(&[known]);
    assert!(owing.owes_removal());
    assert_eq!(owing.written, Some(stamp));
    let written = Step::FileWritten {
        seq: owing.seq,
        stamp: FileStamp { size: 9, ..stamp },
    };
    let living = row(&[written, Step::FileIntended(stamp), known]);
    assert!(!living.owes_removal() && living.mirrored_seq < living.seq);
    assert_eq!((living.written, living.intended), (Some(stamp), None));
}

/// Whether a file of a directory holds a text.
fn holds(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|file| {
        let bytes = fs::read(file.unwrap().path()).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

/// A conversation whose text was deleted, and a writer that does not come to rest.
fn deleted_without_rest(secret: &str) -> (TempDir, DataDir, SqliteLog) {
    let (temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_secs(600),
        ..SqliteOptions::default()
    });
    let begin = vec![begun(), accepted(1, secret), ended(1, secret)];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    wait("append", log.append(append("a", 3, vec![deleted()]))).unwrap();
    (temp, dir, log)
}

#[test]
fn what_was_deleted_before_a_kill_is_gone_from_the_files_after_the_next_start() {
    const SECRET: &str = "a very particular secret";
    let (temp, dir, _log) = deleted_without_rest(SECRET);
    let (copy, after) = copy(&temp, &dir);
    let deadline = Instant::now() + Duration::from_secs(20);
    while holds(copy.path(), SECRET) {
        assert!(Instant::now() < deadline, "the text is still in the files");
        assert_eq!(entries(&after, "a"), [deleted()]);
    }
}

#[test]
fn what_was_deleted_is_gone_from_the_files_also_under_a_load_that_leaves_no_rest() {
    const SECRET: &str = "a very particular secret";
    let (_temp, dir, log) = deleted_without_rest(SECRET);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    while holds(dir.path(), SECRET) {
        assert!(Instant::now() < deadline, "the text is still in the files");
        let other = append(&format!("o{number}"), 0, vec![begun()]);
        wait("append", log.append(other)).unwrap();
        number += 1;
    }
}

#[test]
fn the_catalogue_lists_the_newest_first_and_no_deleted_ones() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    for (name, number) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        let mut entries = vec![begun(), accepted(number, "x")];
        if let EntryHead::TurnAccepted(accepted) = &mut entries[1].head {
            accepted.at = Timestamp::from_micros(10 + i64::try_from(number).unwrap());
            accepted.user_id = Some(if number < 3 { "alice" } else { "bob" }.to_owned());
            accepted.character_id = Some("aiko".to_owned());
        }
        wait("append", log.append(append(name, 0, entries))).unwrap();
    }
    wait("append", log.append(append("d", 2, vec![deleted()]))).unwrap();
    let list = |filter: CatalogueFilter| {
        let (mut names, mut after) = (vec![], None);
        loop {
            let page = wait("list", log.newest(filter.clone(), after, 2)).unwrap();
            names.extend(page.rows.into_iter().map(|row| row.id.to_string()));
            let Some(next) = page.next else { return names };
            after = Some(next.to_string().parse().unwrap());
        }
    };
    let of = |user: Option<&str>, character: Option<&str>| CatalogueFilter {
        user_id: user.map(str::to_owned),
        character_id: character.map(str::to_owned),
    };
    assert_eq!(list(of(None, None)), ["c", "b", "a"]);
    assert_eq!(list(of(Some("alice"), None)), ["b", "a"]);
    assert_eq!(list(of(Some("bob"), Some("aiko"))), ["c"]);
    assert_eq!(list(of(None, Some("nobody"))), [""; 0]);
    let all = wait("catalogue", log.catalogue(None, 9)).unwrap().rows;
    let deleted: Vec<_> = all.iter().map(|row| row.is_deleted()).collect();
    assert_eq!(deleted, [false, false, false, true]);
}

#[test]
fn a_backup_shows_one_moment_and_opens_as_a_log() {
    let (temp, dir, log) = open(SqliteOptions::default());
    for number in 0..50 {
        let begin = vec![begun(), accepted(number, "q")];
        wait(
            "append",
            log.append(append(&format!("c{number}"), 0, begin)),
        )
        .unwrap();
    }
    let copied = temp.path().join("copy/log.sqlite");
    fs::create_dir(temp.path().join("copy")).unwrap();
    let mut reports = 0;
    backup(&dir.log_file(), &copied, |_| reports += 1).unwrap();
    assert!(reports > 0);
    wait("append", log.append(append("later", 0, vec![begun()]))).unwrap();
    let again = backup(&dir.log_file(), &copied, |_| {});
    assert!(matches!(again, Err(BackupError::Exists)));
    let copy = DataDir::lock(temp.path().join("copy")).unwrap();
    let after = SqliteLog::open(&copy, SqliteOptions::default()).unwrap();
    assert_eq!(after.log_id(), log.log_id());
    assert_eq!(entries(&after, "c49").len(), 2);
    assert!(load(&after, "later").unwrap().is_none());
}

#[test]
fn what_a_mirror_uploads_and_removes_is_remembered() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    let mut first = begun();
    if let EntryHead::Begun(begun) = &mut first.head {
        begun.unverified = true;
    }
    wait("append", log.append(append("a", 0, vec![first]))).unwrap();
    let step = |incarnation, step| {
        let progress = Progress {
            id: id("a"),
            incarnation,
            step,
        };
        wait("progress", log.record_progress("remote", vec![progress])).unwrap();
        wait("row", log.mirror_row("remote", id("a")))
            .unwrap()
            .unwrap()
    };
    let at = Timestamp::from_micros(5);
    let row = step(u64::MAX - 1, Step::UploadBegun { at });
    assert_eq!((row.uploading, row.mirrored_seq), (Some(at), 0));
    assert!(row.unverified);
    let hash = [3; 32];
    let row = step(u64::MAX - 1, Step::Uploaded { seq: 1, hash });
    assert_eq!(
        (row.uploading, row.mirrored_seq, row.hash),
        (None, 1, Some(hash))
    );
    assert!(!row.unverified, "the copy is ours from now on");
    wait("append", log.append(append("a", 1, vec![deleted()]))).unwrap();
    let look = Some(Look { at, step: 1 });
    let row = step(u64::MAX - 1, Step::Removed { seq: 2, look });
    assert_eq!((row.mirrored_seq, row.look), (1, None), "of another life");
    let row = step(77, Step::Removed { seq: 2, look });
    assert_eq!((row.mirrored_seq, row.look), (2, look));
    let page = wait("page", log.lagging("remote", LaggingCursor::default(), 9)).unwrap();
    assert_eq!(page.rows.len(), 1, "what is to be looked after is listed");
    step(77, Step::Removed { seq: 2, look: None });
    let page = wait("page", log.lagging("remote", LaggingCursor::default(), 9)).unwrap();
    assert!(page.rows.is_empty());
}

#[test]
fn text_of_ended_replies_goes_once_no_older_reply_runs() {
    let (_temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_millis(1),
        ..SqliteOptions::default()
    });
    for (name, number) in [("a", 1), ("b", 2)] {
        let begin = vec![begun(), accepted(number, "q")];
        wait("append", log.append(append(name, 0, begin))).unwrap();
        wait("checkpoint", log.checkpoint(piece(number, 0, "text"))).unwrap();
    }
    let count = || -> i64 {
        schema::open_reader(&dir.log_file())
            .unwrap()
            .query_row("SELECT count(*) FROM partials", [], |row| row.get(0))
            .unwrap()
    };
    let await_count = |wanted| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while count() != wanted {
            assert!(Instant::now() < deadline, "there are {} pieces", count());
        }
    };
    wait("append", log.append(append("b", 2, vec![ended(2, "r")]))).unwrap();
    wait("append", log.append(append("c", 0, vec![begun()]))).unwrap();
    assert_eq!(count(), 2, "a's piece is older and needed");
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "text");
    wait("append", log.append(append("a", 2, vec![ended(1, "r")]))).unwrap();
    await_count(0);
}

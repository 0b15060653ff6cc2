mod deletions;
mod disk;
mod durability;
mod mirrors;
mod partials;

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

fn piece(number: u128, offset: u64, text: &str) -> Checkpoint {
    Checkpoint {
        turn: turn(number),
        attempt: 1,
        offset,
        text: text.to_owned(),
    }
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

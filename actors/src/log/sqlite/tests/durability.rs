//! Kills, torn files, damage and backups.

use super::*;

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

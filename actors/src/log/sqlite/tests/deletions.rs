//! What is deleted is gone from the files, too.

use super::*;

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

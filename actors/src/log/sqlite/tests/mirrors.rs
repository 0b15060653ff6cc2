//! What mirrors, observers and the catalogue are told.

use super::*;

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

//! A write-ahead log that is cut short, or of which a byte is wrong.
//!
//! SQLite reads one up to the first frame that is not whole: what a server finds then is an earlier
//! state, and must be one. Where JSON files show more, it is taken from them.

use std::path::Path;

use idol_actors::{
    id::ConversationId,
    log::{
        Log as _,
        data_dir::DataDir,
        sqlite::{SqliteLog, SqliteOptions},
    },
    mirror::Render as _,
    recovery::recover,
    rendering::DocumentRenderer,
};
use serde_json::Value;

use super::{Files, IDS, Killed, assert_beginning, messages};
use crate::helpers::mirrored;

const DAMAGES: usize = 40;

/// The histories that a log holds after recovery, read without a server.
async fn histories(directory: &Path) -> Vec<(&'static str, Vec<Value>)> {
    let dir = DataDir::lock(directory.join("data")).unwrap();
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    recover(&log, None).await.unwrap();
    let renderer = DocumentRenderer { log: log.log_id() };
    let mut histories = Vec::new();
    for name in IDS {
        let id = ConversationId::parse(name).unwrap();
        let messages = match log.load(id.clone()).await.unwrap() {
            Some(loaded) => {
                let json = renderer.render(&id, loaded).unwrap().json.concat();
                messages(&mirrored(json.as_bytes())).clone()
            }
            None => Vec::new(),
        };
        histories.push((name, messages));
    }
    log.close().await;
    histories
}

/// Checks what is found with many a damaged log; how many messages were found each time.
async fn check(damages: impl Iterator<Item = (String, Vec<u8>)>, killed: &Killed) -> Vec<usize> {
    let mut found = Vec::new();
    for (damage, wal) in damages {
        let copy = killed.copy_with(&wal);
        let histories = histories(copy.path()).await;
        let pairs = histories.iter().zip(&killed.documents);
        let mut count = 0;
        for ((id, history), (_, document)) in pairs {
            assert_beginning(history, messages(document), &format!("{id}, {damage}"));
            count += history.len();
        }
        found.push(count);
    }
    found
}

/// Fails unless the damages left little, much, and something in between.
fn assert_all_sorts(mut found: Vec<usize>, killed: &Killed) {
    let all: usize = killed
        .documents
        .iter()
        .map(|(_, it)| messages(it).len())
        .sum();
    found.sort_unstable();
    found.dedup();
    assert!(found.len() > 5, "{found:?} of {all}");
    assert!(found.iter().any(|it| *it < all), "{found:?} of {all}");
}

#[tokio::test]
async fn a_log_that_is_cut_anywhere_holds_a_beginning_of_every_history() {
    let killed = Killed::with(Files::None).await;
    let wal = killed.wal();
    let cuts = (0..DAMAGES).map(|_| {
        let length = fastrand::usize(..wal.len());
        (format!("cut at {length}"), wal[..length].to_vec())
    });

    let found = check(cuts, &killed).await;

    assert_all_sorts(found, &killed);
    let whole = check(std::iter::once(("whole".to_owned(), wal.clone())), &killed).await;
    assert_eq!(
        whole,
        [IDS.len() * 12],
        "nothing is lost where nothing is damaged"
    );
}

#[tokio::test]
async fn a_log_with_a_wrong_byte_anywhere_holds_a_beginning_of_every_history() {
    let killed = Killed::with(Files::None).await;
    let wal = killed.wal();
    let flips = (0..DAMAGES).map(|_| {
        let (offset, bit) = (fastrand::usize(..wal.len()), fastrand::u8(..8));
        let mut wal = wal.clone();
        wal[offset] ^= 1 << bit;
        (format!("bit {bit} of byte {offset}"), wal)
    });

    let found = check(flips, &killed).await;

    assert_all_sorts(found, &killed);
}

#[tokio::test]
async fn a_server_whose_log_was_cut_has_all_that_its_json_files_show() {
    let killed = Killed::with(Files::All).await;
    let wal = killed.wal();
    for _ in 0..6 {
        // The first half holds the tables, too.
        let length = fastrand::usize(wal.len() / 2..wal.len());
        let (launch, process) = killed.start_with(&wal[..length]).await;

        for (id, document) in &killed.documents {
            let found = process.document(id).await;
            assert_eq!(
                found["messages"], document["messages"],
                "{id}, cut at {length}"
            );
        }

        // It goes on, and the files follow.
        process.chat("c0", "Are you there?").await;
        let document = process.document("c0").await;
        assert_eq!(messages(&document).len(), 14, "cut at {length}");
        process.stop().await;
        assert_eq!(launch.json_file("c0"), document, "cut at {length}");
        let files = super::names(&launch.data().join("conversations"));
        assert_eq!(files, ["c0.json", "c1.json", "c2.json"], "cut at {length}");
    }
}

#[tokio::test]
async fn a_server_without_any_of_its_log_takes_everything_from_its_json_files() {
    let killed = Killed::with(Files::All).await;

    let (_launch, process) = killed.start_with(&[]).await;

    for (id, document) in &killed.documents {
        let found = process.document(id).await;
        let essence = |document: &Value| -> Vec<(Value, Value, Value)> {
            let of = |it: &Value| {
                (
                    it["role"].clone(),
                    it["content"].clone(),
                    it["timestamp"].clone(),
                )
            };
            messages(document).iter().map(of).collect()
        };
        assert_eq!(essence(&found), essence(document), "{id}");
    }
    process.chat("c0", "Are you there?").await;
    assert_eq!(process.said("c0").await.len(), 14);
}

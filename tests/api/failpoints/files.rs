//! Deaths while the JSON files are written.

use std::fs;

use idol_simulator::Simulator;
use serde_json::Value;

use super::{ID, Mortal, Place, death};
use crate::{
    helpers::{client, mirrored},
    process::{Launch, Process},
};

/// The directory of the JSON files.
pub struct Files(pub std::path::PathBuf);

impl Files {
    pub fn of(launch: &Launch) -> Self {
        Self(launch.data().join("conversations"))
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn document(&self) -> Option<Value> {
        let bytes = fs::read(self.0.join(format!("{ID}.json"))).ok()?;
        Some(mirrored(&bytes))
    }
}

/// What there is of the file before the server that dies writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    AnOlderOne,
}

/// What a crash leaves of a rename that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rename {
    /// It is there; or it was not made yet.
    AsItIs,
    /// It is undone.
    Lost,
}

/// Tells the server to end, over which it writes its files.
async fn stop_to_die(process: &mut Process) {
    process.http = client();
    process.signal("TERM");
    death(process).await;
}

/// Dies at a point with a turn to be written, and checks that the next start makes it good.
///
/// `left` is what the directory holds in between.
async fn dies(point: &'static str, before: Before, rename: Rename, left: &[&str]) {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "3600");
    let mut mortal = Mortal::new(launch);
    let files = Files::of(&mortal.launch);
    if before == Before::AnOlderOne {
        let process = mortal.start().await;
        process.chat(ID, "one").await;
        process.stop().await;
    }
    let older = files.document();
    let kept = mortal.launch.directory.path().join("older");
    if older.is_some() {
        // Another name of the same file: its time is what it was.
        fs::hard_link(files.0.join(format!("{ID}.json")), &kept).unwrap();
    }
    let mut process = mortal.start_to_die_at(Place::Mirror(point)).await;
    process.chat(ID, "two").await;
    let document = process.document(ID).await;
    stop_to_die(&mut process).await;
    assert_eq!(files.names(), left, "{point}, {before:?}");
    match left {
        ["c1.json"] => assert_eq!(files.document(), Some(document.clone())),
        _ => assert_eq!(files.document(), older),
    }
    if rename == Rename::Lost {
        let path = files.0.join(format!("{ID}.json"));
        match before {
            Before::Nothing => fs::remove_file(path).unwrap(),
            Before::AnOlderOne => fs::rename(&kept, path).unwrap(),
        }
    }

    let process = mortal.start().await;

    assert_eq!(process.document(ID).await, document);
    process.chat(ID, "three").await;
    let document = process.document(ID).await;
    let turns = 2 + usize::from(before == Before::AnOlderOne);
    assert_eq!(document["messages"].as_array().unwrap().len(), turns * 2);
    process.stop().await;
    assert_eq!(files.names(), ["c1.json"], "nothing was taken for edited");
    assert_eq!(files.document(), Some(document));
}

#[tokio::test]
async fn a_death_after_the_temporary_is_synced_leaves_nothing_but_the_old_file() {
    dies("Staged", Before::Nothing, Rename::AsItIs, &["c1.json.tmp"]).await;
    let left = &["c1.json", "c1.json.tmp"];
    dies("Staged", Before::AnOlderOne, Rename::AsItIs, left).await;
}

#[tokio::test]
async fn a_death_after_the_intent_is_recorded_takes_no_file_for_edited() {
    dies(
        "Intended",
        Before::Nothing,
        Rename::AsItIs,
        &["c1.json.tmp"],
    )
    .await;
    let left = &["c1.json", "c1.json.tmp"];
    dies("Intended", Before::AnOlderOne, Rename::AsItIs, left).await;
}

#[tokio::test]
async fn a_death_before_the_directory_is_synced_is_made_good_whether_the_rename_lasts_or_not() {
    for before in [Before::Nothing, Before::AnOlderOne] {
        for rename in [Rename::AsItIs, Rename::Lost] {
            dies("Renamed", before, rename, &["c1.json"]).await;
        }
    }
}

#[tokio::test]
async fn a_death_before_the_progress_is_recorded_takes_no_file_for_edited() {
    for before in [Before::Nothing, Before::AnOlderOne] {
        dies("InPlace", before, Rename::AsItIs, &["c1.json"]).await;
    }
}

#[tokio::test]
async fn a_death_after_an_edited_file_is_set_aside_keeps_it_and_writes_ours() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "3600");
    let mut mortal = Mortal::new(launch);
    let files = Files::of(&mortal.launch);
    let process = mortal.start().await;
    process.chat(ID, "one").await;
    process.stop().await;
    fs::write(files.0.join("c1.json"), "by hand").unwrap();
    let mut process = mortal.start_to_die_at(Place::Mirror("SetAside")).await;
    process.chat(ID, "two").await;
    let document = process.document(ID).await;
    stop_to_die(&mut process).await;
    let names = files.names();
    let [kept, _] = &names[..] else {
        panic!("{names:?}");
    };
    assert!(kept.starts_with("c1.edited-"), "{names:?}");
    assert_eq!(names[1], "c1.json.tmp");

    mortal.start().await.stop().await;

    assert_eq!(files.names(), [kept, "c1.json"]);
    assert_eq!(fs::read(files.0.join(kept)).unwrap(), b"by hand");
    assert_eq!(files.document(), Some(document));
}

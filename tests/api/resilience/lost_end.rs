//! A log that has lost its end takes it from what the mirrors wrote before.

use std::{fs, path::Path};

use idol_actors::log::sqlite::backup;
use idol_simulator::Script;
use serde_json::Value;
use tempfile::TempDir;

use super::user;
use crate::helpers::{DEADLINE, Setup, TestApp, mirrored, prompt, say, until};

async fn on(directory: &TempDir) -> TestApp {
    Setup::new().data_dir(directory.path()).start().await
}

/// Puts another log in the place of the one that is there, as a restored backup is.
fn restore(directory: &TempDir, older: &Path) {
    for name in ["log.sqlite-wal", "log.sqlite-shm"] {
        match fs::remove_file(directory.path().join(name)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    fs::copy(older, directory.path().join("log.sqlite")).unwrap();
}

fn keep_log(directory: &TempDir) -> (TempDir, std::path::PathBuf) {
    let aside = tempfile::tempdir().unwrap();
    let copy = aside.path().join("older.sqlite");
    backup(&directory.path().join("log.sqlite"), &copy, |_| {}).unwrap();
    (aside, copy)
}

fn messages(document: &Value) -> &Vec<Value> {
    document["messages"].as_array().unwrap()
}

#[tokio::test]
async fn what_a_restored_log_lacks_is_taken_from_the_json_file() {
    let directory = tempfile::tempdir().unwrap();
    let app = on(&directory).await;
    app.chat("c1", "one").await;
    app.chat("other", "one").await;
    let (_aside, older) = keep_log(&directory);
    for text in ["two", "three"] {
        app.chat("c1", text).await;
    }
    let whole = app.document("c1").await;
    app.stop().await;
    restore(&directory, &older);

    let app = on(&directory).await;

    assert_eq!(app.document("c1").await["messages"], whole["messages"]);
    assert_eq!(
        app.document("other").await["messages"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    app.chat("c1", "four").await;
    let asked = prompt(&app.simulator.chat_requests().pop().unwrap());
    assert_eq!(asked.len(), 7, "three turns and a message");
    app.stop().await;
    // It is in the log now: without the file it is there all the same.
    fs::remove_file(directory.path().join("conversations/c1.json")).unwrap();
    let app = on(&directory).await;
    let document = app.document("c1").await;
    assert_eq!(messages(&document)[..6], messages(&whole)[..]);
    assert_eq!(messages(&document).len(), 8);
    // Nothing was taken for a file that somebody had edited.
    app.stop().await;
    let names: Vec<_> = fs::read_dir(directory.path().join("conversations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("edited")),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_turn_whose_end_was_lost_gets_it_back_and_not_another() {
    let directory = tempfile::tempdir().unwrap();
    let app = on(&directory).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("Hello Alice!").hold_at(1, &gate));
    let events = app.stream(say("c1", "I am Alice")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let (_aside, older) = keep_log(&directory);
    gate.open();
    assert_eq!(events.all().await.last().unwrap()["type"], "done");
    app.chat("c1", "two").await;
    let whole = app.document("c1").await;
    app.stop().await;
    restore(&directory, &older);

    let app = on(&directory).await;

    let document = app.document("c1").await;
    assert_eq!(document["messages"], whole["messages"]);
    assert_eq!(messages(&document)[1]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_file_that_has_parted_from_the_log_is_kept_aside() {
    let directory = tempfile::tempdir().unwrap();
    let app = on(&directory).await;
    app.chat("c1", "one").await;
    let (_aside, older) = keep_log(&directory);
    app.chat("c1", "two").await;
    app.stop().await;
    restore(&directory, &older);
    // Somebody has edited what was said first.
    let path = directory.path().join("conversations/c1.json");
    let edited = fs::read_to_string(&path).unwrap().replacen("one", "won", 1);
    fs::write(&path, &edited).unwrap();

    let app = on(&directory).await;
    app.chat("c1", "three").await;
    assert_eq!(app.said("c1").await[0], user("one"));
    assert_eq!(app.said("c1").await[2], user("three"));
    app.stop().await;

    let kept = fs::read_dir(directory.path().join("conversations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("edited"))
        .expect("the edited file");
    assert_eq!(fs::read_to_string(kept).unwrap(), edited);
}

#[tokio::test]
async fn a_file_of_ours_that_has_parted_from_the_log_is_kept_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conversations/c1.json");
    let app = on(&directory).await;
    app.chat("c1", "one").await;
    let (_aside, older) = keep_log(&directory);
    app.chat("c1", "two").await;
    app.stop().await;
    let parted = fs::read(&path).unwrap();
    assert!(mirrored(&parted).to_string().contains("two"));
    // The restored log goes on in another way, and only then the file comes back.
    restore(&directory, &older);
    fs::remove_file(&path).unwrap();
    let app = on(&directory).await;
    app.chat("c1", "three").await;
    app.stop().await;
    fs::write(&path, &parted).unwrap();

    let app = on(&directory).await;
    app.chat("c1", "four").await;
    let said = app.said("c1").await;
    assert_eq!((&said[2], &said[4]), (&user("three"), &user("four")));
    app.stop().await;

    let kept = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("edited"))
        .expect("the file that has parted");
    assert_eq!(fs::read(kept).unwrap(), parted);
}

#[tokio::test]
async fn a_mirror_that_meets_a_lost_end_first_takes_it_over_and_sets_nothing_aside() {
    let directory = tempfile::tempdir().unwrap();
    let on = |idle: &str| {
        let setup = Setup::new().data_dir(directory.path());
        setup.set("MIRROR_IDLE_SECS", idle).start()
    };
    let app = on("3600").await;
    app.chat("c1", "one").await;
    // This log knows of no file.
    let (_aside, older) = keep_log(&directory);
    app.chat("c1", "two").await;
    let whole = app.document("c1").await;
    app.stop().await;
    restore(&directory, &older);

    // Nobody asks for the conversation: the mirror looks for itself.
    let app = on("0").await;

    let files = until("the mirror to have caught up", async || {
        let ready: Value = app.get("/ready").await.json().await.unwrap();
        let files = &ready["json_files"];
        (files["state"] == "ok" && files["backlog"] == 0).then(|| files.clone())
    })
    .await;
    assert_eq!(files["set_aside"], 0);
    let path = directory.path().join("conversations/c1.json");
    let shown = mirrored(&fs::read(path).unwrap());
    assert_eq!(shown["messages"], whole["messages"]);
    assert_eq!(app.document("c1").await, shown);
    assert_eq!(
        fs::read_dir(directory.path().join("conversations"))
            .unwrap()
            .count(),
        1
    );
}

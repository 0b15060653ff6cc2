//! `export`, and what is exported as the source of an import.

use std::fs;

use serde_json::json;

use super::{files, path_text, without_revision};
use crate::process::Launch;

const UUID: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";

/// A stopped server that has talked.
async fn talked() -> Launch {
    let launch = Launch::bare();
    let server = launch.start().await;
    server.chat("c1", "My name is Alice.").await;
    server.chat("c1", "What is my name?").await;
    let owned = json!({"conversation_id": UUID, "user_id": "u\"1", "character_id": "aiko",
        "messages": [{"role": "user", "content": "Grüße \u{1f338}\n\"quoted\""}]});
    assert_eq!(server.post("/chat", &owned).await.status(), 200);
    server.chat("gone", "Forget me.").await;
    server.stop().await;
    launch.delete("gone").await;
    launch
}

#[tokio::test]
async fn an_export_that_is_imported_elsewhere_is_exported_the_same_but_for_its_revision() {
    let launch = talked().await;
    let (first, second) = (launch.beside("first"), launch.beside("second"));

    let ran = launch.well(&["export", path_text(&first)]).await;

    assert_eq!(ran.stdout, "exported 2, already there 0, failed 0\n");
    let exported = files(&first);
    let names: Vec<_> = exported.keys().map(String::as_str).collect();
    assert_eq!(names, [&format!("{UUID}.json"), "c1.json"]);
    // The file that the server itself keeps is the same, byte for byte.
    let kept = fs::read(launch.conversations().join("c1.json")).unwrap();
    assert_eq!(exported["c1.json"], kept);

    let elsewhere = Launch::bare();
    let imported = elsewhere.well(&["import", path_text(&first)]).await;
    assert_eq!(
        imported.stdout,
        "imported 2, continued 0, already there 0, skipped 0, failed 0; 6 messages\n"
    );
    elsewhere.well(&["export", path_text(&second)]).await;
    let again = files(&second);
    assert_eq!(again.len(), exported.len());
    for (name, document) in &exported {
        // Ids, turn ids, times, owners, models: everything but the revision.
        assert_eq!(without_revision(&again[name]), without_revision(document));
        assert_ne!(again[name], *document, "another log has another revision");
    }
    // Its own export holds nothing new for the log that it came from.
    let back = launch.well(&["import", path_text(&second)]).await;
    assert!(
        back.stdout
            .starts_with("imported 0, continued 0, already there 2"),
        "{}",
        back.stdout
    );
}

#[tokio::test]
async fn a_file_of_another_content_is_replaced_only_when_asked() {
    let launch = talked().await;
    let out = launch.beside("out");
    launch.well(&["export", path_text(&out)]).await;
    let exported = files(&out);
    fs::write(out.join("c1.json"), "mine").unwrap();

    let refused = launch.run(&["export", path_text(&out)]).await;

    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.stdout,
        "failed c1: another file of this name is there; --overwrite replaces it\n\
         exported 0, already there 1, failed 1\n"
    );
    assert_eq!(fs::read(out.join("c1.json")).unwrap(), b"mine");
    let asked = launch
        .well(&["export", path_text(&out), "--overwrite"])
        .await;
    assert_eq!(asked.stdout, "exported 1, already there 1, failed 0\n");
    assert_eq!(files(&out), exported);
}

#[tokio::test]
async fn a_document_that_cannot_be_written_does_not_keep_the_others_back() {
    let launch = talked().await;
    let out = launch.beside("out");
    // A directory stands where the document belongs.
    fs::create_dir_all(out.join("c1.json").join("x")).unwrap();
    let ran = launch
        .run(&["export", path_text(&out), "--overwrite"])
        .await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("failed c1: "), "{}", ran.stdout);
    assert!(
        ran.stdout
            .ends_with("exported 1, already there 0, failed 1\n"),
        "{}",
        ran.stdout
    );
    assert!(out.join(format!("{UUID}.json")).is_file());
    assert!(!out.join("c1.json.part").exists());
}

#[tokio::test]
async fn the_servers_own_directory_is_no_place_to_export_to() {
    let launch = talked().await;
    let before = files(&launch.conversations());
    let ran = launch
        .run(&["export", path_text(&launch.conversations()), "--overwrite"])
        .await;
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert_eq!(files(&launch.conversations()), before);
}

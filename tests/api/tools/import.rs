//! `import` of a directory.

use std::{fs, path::PathBuf};

use idol_simulator::Simulator;
use serde_json::json;

use super::{document, files, path_text, put, put_document, reasons, report, without_revision};
use crate::{
    helpers::{until, within},
    process::{Launch, signal},
};

fn ancestor() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("actors/tests/fixtures/ancestor")
}

#[tokio::test]
async fn documents_of_the_service_before_are_taken_over_as_they_stand() {
    let launch = Launch::bare();
    let before = files(&ancestor());

    let ran = launch
        .well(&["import", path_text(&ancestor()), "--json"])
        .await;

    let told = report(&ran);
    assert_eq!(told["imported"], 6);
    assert_eq!(told["complete"], true);
    let torn = "71d20e34-c2ae-48e1-812b-18cfe7e3c407.json";
    let skipped = reasons(&told["skipped"]);
    assert_eq!(skipped.keys().collect::<Vec<_>>(), [torn, "README.md"]);
    assert!(
        skipped[torn].starts_with("it does not parse: "),
        "{skipped:?}"
    );
    assert_eq!(files(&ancestor()), before, "the source was changed");
    let server = launch.start().await;
    let mut messages = 0;
    for (name, bytes) in before {
        if skipped.contains_key(&name) {
            continue;
        }
        let theirs: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let ours = server.document(name.strip_suffix(".json").unwrap()).await;
        let said = |document: &serde_json::Value| -> Vec<_> {
            let messages = document["messages"].as_array().unwrap().iter();
            messages
                .map(|message| {
                    let at = message["timestamp"].as_str().unwrap();
                    let at = at
                        .trim_end_matches('Z')
                        .trim_end_matches(".000000")
                        .to_owned();
                    (message["role"].clone(), message["content"].clone(), at)
                })
                .collect()
        };
        assert_eq!(said(&ours), said(&theirs), "{name}");
        messages += said(&ours).len();
    }
    assert_eq!(told["messages"], messages);
    server.stop().await;
    let again = launch
        .well(&["import", path_text(&ancestor()), "--json"])
        .await;
    let again = report(&again);
    assert_eq!(
        (&again["imported"], &again["already_there"]),
        (&json!(0), &json!(6))
    );
    assert_eq!(again["messages"], 0);
}

#[tokio::test]
async fn each_document_is_taken_continued_or_left_with_the_reason() {
    const UPPER: &str = "71D20E34-C2AE-48E1-812B-18CFE7E3C4AA";
    let launch = Launch::bare();
    let (before, source) = (launch.beside("before"), launch.beside("source"));
    for id in ["same", "grown", "parted", "older"] {
        put_document(&before, id, &["Hello", "Hi", "How are you?", "Fine"]);
    }
    launch.well(&["import", path_text(&before)]).await;
    launch.delete("deleted").await;
    put_document(&source, "same", &["Hello", "Hi", "How are you?", "Fine"]);
    put_document(
        &source,
        "grown",
        &["Hello", "Hi", "How are you?", "Fine", "Good", "Yes"],
    );
    put_document(&source, "parted", &["Hello", "Go away"]);
    put_document(&source, "older", &["Hello", "Hi"]);
    put_document(&source, "deleted", &["Hello", "Hi"]);
    put_document(&source, "new", &["Hello", "Hi", "Bye"]);
    let upper = document(UPPER, &["Hello"]).to_string();
    put(&source, &format!("{UPPER}.json"), upper);
    put(
        &source,
        "another.json",
        document("someone", &["Hello"]).to_string(),
    );
    put(
        &source,
        "torn.json",
        &document("torn", &["Hello"]).to_string()[..40],
    );
    put(
        &source,
        "role.json",
        r#"{"messages":[{"role":"narrator","content":"Once"}]}"#,
    );
    put(&source, "empty.json", "");
    put(&source, "binary.json", b"{\"messages\":[\"\xff\"]}");
    put(
        &source,
        "new.conflict-2026.json",
        document("new", &["x"]).to_string(),
    );
    put(&source, "notes.txt", "hello");
    fs::create_dir(source.join("folder.json")).unwrap();
    let huge = fs::File::create(source.join("huge.json")).unwrap();
    huge.set_len((256 << 20) + 1).unwrap();

    let ran = launch.well(&["import", path_text(&source), "--json"]).await;

    let told = report(&ran);
    let expected =
        json!({"imported": 2, "continued": 1, "already_there": 2, "messages": 3 + 1 + 2});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(told[member], *value, "{member}: {}", ran.stdout);
    }
    assert_eq!(told["failed"], json!([]));
    let skipped = reasons(&told["skipped"]);
    for (name, reason) in [
        ("parted.json", "the log has another history"),
        ("deleted.json", "the conversation was deleted"),
        (
            "another.json",
            "it is the document of conversation \"someone\"",
        ),
        ("torn.json", "it does not parse"),
        ("role.json", "message 0 has the role \"narrator\""),
        ("empty.json", "it does not parse"),
        ("binary.json", "it is not valid UTF-8"),
        ("new.conflict-2026.json", "it was kept beside a document"),
        ("notes.txt", "its name is not"),
        ("folder.json", "it is no file"),
        ("huge.json", "it is larger than"),
    ] {
        assert!(
            skipped[name].starts_with(reason),
            "{name}: {}",
            skipped[name]
        );
    }
    assert_eq!(skipped.len(), 11, "{skipped:?}");
    let server = launch.start().await;
    let contents = async |id: &str| -> Vec<String> {
        let said = server.said(id).await.into_iter();
        said.map(|(_, content)| content).collect()
    };
    assert_eq!(
        contents("grown").await,
        ["Hello", "Hi", "How are you?", "Fine", "Good", "Yes"]
    );
    for id in ["parted", "older", "same"] {
        assert_eq!(contents(id).await.len(), 4, "{id}");
    }
    assert_eq!(contents(&UPPER.to_lowercase()).await, ["Hello"]);
    assert_eq!(server.get("/conversation/deleted").await.status(), 404);
}

#[tokio::test]
async fn the_owner_is_the_documents() {
    let launch = Launch::bare();
    let source = launch.beside("source");
    let mut owned = document("c1", &["Hello"]);
    owned["user_id"] = json!("alice");
    owned["character_id"] = json!("aiko");
    put(&source, "c1.json", owned.to_string());
    launch.well(&["import", path_text(&source)]).await;
    launch.well(&["export", "out"]).await;
    let exported = fs::read(launch.beside("out").join("c1.json")).unwrap();
    let exported: serde_json::Value = serde_json::from_slice(&exported).unwrap();
    assert_eq!(
        (&exported["user_id"], &exported["character_id"]),
        (&json!("alice"), &json!("aiko"))
    );
    assert_eq!(exported["created_at"], "2026-11-22T11:53:00.000000Z");
    assert_eq!(exported["updated_at"], "2026-11-22T11:54:00.000000Z");
}

const MANY: usize = 3000;

/// Begins an import that takes a while, and waits until some of it is in the log.
async fn begun_import() -> (Launch, tokio::process::Child) {
    let launch = Launch::bare();
    let source = launch.beside("source");
    for number in 0..MANY {
        put_document(&source, &format!("c{number}"), &["Hello", "Hi"]);
    }
    let child = launch
        .command(&["import", path_text(&source)])
        .spawn()
        .unwrap();
    let wal = launch.data().join("log.sqlite-wal");
    until("documents in the log", async || {
        let size = fs::metadata(&wal).ok()?.len();
        (size > 64 << 10).then_some(())
    })
    .await;
    (launch, child)
}

async fn finish_and_check(launch: &Launch) {
    let source = launch.beside("source");
    let ran = launch.well(&["import", path_text(&source), "--json"]).await;
    let told = report(&ran);
    let number = |member: &str| usize::try_from(told[member].as_u64().unwrap()).unwrap();
    assert!(
        number("imported") > 0 && number("already_there") > 0,
        "{told}"
    );
    assert_eq!(number("imported") + number("already_there"), MANY);
    assert_eq!(number("messages"), 2 * number("imported"));
    launch.well(&["export", "out"]).await;
    let exported = files(&launch.beside("out"));
    assert_eq!(exported.len(), MANY);
    for (name, document) in exported {
        let messages = without_revision(&document).matches("\"role\"").count();
        assert_eq!(messages, 2, "{name}");
    }
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_where_it_was_and_doubles_nothing() {
    let (launch, mut child) = begun_import().await;
    signal(child.id().unwrap(), "KILL");
    let status = within("the end of the import", child.wait()).await.unwrap();
    assert_eq!(status.code(), None, "it was over before it was killed");
    finish_and_check(&launch).await;
}

#[tokio::test]
async fn an_import_that_is_interrupted_stops_between_documents_and_says_so() {
    let (launch, child) = begun_import().await;
    signal(child.id().unwrap(), "INT");
    let ended = within("the end of the import", child.wait_with_output()).await;
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(
        told.ends_with("stopped before the end; run it again to go on\n"),
        "{told}"
    );
    finish_and_check(&launch).await;
}

#[tokio::test]
async fn a_conversation_that_went_on_here_is_not_set_back_by_its_old_document() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let source = launch.beside("source");
    put_document(&source, "c1", &["Hello", "Hi"]);
    launch.well(&["import", path_text(&source)]).await;
    let server = launch.start().await;
    server.chat("c1", "More").await;
    let said = server.said("c1").await;
    server.stop().await;
    let again = launch.well(&["import", path_text(&source)]).await;
    assert!(again.stdout.contains("already there 1"), "{}", again.stdout);
    let server = launch.start().await;
    assert_eq!(server.said("c1").await, said);
    assert_eq!(said.len(), 4);
}

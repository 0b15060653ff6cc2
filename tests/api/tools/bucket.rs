//! `import --bucket`.

use idol_simulator::{
    Simulator,
    supabase::{Error, Fault, Target},
};
use serde_json::{Value, json};

use super::{BUCKET, document, files, reasons, report, with_bucket};
use crate::{
    helpers::{DEADLINE, within},
    process::{Launch, signal},
};

const ALICES: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
const NOBODYS: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c402";
const ALICE: &str = "0b8f3a52-0f0e-4a57-9d8e-3a2b1c4d5e6f";
const BOB: &str = "0b8f3a52-0f0e-4a57-9d8e-3a2b1c4d5e70";
const AIKO: &str = "5a5f3a52-0f0e-4a57-9d8e-3a2b1c4d5e6f";

/// A project with documents, of which one names no owner and has a row that does.
fn project() -> (Simulator, Launch) {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::bare(), &simulator);
    let supabase = simulator.supabase();
    for id in [ALICES, NOBODYS, "c1", "c2"] {
        put(
            &simulator,
            &format!("{id}.json"),
            &document(id, &["Hello", "Hi"]),
        );
    }
    let mut bobs = document("bobs", &["Hello"]);
    bobs["user_id"] = json!(BOB);
    put(&simulator, "bobs.json", &bobs);
    supabase
        .put_row(&json!({"id": ALICES, "user_id": ALICE, "character_id": AIKO}))
        .unwrap();
    (simulator, launch)
}

fn put(simulator: &Simulator, key: &str, document: &Value) {
    let supabase = simulator.supabase();
    supabase.put_object(BUCKET, key, document.to_string());
}

/// The conversations of the log, as documents.
async fn exported(launch: &Launch) -> Vec<(String, Value)> {
    launch.well(&["export", "out", "--overwrite"]).await;
    let documents = files(&launch.beside("out")).into_iter();
    documents
        .map(|(name, bytes)| {
            let id = name.strip_suffix(".json").unwrap().to_owned();
            (id, serde_json::from_slice(&bytes).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn every_document_of_the_bucket_is_taken_over_with_its_owner() {
    let (simulator, launch) = project();
    put(
        &simulator,
        "c1.conflict-20261122.json",
        &document("c1", &["x"]),
    );
    put(&simulator, "folder/c3.json", &document("c3", &["x"]));
    put(&simulator, "notes.txt", &json!("hello"));
    simulator
        .supabase()
        .put_object(BUCKET, "torn.json", "{\"messages\":[");
    let before = simulator.supabase().objects(BUCKET);

    let ran = launch.well(&["import", "--bucket", "--json"]).await;

    let told = report(&ran);
    assert_eq!(
        (&told["imported"], &told["messages"]),
        (&json!(5), &json!(9))
    );
    let skipped = reasons(&told["skipped"]);
    let names: Vec<_> = skipped.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "c1.conflict-20261122.json",
            "folder/c3.json",
            "notes.txt",
            "torn.json"
        ]
    );
    assert_eq!(simulator.supabase().objects(BUCKET), before);
    let documents = exported(&launch).await;
    let owners: Vec<_> = documents
        .iter()
        .map(|(id, it)| (&**id, it["user_id"].as_str(), it["character_id"].as_str()))
        .collect();
    assert_eq!(
        owners,
        [
            (ALICES, Some(ALICE), Some(AIKO)),
            (NOBODYS, None, None),
            ("bobs", Some(BOB), None),
            ("c1", None, None),
            ("c2", None, None),
        ]
    );
    let again = launch.well(&["import", "--bucket", "--json"]).await;
    assert_eq!(report(&again)["already_there"], 5);
}

#[tokio::test]
async fn a_bucket_of_several_pages_is_read_whole() {
    let (simulator, launch) = project();
    for number in 0..1200 {
        put(
            &simulator,
            &format!("n{number:04}.json"),
            &document(&format!("n{number:04}"), &["x"]),
        );
    }
    let ran = launch.well(&["import", "--bucket", "--json"]).await;
    assert_eq!(report(&ran)["imported"], 1205);
    assert_eq!(simulator.supabase().requests(Target::Lists), 2);
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    let (simulator, launch) = project();
    let supabase = simulator.supabase();
    supabase.fail_times(2, Target::Lists, Fault::Error(Error::SlowDown));
    supabase.fail_times(
        2,
        Target::Downloads.key("c1.json"),
        Fault::Error(Error::Internal),
    );
    supabase.fail_times(1, Target::Downloads.key("c2.json"), Fault::Reset);
    supabase.fail_times(
        1,
        Target::Rest.key(ALICES),
        Fault::Error(Error::DatabaseTimeout),
    );
    let ran = launch.well(&["import", "--bucket", "--json"]).await;
    assert_eq!(report(&ran)["imported"], 5);
    let documents = exported(&launch).await;
    assert_eq!(documents[0].1["user_id"], ALICE);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_fails_alone_and_is_never_taken_for_absent() {
    let (simulator, launch) = project();
    let supabase = simulator.supabase();
    let broken = supabase.fail(
        Target::Downloads.key("c1.json"),
        Fault::Error(Error::Internal),
    );
    // As a server answers while an overwrite is under way.
    let gone = supabase.fail(
        Target::Downloads.key("c2.json"),
        Fault::Error(Error::NoSuchKey),
    );
    let row = supabase.fail(Target::Rest.key(ALICES), Fault::Error(Error::Internal));

    let ran = launch.run(&["import", "--bucket", "--json"]).await;

    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let told = report(&ran);
    assert_eq!(told["imported"], 2);
    let failed = reasons(&told["failed"]);
    assert_eq!(
        failed["c2.json"],
        "it is listed, and the server says it is not there"
    );
    assert!(failed["c1.json"].contains("InternalError"), "{failed:?}");
    let owner = &failed[&format!("{ALICES}.json")];
    assert!(
        owner.starts_with("its owner cannot be looked up"),
        "{failed:?}"
    );
    assert_eq!((broken.met(), gone.met(), row.met()), (3, 1, 3));
    supabase.clear_faults();
    let again = launch.well(&["import", "--bucket", "--json"]).await;
    let again = report(&again);
    assert_eq!(
        (&again["imported"], &again["already_there"]),
        (&json!(3), &json!(2))
    );
}

#[tokio::test]
async fn a_list_that_breaks_off_is_a_failure_and_keeps_what_came_before() {
    let (simulator, launch) = project();
    for number in 0..1000 {
        put(
            &simulator,
            &format!("n{number:04}.json"),
            &document(&format!("n{number:04}"), &["x"]),
        );
    }
    let supabase = simulator.supabase();
    let gate = simulator.gate();
    // The first page's last document is held until the next page is sure to fail.
    supabase.fail_times(
        1,
        Target::Downloads.key("n0100.json"),
        Fault::Hold(gate.clone()),
    );
    let child = launch
        .command(&["import", "--bucket", "--json"])
        .spawn()
        .unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    supabase.fail(Target::Lists, Fault::Error(Error::ReadOnly));
    gate.open();
    let ended = within("the end of the import", child.wait_with_output()).await;
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (&told["imported"], &told["complete"]),
        (&json!(1000), &json!(false))
    );
    let failed = reasons(&told["failed"]);
    assert!(
        failed["the list of objects"].contains("DatabaseReadOnly"),
        "{failed:?}"
    );
    supabase.clear_faults();
    let again = launch.well(&["import", "--bucket", "--json"]).await;
    assert_eq!(report(&again)["imported"], 5);
}

#[tokio::test]
async fn a_bucket_that_is_missing_or_closed_to_the_key_is_not_taken_for_an_empty_one() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::bare(), &simulator);
    let missing = launch.run(&["import", "--bucket"]).await;
    assert_eq!(missing.code, Some(1), "{}", missing.stdout);
    assert!(
        missing.stderr.contains("NoSuchBucket"),
        "{}",
        missing.stderr
    );
    simulator.supabase().create_bucket(BUCKET);
    let empty = launch.well(&["import", "--bucket"]).await;
    assert!(empty.stdout.starts_with("imported 0,"), "{}", empty.stdout);
    simulator.require_service_key(Some("another"));
    let closed = launch.run(&["import", "--bucket"]).await;
    assert_eq!(closed.code, Some(1));
    assert!(
        closed.stderr.contains("refused the key"),
        "{}",
        closed.stderr
    );
    assert!(!closed.stderr.contains(super::KEY));
}

#[tokio::test]
async fn a_killed_import_of_the_bucket_goes_on_and_doubles_nothing() {
    let (simulator, launch) = project();
    let supabase = simulator.supabase();
    let gate = simulator.gate();
    supabase.fail_times(
        1,
        Target::Downloads.key("c2.json"),
        Fault::Hold(gate.clone()),
    );
    let mut child = launch.command(&["import", "--bucket"]).spawn().unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    signal(child.id().unwrap(), "KILL");
    within("the end of the import", child.wait()).await.unwrap();
    gate.open();
    let ran = launch.well(&["import", "--bucket", "--json"]).await;
    let told = report(&ran);
    let sum = told["imported"].as_u64().unwrap() + told["already_there"].as_u64().unwrap();
    assert_eq!(sum, 5, "{told}");
    assert!(told["imported"].as_u64().unwrap() >= 1, "{told}");
    for (id, document) in exported(&launch).await {
        let messages = document["messages"].as_array().unwrap().len();
        assert_eq!(messages, if id == "bobs" { 1 } else { 2 }, "{id}");
    }
}

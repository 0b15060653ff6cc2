//! What another hand put in our place is kept.

use serde_json::Value;

use super::{conflicts, mirrored, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, Setup, until};
use idol_simulator::supabase::{Fault, Target};
use std::path::Path;

const FOREIGN: &str = r#"{"id":"a","messages":[{"role":"user","content":"from elsewhere"}]}"#;

#[tokio::test]
async fn a_foreign_document_is_kept_beside_ours() {
    for foreign in [FOREIGN, "no document at all"] {
        let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
        let setup = || Setup::new().supabase(&remote).data_dir(directory.path());
        let app = setup().start().await;
        app.chat("a", "hi").await;
        same_as_file(&app, &remote, "a", 2).await;
        app.stop().await;
        remote.supabase().put_object(BUCKET, "a.json", foreign);
        let app = setup().start().await;
        app.chat("a", "again").await;
        same_as_file(&app, &remote, "a", 4).await;
        let copies = conflicts(&remote, "a");
        assert_eq!(copies.len(), 1);
        assert_eq!(copies[0].bytes, foreign);
        assert!(!copies[0].key.contains(':'));
        let known = state(&app, "the conflict", |state| state.conflicts == 1).await;
        assert_eq!(known.trouble, None);
        let ready: Value = app.get("/ready").await.json().await.unwrap();
        assert_eq!(ready["supabase"]["conflicts"], 1);
    }
}

#[tokio::test]
async fn a_later_run_knows_what_an_earlier_one_wrote() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let setup = || Setup::new().supabase(&remote).data_dir(directory.path());
    for run in 1..=3 {
        let app = setup().start().await;
        app.chat("a", "hi").await;
        same_as_file(&app, &remote, "a", run * 2).await;
        app.stop().await;
    }
    // Even if the log did not keep how far the mirror was, its entries tell.
    assert_eq!(remote.supabase().objects(BUCKET).len(), 1);
}

#[tokio::test]
async fn a_copy_that_lost_its_metadata_is_known_by_its_text() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let setup = || Setup::new().supabase(&remote).data_dir(directory.path());
    let app = setup().start().await;
    app.chat("a", "one").await;
    same_as_file(&app, &remote, "a", 2).await;
    app.stop().await;
    let object = stored(&remote, "a").unwrap();
    remote.supabase().put_object(BUCKET, "a.json", object.bytes);
    let app = setup().start().await;
    app.chat("a", "two").await;
    same_as_file(&app, &remote, "a", 4).await;
    assert!(conflicts(&remote, "a").is_empty());
    assert!(stored(&remote, "a").unwrap().metadata.is_some());
}

#[tokio::test]
async fn a_document_in_the_bucket_alone_is_the_beginning_of_its_conversation() {
    let remote = remote();
    remote.supabase().put_object(BUCKET, "a.json", FOREIGN);
    let app = mirrored(&remote).await;
    assert_eq!(
        app.said("a").await,
        [("user".to_owned(), "from elsewhere".to_owned())]
    );
    app.chat("a", "hi").await;
    same_as_file(&app, &remote, "a", 3).await;
    // All that it said is in ours.
    assert!(conflicts(&remote, "a").is_empty());
}

#[tokio::test]
async fn what_an_outage_hid_is_placed_before_what_began_without_it() {
    let remote = remote();
    remote.supabase().put_object(BUCKET, "a.json", FOREIGN);
    let outage = remote.supabase().fail(Target::All, Fault::Close);
    let app = mirrored(&remote).await;
    app.chat("a", "hi").await;
    outage.clear();
    let document = same_as_file(&app, &remote, "a", 3).await;
    assert_eq!(document["messages"][0]["content"], "from elsewhere");
    assert_eq!(document["messages"][1]["content"], "hi");
    assert!(conflicts(&remote, "a").is_empty());
}

#[tokio::test]
async fn what_an_outage_hid_is_taken_over_also_if_its_name_is_in_upper_case() {
    const ID: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
    let remote = remote();
    let upper = format!("{}.json", ID.to_ascii_uppercase());
    let foreign = FOREIGN.replace("\"a\"", &format!("\"{ID}\""));
    remote
        .supabase()
        .put_object(BUCKET, &upper, foreign.clone());
    let outage = remote.supabase().fail(Target::All, Fault::Close);
    let app = mirrored(&remote).await;
    app.chat(ID, "hi").await;
    outage.clear();
    let document = same_as_file(&app, &remote, ID, 3).await;
    assert_eq!(document["messages"][0]["content"], "from elsewhere");
    assert!(conflicts(&remote, ID).is_empty());
    let object = remote.supabase().object(BUCKET, &upper).unwrap();
    assert_eq!(object.bytes, foreign);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_restored_directory_costs_nothing_of_what_the_bucket_has() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let (data, backup) = (
        directory.path().join("data"),
        directory.path().join("backup"),
    );
    let setup = || Setup::new().supabase(&remote).data_dir(&data);
    let app = setup().start().await;
    app.chat("a", "before the backup").await;
    same_as_file(&app, &remote, "a", 2).await;
    app.stop().await;
    copy(&data, &backup);
    let app = setup().start().await;
    app.chat("a", "after the backup").await;
    same_as_file(&app, &remote, "a", 4).await;
    app.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let app = setup().start().await;
    app.chat("a", "after the restore").await;
    until("both in the bucket", async || {
        let objects = remote.supabase().objects(BUCKET);
        let texts: Vec<_> = objects
            .iter()
            .map(|object| String::from_utf8_lossy(&object.bytes))
            .collect();
        let held = |words: &str| texts.iter().any(|text| text.contains(words));
        assert!(held("after the backup"), "lost");
        held("after the restore").then_some(())
    })
    .await;
    state(&app, "rest", |state| state.backlog == 0).await;
}

//! What is deleted is deleted there, too.

use serde_json::{Value, json};

use super::{conflicts, delete, lives_anew, mirrored, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, Setup, until};
use idol_simulator::supabase::{Fault, Target};

const ID: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";

#[tokio::test]
async fn a_deleted_conversation_leaves_no_object_no_copy_and_no_row() {
    let remote = remote();
    remote
        .supabase()
        .put_object(BUCKET, &format!("{ID}.json"), "{\"messages\":[]}");
    let app = mirrored(&remote).await;
    let owner = "00000000-0000-4000-8000-000000000001";
    let body = json!({"conversation_id": ID, "user_id": owner, "character_id": owner,
        "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(app.post("/chat", body).await.status(), 200);
    same_as_file(&app, &remote, ID, 2).await;
    assert_eq!(conflicts(&remote, ID).len(), 1);
    until("the row", async || {
        (remote.supabase().rows("chats").len() == 1).then_some(())
    })
    .await;
    app.chat("other", "stays").await;
    same_as_file(&app, &remote, "other", 2).await;

    delete(&app, ID).await;

    until("nothing of it", async || {
        let nothing = remote.supabase().objects(BUCKET).len() == 1
            && remote.supabase().rows("chats").is_empty();
        nothing.then_some(())
    })
    .await;
    state(&app, "the last look", |state| {
        state.deletions == 0 && state.backlog == 0
    })
    .await;
    assert!(stored(&remote, "other").is_some());
}

#[tokio::test]
async fn an_object_named_in_upper_case_is_found_and_deleted() {
    let remote = remote();
    let upper = format!("{}.json", ID.to_ascii_uppercase());
    let document = r#"{"messages":[{"role":"user","content":"long ago"}]}"#;
    remote.supabase().put_object(BUCKET, &upper, document);
    let app = mirrored(&remote).await;
    assert_eq!(
        app.said(ID).await,
        [("user".to_owned(), "long ago".to_owned())]
    );
    app.chat(ID, "hi").await;
    same_as_file(&app, &remote, ID, 3).await;
    delete(&app, ID).await;
    until("nothing of it", async || {
        remote.supabase().objects(BUCKET).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deletion_in_an_outage_is_carried_out_by_the_next_run() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let setup = || Setup::new().supabase(&remote).data_dir(directory.path());
    let app = setup().start().await;
    app.chat("a", "hi").await;
    same_as_file(&app, &remote, "a", 2).await;
    let outage = remote.supabase().fail(Target::All, Fault::Close);
    delete(&app, "a").await;
    state(&app, "trouble", |state| state.trouble.is_some()).await;
    app.stop().await;
    let app = setup().start().await;
    let owed = state(&app, "the owed deletion", |state| state.deletions == 1).await;
    assert_eq!(owed.backlog, 1);
    let ready: Value = app.get("/ready").await.json().await.unwrap();
    assert_eq!(ready["supabase"]["deletions"], 1);
    outage.clear();
    until("the removal", async || {
        stored(&remote, "a").is_none().then_some(())
    })
    .await;
    state(&app, "the last look", |state| state.deletions == 0).await;
}

#[tokio::test]
async fn a_new_life_shows_nothing_of_the_one_before() {
    let remote = remote();
    let app = mirrored(&remote).await;
    app.chat("a", "first life").await;
    same_as_file(&app, &remote, "a", 2).await;
    delete(&app, "a").await;
    app.chat("a", "second life").await;
    lives_anew(&app, &remote, "a", "second life").await;
    let end = state(&app, "rest", |state| state.backlog == 0).await;
    assert_eq!(end.conflicts, 0);
    assert_eq!(remote.supabase().objects(BUCKET).len(), 1);
}

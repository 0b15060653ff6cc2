//! Writes whose answer does not come, and which land later or never.

use std::time::Duration;

use idol_actors::mirror::supabase_mirror::Waits;
use idol_simulator::{
    Simulator,
    supabase::{Fault, Target},
};

use super::{delete, lives_anew, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, DEADLINE, Setup, TestApp, quick_waits, until};

/// A server that waits for an answer for a second, and for three until a write cannot land.
async fn patient(remote: &Simulator, path: &std::path::Path) -> TestApp {
    Setup::new()
        .supabase(remote)
        .set("SUPABASE_TIMEOUT_SECS", "1")
        .data_dir(path)
        .tuning(|tuning| {
            tuning.supabase_waits = Some(Waits {
                unconfirmed: Duration::from_secs(3),
                ..quick_waits()
            });
        })
        .start()
        .await
}

#[tokio::test]
async fn a_late_upload_is_found_and_not_repeated_before_it_cannot_land() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let app = patient(&remote, directory.path()).await;
    app.chat("a", "one").await;
    same_as_file(&app, &remote, "a", 2).await;
    state(&app, "rest", |state| state.backlog == 0).await;
    let sent = remote.supabase().requests(Target::Uploads);
    let late = remote.supabase().fail(Target::Uploads, Fault::late());
    app.chat("a", "two").await;
    late.reached(1, DEADLINE).await.unwrap();
    state(&app, "an unconfirmed upload", |state| {
        state.unconfirmed == 1
    })
    .await;
    // News of the conversation does not hasten it.
    app.chat("a", "three").await;
    assert_eq!(remote.supabase().requests(Target::Uploads), sent + 1);
    late.clear();
    assert_eq!(late.release(), 1);
    same_as_file(&app, &remote, "a", 6).await;
    let end = state(&app, "rest", |state| state.backlog == 0).await;
    assert_eq!((end.unconfirmed, end.conflicts), (0, 0));
}

#[tokio::test]
async fn an_upload_that_never_lands_is_sent_again() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let app = patient(&remote, directory.path()).await;
    let lost = remote
        .supabase()
        .fail_times(1, Target::Uploads, Fault::late());
    app.chat("a", "one").await;
    lost.reached(1, DEADLINE).await.unwrap();
    lost.forget();
    same_as_file(&app, &remote, "a", 2).await;
    state(&app, "rest", |state| {
        state.backlog == 0 && state.unconfirmed == 0
    })
    .await;
}

#[tokio::test]
async fn a_restart_does_not_forget_that_an_upload_may_still_land() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let app = patient(&remote, directory.path()).await;
    let late = remote
        .supabase()
        .fail_times(1, Target::Uploads, Fault::late());
    app.chat("a", "one").await;
    late.reached(1, DEADLINE).await.unwrap();
    state(&app, "an unconfirmed upload", |state| {
        state.unconfirmed == 1
    })
    .await;
    app.stop().await;
    let app = patient(&remote, directory.path()).await;
    state(&app, "an upload still unconfirmed", |state| {
        state.unconfirmed == 1
    })
    .await;
    assert_eq!(remote.supabase().requests(Target::Uploads), 1);
    late.release();
    same_as_file(&app, &remote, "a", 2).await;
    state(&app, "rest", |state| state.backlog == 0).await;
}

#[tokio::test]
async fn a_late_delete_does_not_hit_what_comes_after_it() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let app = patient(&remote, directory.path()).await;
    app.chat("a", "first life").await;
    same_as_file(&app, &remote, "a", 2).await;
    let late = remote
        .supabase()
        .fail_times(1, Target::Deletes, Fault::late());
    delete(&app, "a").await;
    late.reached(1, DEADLINE).await.unwrap();
    state(&app, "an unconfirmed delete", |state| {
        state.unconfirmed == 1
    })
    .await;
    app.chat("a", "second life").await;
    assert!(stored(&remote, "a").is_some(), "not deleted yet");
    late.release();
    lives_anew(&app, &remote, "a", "second life").await;
    assert_eq!(remote.supabase().objects(BUCKET).len(), 1);
}

#[tokio::test]
async fn an_upload_that_lands_after_the_deletion_is_removed_again() {
    let remote = remote();
    let app = Setup::new()
        .supabase(&remote)
        .tuning(|tuning| {
            tuning.supabase_waits = Some(Waits {
                looks: vec![Duration::from_secs(1), Duration::from_millis(50)],
                ..quick_waits()
            });
        })
        .start()
        .await;
    app.chat("a", "secret").await;
    same_as_file(&app, &remote, "a", 2).await;
    let object = stored(&remote, "a").unwrap();
    delete(&app, "a").await;
    until("the removal", async || {
        stored(&remote, "a").is_none().then_some(())
    })
    .await;
    state(&app, "a look to come", |state| {
        state.deletions == 1 && state.backlog == 0
    })
    .await;
    // As a write of long ago would.
    remote.supabase().put_object_with_metadata(
        BUCKET,
        "a.json",
        object.bytes,
        object.metadata.unwrap(),
    );
    until("the second removal", async || {
        stored(&remote, "a").is_none().then_some(())
    })
    .await;
    state(&app, "the last look", |state| state.deletions == 0).await;
}

#[tokio::test]
async fn a_copy_that_is_made_after_the_deletion_is_removed_as_well() {
    let remote = remote();
    let app = Setup::new()
        .supabase(&remote)
        .tuning(|tuning| {
            tuning.supabase_waits = Some(Waits {
                looks: vec![Duration::from_secs(2), Duration::from_millis(50)],
                ..quick_waits()
            });
        })
        .start()
        .await;
    app.chat("a", "secret").await;
    same_as_file(&app, &remote, "a", 2).await;
    delete(&app, "a").await;
    state(&app, "a look to come", |state| {
        state.deletions == 1 && state.backlog == 0
    })
    .await;
    // As a copy of long ago would.
    remote
        .supabase()
        .put_object(BUCKET, "a.conflict-2026.json", "secret");
    state(&app, "the last look", |state| state.deletions == 0).await;
    assert!(remote.supabase().objects(BUCKET).is_empty());
}

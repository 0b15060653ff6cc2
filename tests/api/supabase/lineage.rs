//! What another hand put in our place is kept.

use serde_json::Value;

use super::{conflicts, mirrored, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, Setup};

const FOREIGN: &str = r#"{"id":"a","messages":[{"role":"user","content":"from elsewhere"}]}"#;

#[tokio::test]
async fn a_foreign_document_is_kept_beside_ours() {
    for foreign in [FOREIGN, "no document at all"] {
        let remote = remote();
        remote.supabase().put_object(BUCKET, "a.json", foreign);
        let app = mirrored(&remote).await;
        app.chat("a", "hi").await;
        same_as_file(&app, &remote, "a", 2).await;
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

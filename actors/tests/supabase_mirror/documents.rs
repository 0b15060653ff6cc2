//! Documents that are looked for in the bucket.

use idol_actors::mirror::{
    RemoteDocuments as _, RemoteError, imported::ImportedDocument,
    supabase_mirror::SupabaseDocuments,
};
use idol_simulator::{
    Simulator,
    supabase::{Error, Fault, Target},
};
use serde_json::json;

use super::bench::{BUCKET, client, id};

const ID: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
const USER: &str = "00000000-0000-4000-8000-000000000001";

fn remote() -> Simulator {
    let remote = Simulator::start().unwrap();
    remote.supabase().create_bucket(BUCKET);
    remote
}

async fn find(remote: &Simulator, name: &str) -> Result<Option<ImportedDocument>, RemoteError> {
    SupabaseDocuments::new(client(remote)).find(id(name)).await
}

#[tokio::test]
async fn a_document_has_the_owner_of_its_row_where_it_names_none() {
    let remote = remote();
    let row = json!({"id": ID, "user_id": USER, "character_id": USER});
    remote.supabase().put_row(&row).unwrap();
    let key = format!("{ID}.json");
    for (text, owner) in [
        (r#"{"messages":[]}"#, USER),
        (r#"{"user_id":"alice","messages":[]}"#, "alice"),
    ] {
        remote.supabase().put_object(BUCKET, &key, text);
        let document = find(&remote, ID).await.unwrap().unwrap();
        assert_eq!(document.user_id.as_deref(), Some(owner));
        assert_eq!(document.character_id.as_deref(), Some(USER));
    }
    // Without its owner it would be taken over without, for good.
    let outage = remote
        .supabase()
        .fail(Target::Rest, Fault::Error(Error::Unavailable));
    assert!(find(&remote, ID).await.is_err());
    outage.clear();
    remote.supabase().hide_table();
    let document = find(&remote, ID).await.unwrap().unwrap();
    assert_eq!(document.user_id.as_deref(), Some("alice"));
}

#[tokio::test]
async fn only_a_certain_absence_is_one() {
    let remote = remote();
    assert_eq!(find(&remote, "nobody").await, Ok(None));
    let unavailable = |found| matches!(found, Err(RemoteError::Unavailable(_)));
    for error in [Error::Internal, Error::NoSuchBucket, Error::AccessDenied] {
        let planned = remote
            .supabase()
            .fail(Target::Downloads, Fault::Error(error));
        assert!(unavailable(find(&remote, "nobody").await));
        planned.clear();
    }
    // While it is overwritten.
    remote
        .supabase()
        .put_object(BUCKET, "a.json", "{\"messages\":[]}");
    remote
        .supabase()
        .fail_times(1, Target::Downloads, Fault::Error(Error::NoSuchKey));
    assert!(unavailable(find(&remote, "a").await));
    assert!(find(&remote, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_document_that_is_none_is_an_error() {
    let remote = remote();
    for text in ["", "{}", "{\"messages\":", r#"{"id":"b","messages":[]}"#] {
        remote.supabase().put_object(BUCKET, "a.json", text);
        let found = find(&remote, "a").await;
        assert!(matches!(found, Err(RemoteError::Unreadable(_))), "{text}");
    }
}

//! What is written, and what is not.

use idol_simulator::supabase::{Error, Fault, Target};
use serde_json::{Value, json};

use super::{mirrored, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, DEADLINE, SERVICE_KEY, client, until};

#[tokio::test]
async fn every_conversation_becomes_an_object_that_is_its_json_file() {
    let remote = remote();
    let app = mirrored(&remote).await;
    for (id, turns) in [("a", 1), ("b", 3), ("c", 2)] {
        for _ in 0..turns {
            app.chat(id, "hi").await;
        }
    }
    for (id, turns) in [("a", 1), ("b", 3), ("c", 2)] {
        let document = same_as_file(&app, &remote, id, turns * 2).await;
        let object = stored(&remote, id).unwrap();
        let metadata = object.metadata.unwrap();
        let revision = &document["revision"];
        assert_eq!(metadata["log"], revision["log"]);
        assert_eq!(metadata["seq"], revision["seq"].to_string());
        let incarnation = u64::from_str_radix(revision["incarnation"].as_str().unwrap(), 16);
        assert_eq!(metadata["incarnation"], incarnation.unwrap().to_string());
        assert_eq!(metadata["hash"].as_str().unwrap().len(), 64);
        assert_eq!(
            (&*object.content_type, &*object.cache_control),
            ("application/json", "no-cache")
        );
    }
    state(&app, "an empty backlog", |state| {
        state.caught_up && state.backlog == 0 && state.uploads >= 3
    })
    .await;
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for line in [
        "idol_router_mirror_backlog{mirror=\"supabase\"} 0",
        "idol_router_mirror_writes_total{mirror=\"json\"} ",
        "idol_router_mirror_conflicts_total{mirror=\"supabase\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn the_bucket_is_made_private_and_without_a_limit() {
    let remote = remote();
    let app = mirrored(&remote).await;
    app.chat("a", "hi").await;
    same_as_file(&app, &remote, "a", 2).await;
    let url = format!("{}/storage/v1/bucket/{BUCKET}", remote.supabase_url());
    let request = client()
        .get(url)
        .header("apikey", SERVICE_KEY)
        .bearer_auth(SERVICE_KEY);
    let bucket: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(bucket["public"], false);
    assert_eq!(bucket["file_size_limit"], Value::Null);
}

#[tokio::test]
async fn a_document_over_the_buckets_limit_is_reported_and_sent_once_the_limit_allows() {
    let remote = remote();
    remote.supabase().create_bucket(BUCKET);
    remote.supabase().set_file_size_limit(BUCKET, Some(100));
    let app = mirrored(&remote).await;
    app.chat("large", "hi").await;
    state(&app, "the refusal", |state| {
        state.too_large == 1 && state.backlog == 0
    })
    .await;
    let ready: Value = app.get("/ready").await.json().await.unwrap();
    assert_eq!(ready["supabase"]["too_large"], 1);
    assert_eq!(ready["status"], "ready");
    let asked = remote.supabase().requests(Target::Buckets);
    until("more looks at the limit", async || {
        (remote.supabase().requests(Target::Buckets) > asked + 2).then_some(())
    })
    .await;
    assert_eq!(remote.supabase().requests(Target::Uploads), 0);
    remote.supabase().set_file_size_limit(BUCKET, None);
    same_as_file(&app, &remote, "large", 2).await;
    state(&app, "nothing refused", |state| state.too_large == 0).await;
}

#[tokio::test]
async fn a_document_that_the_server_finds_too_large_is_not_sent_again_until_it_changed() {
    let remote = remote();
    let too_large = Error::Other(
        400,
        json!({"statusCode":"413","error":"Payload too large","code":"EntityTooLarge",
            "message":"The object exceeded the maximum allowed size"}),
    );
    // Messages come one by one; the first document may be refused at any of them.
    let refusal = remote
        .supabase()
        .fail(Target::Uploads.key("large.json"), Fault::Error(too_large));
    let app = mirrored(&remote).await;
    app.chat("large", "hi").await;
    app.chat("small", "hi").await;
    same_as_file(&app, &remote, "small", 2).await;
    state(&app, "the refusal", |state| {
        state.too_large == 1 && state.backlog == 0
    })
    .await;
    let mut tried = refusal.met();
    // The document may have grown while it was refused: then it is tried once more.
    until("rest", async || {
        let asked = remote.supabase().requests(Target::Buckets);
        let looks = remote.wait_for(
            "looks at the limit",
            |_| remote.supabase().requests(Target::Buckets) > asked + 3,
            DEADLINE,
        );
        looks.await.unwrap();
        (std::mem::replace(&mut tried, refusal.met()) == refusal.met()).then_some(())
    })
    .await;
    let trouble = state(&app, "a state", |_| true).await.trouble;
    assert_eq!(trouble, None, "one document's size holds up nobody");
    refusal.clear();
    app.chat("large", "and more").await;
    same_as_file(&app, &remote, "large", 4).await;
}

#[tokio::test]
async fn without_supabase_there_is_none() {
    let app = crate::helpers::TestApp::start().await;
    let ready: Value = app.get("/ready").await.json().await.unwrap();
    assert_eq!(ready["supabase"], json!({"state": "off"}));
}

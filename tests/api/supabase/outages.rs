//! Supabase away, slow, or failing here and there.

use std::time::Duration;

use idol_simulator::{
    Simulator,
    supabase::{Error, Fault, Target},
};
use serde_json::{Value, json};

use super::{conflicts, mirrored, remote, same_as_file, state, stored};
use crate::helpers::{BUCKET, Setup, TestApp, prompt, until};

async fn in_directory(remote: &Simulator, path: &std::path::Path) -> TestApp {
    Setup::new().supabase(remote).data_dir(path).start().await
}

#[tokio::test]
async fn an_outage_that_outlasts_the_run_is_made_up_for_by_the_next() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let outage = remote.supabase().fail(Target::All, Fault::Close);
    let app = in_directory(&remote, directory.path()).await;
    for number in 0..20 {
        app.chat(&format!("c{number}"), "in the outage").await;
    }
    state(&app, "trouble", |state| state.trouble.is_some()).await;
    let ready: Value = app.get("/ready").await.json().await.unwrap();
    assert_eq!(
        (&ready["status"], &ready["supabase"]["state"]),
        (&"ready".into(), &"failing".into())
    );
    app.stop().await;
    let app = in_directory(&remote, directory.path()).await;
    for number in 10..30 {
        app.chat(&format!("c{number}"), "after the restart").await;
    }
    assert!(stored(&remote, "c0").is_none());
    outage.clear();
    for number in 0..30 {
        let turns = if (10..20).contains(&number) { 2 } else { 1 };
        same_as_file(&app, &remote, &format!("c{number}"), turns * 2).await;
    }
    state(&app, "the end of trouble", |state| {
        state.trouble.is_none() && state.backlog == 0 && state.caught_up
    })
    .await;
}

#[tokio::test]
async fn turns_go_on_while_supabase_holds_every_call() {
    let remote = remote();
    let app = mirrored(&remote).await;
    app.chat("warm", "up").await;
    same_as_file(&app, &remote, "warm", 2).await;
    let hang = remote.supabase().fail(Target::All, Fault::Hang);
    for turn in 0..10 {
        for conversation in 0..4 {
            app.chat(&format!("c{conversation}"), &format!("turn {turn}"))
                .await;
        }
    }
    assert!(hang.met() > 0, "calls were held meanwhile");
    assert!(stored(&remote, "c0").is_none());
    hang.clear();
    for conversation in 0..4 {
        same_as_file(&app, &remote, &format!("c{conversation}"), 20).await;
    }
}

#[tokio::test]
async fn errors_of_all_kinds_are_outlived() {
    let remote = remote();
    let app = mirrored(&remote).await;
    for (target, error) in [
        (Target::Uploads, Error::Internal),
        (Target::Uploads, Error::Locked),
        (Target::Uploads, Error::SlowDown),
        (Target::Uploads, Error::BadGateway),
        (Target::Info, Error::Internal),
        (Target::Info, Error::NoSuchKey),
        (Target::Buckets, Error::ReadOnly),
        (Target::All, Error::Expired),
        (Target::All, Error::Unavailable),
    ] {
        remote.supabase().fail_times(2, target, Fault::Error(error));
    }
    remote
        .supabase()
        .fail_times(2, Target::Uploads, Fault::Reset);
    for number in 0..6 {
        app.chat(&format!("c{number}"), "hi").await;
    }
    for number in 0..6 {
        same_as_file(&app, &remote, &format!("c{number}"), 2).await;
    }
    state(&app, "the end of trouble", |state| {
        state.trouble.is_none() && state.backlog == 0
    })
    .await;
}

#[tokio::test]
async fn a_refused_key_is_reported_and_tried_again() {
    let remote = remote();
    remote.require_service_key(Some("sb_secret_of_somebody_else"));
    let app = mirrored(&remote).await;
    app.chat("a", "hi").await;
    let known = state(&app, "trouble", |state| state.trouble.is_some()).await;
    assert!(known.trouble.unwrap().contains("key"));
    assert_eq!(remote.supabase().requests(Target::Uploads), 0);
    remote.require_service_key(Some(crate::helpers::SERVICE_KEY));
    same_as_file(&app, &remote, "a", 2).await;
}

#[tokio::test]
async fn a_server_that_stops_writes_what_is_left() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let app = Setup::new()
        .supabase(&remote)
        .set("MIRROR_IDLE_SECS", "3600")
        .data_dir(directory.path())
        .start()
        .await;
    app.chat("a", "hi").await;
    assert!(stored(&remote, "a").is_none());
    app.stop().await;
    let file = std::fs::read(directory.path().join("conversations/a.json")).unwrap();
    let object = until("the object", async || stored(&remote, "a")).await;
    assert_eq!(object.bytes, file);
}

#[tokio::test]
async fn no_turn_waits_for_a_supabase_that_takes_two_seconds_a_call() {
    let remote = remote();
    let app = mirrored(&remote).await;
    app.chat("warm", "up").await;
    same_as_file(&app, &remote, "warm", 2).await;
    // It answered at once, and is slow all of a sudden.
    let slow = remote
        .supabase()
        .fail(Target::All, Fault::Latency(Duration::from_secs(2)));
    for number in 0..4 {
        let id = format!("slow-{number}");
        let document = json!({"messages": [{"role": "user", "content": "from elsewhere"}]});
        let key = format!("{id}.json");
        remote
            .supabase()
            .put_object(BUCKET, &key, document.to_string());

        app.chat(&id, "hello").await;

        // Whoever had waited would have known what was said before.
        let asked = prompt(&app.simulator.chat_requests().pop().unwrap());
        assert_eq!(asked, [json!({"role": "user", "content": "hello"})], "{id}");
        app.chat(&id, "and more").await;
    }
    for number in 0..4 {
        let id = format!("slow-{number}");
        let document = same_as_file(&app, &remote, &id, 5).await;
        assert_eq!(document["messages"][0]["content"], "from elsewhere", "{id}");
        assert!(conflicts(&remote, &id).is_empty());
    }
    assert!(slow.met() > 4, "each call took its time");
}

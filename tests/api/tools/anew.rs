//! An id that was deleted and lives anew: cleaning up after its earlier life leaves this one's copies.

use std::fs;

use idol_simulator::Simulator;

use super::{BUCKET, files, path_text, put_log_back, with_bucket};
use crate::{
    helpers::within,
    process::{Launch, Process, user},
};

async fn delete(server: &Process, id: &str) {
    let url = server.url(&format!("/conversation/{id}"));
    let sent = within("the deletion", server.http.delete(url).send()).await;
    assert_eq!(sent.unwrap().status(), 204);
}

/// A server whose conversation lives for the second time, and said something.
async fn living_anew(launch: &Launch) -> Process {
    let server = launch.start().await;
    server.chat("c1", "a secret").await;
    server.stop().await;
    let server = launch.start().await;
    delete(&server, "c1").await;
    server.chat("c1", "My name is Alice.").await;
    server
}

#[tokio::test]
async fn a_file_that_another_hand_changed_is_set_aside_and_not_removed() {
    for change in ["edited", "torn"] {
        let simulator = Simulator::start().unwrap();
        let launch = Launch::with(&simulator);
        living_anew(&launch).await.stop().await;
        let path = launch.conversations().join("c1.json");
        let text = fs::read_to_string(&path).unwrap();
        let changed = match change {
            "edited" => text.replace("Alice", "Bob"),
            _ => text[..text.len() / 2].to_owned(),
        };
        fs::write(&path, &changed).unwrap();

        launch.well(&["reconcile"]).await;

        let found = files(&launch.conversations());
        let names: Vec<_> = found.keys().collect();
        let [kept, _] = &names[..] else {
            panic!("{change}: {names:?}");
        };
        assert!(kept.starts_with("c1.edited-"), "{kept}");
        assert_eq!(found[*kept], changed.as_bytes(), "{change}");
        assert!(String::from_utf8_lossy(&found["c1.json"]).contains("Alice"));
    }
}

/// Sets the log back to where the second life had one turn, and where the mirrors had yet to remove
/// the first; they show two turns.
async fn set_back(launch: &Launch) {
    let server = living_anew(launch).await;
    let old = launch.beside("old");
    launch.well(&["backup", path_text(&old)]).await;
    let log = rusqlite::Connection::open(&old).unwrap();
    log.execute("UPDATE mirror_progress SET seq = 1", [])
        .unwrap();
    drop(log);
    server.chat("c1", "What is my name?").await;
    assert_eq!(server.said("c1").await.len(), 4);
    server.stop().await;
    put_log_back(launch, &old);
}

#[tokio::test]
async fn a_file_that_is_ahead_is_taken_over_though_an_earlier_life_is_to_be_removed() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    set_back(&launch).await;
    let directory = launch.conversations();
    // What was kept of the earlier life, and of this one.
    fs::write(
        directory.join("c1.edited-2020-01-01T000000.000000Z.json"),
        "a secret",
    )
    .unwrap();
    let kept = "c1.edited-2999-01-01T000000.000000Z.json";
    fs::write(directory.join(kept), "by hand").unwrap();

    let server = launch.start().await;
    // The mirror comes to it before anybody asks for it.
    server.stop().await;

    let server = launch.start().await;
    let said = server.said("c1").await;
    assert_eq!(said[2], user("What is my name?"));
    assert_eq!(said.len(), 4, "{said:?}");
    server.stop().await;
    let names: Vec<_> = files(&directory).into_keys().collect();
    assert_eq!(names, [kept, "c1.json"]);
}

#[tokio::test]
async fn an_object_that_is_ahead_is_taken_over_though_an_earlier_life_is_to_be_removed() {
    let simulator = Simulator::start().unwrap();
    simulator.supabase().create_bucket(BUCKET);
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    set_back(&launch).await;
    let supabase = simulator.supabase();
    let object = supabase.object(BUCKET, "c1.json").unwrap();
    assert!(String::from_utf8_lossy(&object.bytes).contains("What is my name?"));
    fs::remove_dir_all(launch.conversations()).unwrap();
    let kept = "c1.conflict-2999-01-01T000000.000000Z.json";
    supabase.put_object(BUCKET, kept, &b"by hand"[..]);
    let gone = "c1.conflict-2020-01-01T000000.000000Z.json";
    supabase.put_object(BUCKET, gone, &b"a secret"[..]);

    launch.start().await.stop().await;

    let server = launch.start().await;
    let said = server.said("c1").await;
    assert_eq!(said[2], user("What is my name?"));
    assert_eq!(said.len(), 4, "{said:?}");
    server.stop().await;
    let keys = supabase.objects(BUCKET).into_iter();
    let keys: Vec<_> = keys.map(|object| object.key).collect();
    assert_eq!(keys, [kept, "c1.json"]);
}

//! The tools and the mirrors, where something was replaced.

use std::fs;

use idol_actors::log::sqlite::backup;
use idol_simulator::{Script, Simulator};
use serde_json::{Value, json};

use super::{edit, others, regenerate, talk, texts};
use crate::{
    helpers::{Events, Setup},
    process::{Launch, Process},
};

#[tokio::test]
async fn a_restored_log_takes_a_replaced_exchange_from_the_json_file() {
    for what in ["regenerate", "edit"] {
        let directory = tempfile::tempdir().unwrap();
        let app = Setup::new().data_dir(directory.path()).start().await;
        talk(&app, "c1", 2).await;
        let old = app.document("c1").await;
        let older = directory.path().join("older.sqlite");
        backup(&directory.path().join("log.sqlite"), &older, |_| {}).unwrap();
        app.simulator.script(Script::new().text("new"));
        match what {
            "edit" => drop(edit(&app, "c1", &old["messages"][2]["id"], "m2!").await),
            _ => drop(regenerate(&app, "c1", json!({})).await),
        }
        app.chat("c1", "m3").await;
        let whole = app.document("c1").await;
        app.stop().await;
        for name in ["log.sqlite-wal", "log.sqlite-shm"] {
            drop(fs::remove_file(directory.path().join(name)));
        }
        fs::copy(&older, directory.path().join("log.sqlite")).unwrap();

        let app = Setup::new().data_dir(directory.path()).start().await;

        let found = app.document("c1").await;
        assert_eq!(found["messages"], whole["messages"], "{what}");
        let replaced = old["messages"][3]["id"].as_str().unwrap();
        let path = format!("/conversation/c1?after={replaced}");
        let page: Value = app.get(&path).await.json().await.unwrap();
        assert!(texts(&page).contains(&"m3"), "{what}: {page}");
        app.chat("c1", "m4").await;
        app.stop().await;
        let names = fs::read_dir(directory.path().join("conversations")).unwrap();
        let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["c1.json"], "{what}: nothing was set aside");
    }
}

async fn post(process: &Process, what: &str, body: &Value) {
    let response = process
        .post(&format!("/conversation/c1/{what}"), body)
        .await;
    assert_eq!(response.status(), 200);
    Events::of(response).all().await;
}

#[tokio::test]
async fn what_was_replaced_is_verified_exported_and_imported() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let server = launch.start().await;
    for turn in ["1", "2", "3"] {
        simulator.script(Script::new().text(&format!("r{turn}")));
        server.chat("c1", &format!("m{turn}")).await;
    }
    let before = server.document("c1").await;
    simulator.script(Script::new().text("new"));
    let body = json!({"message_id": before["messages"][2]["id"], "message": "m2!"});
    post(&server, "edit", &body).await;
    simulator.script(Script::new().text("newer"));
    post(&server, "regenerate", &json!({})).await;
    let document = server.document("c1").await;
    assert_eq!(texts(&document), ["m1", "r1", "m2!", "newer"]);
    server.stop().await;
    assert_eq!(launch.json_file("c1"), document);
    let out = launch.directory.path().join("out");
    let out = out.to_str().unwrap();

    for arguments in [&["verify", "--deep"][..], &["export", out]] {
        let ran = launch.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{} {}", ran.stdout, ran.stderr);
    }
    let other = Launch::with(&simulator);
    for _ in 0..2 {
        let ran = other.run(&["import", out]).await;
        assert_eq!(ran.code, Some(0), "{} {}", ran.stdout, ran.stderr);
    }

    let server = other.start().await;
    let found = server.document("c1").await;
    assert_eq!(found["messages"], document["messages"]);
    assert_eq!(others(&found["messages"][2]), ["m2"]);
    assert_eq!(others(&found["messages"][3]), ["new"]);
    server.stop().await;
    assert_eq!(other.run(&["verify", "--deep"]).await.code, Some(0));
}

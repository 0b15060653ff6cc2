//! `reconcile`: what a log has lost comes back from its mirrors.

use std::{collections::BTreeMap, fs};

use idol_actors::{
    id::ConversationId,
    log::sqlite::{Progress, Step},
    mirror::supabase_mirror::MIRROR,
    time::Timestamp,
};
use idol_simulator::{
    Script, Simulator, reply_text,
    supabase::{Error, Fault, Target},
};

use super::{files, path_text, put_document, put_log_back, verify::mirror, with_bucket};
use crate::{
    helpers::{DEADLINE, until},
    process::{Launch, assistant, user},
};

/// A stopped server whose log is older than its mirrors: an old copy was put in its place.
///
/// Lost are the second turn of `c1` and all of `late`; `c2` has lost nothing.
async fn set_back(launch: &Launch) -> BTreeMap<String, Vec<(String, String)>> {
    let server = launch.start().await;
    server.chat("c1", "My name is Alice.").await;
    server.chat("c2", "Hello").await;
    server.stop().await;
    let old = launch.beside("old");
    launch.well(&["backup", path_text(&old)]).await;
    let server = launch.start().await;
    server.chat("c1", "What is my name?").await;
    server.chat("late", "Hello").await;
    let mut said = BTreeMap::new();
    for id in ["c1", "c2", "late"] {
        said.insert(id.to_owned(), server.said(id).await);
    }
    assert_eq!(said["c1"].len(), 4);
    server.stop().await;
    put_log_back(launch, &old);
    said
}

async fn assert_said(launch: &Launch, said: BTreeMap<String, Vec<(String, String)>>) {
    let server = launch.start().await;
    for (id, said) in said {
        assert_eq!(server.said(&id).await, said, "{id}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_an_old_copy_of_the_log_lacks_comes_back_from_the_json_files() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let said = set_back(&launch).await;
    let found = launch.differences(&[]).await;
    assert_eq!(found["file_ahead"], ["c1"]);
    assert_eq!(found["file_unknown"], ["late.json"]);
    let before = files(&launch.conversations());

    let asked = launch.well(&["reconcile", "--dry-run"]).await;

    assert_eq!(
        asked.stdout,
        "would take back c1: 2 messages from its JSON file\n\
         would take back late: 2 messages from its JSON file\n\
         would take back 4 messages of 2 conversations; 0 failed\n"
    );
    assert_eq!(launch.differences(&[]).await, found, "something was done");
    assert_eq!(files(&launch.conversations()), before);

    let done = launch.well(&["reconcile"]).await;

    assert_eq!(
        done.stdout,
        "took back c1: 2 messages from its JSON file\n\
         took back late: 2 messages from its JSON file\n\
         took back 4 messages of 2 conversations; \
         brought 2 JSON files up to date, set 0 aside; 0 failed\n"
    );
    assert_eq!(launch.differences(&["--deep"]).await, BTreeMap::new());
    let names: Vec<_> = files(&launch.conversations()).into_keys().collect();
    assert_eq!(names, ["c1.json", "c2.json", "late.json"]);
    let again = launch.well(&["reconcile"]).await;
    assert!(
        again.stdout.starts_with("took back 0 messages"),
        "{}",
        again.stdout
    );
    assert_said(&launch, said).await;
}

#[tokio::test]
async fn what_an_old_copy_of_the_log_lacks_comes_back_from_the_bucket() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    let said = set_back(&launch).await;
    mirror(&launch, &simulator);
    let objects = simulator.supabase().objects(super::BUCKET);
    fs::remove_dir_all(launch.conversations()).unwrap();
    let found = launch.differences(&[]).await;
    assert_eq!(found["object_ahead"], ["c1"]);
    assert_eq!(found["object_unknown"], ["late.json"]);

    let done = launch.well(&["reconcile"]).await;

    assert_eq!(
        done.stdout,
        "took back c1: 2 messages from its object\n\
         took back late: 2 messages from its object\n\
         took back 4 messages of 2 conversations; \
         brought 3 JSON files up to date, set 0 aside; \
         brought 2 objects up to date, kept 0 of other hands aside; 0 failed\n"
    );
    assert_ne!(simulator.supabase().objects(super::BUCKET), objects);
    launch.well(&["verify"]).await;
    assert_said(&launch, said).await;
}

#[tokio::test]
async fn a_turn_that_was_open_in_the_old_copy_gets_its_true_end() {
    for source in ["its JSON file", "its object"] {
        let simulator = Simulator::start().unwrap();
        let launch = with_bucket(Launch::with(&simulator), &simulator);
        simulator.supabase().create_bucket(super::BUCKET);
        let gate = simulator.gate();
        simulator.script(Script::new().hold_at(0, &gate));
        let server = launch.start().await;
        let mut events = server.stream("c1", "Hello").await;
        gate.reached(1, DEADLINE).await.unwrap();
        let old = launch.beside("old");
        launch.well(&["backup", path_text(&old)]).await;
        gate.open();
        while events.next().await.is_some() {}
        server.stop().await;
        let messages = launch.json_file("c1")["messages"].clone();
        assert_eq!(messages[1]["finish_reason"], "stop");
        put_log_back(&launch, &old);
        if source == "its object" {
            mirror(&launch, &simulator);
            fs::remove_dir_all(launch.conversations()).unwrap();
            // While it cannot be read, the turn gets no other end.
            let unreadable = simulator.supabase().fail(
                Target::Downloads.key("c1.json"),
                Fault::Error(Error::Internal),
            );
            let ran = launch.run(&["reconcile"]).await;
            assert_eq!(ran.code, Some(1));
            assert!(ran.stdout.contains("left open turns"), "{}", ran.stdout);
            unreadable.clear();
        }

        let done = launch.well(&["reconcile"]).await;

        let line = format!("took back c1: 1 messages from {source}\n");
        assert!(done.stdout.starts_with(&line), "{}", done.stdout);
        assert_eq!(launch.json_file("c1")["messages"], messages);
    }
}

#[tokio::test]
async fn a_server_that_starts_before_the_copy_was_read_loses_nothing_of_it() {
    for shown in [0, 3] {
        let simulator = Simulator::start().unwrap();
        let launch = with_bucket(Launch::with(&simulator), &simulator);
        simulator.supabase().create_bucket(super::BUCKET);
        let gate = simulator.gate();
        simulator.script(Script::from("tokens=6").hold_at(shown, &gate));
        let server = launch.start().await;
        let mut events = server.stream("c1", "Hello").await;
        gate.reached(1, DEADLINE).await.unwrap();
        let log = rusqlite::Connection::open(launch.data().join("log.sqlite")).unwrap();
        until("what was shown to be kept", async || {
            let text = "SELECT coalesce(group_concat(text, ''), '') FROM partials";
            let kept: String = log.query_row(text, [], |row| row.get(0)).unwrap();
            (kept == reply_text(0, shown)).then_some(())
        })
        .await;
        drop(log);
        let old = launch.beside("old");
        launch.well(&["backup", path_text(&old)]).await;
        gate.open();
        while events.next().await.is_some() {}
        server.stop().await;
        put_log_back(&launch, &old);
        mirror(&launch, &simulator);
        fs::remove_dir_all(launch.conversations()).unwrap();
        let whole = simulator
            .supabase()
            .object(super::BUCKET, "c1.json")
            .unwrap();
        let unreadable = simulator.supabase().fail(
            Target::Downloads.key("c1.json"),
            Fault::Error(Error::Internal),
        );
        let ran = launch.run(&["reconcile"]).await;
        assert!(ran.stdout.contains("left open turns"), "{}", ran.stdout);
        let server = launch.start().await;
        unreadable.clear();

        let reply = reply_text(0, if shown == 0 { 6 } else { shown });
        let said = [user("Hello"), assistant(&reply)];
        until("the end of the turn", async || {
            (server.said("c1").await == said).then_some(())
        })
        .await;
        if shown > 0 {
            // What was shown of the reply is its end; the whole one is kept aside.
            until("the copy that is kept aside", async || {
                let mut objects = simulator.supabase().objects(super::BUCKET).into_iter();
                let aside = objects.find(|it| it.key.starts_with("c1.conflict-"))?;
                (aside.bytes == whole.bytes).then_some(())
            })
            .await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn both_mirrors_may_have_it_and_it_comes_back_once() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    let said = set_back(&launch).await;
    mirror(&launch, &simulator);
    let done = launch.well(&["reconcile"]).await;
    assert!(
        done.stdout
            .contains("took back 4 messages of 2 conversations"),
        "{}",
        done.stdout
    );
    assert_said(&launch, said).await;
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_ends_it_before_anything_is_done() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    set_back(&launch).await;
    mirror(&launch, &simulator);
    let supabase = simulator.supabase();
    supabase.fail(Target::Lists, Fault::Error(Error::Internal));
    let ran = launch.run(&["reconcile"]).await;
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    assert!(
        ran.stderr.contains("the bucket cannot be read"),
        "{}",
        ran.stderr
    );
    supabase.clear_faults();
    // One object that cannot be read is that conversation's trouble alone.
    supabase.fail(
        Target::Downloads.key("late.json"),
        Fault::Error(Error::Internal),
    );
    fs::remove_file(launch.conversations().join("late.json")).unwrap();
    let ran = launch.run(&["reconcile"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("took back c1: 2 messages"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("failed late: its object cannot be read"),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn files_of_another_hand_are_kept_aside_and_written_anew() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let server = launch.start().await;
    for id in ["edited", "torn", "missing", "gone"] {
        server.chat(id, "Hello").await;
    }
    server.stop().await;
    launch.delete("gone").await;
    launch.start().await.stop().await;
    let right = files(&launch.conversations());
    put_document(&launch.conversations(), "edited", &["Mine"]);
    fs::write(launch.conversations().join("torn.json"), "{").unwrap();
    fs::remove_file(launch.conversations().join("missing.json")).unwrap();
    put_document(&launch.conversations(), "gone", &["Forget me"]);
    put_document(&launch.conversations(), "stranger", &["Hello"]);

    let done = launch.well(&["reconcile"]).await;

    assert!(
        done.stdout
            .starts_with("left stranger: its JSON file is not of this log; `import` takes it\n"),
        "{}",
        done.stdout
    );
    let found = launch.differences(&[]).await;
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["file_unknown"],
        "{found:?}"
    );
    let now = files(&launch.conversations());
    for (name, document) in &right {
        assert_eq!(now[name], *document, "{name}");
    }
    let aside: Vec<_> = now
        .keys()
        .filter(|name| name.contains(".edited-"))
        .collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(!now.contains_key("gone.json"));
}

/// Notes that an upload of a conversation was begun so many seconds ago, and nothing more of it.
async fn note_begun(launch: &Launch, id: &str, seconds: i64) {
    let id = ConversationId::parse(id).unwrap();
    launch
        .on_log(async |log| {
            let row = log.mirror_row(MIRROR, id.clone()).await.unwrap().unwrap();
            let at = Timestamp::from_micros(Timestamp::now().micros() - seconds * 1_000_000);
            let begun = Progress {
                id,
                incarnation: row.incarnation,
                step: Step::UploadBegun { at },
            };
            log.record_progress(MIRROR, vec![begun]).await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn nothing_is_uploaded_while_an_earlier_upload_may_still_land() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let server = launch.start().await;
    server.chat("c1", "Hello").await;
    server.stop().await;
    simulator.supabase().create_bucket(super::BUCKET);
    let launch = with_bucket(launch, &simulator);
    // The answer is awaited for two minutes; what was sent may take as long again.
    note_begun(&launch, "c1", 150).await;

    let ran = launch.run(&["reconcile"]).await;

    assert_eq!(simulator.supabase().requests(Target::Uploads), 0);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("failed 1 objects"), "{}", ran.stdout);
    note_begun(&launch, "c1", 250).await;
    let done = launch.well(&["reconcile"]).await;
    assert!(
        done.stdout.contains("brought 1 objects up to date"),
        "{}",
        done.stdout
    );
}

#[tokio::test]
async fn it_stops_at_the_first_thing_that_the_log_does_not_take() {
    let long = "x".repeat(200_000);
    for ids in [["c1", "c2"], ["lost1", "lost2"]] {
        let simulator = Simulator::start().unwrap();
        let mut launch = Launch::with(&simulator);
        let server = launch.start().await;
        for id in ["c1", "c2"] {
            server.chat(id, "Hello").await;
        }
        server.stop().await;
        let old = launch.beside("old");
        launch.well(&["backup", path_text(&old)]).await;
        let server = launch.start().await;
        let mut said = BTreeMap::new();
        for id in ids {
            server.chat(id, &long).await;
            said.insert(id.to_owned(), server.said(id).await);
        }
        server.stop().await;
        put_log_back(&launch, &old);
        let before = files(&launch.conversations());

        // Room for what is begun, and not for what was lost.
        launch.file_blocks_max = Some(200);
        let ran = launch.run(&["reconcile"]).await;

        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert_eq!(ran.stdout.matches("failed ").count(), 1, "{}", ran.stdout);
        let nothing = "took back 0 messages of 0 conversations; \
                       brought 0 JSON files up to date, set 0 aside; 1 failed\n";
        assert!(ran.stdout.ends_with(nothing), "{}", ran.stdout);
        assert_eq!(files(&launch.conversations()), before);
        launch.file_blocks_max = None;
        launch.well(&["reconcile"]).await;
        assert_said(&launch, said).await;
    }
}

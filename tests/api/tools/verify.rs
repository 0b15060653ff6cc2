//! `verify`: every kind of difference, each made by hand.

use std::{collections::BTreeMap, fs, path::Path};

use idol_simulator::{
    Simulator,
    supabase::{Error, Fault, Target},
};
use serde_json::{Value, json};

use super::{BUCKET, document, files, put, put_document, report, with_bucket};
use crate::process::Launch;

/// A stopped server with three conversations and one that was deleted, all mirrored.
async fn stopped(launch: &Launch) {
    let server = launch.start().await;
    for id in ["c1", "c2", "c3", "gone"] {
        server.chat(id, "Hello").await;
    }
    server.stop().await;
    launch.delete("gone").await;
    // The mirror removes its file.
    launch.start().await.stop().await;
    assert_eq!(files(&launch.conversations()).len(), 3);
}

/// What was found, as kind and names.
fn kinds<const N: usize>(found: [(&str, &[&str]); N]) -> BTreeMap<String, Vec<String>> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let found = found.into_iter();
    found
        .map(|(kind, names)| (kind.to_owned(), owned(names)))
        .collect()
}

/// The bucket as a mirror that is up to date leaves it.
pub fn mirror(launch: &Launch, simulator: &Simulator) {
    for (name, bytes) in files(&launch.conversations()) {
        put_object(simulator, &name, &bytes, |_| ());
    }
}

/// Puts a document with the metadata that it deserves, or another.
fn put_object(simulator: &Simulator, key: &str, bytes: &[u8], change: impl FnOnce(&mut Value)) {
    let document: Value = serde_json::from_slice(bytes).unwrap();
    let revision = &document["revision"];
    let incarnation = revision["incarnation"].as_str().unwrap();
    let incarnation = u64::from_str_radix(incarnation, 16).unwrap();
    let mut metadata = json!({
        "log": revision["log"],
        "incarnation": incarnation.to_string(),
        "seq": revision["seq"].to_string(),
        "hash": "of another release",
    });
    change(&mut metadata);
    let supabase = simulator.supabase();
    supabase.put_object_with_metadata(BUCKET, key, bytes.to_vec(), metadata);
}

fn change_text(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Changes the database behind the log's back.
fn sql(launch: &Launch, statement: &str) {
    let database = rusqlite::Connection::open(launch.data().join("log.sqlite")).unwrap();
    assert_eq!(database.execute(statement, []).unwrap(), 1);
}

#[tokio::test]
async fn a_stopped_server_agrees_with_itself_and_stays_as_it_is() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    stopped(&launch).await;
    mirror(&launch, &simulator);
    let log = launch.data().join("log.sqlite");
    let before = (fs::read(&log).unwrap(), files(&launch.conversations()));
    for arguments in [&["verify"][..], &["verify", "--deep"]] {
        let ran = launch.well(arguments).await;
        assert_eq!(
            ran.stdout,
            "3 conversations, 1 deleted; 0 differences, 0 not read\n"
        );
        let after = (fs::read(&log).unwrap(), files(&launch.conversations()));
        assert!(after == before, "something was written");
    }
}

#[tokio::test]
async fn each_difference_of_a_file_is_found() {
    type Damage = fn(&Launch);
    let table: [(&str, &[&str], Damage); 9] = [
        ("file_missing", &["c1"], |it| {
            fs::remove_file(it.conversations().join("c1.json")).unwrap();
        }),
        ("file_edited", &["c1"], |it| {
            change_text(&it.conversations().join("c1.json"), "Hello", "Hullo");
        }),
        ("file_edited", &["c2"], |it| {
            put_document(&it.conversations(), "c2", &["Hello"]);
        }),
        ("file_ahead", &["c1"], |it| {
            change_text(
                &it.conversations().join("c1.json"),
                "\"seq\":3",
                "\"seq\":4",
            );
        }),
        ("file_of_deleted", &["gone.json"], |it| {
            put_document(&it.conversations(), "gone", &["Hello"]);
        }),
        ("file_unknown", &["new.json"], |it| {
            put_document(&it.conversations(), "new", &["Hello"]);
        }),
        ("file_behind", &["c1"], |it| {
            sql(
                it,
                "UPDATE mirror_progress SET seq = 2 WHERE conv = (SELECT num FROM conversations WHERE id = 'c1')",
            );
            // The file shows one entry less, and is what the mirror is known to have left.
            let path = it.conversations().join("c1.json");
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            change_text(&path, "\"seq\":3", "\"seq\":2");
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
        }),
        ("history", &["c1"], |it| {
            sql(
                it,
                "UPDATE entries SET body = zeroblob(length(body)) WHERE pos = (SELECT (num << 28) + 2 FROM conversations WHERE id = 'c1')",
            );
        }),
        ("history", &["c1"], |it| {
            sql(
                it,
                "DELETE FROM entries WHERE pos = (SELECT (num << 28) + 2 FROM conversations WHERE id = 'c1')",
            );
        }),
    ];
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    stopped(&launch).await;
    for (kind, names, damage) in table {
        let damaged = Launch::with(&simulator);
        copy(&launch, &damaged);
        assert_eq!(damaged.differences(&[]).await.len(), 0);
        damage(&damaged);
        let found = damaged.differences(&[]).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), [kind], "{found:?}");
        let named: Vec<_> = found[kind]
            .iter()
            .map(|name| name.split(':').next().unwrap())
            .collect();
        assert_eq!(named, names);
    }
    // What is no document at all is said with the reason.
    put(&launch.conversations(), "c3.json", "{");
    let found = launch.differences(&[]).await;
    assert!(
        found["file_unreadable"][0].starts_with("c3: it does not parse"),
        "{found:?}"
    );
}

/// Makes one data directory like another, times of files included.
fn copy(from: &Launch, to: &Launch) {
    let copied = std::process::Command::new("cp")
        .args(["-a", "--"])
        .args([from.data(), to.data()])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_damaged_page_of_the_log_is_found() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    stopped(&launch).await;
    // An index that does not hold what its table does.
    let database = rusqlite::Connection::open(launch.data().join("log.sqlite")).unwrap();
    database
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'turn IS NOT NULL', 'turn IS NULL')
                WHERE name = 'entries_turn';",
        )
        .unwrap();
    database.close().unwrap();
    let ran = launch.run(&["verify", "--deep", "--json"]).await;
    assert_eq!(ran.code, Some(3), "{} {}", ran.stdout, ran.stderr);
    assert!(
        report(&ran)["differences"]["log_file"]["count"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[tokio::test]
async fn each_difference_of_an_object_is_found() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    stopped(&launch).await;
    let supabase = simulator.supabase();
    supabase.create_bucket(BUCKET);
    let original = files(&launch.conversations())["c1.json"].clone();
    let text = String::from_utf8(original.clone()).unwrap();
    let set = |member: &'static str, value: &'static str| {
        move |metadata: &mut Value| metadata[member] = json!(value)
    };
    let other_log = "00000000-0000-4000-8000-000000000000";
    let put = |bytes: &[u8]| put_object(&simulator, "c1.json", bytes, |_| ());
    let cases: [(&str, &str, &dyn Fn()); 10] = [
        ("object_missing", "c1", &|| {
            drop(supabase.delete_object(BUCKET, "c1.json"))
        }),
        ("object_behind", "c1", &|| {
            put_object(&simulator, "c1.json", &original, set("seq", "2"));
        }),
        ("object_ahead", "c1", &|| {
            put_object(&simulator, "c1.json", &original, set("seq", "4"));
        }),
        ("object_foreign", "c1", &|| {
            put_object(&simulator, "c1.json", &original, set("log", other_log));
        }),
        ("object_of_deleted", "c1", &|| {
            put_object(&simulator, "c1.json", &original, set("incarnation", "7"));
        }),
        ("object_differs", "c1", &|| {
            put(text.replacen("Hello", "Hullo", 1).as_bytes());
        }),
        ("object_unreadable", "c1", &|| {
            supabase.put_object(BUCKET, "c1.json", "{")
        }),
        ("object_foreign", "c1", &|| {
            let theirs = document("c1", &["Hello"]).to_string();
            supabase.put_object(BUCKET, "c1.json", theirs);
        }),
        ("object_of_deleted", "gone.json", &|| {
            supabase.put_object(BUCKET, "gone.json", "{}");
        }),
        ("object_unknown", "new.json", &|| {
            supabase.put_object(BUCKET, "new.json", "{}");
        }),
    ];
    for (kind, name, damage) in cases {
        for object in supabase.objects(BUCKET) {
            supabase.delete_object(BUCKET, &object.key);
        }
        mirror(&launch, &simulator);
        // What the official clients put there, without metadata, is read.
        supabase.put_object(
            BUCKET,
            "c2.json",
            files(&launch.conversations())["c2.json"].clone(),
        );
        assert_eq!(launch.differences(&[]).await.len(), 0);
        damage();
        assert_eq!(launch.differences(&[]).await, kinds([(kind, &[name])]));
    }
}

#[tokio::test]
async fn an_object_that_is_not_what_it_says_is_found_when_asked_to_look_deep() {
    use sha2::Digest as _;
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    stopped(&launch).await;
    mirror(&launch, &simulator);
    let original = files(&launch.conversations())["c1.json"].clone();
    let hash: String = sha2::Sha256::digest(&original)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut rotten = original.clone();
    rotten[40] ^= 1;
    put_object(&simulator, "c1.json", &original, |it| {
        it["hash"] = json!(hash)
    });
    let metadata = simulator
        .supabase()
        .object(BUCKET, "c1.json")
        .unwrap()
        .metadata;
    simulator
        .supabase()
        .put_object_with_metadata(BUCKET, "c1.json", rotten, metadata.unwrap());
    simulator.supabase().reset_counts();
    assert_eq!(launch.differences(&[]).await.len(), 0);
    // The text of the one with a hash that is understood was not asked for.
    assert_eq!(simulator.supabase().requests(Target::Downloads), 2);
    let found = launch.differences(&["--deep"]).await;
    assert_eq!(
        found.values().flatten().collect::<Vec<_>>(),
        ["c1"],
        "{found:?}"
    );
}

#[tokio::test]
async fn what_could_not_be_read_is_a_failure_and_not_an_agreement() {
    let simulator = Simulator::start().unwrap();
    let launch = with_bucket(Launch::with(&simulator), &simulator);
    stopped(&launch).await;
    mirror(&launch, &simulator);
    let supabase = simulator.supabase();
    supabase.fail(Target::Info.key("c1.json"), Fault::Error(Error::Internal));
    let ran = launch.run(&["verify"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout
            .starts_with("not read: c1 (bucket): Supabase failed"),
        "{}",
        ran.stdout
    );
    supabase.clear_faults();
    supabase.fail(Target::Lists, Fault::Error(Error::Internal));
    let ran = launch.run(&["verify"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("not read: the list of objects"),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn of_many_that_differ_the_first_are_named_and_all_are_counted() {
    let launch = Launch::bare();
    for number in 0..25 {
        put_document(&launch.beside("in"), &format!("c{number:02}"), &["Hello"]);
    }
    launch.well(&["import", "in"]).await;
    let some = launch.run(&["verify"]).await;
    assert_eq!(some.code, Some(3));
    let named = some.stdout.lines().filter(|line| line.starts_with("  c"));
    assert_eq!(named.count(), 10, "{}", some.stdout);
    assert!(some.stdout.contains("file_behind 25"), "{}", some.stdout);
    assert!(some.stdout.contains("and 15 more"), "{}", some.stdout);
    let all = launch.run(&["verify", "--all"]).await;
    let named = all.stdout.lines().filter(|line| line.starts_with("  c"));
    assert_eq!(named.count(), 25, "{}", all.stdout);
}

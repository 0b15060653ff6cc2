//! The command line's tools, as an operator runs them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use idol_actors::{
    id::ConversationId,
    log::{
        Append, Log as _,
        data_dir::DataDir,
        entry::{Begun, Deleted, Entry, EntryHead},
        sqlite::{SqliteLog, SqliteOptions},
    },
    time::Timestamp,
};
use idol_simulator::Simulator;
use serde_json::{Value, json};

use crate::process::{Launch, Ran};

mod anew;
mod backup;
mod bucket;
mod export;
mod import;
mod reconcile;
mod verify;

const BUCKET: &str = "conversations";
const KEY: &str = "sb_secret_of_a_test";

/// The operator's configuration of the simulated project.
fn with_bucket(launch: Launch, simulator: &Simulator) -> Launch {
    simulator.require_service_key(Some(KEY));
    launch
        .set("SUPABASE_URL", &simulator.supabase_url())
        .set("SUPABASE_SERVICE_ROLE_KEY", KEY)
        .set("SUPABASE_STORAGE_BUCKET", BUCKET)
}

/// Every file of a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// A document without what tells of which log it is.
fn without_revision(document: &[u8]) -> String {
    let text = str::from_utf8(document).unwrap();
    let (head, revision) = text.split_once("],\n\"revision\":").unwrap();
    assert!(revision.starts_with("{\"log\":\""), "{revision}");
    head.to_owned()
}

/// A document in the form of before, with these contents in turn from user and assistant.
fn document(id: &str, contents: &[&str]) -> Value {
    let messages: Vec<Value> = contents
        .iter()
        .enumerate()
        .map(|(index, content)| {
            let role = ["user", "assistant"][index % 2];
            json!({"role": role, "content": content,
                "timestamp": format!("2026-11-22T11:53:{index:02}.000001")})
        })
        .collect();
    json!({"id": id, "created_at": "2026-11-22T11:53:00", "updated_at": "2026-11-22T11:54:00",
        "messages": messages})
}

fn put(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), content).unwrap();
}

fn put_document(directory: &Path, id: &str, contents: &[&str]) {
    put(
        directory,
        &format!("{id}.json"),
        document(id, contents).to_string(),
    );
}

/// The report of a tool that was asked for JSON.
fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

/// What a report says of each name.
fn reasons(remarks: &Value) -> BTreeMap<String, String> {
    let remarks = remarks.as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    remarks
        .map(|remark| (text(&remark["name"]), text(&remark["reason"])))
        .collect()
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Launch {
    /// A place beside the data directory.
    fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn conversations(&self) -> PathBuf {
        self.data().join("conversations")
    }

    /// Runs a tool that is to succeed.
    async fn well(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments).await;
        assert_eq!(
            ran.code,
            Some(0),
            "{arguments:?}: {} {}",
            ran.stdout,
            ran.stderr
        );
        ran
    }

    /// What `verify` finds: for each kind the names; its exit status is checked to agree.
    async fn differences(&self, arguments: &[&str]) -> BTreeMap<String, Vec<String>> {
        let ran = self
            .run(&[&["verify", "--json", "--all"], arguments].concat())
            .await;
        let report = report(&ran);
        assert_eq!(report["unread"], json!([]), "{}", ran.stdout);
        let groups = report["differences"].as_object().unwrap();
        let found: BTreeMap<_, _> = groups
            .iter()
            .map(|(kind, group)| {
                let names = group["names"].as_array().unwrap().iter();
                let names: Vec<_> = names
                    .map(|name| name.as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(group["count"], names.len());
                (kind.clone(), names)
            })
            .collect();
        let expected = if found.is_empty() { 0 } else { 3 };
        assert_eq!(ran.code, Some(expected), "{}", ran.stdout);
        found
    }

    /// Works on the log directly, as nothing but a server or a tool can.
    async fn on_log<T>(&self, work: impl AsyncFnOnce(&SqliteLog) -> T) -> T {
        let dir = DataDir::lock(self.data()).unwrap();
        let log = Arc::new(SqliteLog::open(&dir, SqliteOptions::default()).unwrap());
        let done = work(&log).await;
        log.close().await;
        done
    }

    /// Deletes a conversation.
    async fn delete(&self, id: &str) {
        let id = ConversationId::parse(id).unwrap();
        self.on_log(async |log| {
            let loaded = log.load(id.clone()).await.unwrap();
            let (mut seq, mut entries) = (0, vec![]);
            match loaded {
                Some(loaded) => seq = loaded.first_seq + loaded.entries.len() as u64 - 1,
                None => entries.push(EntryHead::Begun(Begun {
                    at: Timestamp::now(),
                    incarnation: 1,
                    user_id: None,
                    character_id: None,
                    imported_updated_at: None,
                    voice_usage: None,
                    unverified: false,
                })),
            }
            entries.push(EntryHead::Deleted(Deleted {
                at: Timestamp::now(),
                incarnation: 2,
            }));
            let entries = entries.into_iter().map(|head| Entry {
                head,
                messages: vec![],
            });
            let append = Append {
                id,
                expected_seq: seq,
                entries: entries.collect(),
            };
            log.append(append).await.unwrap();
        })
        .await;
    }
}

/// Puts a copy in the place of the log, as an operator does.
fn put_log_back(launch: &Launch, copy: &Path) {
    for name in ["log.sqlite-wal", "log.sqlite-shm"] {
        match fs::remove_file(launch.data().join(name)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    fs::copy(copy, launch.data().join("log.sqlite")).unwrap();
}

#[tokio::test]
async fn a_running_server_keeps_every_tool_but_the_backup_out_with_one_sentence() {
    let launch = Launch::bare();
    let server = launch.start().await;
    let out = launch.beside("out");
    fs::create_dir(&out).unwrap();
    for arguments in [
        &["export", path_text(&out)][..],
        &["import", path_text(&out)],
        &["verify"],
        &["reconcile"],
    ] {
        let ran = launch.run(arguments).await;
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert_eq!(ran.stdout, "");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        let sentence = "idol-router: another process uses DATA_DIR ./data";
        assert!(ran.stderr.starts_with(sentence), "{}", ran.stderr);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_data_directory_without_a_log_is_not_taken_for_an_empty_one() {
    let launch = Launch::bare();
    for arguments in [
        &["export", "out"][..],
        &["verify"],
        &["reconcile"],
        &["backup", "copy"],
    ] {
        let ran = launch.run(arguments).await;
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        let sentence = "idol-router: DATA_DIR ./data holds no log: is it the right directory?\n";
        assert_eq!(ran.stderr, sentence);
    }
    assert_eq!(files(launch.directory.path()), BTreeMap::new());
}

#[tokio::test]
async fn what_cannot_be_asked_is_bad_usage() {
    let launch = Launch::bare();
    fs::create_dir_all(launch.conversations()).unwrap();
    for (arguments, about) in [
        (&["import"][..], "<DIR>"),
        (&["import", "in", "--bucket"], "cannot be used with"),
        (&["import", "--bucket"], "SUPABASE_URL"),
        (&["import", "data/conversations"], "belongs to the server"),
        (&["export"], "<DIR>"),
        (&["backup"], "<FILE>"),
    ] {
        let ran = launch.run(arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(about), "{}", ran.stderr);
    }
    let help = launch.run(&["verify", "--help"]).await;
    assert!(
        help.stdout.contains("3  `verify` found differences"),
        "{}",
        help.stdout
    );
}

//! Files that a crash, a broken disk or a person has changed under the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::future::join_all;
use idol_simulator::Simulator;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    helpers::{mirrored, until},
    process::{Launch, Process},
};

mod json_files;
mod wal;

/// The conversations of a directory that is to be damaged.
const IDS: [&str; 3] = ["c0", "c1", "c2"];

/// A directory whose server was killed, and what it had acknowledged.
struct Killed {
    simulator: Simulator,
    launch: Launch,
    documents: Vec<(&'static str, Value)>,
}

/// Whether the JSON files show all that the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    None,
    All,
}

impl Killed {
    async fn with(files: Files) -> Self {
        let simulator = Simulator::start().unwrap();
        let idle = match files {
            Files::None => "3600",
            Files::All => "0",
        };
        let launch = Launch::with(&simulator)
            // Slow enough that pieces of replies are in the log before their ends.
            .set("DEFAULT_MODEL", "sim/tokens=20,gap=15")
            .set("MIRROR_IDLE_SECS", idle);
        let process = launch.start().await;
        for round in 0..6 {
            let talks = IDS.map(async |id| {
                process.chat(id, &format!("message {round} of {id}")).await;
            });
            join_all(talks).await;
        }
        let mut documents = Vec::new();
        for id in IDS {
            documents.push((id, process.document(id).await));
        }
        let killed = Self {
            simulator,
            launch,
            documents,
        };
        if files == Files::All {
            for (id, document) in &killed.documents {
                let path = killed.json_file(id);
                until("the JSON file to be written", async || {
                    let shown = mirrored(&fs::read(&path).ok()?);
                    (shown == *document).then_some(())
                })
                .await;
            }
        }
        process.kill().await;
        killed
    }

    fn json_file(&self, id: &str) -> PathBuf {
        self.launch.data().join(format!("conversations/{id}.json"))
    }

    fn wal(&self) -> Vec<u8> {
        fs::read(self.launch.data().join("log.sqlite-wal")).unwrap()
    }

    /// A copy of the directory as a power cut leaves it, with another write-ahead log.
    fn copy_with(&self, wal: &[u8]) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let data = self.launch.data();
        let conversations = copy.path().join("data/conversations");
        fs::create_dir_all(&conversations).unwrap();
        fs::copy(data.join("log.sqlite"), copy.path().join("data/log.sqlite")).unwrap();
        fs::write(copy.path().join("data/log.sqlite-wal"), wal).unwrap();
        for entry in fs::read_dir(data.join("conversations")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), conversations.join(entry.file_name())).unwrap();
        }
        copy
    }

    /// The real server on such a copy.
    async fn start_with(&self, wal: &[u8]) -> (Launch, Process) {
        let launch = Launch {
            directory: self.copy_with(wal),
            ..Launch::with(&self.simulator)
        };
        let process = launch.start().await;
        (launch, process)
    }
}

fn messages(document: &Value) -> &Vec<Value> {
    document["messages"].as_array().unwrap()
}

/// Fails unless the found history is a beginning of the acknowledged one, of which the last reply may
/// be cut.
fn assert_beginning(found: &[Value], acknowledged: &[Value], of: &str) {
    assert!(found.len() <= acknowledged.len(), "{of}");
    let Some((last, before)) = found.split_last() else {
        return;
    };
    assert_eq!(before, &acknowledged[..before.len()], "{of}");
    let whole = &acknowledged[before.len()];
    if last == whole {
        return;
    }
    let text = |message: &Value| message["content"].as_str().unwrap().to_owned();
    assert_eq!(last["finish_reason"], "interrupted", "{of}");
    assert_eq!(last["id"], whole["id"], "{of}");
    assert!(
        !text(last).is_empty() && text(whole).starts_with(&text(last)),
        "{of}"
    );
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

//! A log, a bucket, and a mirror between them.

use std::{path::Path, sync::Arc, time::Duration};

use actix::System;
use idol_actors::{
    id::{ConversationId, MessageId, TurnId},
    log::{
        Append, Log as _,
        data_dir::DataDir,
        entry::{Added, Begun, Entry, EntryHead},
        sqlite::{SqliteLog, SqliteOptions},
    },
    mirror::{
        MirrorHook,
        supabase::{Deadlines, SupabaseClient, SupabaseConfig},
        supabase_mirror::{
            Backoff, Running, SupabaseMirror, SupabaseOptions, SupabaseState, Waits,
        },
    },
    rendering::DocumentRenderer,
    time::Timestamp,
};
use idol_simulator::{Simulator, supabase::StoredObject};
use tempfile::TempDir;
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(20);
pub const BUCKET: &str = "docs";

pub fn in_a_system(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

pub fn id(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

pub fn client(remote: &Simulator) -> SupabaseClient {
    SupabaseClient::new(&SupabaseConfig {
        url: remote.supabase_url(),
        service_role_key: "sb_secret_test".into(),
        bucket: BUCKET.to_owned(),
        deadlines: Deadlines::default(),
    })
    .unwrap()
}

/// A message as the log holds it.
pub fn message(text: &str) -> Arc<str> {
    let (time, id, turn) = (Timestamp::now(), MessageId::now(), TurnId::now());
    format!(
        r#"{{"role":"user","content":"{text}","timestamp":"{time}","id":"{id}","turn_id":"{turn}"}}"#
    )
    .into()
}

pub struct Bench {
    pub remote: Simulator,
    pub temp: TempDir,
    pub log: Arc<SqliteLog>,
}

impl Bench {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let log = open(&temp.path().join("data"));
        Self {
            remote: Simulator::start().unwrap(),
            temp,
            log,
        }
    }

    pub fn run(&self) -> Running {
        self.run_with(None)
    }

    pub fn run_with(&self, hook: Option<MirrorHook>) -> Running {
        let renderer = DocumentRenderer {
            log: self.log.log_id(),
        };
        let options = SupabaseOptions {
            client: client(&self.remote),
            idle: Duration::ZERO,
            waits: Waits {
                backoff: Backoff {
                    first: Duration::from_millis(10),
                    longest: Duration::from_millis(100),
                    key: Duration::from_millis(50),
                },
                sweep: Duration::from_millis(50),
                rows: Duration::from_millis(10),
                looks: vec![],
                ..Waits::default()
            },
            hook,
        };
        SupabaseMirror::run(self.log.clone(), Arc::new(renderer), options)
    }

    pub async fn begin(&self, name: &str, unverified: bool) {
        let head = EntryHead::Begun(Begun {
            at: Timestamp::now(),
            incarnation: 7,
            user_id: None,
            character_id: None,
            imported_updated_at: None,
            voice_usage: None,
            unverified,
        });
        append(&self.log, name, 0, head, vec![message("first")]).await;
    }

    pub async fn say(&self, name: &str, expected_seq: u64, text: &str) {
        self.add(name, expected_seq, message(text)).await;
    }

    pub async fn add(&self, name: &str, expected_seq: u64, message: Arc<str>) {
        let head = EntryHead::Appended(Added {
            at: Timestamp::now(),
            replaces: None,
        });
        append(&self.log, name, expected_seq, head, vec![message]).await;
    }

    pub fn object(&self, name: &str) -> Option<StoredObject> {
        self.remote
            .supabase()
            .object(BUCKET, &format!("{name}.json"))
    }

    pub fn text(&self, name: &str) -> String {
        let object = self.object(name).unwrap();
        String::from_utf8(object.bytes.to_vec()).unwrap()
    }

    /// Keys of the copies beside a conversation's object.
    pub fn copies(&self, name: &str) -> Vec<StoredObject> {
        let mut objects = self.remote.supabase().objects(BUCKET);
        objects.retain(|object| object.key.starts_with(&format!("{name}.conflict-")));
        objects
    }

    /// Closes the log and puts what is in its directory aside.
    pub async fn backup(&mut self) {
        self.log.close().await;
        copy(
            &self.temp.path().join("data"),
            &self.temp.path().join("backup"),
        );
        self.log = open(&self.temp.path().join("data"));
    }

    /// Closes the log and goes on with what was put aside.
    pub async fn restore(&mut self) {
        self.log.close().await;
        let data = self.temp.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy(&self.temp.path().join("backup"), &data);
        self.log = open(&data);
    }
}

pub async fn append(
    log: &SqliteLog,
    name: &str,
    expected_seq: u64,
    head: EntryHead,
    messages: Vec<Arc<str>>,
) {
    log.append(Append {
        id: id(name),
        expected_seq,
        entries: vec![Entry { head, messages }],
    })
    .await
    .unwrap();
}

fn open(path: &Path) -> Arc<SqliteLog> {
    let dir = DataDir::lock(path).unwrap();
    Arc::new(SqliteLog::open(&dir, SqliteOptions::default()).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits until the mirror says this of itself.
pub async fn until(
    running: &Running,
    what: &str,
    is: impl Fn(&SupabaseState) -> bool,
) -> SupabaseState {
    let mut state = running.state.clone();
    match timeout(DEADLINE, state.wait_for(|state| is(state))).await {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("{what} did not come: {:?}", running.state.borrow()),
    }
}

pub async fn at_rest(running: &Running) -> SupabaseState {
    until(running, "rest", |state| {
        state.caught_up && state.backlog == 0
    })
    .await
}

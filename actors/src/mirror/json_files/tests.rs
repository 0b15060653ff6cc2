use std::{fs, path::Path, sync::Mutex};

use actix::System;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    id::{MessageId, TurnId},
    log::{
        Append, Loaded, Log as _,
        data_dir::DataDir,
        entry::{Begun, Deleted, Entry, EntryHead, Owed, TurnAccepted},
        sqlite::SqliteOptions,
    },
    mirror::{RenderError, Rendered},
    time::Timestamp,
};

const DEADLINE: Duration = Duration::from_secs(20);

fn id(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ancestor")
}

/// Renders the messages alone; refuses conversations named so.
struct Messages;

impl Render for Messages {
    fn render(&self, id: &ConversationId, loaded: Loaded) -> Result<Rendered, RenderError> {
        if id.as_str() == "damaged" {
            return Err(RenderError("it is named so".to_owned()));
        }
        let begun = loaded.entries.iter().find_map(|entry| match &entry.head {
            EntryHead::Begun(begun) => Some(begun),
            _ => None,
        });
        let Some(begun) = begun else {
            return Err(RenderError("no begin".to_owned()));
        };
        let mut json = vec![Arc::from(format!("{{\"id\":\"{id}\",\"messages\":["))];
        for (index, message) in loaded
            .entries
            .iter()
            .flat_map(|entry| &entry.messages)
            .enumerate()
        {
            if index > 0 {
                json.push(Arc::from(","));
            }
            json.push(Arc::clone(message));
        }
        json.push(Arc::from("]}"));
        Ok(Rendered {
            incarnation: begun.incarnation,
            seq: loaded.first_seq + loaded.entries.len() as u64 - 1,
            json,
        })
    }
}

struct Bench {
    _temp: TempDir,
    dir: DataDir,
    log: Arc<SqliteLog>,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path().join("data")).unwrap();
        let log = Arc::new(SqliteLog::open(&dir, SqliteOptions::default()).unwrap());
        Self {
            _temp: temp,
            dir,
            log,
        }
    }

    fn run(&self, idle: Duration) -> Running {
        self.run_with(idle, Arc::new(Messages))
    }

    fn run_with(&self, idle: Duration, render: Arc<dyn Render>) -> Running {
        let options = JsonFilesOptions {
            hook: None,
            dir: self.dir.conversations(),
            idle,
            space: None,
        };
        JsonFiles::run(Arc::clone(&self.log), render, options)
    }

    async fn begin(&self, name: &str) {
        let head = EntryHead::Begun(Begun {
            at: Timestamp::now(),
            incarnation: 7,
            user_id: None,
            character_id: None,
            imported_updated_at: None,
            voice_usage: None,
            unverified: false,
        });
        self.append(name, 0, head, vec![]).await;
    }

    async fn say(&self, name: &str, expected_seq: u64, text: &str) {
        let head = EntryHead::TurnAccepted(TurnAccepted {
            at: Timestamp::now(),
            turn: TurnId::now(),
            reply: MessageId::now(),
            user_id: None,
            character_id: None,
            model: String::new(),
            key: None,
            replaces: None,
            owed: Owed::Reply,
        });
        let message = format!(r#"{{"role":"user","content":"{text}"}}"#);
        self.append(name, expected_seq, head, vec![Arc::from(message)])
            .await;
    }

    async fn append(
        &self,
        name: &str,
        expected_seq: u64,
        head: EntryHead,
        messages: Vec<Arc<str>>,
    ) {
        self.log
            .append(Append {
                id: id(name),
                expected_seq,
                entries: vec![Entry { head, messages }],
            })
            .await
            .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.conversations().join(name)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let document = read(&self.dir.conversations(), &id(name)).unwrap().unwrap();
        document
            .messages
            .iter()
            .map(|message| message.content.get().trim_matches('"').to_owned())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.conversations())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

async fn until(running: &mut Running, what: &str, reached: impl FnMut(&MirrorState) -> bool) {
    tokio::time::timeout(DEADLINE, running.state.wait_for(reached))
        .await
        .unwrap_or_else(|_| panic!("{what}: not reached"))
        .unwrap();
}

async fn flush(running: &Running) -> usize {
    let deadline = DEADLINE;
    running.address.send(Flush { deadline }).await.unwrap()
}

fn in_a_system(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn what_the_last_run_left_is_caught_up_in_pages() {
    in_a_system(async {
        let bench = Bench::new();
        let count = SWEEP_PAGE + 44;
        for number in 0..count {
            bench.begin(&format!("c{number}")).await;
        }
        fs::write(bench.path("torso.json.tmp"), "{").unwrap();
        let mut running = bench.run(Duration::from_secs(60));
        until(&mut running, "caught up", |state| {
            state.caught_up && state.backlog == 0 && state.written == count as u64
        })
        .await;
        assert_eq!(bench.names().len(), count, "and no temporaries");
        running.stop();
        // Nothing is left for the next run.
        let mut running = bench.run(Duration::from_secs(60));
        until(&mut running, "caught up", |state| state.caught_up).await;
        assert_eq!(flush(&running).await, 0);
        assert_eq!(running.state.borrow().written, 0);
        running.stop();
    });
}

#[test]
fn a_change_is_written_after_a_quiet_moment() {
    in_a_system(async {
        let bench = Bench::new();
        let mut running = bench.run(Duration::from_millis(20));
        bench.begin("a").await;
        bench.say("a", 1, "one").await;
        bench.say("a", 2, "two").await;
        for seq in 1..=3 {
            let id = id("a");
            running
                .address
                .try_send(Changed { id, seq, bytes: 9 })
                .unwrap();
        }
        until(&mut running, "written", |state| {
            state.written > 0 && state.backlog == 0
        })
        .await;
        assert_eq!(bench.texts("a"), ["one", "two"]);
        assert_eq!(running.state.borrow().set_aside, 0);
        running.stop();
    });
}

#[test]
fn an_edited_file_is_set_aside_and_our_own_is_not() {
    in_a_system(async {
        let bench = Bench::new();
        let mut running = bench.run(Duration::from_secs(60));
        bench.begin("a").await;
        assert_eq!(flush(&running).await, 0);
        bench.say("a", 1, "one").await;
        assert_eq!(flush(&running).await, 0);
        assert_eq!(running.state.borrow().set_aside, 0);
        fs::write(bench.path("a.json"), "edited").unwrap();
        bench.say("a", 2, "two").await;
        assert_eq!(flush(&running).await, 0);
        until(&mut running, "set aside", |state| state.set_aside == 1).await;
        assert_eq!(bench.texts("a"), ["one", "two"]);
        let names = bench.names();
        let [edited, _] = &names[..] else {
            panic!("{names:?}");
        };
        assert!(
            edited.starts_with("a.edited-") && edited.ends_with("Z.json"),
            "{edited}"
        );
        assert_eq!(fs::read_to_string(bench.path(edited)).unwrap(), "edited");
        running.stop();
    });
}

#[test]
fn a_crash_between_rename_and_record_leaves_a_file_known_as_ours() {
    in_a_system(async {
        let bench = Bench::new();
        bench.begin("a").await;
        // The file is in place, of which the log knows only the intent.
        fs::write(bench.path("a.json"), "{}").unwrap();
        let stamp = files::stamp(&fs::metadata(bench.path("a.json")).unwrap());
        let intent = Progress {
            step: Step::FileIntended(stamp),
            ..adopted(id("a"), 7, stamp)
        };
        bench
            .log
            .record_progress(MIRROR, vec![intent])
            .await
            .unwrap();
        let running = bench.run(Duration::from_secs(60));
        assert_eq!(flush(&running).await, 0);
        let state = running.state.borrow().clone();
        assert_eq!((state.written, state.set_aside), (1, 0));
        running.stop();
    });
}

#[test]
fn an_imported_document_is_replaced_if_it_was_adopted() {
    in_a_system(async {
        let bench = Bench::new();
        for (name, adopt) in [("adopted", true), ("stray", false)] {
            fs::write(bench.path(&format!("{name}.json")), r#"{"messages":[]}"#).unwrap();
            let document = read(&bench.dir.conversations(), &id(name))
                .unwrap()
                .unwrap();
            bench.begin(name).await;
            if adopt {
                let step = adopted(id(name), 7, document.file.unwrap());
                bench.log.record_progress(MIRROR, vec![step]).await.unwrap();
            }
        }
        let running = bench.run(Duration::from_secs(60));
        assert_eq!(flush(&running).await, 0);
        let names = bench.names();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("stray.edited-")));
        running.stop();
    });
}

#[test]
fn one_bad_conversation_holds_up_nobody() {
    in_a_system(async {
        let bench = Bench::new();
        for name in ["damaged", "a", "b"] {
            bench.begin(name).await;
        }
        let running = bench.run(Duration::from_secs(60));
        assert_eq!(flush(&running).await, 1);
        assert_eq!(bench.names(), ["a.json", "b.json"]);
        let state = running.state.borrow().clone();
        assert_eq!((state.backlog, state.written), (1, 2));
        assert!(state.trouble.is_none() && state.oldest.is_some());
        running.stop();
    });
}

/// Refuses the first document, when it is told to.
struct OnceRefused {
    asked: std::sync::mpsc::Sender<()>,
    refuse: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl Render for OnceRefused {
    fn render(&self, id: &ConversationId, loaded: Loaded) -> Result<Rendered, RenderError> {
        let first = self.refuse.lock().unwrap().take();
        let Some(refuse) = first else {
            return Messages.render(id, loaded);
        };
        self.asked.send(()).unwrap();
        refuse.recv_timeout(DEADLINE).unwrap();
        Err(RenderError("the first time".to_owned()))
    }
}

#[test]
fn what_fails_while_all_is_to_be_written_is_tried_again_before_the_end() {
    in_a_system(async {
        let bench = Bench::new();
        bench.begin("a").await;
        let ((asked, was_asked), (refuse, refused)) =
            (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let render = OnceRefused {
            asked,
            refuse: Mutex::new(Some(refused)),
        };
        let running = bench.run_with(Duration::ZERO, Arc::new(render));
        let asked = tokio::task::spawn_blocking(move || was_asked.recv_timeout(DEADLINE));
        asked.await.unwrap().unwrap();
        let deadline = DEADLINE;
        let flushed = running.address.send(Flush { deadline });
        // It has come when what was sent after it has.
        let (id, seq, bytes) = (id("b"), 1, 9);
        let behind = running.address.send(Changed { id, seq, bytes });
        behind.await.unwrap();
        refuse.send(()).unwrap();

        assert_eq!(flushed.await.unwrap(), 0);
        assert_eq!(bench.names(), ["a.json"]);
        running.stop();
    });
}

#[test]
fn a_directory_that_refuses_is_retried_and_said() {
    in_a_system(async {
        let bench = Bench::new();
        bench.begin("a").await;
        let dir = bench.dir.conversations();
        fs::remove_dir(&dir).unwrap();
        let mut running = bench.run(Duration::from_millis(1));
        until(&mut running, "trouble", |state| {
            state.trouble.is_some() && state.backlog == 1
        })
        .await;
        fs::create_dir(&dir).unwrap();
        // By itself, after the first waits.
        until(&mut running, "recovery", |state| {
            state.trouble.is_none() && state.written == 1
        })
        .await;
        assert_eq!(bench.names(), ["a.json"]);
        running.stop();
    });
}

#[test]
fn the_ancestors_documents_are_read() {
    let expected = [
        ("401", 4),
        ("402", 0),
        ("403", 3),
        ("404", 120),
        ("405", 3),
        ("406", 2),
    ];
    for (number, messages) in expected {
        let name = format!("71d20e34-c2ae-48e1-812b-18cfe7e3c{number}");
        let document = read(&fixtures(), &id(&name)).unwrap().unwrap();
        assert_eq!(document.messages.len(), messages, "{number}");
        assert!(document.created_at.is_some() && document.updated_at.is_some());
        assert!(document.others.is_empty(), "{:?}", document.others);
        // Byte for byte what stands in the file, in order.
        let file = fs::read_to_string(fixtures().join(format!("{name}.json"))).unwrap();
        let mut rest = &*file;
        for message in &document.messages {
            assert!(message.timestamp.is_some() && message.others.is_empty());
            let content = message.content.get();
            rest = &rest[rest.find(content).unwrap() + content.len()..];
        }
    }
}

#[test]
fn a_torn_document_is_kept_and_stays_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let torn = id("71d20e34-c2ae-48e1-812b-18cfe7e3c407");
    let original = fixtures().join(format!("{torn}.json"));
    for kept_as in ["unreadable.json", "unreadable-1.json"] {
        fs::copy(&original, dir.join(format!("{torn}.json"))).unwrap();
        match read(dir, &torn) {
            Err(ReadError::Unreadable { kept, .. }) => {
                assert_eq!(kept, dir.join(format!("{torn}.{kept_as}")));
                assert_eq!(fs::read(kept).unwrap(), fs::read(&original).unwrap());
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            read(dir, &torn),
            Err(ReadError::Unreadable { .. })
        ));
    }
    fs::remove_file(dir.join(format!("{torn}.unreadable.json"))).unwrap();
    assert!(read(dir, &torn).unwrap().is_none(), "the operator decided");
}

#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_none() {
    let temp = tempfile::tempdir().unwrap();
    assert!(read(temp.path(), &id("a")).unwrap().is_none());
    fs::create_dir(temp.path().join("a.json")).unwrap();
    assert!(matches!(
        read(temp.path(), &id("a")),
        Err(ReadError::Io { .. })
    ));
}

#[test]
fn the_ancestor_named_files_as_clients_spelled_ids() {
    let temp = tempfile::tempdir().unwrap();
    let uuid = Uuid::new_v4().to_string();
    let document = format!(r#"{{"id":"{}","messages":[]}}"#, uuid.to_ascii_uppercase());
    fs::write(
        temp.path()
            .join(format!("{}.json", uuid.to_ascii_uppercase())),
        document,
    )
    .unwrap();
    let found = read(temp.path(), &id(&uuid)).unwrap().unwrap();
    assert_eq!(found.file, None);
}

#[test]
fn a_deletion_takes_every_file_of_its_conversation_and_no_other() {
    in_a_system(async {
        let bench = Bench::new();
        let uuid = "0197f3f6-6d0a-7cc0-8a53-aaaaaaaaaaaa";
        for name in [uuid, "ab"] {
            bench.begin(name).await;
            bench.say(name, 1, "secret").await;
        }
        let mut running = bench.run(Duration::ZERO);
        until(&mut running, "both documents", |state| state.written == 2).await;
        let upper = uuid.to_ascii_uppercase();
        for name in [
            format!("{uuid}.edited-2026.json"),
            format!("{uuid}.unreadable.json"),
            format!("{upper}.json"),
            "a.json".to_owned(),
            "ab-1.json".to_owned(),
        ] {
            fs::write(bench.path(&name), "secret").unwrap();
        }
        let deletion = EntryHead::Deleted(Deleted {
            at: Timestamp::now(),
            incarnation: 8,
        });
        bench.append(uuid, 2, deletion, vec![]).await;
        let changed = Changed {
            id: id(uuid),
            seq: 3,
            bytes: 0,
        };
        running.address.try_send(changed).unwrap();
        until(&mut running, "the removal", |state| state.written == 3).await;
        let mut left: Vec<_> = fs::read_dir(bench.dir.conversations())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a.json", "ab-1.json", "ab.json"]);
        let row = bench.log.mirror_row(MIRROR, id(uuid)).await.unwrap();
        assert!(!row.unwrap().owes_removal());
        // A new life of the id is written like any other.
        bench
            .append(
                uuid,
                3,
                EntryHead::Begun(Begun {
                    at: Timestamp::now(),
                    incarnation: 9,
                    user_id: None,
                    character_id: None,
                    imported_updated_at: None,
                    voice_usage: None,
                    unverified: false,
                }),
                vec![],
            )
            .await;
        bench.say(uuid, 4, "hello").await;
        flush(&running).await;
        assert_eq!(bench.texts(uuid), ["hello"]);
        running.stop();
    });
}

//! Whose the object is that stands in our place.

use std::sync::{Arc, Mutex};

use futures::{FutureExt as _, future::BoxFuture};
use idol_actors::{
    id::ConversationId,
    log::{
        Append, Log as _,
        entry::{Added, Entry, EntryHead},
        sqlite::SqliteLog,
    },
    mirror::{AdoptError, Adopted, Adopter, imported::ImportedDocument},
    time::Timestamp,
};
use idol_simulator::supabase::Target;
use serde_json::json;

use super::bench::{BUCKET, Bench, DEADLINE, at_rest, in_a_system, message, until};

/// Answers as it is told, and remembers what it was offered.
struct Fake {
    log: Arc<SqliteLog>,
    answer: Answer,
    offered: Mutex<Vec<usize>>,
}

#[derive(Clone)]
enum Answer {
    Nothing,
    Parted,
    /// Appends this as the entry after so many, and then has it.
    Append(u64, Arc<str>),
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    fn new(bench: &Bench, answer: Answer) -> Arc<Self> {
        Arc::new(Self {
            log: bench.log.clone(),
            answer,
            offered: Mutex::default(),
        })
    }

    /// How many messages the offered documents had.
    fn offered(&self) -> Vec<usize> {
        self.offered.lock().unwrap().clone()
    }
}

impl Adopter for Fake {
    fn adopt(
        &self,
        id: ConversationId,
        document: ImportedDocument,
    ) -> BoxFuture<'static, Result<Adopted, AdoptError>> {
        let offers = {
            let mut offered = self.offered.lock().unwrap();
            offered.push(document.messages.len());
            offered.len()
        };
        let (log, answer) = (self.log.clone(), self.answer.clone());
        async move {
            match answer {
                Answer::Nothing => Ok(Adopted::Nothing),
                Answer::Append(..) if offers > 1 => Ok(Adopted::Nothing),
                Answer::Parted => Err(AdoptError::Parted),
                Answer::Append(expected_seq, message) => {
                    let head = EntryHead::Appended(Added {
                        at: Timestamp::now(),
                        replaces: None,
                    });
                    let append = Append {
                        id,
                        expected_seq,
                        entries: vec![Entry {
                            head,
                            messages: vec![message],
                        }],
                    };
                    log.append(append).await.unwrap();
                    Ok(Adopted::Messages(1))
                }
            }
        }
        .boxed()
    }
}

/// A bucket that shows what the log has lost, and a log that went on without it.
async fn ahead(bench: &mut Bench, lost: &Arc<str>) {
    bench.begin("a", false).await;
    let running = bench.run();
    at_rest(&running).await;
    running.stop();
    bench.backup().await;
    bench.add("a", 1, lost.clone()).await;
    bench.say("a", 2, "lost, too").await;
    let running = bench.run();
    at_rest(&running).await;
    running.stop();
    bench.restore().await;
    bench.say("a", 1, "said after the restore").await;
}

#[test]
fn what_a_restored_log_lacks_is_taken_over_before_the_object_is_written() {
    in_a_system(async {
        let mut bench = Bench::new();
        let lost = message("the lost words");
        ahead(&mut bench, &lost).await;
        let newer = bench.object("a").unwrap();
        let running = bench.run();
        // Nobody is there yet to take it over: nothing is written.
        let asked = bench.remote.wait_for(
            "several looks at the object",
            |_| bench.remote.supabase().requests(Target::Info) >= 5,
            DEADLINE,
        );
        asked.await.unwrap();
        let state = until(&running, "a backlog", |state| state.caught_up).await;
        assert_eq!((state.backlog, state.uploads), (1, 0));
        let fake = Fake::new(&bench, Answer::Append(2, lost));
        assert_eq!(bench.object("a").unwrap().version, newer.version);
        running.connect(fake.clone());
        at_rest(&running).await;
        assert_eq!(fake.offered(), [3]);
        let text = bench.text("a");
        assert!(text.contains("the lost words") && text.contains("after the restore"));
        assert!(bench.copies("a").is_empty());
        running.stop();
    });
}

#[test]
fn what_has_parted_is_kept_aside_before_the_object_is_written() {
    in_a_system(async {
        let mut bench = Bench::new();
        ahead(&mut bench, &message("the lost words")).await;
        let newer = bench.object("a").unwrap();
        let running = bench.run();
        running.connect(Fake::new(&bench, Answer::Parted));
        let state = at_rest(&running).await;
        assert_eq!(state.conflicts, 1);
        let copies = bench.copies("a");
        assert_eq!(copies.len(), 1);
        assert_eq!(
            (&copies[0].bytes, &copies[0].metadata),
            (&newer.bytes, &newer.metadata)
        );
        assert!(bench.text("a").contains("after the restore"));
        running.stop();
    });
}

#[test]
fn a_document_found_late_is_offered_if_ours_began_without_looking() {
    let foreign = r#"{"id":"a","messages":[{"role":"user","content":"long ago"}]}"#;
    in_a_system(async {
        for (unverified, offered, copies) in [(true, vec![1], 0), (false, vec![], 1)] {
            let bench = Bench::new();
            bench
                .remote
                .supabase()
                .put_object(BUCKET, "a.json", foreign);
            bench.begin("a", unverified).await;
            let running = bench.run();
            let fake = Fake::new(&bench, Answer::Nothing);
            running.connect(fake.clone());
            at_rest(&running).await;
            assert_eq!(fake.offered(), offered);
            assert_eq!(bench.copies("a").len(), copies);
            assert!(bench.text("a").contains("first"));
            running.stop();
        }
    });
}

#[test]
fn what_no_import_takes_over_is_kept_aside() {
    let foreign = r#"{"id":"a","mood":"sad","messages":[{"role":"user","content":"long ago"}]}"#;
    in_a_system(async {
        for answer in [Answer::Nothing, Answer::Append(1, message("long ago"))] {
            let bench = Bench::new();
            bench
                .remote
                .supabase()
                .put_object(BUCKET, "a.json", foreign);
            bench.begin("a", true).await;
            let running = bench.run();
            let fake = Fake::new(&bench, answer);
            running.connect(fake.clone());
            until(&running, "our own", |state| {
                state.uploads > 0 && state.backlog == 0
            })
            .await;
            assert!(!fake.offered().is_empty());
            let copies = bench.copies("a");
            assert_eq!(copies.len(), 1);
            assert_eq!(copies[0].bytes, foreign);
            running.stop();
        }
    });
}

#[test]
fn a_document_of_another_log_is_kept_beside_ours() {
    in_a_system(async {
        let bench = Bench::new();
        let metadata = json!({"log": uuid::Uuid::new_v4(), "incarnation": "7", "seq": "1",
            "hash": "00"});
        bench.remote.supabase().put_object_with_metadata(
            BUCKET,
            "a.json",
            "{\"messages\":[]}",
            metadata,
        );
        bench.begin("a", false).await;
        let running = bench.run();
        let fake = Fake::new(&bench, Answer::Nothing);
        running.connect(fake.clone());
        assert_eq!(at_rest(&running).await.conflicts, 1);
        assert!(fake.offered().is_empty());
        assert_eq!(bench.copies("a")[0].bytes, "{\"messages\":[]}");
        running.stop();
    });
}

#[test]
fn an_object_within_our_chain_is_overwritten_without_a_word() {
    in_a_system(async {
        let mut bench = Bench::new();
        bench.begin("a", false).await;
        bench.backup().await;
        bench.say("a", 1, "second").await;
        let running = bench.run();
        at_rest(&running).await;
        running.stop();
        let older = bench.object("a").unwrap();
        // The log forgets how far the mirror was, and then has all that the object shows and more.
        let entries = bench
            .log
            .load(super::bench::id("a"))
            .await
            .unwrap()
            .unwrap();
        bench.restore().await;
        for (seq, entry) in entries.entries.into_iter().enumerate().skip(1) {
            let (head, messages) = (entry.head, entry.messages);
            super::bench::append(&bench.log, "a", seq as u64, head, messages).await;
        }
        bench.say("a", 2, "third").await;
        let running = bench.run();
        let fake = Fake::new(&bench, Answer::Parted);
        running.connect(fake.clone());
        let state = at_rest(&running).await;
        assert_eq!(state.conflicts, 0);
        assert!(fake.offered().is_empty());
        assert!(bench.text("a").contains("third"));
        assert_ne!(bench.object("a").unwrap().version, older.version);
        running.stop();
    });
}

#[test]
fn an_object_that_shows_all_we_have_is_not_written_again() {
    in_a_system(async {
        let mut bench = Bench::new();
        bench.begin("a", false).await;
        bench.backup().await;
        let running = bench.run();
        at_rest(&running).await;
        running.stop();
        let object = bench.object("a").unwrap();
        bench.restore().await;
        let running = bench.run();
        assert_eq!(at_rest(&running).await.uploads, 0);
        assert_eq!(bench.object("a").unwrap().version, object.version);
        running.stop();
    });
}

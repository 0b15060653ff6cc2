//! How much is sent at once, in what order, and how often.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use idol_actors::{
    log::{
        Log as _,
        entry::{Begun, Deleted, EntryHead},
    },
    mirror::{Changed, Flush, MirrorHook, MirrorPoint},
    time::Timestamp,
};
use idol_simulator::supabase::{Fault, Target};
use sha2::{Digest as _, Sha256};

use super::bench::{BUCKET, Bench, DEADLINE, append, at_rest, id, in_a_system, message, until};

#[test]
fn a_backlog_of_several_pages_is_found_and_sent() {
    in_a_system(async {
        let bench = Bench::new();
        for number in 0..600 {
            bench.begin(&format!("c{number}"), false).await;
        }
        let running = bench.run();
        let state = at_rest(&running).await;
        assert_eq!((state.uploads, state.conflicts), (600, 0));
        assert_eq!(bench.remote.supabase().objects(BUCKET).len(), 600);
        assert!(state.uploaded_bytes > 600);
        let object = bench.object("c7").unwrap();
        let hash: String = Sha256::digest(&object.bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(object.metadata.unwrap()["hash"], hash);
        running.stop();
    });
}

#[test]
fn eight_documents_are_on_their_way_at_once_and_one_write_of_each() {
    in_a_system(async {
        let bench = Bench::new();
        for number in 0..30 {
            bench.begin(&format!("c{number}"), false).await;
        }
        let gate = bench.remote.gate();
        let held = bench
            .remote
            .supabase()
            .fail(Target::Uploads, Fault::Hold(gate.clone()));
        let running = bench.run();
        held.reached(8, DEADLINE).await.unwrap();
        // News of all of them, those on their way too.
        for number in 0..30 {
            let name = format!("c{number}");
            bench.say(&name, 1, "more").await;
            let news = Changed {
                id: id(&name),
                seq: 2,
                bytes: 4,
            };
            running.address.send(news).await.unwrap();
        }
        assert_eq!(held.met(), 8);
        until(&running, "all of them", |state| state.backlog == 30).await;
        held.clear();
        gate.open();
        at_rest(&running).await;
        for number in 0..30 {
            assert!(bench.text(&format!("c{number}")).contains("more"));
        }
        running.stop();
    });
}

#[test]
fn an_outage_that_nothing_waits_for_is_known_to_be_over() {
    in_a_system(async {
        let bench = Bench::new();
        let outage = bench.remote.supabase().fail(Target::All, Fault::Close);
        let running = bench.run();
        until(&running, "trouble", |state| state.trouble.is_some()).await;
        outage.clear();
        until(&running, "its end", |state| state.trouble.is_none()).await;
        running.stop();
    });
}

#[test]
fn the_points_of_a_life_come_in_order() {
    in_a_system(async {
        let bench = Bench::new();
        let seen: Arc<Mutex<Vec<(MirrorPoint, bool)>>> = Arc::default();
        let (points, supabase) = (seen.clone(), bench.remote.supabase());
        let hook = MirrorHook::new(move |point, _| {
            let is_there = supabase.object(BUCKET, "a.json").is_some();
            points.lock().unwrap().push((point, is_there));
        });
        bench.begin("a", false).await;
        let running = bench.run_with(Some(hook));
        at_rest(&running).await;
        let deleted = EntryHead::Deleted(Deleted {
            at: Timestamp::now(),
            incarnation: 8,
        });
        append(&bench.log, "a", 1, deleted, vec![]).await;
        until(&running, "the removal", |_| seen.lock().unwrap().len() == 4).await;
        let expected = [
            (MirrorPoint::BeforeUpload, false),
            (MirrorPoint::UploadBegun, false),
            (MirrorPoint::Uploaded, true),
            (MirrorPoint::Removed, false),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
        running.stop();
    });
}

#[test]
fn a_life_that_ended_before_its_upload_was_recorded_is_not_sent() {
    in_a_system(async {
        let bench = Bench::new();
        bench.begin("a", false).await;
        let (log, replaced) = (bench.log.clone(), AtomicBool::new(false));
        let hook = MirrorHook::new(move |point, _| {
            if point != MirrorPoint::BeforeUpload || replaced.swap(true, Ordering::SeqCst) {
                return;
            }
            let at = Timestamp::now();
            let deleted = EntryHead::Deleted(Deleted { at, incarnation: 8 });
            let begun = EntryHead::Begun(Begun {
                at,
                incarnation: 9,
                user_id: None,
                character_id: None,
                imported_updated_at: None,
                voice_usage: None,
                unverified: false,
            });
            futures::executor::block_on(async {
                append(&log, "a", 1, deleted, vec![]).await;
                append(&log, "a", 2, begun, vec![message("second life")]).await;
            });
        });
        let running = bench.run_with(Some(hook));
        until(&running, "the second life", |state| {
            state.uploads > 0 && state.backlog == 0
        })
        .await;
        assert!(bench.text("a").contains("second life"));
        assert_eq!(bench.remote.supabase().requests(Target::Uploads), 1);
        running.stop();
    });
}

#[test]
fn a_flush_answers_at_once_while_supabase_is_away() {
    in_a_system(async {
        let bench = Bench::new();
        bench.begin("a", false).await;
        let outage = bench.remote.supabase().fail(Target::All, Fault::Close);
        let running = bench.run();
        // What is left is known once the log was looked through.
        until(&running, "trouble, and the backlog", |state| {
            state.trouble.is_some() && state.backlog == 1
        })
        .await;
        let flush = Flush {
            deadline: DEADLINE * 100,
        };
        let left = tokio::time::timeout(DEADLINE, running.address.send(flush)).await;
        assert_eq!(
            left.expect("an answer long before the deadline").unwrap(),
            1
        );
        outage.clear();
        let state = at_rest(&running).await;
        assert_eq!(state.trouble, None);
        assert!(bench.log.load(id("a")).await.unwrap().is_some());
        running.stop();
    });
}

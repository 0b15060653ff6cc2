//! A stored document that is found after its conversation has begun.

use std::{pin::pin, task::Poll};

use futures::poll;
use idol_actors::{
    id::ConversationId,
    limits,
    mirror::{AdoptError, Adopted, Adopter as _, imported::ImportedDocument},
    shared::Failpoint,
};
use idol_simulator::{
    Gate, Script, Simulator,
    supabase::{Fault, Target},
};
use serde_json::json;

use super::{delete, mirrored, remote, stored};
use crate::{
    helpers::{BUCKET, DEADLINE, Setup, TestApp, prompt, say, until, within},
    resilience::{Commits, Watch, answered, assert_refused, sent},
};

fn old_document(id: &str) -> Vec<u8> {
    json!({"id": id, "created_at": "2026-01-01T00:00:00", "updated_at": "2026-01-01T00:00:00",
    "messages": [
        {"role": "user", "content": "an old secret", "timestamp": "2026-01-01T00:00:00"},
        {"role": "assistant", "content": "kept", "timestamp": "2026-01-01T00:00:01"},
    ]})
    .to_string()
    .into_bytes()
}

/// Puts a stored document of c1 in the bucket, once it is there.
async fn put_document(remote: &Simulator) {
    until("the bucket", async || {
        remote
            .supabase()
            .buckets()
            .iter()
            .any(|it| it.contains(BUCKET))
            .then_some(())
    })
    .await;
    remote
        .supabase()
        .put_object(BUCKET, "c1.json", old_document("c1"));
}

/// A gate that holds what is read of an object.
fn hold_reads(remote: &Simulator, key: &str) -> (Gate, idol_simulator::supabase::Planned) {
    let gate = remote.gate();
    let hold = Fault::Hold(gate.clone());
    let held = remote.supabase().fail(Target::Downloads.key(key), hold);
    (gate, held)
}

/// Begins c1, of which there is a stored document, while the answer that tells so is held.
async fn begun_without(remote: &Simulator, app: &TestApp) -> Gate {
    put_document(remote).await;
    let (gate, held) = hold_reads(remote, "c1.json");
    app.chat("c1", "hello").await;
    held.reached(1, DEADLINE).await.unwrap();
    gate
}

/// A server whose commits and conversations are watched.
async fn watched(remote: &Simulator, commits: &Commits, watch: &Watch) -> TestApp {
    Setup::new()
        .supabase(remote)
        // The mirrors commit nothing meanwhile.
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.log.before_commit = Some(commits.failpoint());
            // Less than the longest message takes.
            tuning.log.page_count_max = Some(60);
            tuning.failpoints = Some(watch.failpoints());
        })
        .start()
        .await
}

#[tokio::test]
async fn what_was_deleted_before_it_was_found_stays_deleted() {
    let remote = remote();
    let app = mirrored(&remote).await;
    let gate = begun_without(&remote, &app).await;
    delete(&app, "c1").await;
    app.chat("c1", "a new life").await;

    gate.open();

    // The mirror has replaced what was there by the new life alone.
    until("the new life's object", async || {
        let object = stored(&remote, "c1")?;
        let text = String::from_utf8(object.bytes.to_vec()).unwrap();
        text.contains("a new life").then_some(())
    })
    .await;
    let said = app.said("c1").await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0].1, "a new life");
    app.stop().await;
    let object = String::from_utf8(stored(&remote, "c1").unwrap().bytes.to_vec()).unwrap();
    assert!(!object.contains("an old secret"), "{object}");
}

#[tokio::test]
async fn what_was_found_late_stands_before_what_was_said_meanwhile_once() {
    let remote = remote();
    let app = mirrored(&remote).await;
    let gate = begun_without(&remote, &app).await;

    gate.open();

    until("the old messages", async || {
        (app.said("c1").await.len() >= 4).then_some(())
    })
    .await;
    app.chat("c1", "and now?").await;
    let texts: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(texts.len(), 6, "{texts:?}");
    assert_eq!(texts[..3], ["an old secret", "kept", "hello"]);
    let asked = prompt(&app.simulator.chat_requests().pop().unwrap());
    assert_eq!(asked[0]["content"], "an old secret");
}

#[tokio::test]
async fn what_is_offered_twice_at_once_is_taken_over_once() {
    let (remote, commits, watch) = (remote(), Commits::default(), Watch::default());
    let app = watched(&remote, &commits, &watch).await;
    let gate = begun_without(&remote, &app).await;
    let id = ConversationId::parse("c1").unwrap();
    let copy = ImportedDocument::parse(&id, &old_document("c1")).unwrap();
    let appends = watch.count(Failpoint::BeforeAppend, "c1");
    commits.hold();
    let first = tokio::spawn(app.engine.adopt(id.clone(), copy.clone()));
    watch
        .reached(Failpoint::BeforeAppend, "c1", appends + 1)
        .await;

    let mut second = pin!(app.engine.adopt(id, copy));
    let early = poll!(&mut second);
    // Passes behind the second offer.
    assert_eq!(app.said("c1").await.len(), 2);
    commits.release();

    let first = within("the first offer's answer", first).await.unwrap();
    let second = match early {
        Poll::Ready(answer) => answer,
        Poll::Pending => within("the second offer's answer", second).await,
    };
    let said = app.said("c1").await;
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(first, Ok(Adopted::Messages(2)));
    assert!(
        matches!(second, Err(AdoptError::Unavailable(_))),
        "{second:?}"
    );
    gate.open();
}

#[tokio::test]
async fn what_was_found_is_the_beginning_if_the_log_refuses_the_one_made_without_it() {
    let (remote, commits, watch) = (remote(), Commits::default(), Watch::default());
    let app = watched(&remote, &commits, &watch).await;
    put_document(&remote).await;
    let (gate, held) = hold_reads(&remote, "c1.json");
    // Both are in memory: what is read from the log waits behind what is held.
    app.chat("other", "hi").await;
    let read = tokio::spawn(app.http.get(app.url("/conversation/c1")).send());
    held.reached(1, DEADLINE).await.unwrap();
    commits.hold();
    let other = sent(&app, "/chat", say("other", "holds up the log's writer"));
    watch.reached(Failpoint::BeforeAppend, "other", 3).await;
    commits.reached().await;
    let begins = sent(&app, "/chat", say("c1", &"x".repeat(300_000)));
    watch.reached(Failpoint::BeforeAppend, "c1", 1).await;

    gate.open();

    // The conversation has time to learn of it; it is not there before its beginning is synced.
    for _ in 0..50 {
        assert_eq!(app.get("/conversation/c1").await.status(), 404);
    }
    commits.release();
    assert_refused(answered(begins).await, 503, "storage_unavailable").await;
    assert_eq!(answered(other).await.status(), 200);
    within("the reader's answer", read).await.unwrap().unwrap();
    let texts: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(texts, ["an old secret", "kept"]);
    app.chat("c1", "and now?").await;
    let asked = prompt(&app.simulator.chat_requests().pop().unwrap());
    assert_eq!(asked[0]["content"], "an old secret");
}

#[tokio::test]
async fn a_turn_waits_for_a_document_that_was_found_also_while_the_log_takes_its_time() {
    let (remote, commits, watch) = (remote(), Commits::default(), Watch::default());
    let app = watched(&remote, &commits, &watch).await;
    put_document(&remote).await;
    let flow = app.simulator.gate();
    let script = Script::from("tokens=500,gap=10").hold_at(0, &flow);
    app.simulator.script(script);
    let other = app.stream(say("other", "hi")).await;
    flow.reached(1, DEADLINE).await.unwrap();
    let (gate, held) = hold_reads(&remote, "c1.json");
    let read = tokio::spawn(app.http.get(app.url("/conversation/c1")).send());
    held.reached(1, DEADLINE).await.unwrap();
    commits.hold();
    gate.open();
    commits.reached().await;

    let turn = sent(&app, "/chat", say("c1", "hello"));

    // The log is behind for longer than a turn waits for a store that does not answer.
    assert!(limits::REMOTE_GRACE < limits::UNKEPT_SHOWN_MAX);
    flow.open();
    watch.reached(Failpoint::Withheld, "other", 1).await;
    assert_eq!(app.simulator.chat_requests().len(), 1, "c1's did not wait");
    commits.release();
    assert_eq!(answered(turn).await.status(), 200);
    let read = within("the document", read).await.unwrap().unwrap();
    assert_eq!(read.status(), 200);
    let texts: Vec<_> = app.said("c1").await.into_iter().map(|it| it.1).collect();
    assert_eq!(texts[..3], ["an old secret", "kept", "hello"]);
    drop(other);
}

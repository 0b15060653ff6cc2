//! A stored document that is found after its conversation has begun.

use idol_simulator::{
    Gate, Simulator,
    supabase::{Fault, Target},
};
use serde_json::json;

use super::{delete, mirrored, remote, stored};
use crate::helpers::{BUCKET, DEADLINE, TestApp, until};

fn old_document(id: &str) -> Vec<u8> {
    json!({"id": id, "created_at": "2026-01-01T00:00:00", "updated_at": "2026-01-01T00:00:00",
    "messages": [
        {"role": "user", "content": "an old secret", "timestamp": "2026-01-01T00:00:00"},
        {"role": "assistant", "content": "kept", "timestamp": "2026-01-01T00:00:01"},
    ]})
    .to_string()
    .into_bytes()
}

/// Begins c1, of which there is a stored document, while the answer that tells so is held.
async fn begun_without(remote: &Simulator, app: &TestApp) -> Gate {
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
    let gate = remote.gate();
    let held = remote
        .supabase()
        .fail(Target::Downloads.key("c1.json"), Fault::Hold(gate.clone()));
    app.chat("c1", "hello").await;
    held.reached(1, DEADLINE).await.unwrap();
    gate
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
    let asked = crate::helpers::prompt(&app.simulator.chat_requests().pop().unwrap());
    assert_eq!(asked[0]["content"], "an old secret");
}

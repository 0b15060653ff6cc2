//! `POST /conversation/{id}/edit`.

use idol_simulator::Script;
use serde_json::json;

use super::{edit, others, regenerate, talked, texts};
use crate::helpers::{prompt, text_of};

#[tokio::test]
async fn a_message_is_replaced_with_all_that_follows_and_answered_anew() {
    let app = talked(3).await;
    let before = app.document("c1").await;
    let replaced = &before["messages"][2];
    app.simulator.script(Script::new().text("new reply"));

    let told = edit(&app, "c1", &replaced["id"], "Grüße \"m2\"").await;

    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1", "r1", "Grüße \"m2\"", "new reply"]);
    let new = &after["messages"][2];
    assert_eq!(new["alternatives"], json!([replaced]));
    assert!(after["messages"][3].get("alternatives").is_none());
    assert_eq!(told[0]["replaces"], replaced["id"]);
    assert_eq!(told[0]["message_id"], new["id"]);
    assert_eq!(text_of(&told), "new reply");
    let requests = app.simulator.chat_requests();
    let sent = prompt(&requests[3]);
    let sent: Vec<_> = sent
        .iter()
        .map(|it| it["content"].as_str().unwrap())
        .collect();
    assert_eq!(sent, ["m1", "r1", "Grüße \"m2\""]);
    let times: Vec<_> = after["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["timestamp"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
}

#[tokio::test]
async fn the_first_message_is_edited_again_and_again() {
    let app = talked(2).await;
    let first = app.document("c1").await["messages"][0]["id"].clone();
    // The id of the first version goes on meaning the message.
    for (text, reply) in [("a", "ra"), ("b", "rb")] {
        app.simulator.script(Script::new().text(reply));
        edit(&app, "c1", &first, text).await;
    }

    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["b", "rb"]);
    assert_eq!(others(&document["messages"][0]), ["m1", "a"]);
    // A reply to an older version means the reply to this one.
    app.simulator.script(Script::new().text("rc"));
    regenerate(&app, "c1", json!({"message_id": first})).await;
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["b", "rc"]);
    assert_eq!(others(&document["messages"][0]), ["m1", "a"]);
    assert_eq!(others(&document["messages"][1]), ["rb"]);
}

#[tokio::test]
async fn an_edit_without_a_reply_leaves_the_history_as_it_is() {
    let app = talked(2).await;
    let before = app.document("c1").await;
    app.simulator.script("fault=status:unknown_model");

    let told = edit(&app, "c1", &before["messages"][0]["id"], "in vain").await;

    assert_eq!(told.last().unwrap()["type"], "error");
    assert_eq!(app.document("c1").await["messages"], before["messages"]);
    app.simulator.script(Script::new().text("r3"));
    app.chat("c1", "m3").await;
    assert_eq!(
        texts(&app.document("c1").await),
        ["m1", "r1", "m2", "r2", "m3", "r3"]
    );
}

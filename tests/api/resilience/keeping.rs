//! The text of a reply under way is in the log before the reply ends.

use idol_actors::{log::sqlite::SqliteOptions, shared::Failpoint};
use idol_simulator::{Script, reply_text};
use serde_json::json;

use super::{Commits, Watch, assistant, user};
use crate::helpers::{DEADLINE, Setup, say, text_of};

#[tokio::test]
async fn what_was_kept_of_a_reply_is_its_reply_when_its_conversation_dies() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(4, &gate));
    let mut socket = app.socket().await;
    socket
        .send(
            json!({"type": "start_conversation", "conversation_id": "c1",
            "character_id": "nova", "message": "I am Alice"}),
        )
        .await;
    let before = socket.until("chunk").await.pop().unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    watch.reached(Failpoint::Kept, "c1", 1).await;
    watch.panic_at(Failpoint::Progress, "c1", 1);

    gate.open();

    let error = socket.until("error").await.pop().unwrap();
    assert_eq!(error["code"], "conversation_restarted");
    let document = app.document("c1").await;
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2, "{document}");
    let reply = &messages[1];
    let text = reply["content"].as_str().unwrap();
    assert!(
        !text.is_empty() && reply_text(0, 4).starts_with(text),
        "{text}"
    );
    assert_eq!(reply["finish_reason"], "interrupted");
    assert_eq!(reply["role"], "assistant");
    assert_eq!(reply["turn_id"], before["turn_id"]);
    // A cursor into the text as it was is none into the text as it is.
    let epoch = |cursor: &serde_json::Value| {
        cursor
            .as_str()
            .unwrap()
            .split('.')
            .nth(1)
            .map(str::to_owned)
    };
    socket
        .send(json!({"type": "message", "message": "And now?"}))
        .await;
    let after = socket.until("chunk").await.pop().unwrap();
    assert_ne!(epoch(&before["cursor"]), epoch(&after["cursor"]));
    socket.until("response_complete").await;
    let prompt = app.simulator.chat_requests().pop().unwrap();
    let prompt = crate::helpers::prompt(&prompt);
    assert_eq!(
        prompt[1]["content"], text,
        "the next prompt has what was kept"
    );
}

#[tokio::test]
async fn a_reply_that_ends_leaves_nothing_under_way() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let events = app.stream(say("c1", "I am Alice")).await;
    watch.reached(Failpoint::Kept, "c1", 1).await;
    gate.open();
    let events = events.all().await;
    assert_eq!(events.last().unwrap()["type"], "done");
    assert_eq!(text_of(&events), reply_text(0, 6));
    // Its actor dies afterwards: the next one finds the whole reply, once.
    watch.panic_at(Failpoint::BeforeAppend, "c1", 1);
    app.post("/chat", say("c1", "x")).await;
    assert_eq!(
        app.said("c1").await[..2],
        [user("I am Alice"), assistant(&reply_text(0, 6))]
    );
}

#[tokio::test]
async fn nothing_more_is_shown_while_the_log_is_behind() {
    let commits = Commits::default();
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| {
            tuning.failpoints = Some(watch.failpoints());
            tuning.log = SqliteOptions {
                before_commit: Some(commits.failpoint()),
                ..SqliteOptions::default()
            };
        })
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=500,gap=10").hold_at(400, &gate));
    let mut events = app.stream(say("c1", "I am Alice")).await;
    assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
    let first = text_of(&[events.next().await.unwrap()]);
    commits.hold();
    watch.reached(Failpoint::Withheld, "c1", 1).await;
    commits.release();
    // The log catches up, and everything is shown, nothing twice.
    gate.open();
    let rest = events.all().await;
    assert_eq!(rest.last().unwrap()["type"], "done");
    assert_eq!(format!("{first}{}", text_of(&rest)), reply_text(0, 500));
}

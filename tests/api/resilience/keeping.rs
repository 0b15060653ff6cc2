//! The text of a reply under way is in the log before the reply ends.

use idol_actors::{
    caller::Caller, conversation::command::Begin, id::ConversationId, log::sqlite::SqliteOptions,
    shared::Failpoint,
};
use idol_simulator::{Script, reply_text};
use serde_json::json;

use super::{Commits, Watch, answered, assistant, sent, user};
use crate::helpers::{DEADLINE, Events, Setup, say, text_of, within};

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

#[tokio::test]
async fn text_that_comes_before_its_turn_is_accepted_is_kept_once_it_is() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.failpoints = Some(watch.failpoints());
            tuning.log.before_commit = Some(commits.failpoint());
        })
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=500,gap=10").hold_at(400, &gate));
    commits.hold();
    // The beginning is on its way alone; the acceptance of the turn waits behind it.
    let id = ConversationId::parse("c1").unwrap();
    let conversation = app.engine.conversation(id, None);
    let begin = Begin {
        caller: Caller::Anonymous,
        user_id: None,
        character_id: None,
    };
    let begun = tokio::spawn(async move { conversation.begin(begin).await });
    commits.reached().await;
    let stream = sent(&app, "/chat/stream", say("c1", "I am Alice"));
    // Text came so long ago that it would have been handed over twice.
    watch.reached(Failpoint::Withheld, "c1", 1).await;

    commits.release();

    assert_eq!(within("the beginning", begun).await.unwrap(), Ok(true));
    watch.reached(Failpoint::Kept, "c1", 1).await;
    watch.panic_at(Failpoint::Progress, "c1", 1);
    gate.open();
    let events = Events::of(answered(stream).await).all().await;
    assert_eq!(events.last().unwrap()["code"], "conversation_restarted");
    let said = app.said("c1").await;
    assert_eq!(said.len(), 2, "nothing was kept of the reply: {said:?}");
    assert_eq!(said[0], user("I am Alice"));
    let text = &said[1].1;
    assert!(
        !text.is_empty() && reply_text(0, 500).starts_with(text),
        "{text}"
    );
}

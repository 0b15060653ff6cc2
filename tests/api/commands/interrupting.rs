//! Replies that are interrupted: what was heard is the reply.

use std::fs;

use futures::poll;
use idol_actors::{
    caller::Caller,
    conversation::command::{Effect, Interrupt, Interrupted},
    error::EngineError,
    id::TurnId,
    shared::Failpoint,
};
use idol_simulator::{Gate, Script};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Heard, ID, conversation, saying, start};
use crate::{
    helpers::{Events, Setup, TestApp, mirrored, prompt, until, within},
    resilience::{Commits, Watch},
};

async fn interrupted(app: &TestApp, turn: TurnId, heard: usize) -> Interrupted {
    within("an interruption", interrupting(app, turn, heard))
        .await
        .unwrap()
        .unwrap()
}

/// The same, under way.
fn interrupting(
    app: &TestApp,
    turn: TurnId,
    heard: usize,
) -> JoinHandle<Result<Interrupted, EngineError>> {
    let conversation = conversation(app);
    let command = Interrupt {
        caller: Caller::Anonymous,
        turn,
        heard,
    };
    tokio::spawn(async move { conversation.interrupt(command).await })
}

fn effect(effect: Effect, heard: usize) -> Interrupted {
    Interrupted { effect, heard }
}

/// A turn whose reply has come up to a gate, and how it is told.
async fn talking(app: &TestApp, text: &str) -> (Heard, Gate) {
    let gate = app.simulator.gate();
    let script = Script::new().tokens([text, "not told"]);
    app.simulator.script(script.hold_at(1, &gate));
    let mut turn = start(app, saying("Tell me")).await;
    turn.until_text(text).await;
    (turn, gate)
}

/// A turn with this reply.
async fn told(app: &TestApp, text: &str) -> Heard {
    app.simulator.script(Script::new().text(text));
    let mut turn = start(app, saying("Tell me")).await;
    assert_eq!(turn.until_the_end().await.last().unwrap(), "stop");
    turn
}

/// The last message of the document, and the document's tag.
async fn reply(app: &TestApp) -> (Value, String) {
    let response = app.get(&format!("/conversation/{ID}")).await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let document: Value = response.json().await.unwrap();
    (
        document["messages"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone(),
        tag,
    )
}

/// What the upstream is told of the conversation when it goes on.
async fn next_prompt(app: &TestApp) -> Vec<String> {
    app.chat(ID, "Go on").await;
    let requests = app.simulator.chat_requests();
    let asked = prompt(requests.last().unwrap());
    let texts = asked
        .iter()
        .map(|it| it["content"].as_str().unwrap().to_owned());
    texts.collect()
}

#[actix::test]
async fn a_reply_under_way_is_stored_as_it_was_heard() {
    let app = TestApp::start().await;
    let (mut turn, _gate) = talking(&app, "Yes, “Alice”.").await;
    let id = turn.started.turn;

    // Within the quotation mark, which is three bytes long.
    let stopped = interrupted(&app, id, "Yes, ".len() + 2).await;

    assert_eq!(stopped, effect(Effect::Stopped, "Yes, ".len()));
    assert_eq!(turn.until_the_end().await, ["cancelled"]);
    app.assert_nothing_left().await;
    let (stored, tag) = reply(&app).await;
    assert_eq!(stored["content"], "Yes, ");
    assert_eq!(stored["unsaid"], "“Alice”.");
    assert_eq!(stored["finish_reason"], "cancelled");
    // As much, and more, change nothing; less does.
    for heard in ["Yes, ".len(), 1_000] {
        let again = interrupted(&app, id, heard).await;
        assert_eq!(again, effect(Effect::Nothing, "Yes, ".len()));
    }
    assert_eq!(reply(&app).await, (stored, tag.clone()));
    assert_eq!(interrupted(&app, id, 3).await, effect(Effect::Cut, 3));
    let (stored, shorter) = reply(&app).await;
    assert_eq!(stored["content"], "Yes");
    assert_eq!(stored["unsaid"], ", “Alice”.");
    assert_ne!(shorter, tag);
    assert_eq!(next_prompt(&app).await, ["Tell me", "Yes", "Go on"]);
}

#[actix::test]
async fn a_reply_of_which_nothing_was_heard_is_in_no_prompt() {
    let app = TestApp::start().await;
    let (mut turn, _gate) = talking(&app, "Yes").await;

    let stopped = interrupted(&app, turn.started.turn, 0).await;

    assert_eq!(stopped, effect(Effect::Stopped, 0));
    assert_eq!(turn.until_the_end().await, ["cancelled"]);
    let (stored, _) = reply(&app).await;
    assert_eq!(
        (&stored["content"], &stored["unsaid"]),
        (&json!(""), &json!("Yes"))
    );
    assert_eq!(next_prompt(&app).await, ["Tell me", "Go on"]);
}

#[actix::test]
async fn all_that_came_and_was_heard_is_the_reply() {
    let app = TestApp::start().await;
    let (mut turn, _gate) = talking(&app, "Yes").await;

    let stopped = interrupted(&app, turn.started.turn, 3).await;

    assert_eq!(stopped, effect(Effect::Stopped, 3));
    assert_eq!(turn.until_the_end().await, ["cancelled"]);
    let (stored, _) = reply(&app).await;
    assert_eq!(stored["content"], "Yes");
    assert!(stored.get("unsaid").is_none());
}

#[actix::test]
async fn a_reply_that_is_over_is_cut_for_all_who_read_it() {
    let data = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(data.path()).start().await;
    let turn = told(&app, "One, two, three.").await;
    let before = app.document(ID).await;
    let (_, tag) = reply(&app).await;
    let id = turn.started.turn;
    assert_eq!(interrupted(&app, id, 16).await, effect(Effect::Nothing, 16));
    assert_eq!(reply(&app).await.1, tag, "all of it was heard");

    assert_eq!(interrupted(&app, id, 4).await, effect(Effect::Cut, 4));

    let document = app.document(ID).await;
    let (stored, newer) = reply(&app).await;
    assert_ne!(newer, tag);
    assert!(document["updated_at"].as_str() > before["updated_at"].as_str());
    let mut expected = before["messages"][1].clone();
    expected["content"] = "One,".into();
    expected["finish_reason"] = "cancelled".into();
    expected["unsaid"] = " two, three.".into();
    assert_eq!(stored, expected);
    assert_eq!(interrupted(&app, id, 4).await, effect(Effect::Nothing, 4));
    assert_eq!(reply(&app).await.1, newer);
    let file = data.path().join(format!("conversations/{ID}.json"));
    until("the file to follow", async || {
        let bytes = fs::read(&file).ok()?;
        (mirrored(&bytes) == document).then_some(())
    })
    .await;
    app.stop().await;
    let app = Setup::new().data_dir(data.path()).start().await;
    assert_eq!(app.document(ID).await, document);
    assert_eq!(interrupted(&app, id, 9).await, effect(Effect::Nothing, 4));
    // A client that keeps the conversation itself has all of it: nothing is said twice.
    let all = json!({"conversation_id": ID, "messages": [
        {"role": "user", "content": "Tell me"},
        {"role": "assistant", "content": "One, two, three."},
        {"role": "user", "content": "Go on"}]});
    assert_eq!(app.post("/chat", all).await.status(), 200);
    let asked = prompt(&app.simulator.chat_requests()[0]);
    let asked: Vec<_> = asked
        .iter()
        .map(|it| it["content"].as_str().unwrap())
        .collect();
    assert_eq!(asked, ["Tell me", "One,", "Go on"]);
}

#[actix::test]
async fn a_turn_that_waits_is_stopped() {
    let app = TestApp::start().await;
    let (mut runs, gate) = talking(&app, "Yes").await;
    let mut waits = start(&app, saying("And?")).await;

    let stopped = interrupted(&app, waits.started.turn, 0).await;

    assert_eq!(stopped, effect(Effect::Stopped, 0));
    assert_eq!(waits.until_the_end().await, ["received", "cancelled"]);
    gate.open();
    assert_eq!(runs.until_the_end().await.last().unwrap(), "stop");
}

#[actix::test]
async fn what_is_no_reply_is_not_interrupted() {
    let app = TestApp::start().await;
    let lost = interrupting(&app, TurnId::now(), 0);
    assert_eq!(
        within("an answer", lost).await.unwrap(),
        Err(EngineError::NotFound)
    );
    let first = told(&app, "One").await;
    let again = app
        .post(&format!("/conversation/{ID}/regenerate"), json!({}))
        .await;
    Events::of(again).all().await;
    let (_, tag) = reply(&app).await;

    for turn in [TurnId::now(), first.started.turn] {
        assert_eq!(interrupted(&app, turn, 0).await, effect(Effect::Nothing, 0));
    }

    assert_eq!(reply(&app).await.1, tag, "neither is there any more");
}

/// A server whose commits a test holds back.
async fn held(commits: &Commits, watch: &Watch) -> TestApp {
    Setup::new()
        .tuning(|tuning| {
            tuning.log.before_commit = Some(commits.failpoint());
            tuning.failpoints = Some(watch.failpoints());
        })
        .start()
        .await
}

/// Starts a turn behind an interruption that is not in the log yet; what the upstream is told.
async fn prompt_behind(app: &TestApp, commits: &Commits) -> Vec<Value> {
    let calls = app.simulator.chat_requests().len();
    let conversation = conversation(app);
    let mut next = std::pin::pin!(conversation.start_turn(saying("Go on"), None));
    assert!(poll!(&mut next).is_pending());
    // Asked after it: when this is answered, the turn waits.
    let asked = conversation.snapshot(Caller::Anonymous);
    within("a document", asked).await.unwrap().unwrap();
    assert_eq!(app.simulator.chat_requests().len(), calls, "it waits");
    commits.release();
    within("the next turn", next).await.unwrap();
    let asked = until("the next prompt", async || {
        app.simulator.chat_requests().get(calls).cloned()
    });
    let asked = asked.await;
    prompt(&asked)
}

#[actix::test]
async fn a_turn_that_is_started_meanwhile_knows_only_what_was_heard() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = held(&commits, &watch).await;
    let turn = told(&app, "One, two.").await;
    let appends = watch.count(Failpoint::BeforeAppend, ID);
    commits.hold();
    let cut = interrupting(&app, turn.started.turn, 4);
    watch
        .reached(Failpoint::BeforeAppend, ID, appends + 1)
        .await;
    // Another one waits for the first, and has nothing to cut.
    let longer = interrupting(&app, turn.started.turn, 6);

    let asked = prompt_behind(&app, &commits).await;

    assert_eq!(asked[1]["content"], "One,");
    let cut = within("an answer", cut).await.unwrap();
    assert_eq!(cut, Ok(effect(Effect::Cut, 4)));
    let longer = within("an answer", longer).await.unwrap();
    assert_eq!(longer, Ok(effect(Effect::Nothing, 4)));
}

#[actix::test]
async fn a_reply_whose_end_is_on_its_way_to_the_log_is_cut_before_the_next_prompt() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = held(&commits, &watch).await;
    let (turn, gate) = talking(&app, "One, two.").await;
    let appends = watch.count(Failpoint::BeforeAppend, ID);
    commits.hold();
    gate.open();
    watch
        .reached(Failpoint::BeforeAppend, ID, appends + 1)
        .await;
    let cut = interrupting(&app, turn.started.turn, 4);

    let asked = prompt_behind(&app, &commits).await;

    assert_eq!(asked[1]["content"], "One,");
    let cut = within("an answer", cut).await.unwrap();
    assert_eq!(cut, Ok(effect(Effect::Cut, 4)));
}

#[actix::test]
async fn an_interruption_whose_actor_dies_is_carried_out_by_the_next_one() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let (turn, _gate) = talking(&app, "One, two.").await;
    watch.reached(Failpoint::Kept, ID, 1).await;
    watch.panic_at(Failpoint::BeforeAppend, ID, 1);

    let stopped = interrupted(&app, turn.started.turn, 4).await;

    // The next actor found the reply as far as it was kept, and over.
    assert_eq!(stopped, effect(Effect::Cut, 4));
    let (stored, _) = reply(&app).await;
    assert_eq!(
        (&stored["content"], &stored["unsaid"]),
        (&json!("One,"), &json!(" two."))
    );
    assert_eq!(next_prompt(&app).await, ["Tell me", "One,", "Go on"]);
}

#[actix::test]
async fn whoever_had_more_than_was_heard_is_told_what_holds() {
    let data = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(data.path()).start().await;
    let mut watcher = app.socket().await;
    let watch = json!({"type": "start_conversation", "conversation_id": ID,
        "character_id": "nova", "watch": true});
    watcher.send(watch).await;
    watcher.until("conversation_started").await;
    let turn = told(&app, "One, two.").await;
    let events = watcher.until("response_complete").await;
    let before: Vec<_> = events.iter().filter(|it| it["type"] != "chunk").collect();
    let last_chunk = events.iter().rfind(|it| it["type"] == "chunk").unwrap();

    interrupted(&app, turn.started.turn, 4).await;

    let behind = [last_chunk, before.last().unwrap()];
    let start = before
        .iter()
        .find(|it| it["type"] == "response_start")
        .unwrap();
    for _ in 0..2 {
        assert_goes_on(&app, &behind, start).await;
    }
    app.stop().await;
    let app = Setup::new().data_dir(data.path()).start().await;
    assert_goes_on(&app, &behind, start).await;
}

/// Goes on behind text that was not heard, and before all of it.
async fn assert_goes_on(app: &TestApp, behind: &[&Value], start: &Value) {
    for told in behind {
        let mut socket = app.socket().await;
        let resume = json!({"type": "resume", "conversation_id": ID, "cursor": told["cursor"]});
        socket.send(resume).await;
        let reset = socket.next().await;
        assert_eq!(
            (&reset["type"], &reset["reason"]),
            (&json!("reset"), &json!("beyond_text"))
        );
        assert_eq!(reset["offset"], 4);
        let resumed = socket.next().await;
        assert_eq!(resumed["messages"][0]["content"], "One,");
        assert_eq!(resumed["messages"][0]["unsaid"], " two.");
    }
    let mut socket = app.socket().await;
    let resume = json!({"type": "resume", "conversation_id": ID, "cursor": start["cursor"]});
    socket.send(resume).await;
    let resumed = socket.next().await;
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert_eq!(resumed["messages"][0]["content"], "One,");
    let end = socket.next().await;
    assert_eq!(end["finish_reason"], "cancelled");
}

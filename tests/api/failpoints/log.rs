//! Deaths between a conversation and the log.

use idol_simulator::{Script, Simulator, reply_text};
use serde_json::{Value, json};

use super::{ID, Mortal, Place, death, keyed, messages, passed};
use crate::{
    helpers::{Events, say, text_of, within},
    process::{Launch, Process, assistant, user},
};

/// The mirrors wait: nothing but the conversation writes to the log.
fn launch(simulator: &Simulator) -> Mortal {
    Mortal::new(Launch::with(simulator).set("MIRROR_IDLE_SECS", "3600"))
}

/// Sends a keyed request that is never answered: the server dies over it.
async fn post_in_vain(process: &Process) {
    let sent = keyed(process, "/chat", &say(ID, "I am Alice")).send();
    within("the end of a request", sent).await.unwrap_err();
}

/// Repeats the keyed request; its reply's text and finish reason.
async fn repeat(process: &Process) -> (String, String) {
    let sent = keyed(process, "/chat", &say(ID, "I am Alice")).send();
    let response = within("an answer", sent).await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let choice = &answer["choices"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&choice["message"]["content"]),
        text(&choice["finish_reason"]),
    )
}

/// Begins a keyed stream, up to `conversation_start`.
async fn stream(process: &Process) -> Events {
    let sent = keyed(process, "/chat/stream", &say(ID, "I am Alice")).send();
    let mut events = Events::of(within("an answer", sent).await.unwrap());
    assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
    events
}

fn start() -> Value {
    json!({"type": "start_conversation", "conversation_id": ID, "character_id": "nova",
        "user_id": "alice"})
}

#[tokio::test]
async fn a_turn_that_never_came_to_the_log_leaves_nothing() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = launch(&simulator);
    let mut process = mortal.start_to_die_at(Place::Append(1)).await;
    post_in_vain(&process).await;
    death(&mut process).await;

    let process = mortal.start().await;

    let missing = process.get(&format!("/conversation/{ID}")).await;
    assert_eq!(missing.status(), 404);
    let (text, finish_reason) = repeat(&process).await;
    assert_eq!((text, &*finish_reason), (reply_text(0, 5), "stop"));
    assert_eq!(
        process.said(ID).await,
        [user("I am Alice"), assistant(&reply_text(0, 5))]
    );
}

#[tokio::test]
async fn a_conversation_that_was_begun_is_there_though_nobody_was_told() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = launch(&simulator);
    let mut process = mortal.start_to_die_at(Place::Commit(1)).await;
    let mut socket = process.socket().await;
    socket.send(start()).await;
    death(&mut process).await;
    socket.next_or_close().await.unwrap_err();

    let process = mortal.start().await;

    let document = process.document(ID).await;
    assert_eq!(document["character_id"], "nova");
    assert_eq!(document["user_id"], "alice");
    assert_eq!(document["messages"], json!([]));
    let mut socket = process.socket().await;
    socket.send(start()).await;
    socket.until("conversation_started").await;
    let message = json!({"type": "message", "message": "I am Alice"});
    socket.send(message).await;
    socket.until("response_complete").await;
    assert_eq!(process.said(ID).await.len(), 2);
    assert_eq!(
        process.document(ID).await["created_at"],
        document["created_at"]
    );
}

#[tokio::test]
async fn a_message_that_was_taken_is_there_once_though_nobody_was_told() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = launch(&simulator);
    let mut process = mortal.start_to_die_at(Place::Commit(1)).await;
    post_in_vain(&process).await;
    death(&mut process).await;

    let process = mortal.start().await;

    assert_eq!(process.said(ID).await, [user("I am Alice")]);
    let id = messages(&process).await[0]["id"].clone();
    let (text, finish_reason) = repeat(&process).await;
    assert_eq!((text, &*finish_reason), (reply_text(0, 5), "stop"));
    assert_eq!(
        process.said(ID).await,
        [user("I am Alice"), assistant(&reply_text(0, 5))]
    );
    assert_eq!(messages(&process).await[0]["id"], id);
}

#[tokio::test]
async fn text_that_was_kept_is_there_when_its_reply_has_no_end() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = launch(&simulator);
    let gate = simulator.gate();
    // One delta is one piece.
    let script = Script::new().tokens(["Hello Alice, ", "how are you?"]);
    simulator.script(script.hold_at(1, &gate));
    let mut process = mortal.start_to_die_at(Place::Kept(1)).await;
    let events = stream(&process).await;
    death(&mut process).await;
    let seen = text_of(&events.all_until_cut().await);
    assert!("Hello Alice, ".starts_with(&seen), "{seen:?}");

    let process = mortal.start().await;

    let found = messages(&process).await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["content"], "Hello Alice, ");
    assert_eq!(found[1]["finish_reason"], "interrupted");
    // What there is of it was paid for: a repeat gets it as it stands.
    let calls = simulator.chat_requests().len();
    let (text, finish_reason) = repeat(&process).await;
    assert_eq!((&*text, &*finish_reason), ("Hello Alice, ", "interrupted"));
    assert_eq!(messages(&process).await, found);
    assert_eq!(simulator.chat_requests().len(), calls);
}

/// A reply whose last piece is in the log before its end comes, so that nothing else is written then.
async fn a_turn_until_its_end(simulator: &Simulator, process: &Process) -> Events {
    let gate = simulator.gate();
    let script = Script::new().tokens(["Hello Alice!"]).hold_at(1, &gate);
    simulator.script(script);
    let events = stream(process).await;
    passed(process, "kept", 1).await;
    gate.open();
    events
}

#[tokio::test]
async fn the_end_of_a_reply_that_never_came_to_the_log_leaves_what_was_kept() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = launch(&simulator);
    let mut process = mortal.start_to_die_at(Place::Append(2)).await;
    let events = a_turn_until_its_end(&simulator, &process).await;
    death(&mut process).await;
    let events = events.all_until_cut().await;
    assert!(!events.iter().any(|event| event["type"] == "done"));

    let process = mortal.start().await;

    let found = messages(&process).await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["content"], "Hello Alice!");
    // All of it was there, and nobody knows that: it is never reported as complete.
    assert_eq!(found[1]["finish_reason"], "interrupted");
}

#[tokio::test]
async fn a_reply_that_is_in_the_log_is_complete_though_nobody_was_told_that_it_was_done() {
    let simulator = Simulator::start().unwrap();
    for place in [Place::Commit(2), Place::Committed(2)] {
        let mut mortal = launch(&simulator);
        let mut process = mortal.start_to_die_at(place).await;
        let events = a_turn_until_its_end(&simulator, &process).await;
        death(&mut process).await;
        let events = events.all_until_cut().await;
        assert!(!events.iter().any(|event| event["type"] == "done"));

        let process = mortal.start().await;

        let found = messages(&process).await;
        let said = [user("I am Alice"), assistant("Hello Alice!")];
        assert_eq!(process.said(ID).await, said, "{place:?}");
        assert_eq!(found[1]["finish_reason"], "stop");
        let calls = simulator.chat_requests().len();
        let (text, finish_reason) = repeat(&process).await;
        assert_eq!((&*text, &*finish_reason), ("Hello Alice!", "stop"));
        assert_eq!(messages(&process).await, found);
        assert_eq!(simulator.chat_requests().len(), calls, "asked once");
    }
}

#[tokio::test]
async fn a_turn_that_runs_again_has_one_message_and_one_reply_whatever_its_second_run_dies_of() {
    let simulator = Simulator::start().unwrap();
    for (place, ended) in [
        (Place::Commit(1), false),
        (Place::Committed(1), false),
        (Place::Commit(2), true),
        (Place::Committed(2), true),
    ] {
        let mut mortal = launch(&simulator);
        let process = mortal.start().await;
        simulator.script("fault=status:unknown_model");
        let failed = keyed(&process, "/chat", &say(ID, "I am Alice")).send();
        assert_eq!(within("a refusal", failed).await.unwrap().status(), 400);
        process.stop().await;
        let mut process = mortal.start_to_die_at(place).await;
        if ended {
            drop(a_turn_until_its_end(&simulator, &process).await);
        } else {
            post_in_vain(&process).await;
        }
        death(&mut process).await;

        let process = mortal.start().await;

        let (text, calls) = match ended {
            true => ("Hello Alice!".to_owned(), 0),
            false => (reply_text(0, 5), 1),
        };
        let mut said = vec![user("I am Alice")];
        said.extend(ended.then(|| assistant(&text)));
        assert_eq!(process.said(ID).await, said, "{place:?}");
        let before = simulator.chat_requests().len();
        for _ in 0..2 {
            assert_eq!(repeat(&process).await, (text.clone(), "stop".to_owned()));
        }
        let said = [user("I am Alice"), assistant(&text)];
        assert_eq!(process.said(ID).await, said, "{place:?}");
        assert_eq!(simulator.chat_requests().len(), before + calls);
    }
}

//! What was replaced, and what was to be, after the server died.

use idol_simulator::{Script, Simulator};
use serde_json::{Value, json};

use super::{others, texts};
use crate::{
    failpoints::{ID, Mortal, Place, death, passed},
    helpers::{Events, within},
    process::{Launch, Process},
};

/// A directory with a conversation of two turns.
async fn after_two_turns(simulator: &Simulator) -> (Mortal, Value) {
    let mortal = Mortal::new(Launch::with(simulator).set("MIRROR_IDLE_SECS", "3600"));
    let process = mortal.start().await;
    for turn in ["1", "2"] {
        simulator.script(Script::new().text(&format!("r{turn}")));
        process.chat(ID, &format!("m{turn}")).await;
    }
    let document = process.document(ID).await;
    process.stop().await;
    (mortal, document)
}

async fn post(process: &Process, what: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
    let url = process.url(&format!("/conversation/{ID}/{what}"));
    let request = process
        .http
        .post(url)
        .header("Idempotency-Key", "one-key-of-a-branch");
    within("an answer", request.json(body).send()).await
}

async fn told(process: &Process, what: &str, body: &Value) -> Vec<Value> {
    Events::of(post(process, what, body).await.unwrap())
        .all()
        .await
}

/// What is asked of the server that dies, what is said in its place then, and where.
fn requests(document: &Value) -> [(&'static str, Value, Vec<&'static str>); 2] {
    let id = |index: usize| document["messages"][index]["id"].clone();
    [
        (
            "regenerate",
            json!({"message_id": id(1)}),
            vec!["m1", "new reply"],
        ),
        (
            "edit",
            json!({"message_id": id(2), "message": "m2!"}),
            vec!["m1", "r1", "m2!", "new reply"],
        ),
    ]
}

#[tokio::test]
async fn nothing_is_replaced_by_a_turn_that_died_without_a_word_and_its_repeat_runs_it_again() {
    let simulator = Simulator::start().unwrap();
    for which in [0, 1] {
        let (mut mortal, before) = after_two_turns(&simulator).await;
        let (what, body, after) = requests(&before)[which].clone();
        for place in [Place::Append(1), Place::Commit(1), Place::Committed(1)] {
            let mut process = mortal.start_to_die_at(place).await;
            drop(post(&process, what, &body).await);
            death(&mut process).await;

            let process = mortal.start().await;

            let document = process.document(ID).await;
            assert_eq!(document["messages"], before["messages"], "{what} {place:?}");
            process.stop().await;
        }
        simulator.take_requests();
        let process = mortal.start().await;
        simulator.script(Script::new().text("new reply"));
        let first = told(&process, what, &body).await;
        let again = told(&process, what, &body).await;
        assert_eq!(first[0]["turn_id"], again[0]["turn_id"]);
        let document = process.document(ID).await;
        assert_eq!(texts(&document), after);
        assert_eq!(simulator.chat_requests().len(), 1);
    }
}

#[tokio::test]
async fn what_was_kept_of_the_new_reply_replaces_the_old_one() {
    let simulator = Simulator::start().unwrap();
    for which in [0, 1] {
        let (mut mortal, before) = after_two_turns(&simulator).await;
        let (what, body, mut after) = requests(&before)[which].clone();
        let gate = simulator.gate();
        let script = Script::new().tokens(["new ", "reply"]).hold_at(1, &gate);
        simulator.script(script);
        let mut process = mortal.start_to_die_at(Place::Kept(1)).await;
        let events = Events::of(post(&process, what, &body).await.unwrap());
        death(&mut process).await;
        events.all_until_cut().await;
        gate.open();

        let process = mortal.start().await;

        let document = process.document(ID).await;
        after.pop();
        after.push("new ");
        assert_eq!(texts(&document), after, "{what}");
        let last = document["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["finish_reason"], "interrupted");
        let kept = texts(&document).len() - 1 - which;
        assert_eq!(others(&document["messages"][kept]), [["r1", "m2"][which]]);
        process.stop().await;
    }
}

#[tokio::test]
async fn a_reply_that_is_in_the_log_has_replaced_the_old_one_though_nobody_was_told() {
    let simulator = Simulator::start().unwrap();
    for which in [0, 1] {
        for (place, has_replaced) in [(Place::Append(2), false), (Place::Commit(2), true)] {
            let (mut mortal, before) = after_two_turns(&simulator).await;
            let (what, body, after) = requests(&before)[which].clone();
            let gate = simulator.gate();
            let script = Script::new().tokens(["new reply"]).hold_at(1, &gate);
            simulator.script(script);
            let mut process = mortal.start_to_die_at(place).await;
            let events = Events::of(post(&process, what, &body).await.unwrap());
            passed(&process, "kept", 1).await;
            gate.open();
            death(&mut process).await;
            events.all_until_cut().await;

            let process = mortal.start().await;

            let document = process.document(ID).await;
            assert_eq!(texts(&document), after, "{what} {place:?}");
            let reason = &document["messages"].as_array().unwrap().last().unwrap()["finish_reason"];
            assert_eq!(reason, ["interrupted", "stop"][usize::from(has_replaced)]);
            process.stop().await;
        }
    }
}

//! `POST /conversation/{id}/regenerate`.

use idol_simulator::Script;
use serde_json::{Value, json};

use super::{events, keyed, others, post, regenerate, talked, texts};
use crate::helpers::{DEADLINE, Events, prompt, refused, text_of, types};

#[tokio::test]
async fn the_newest_reply_is_made_again_and_the_old_one_becomes_its_alternative() {
    let app = talked(2).await;
    let before = app.document("c1").await;
    app.simulator.script(Script::new().text("better"));

    let told = regenerate(&app, "c1", json!({})).await;

    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1", "r1", "m2", "better"]);
    let first = |document: &Value| document["messages"].as_array().unwrap()[..3].to_vec();
    assert_eq!(first(&after), first(&before));
    let (old, new) = (&before["messages"][3], &after["messages"][3]);
    assert_eq!(new["alternatives"], json!([old]));
    assert_ne!(new["id"], old["id"]);
    assert!(new["timestamp"].as_str() > old["timestamp"].as_str());
    let start = &told[0];
    assert_eq!(start["type"], "conversation_start");
    assert_eq!(start["replaces"], old["id"]);
    assert_eq!(start["message_id"], before["messages"][2]["id"]);
    assert_eq!(start["turn_id"], new["turn_id"]);
    assert_eq!(text_of(&told), "better");
    let end = told.last().unwrap();
    assert_eq!(
        (&end["type"], &end["message_id"]),
        (&json!("done"), &new["id"])
    );
    let requests = app.simulator.chat_requests();
    assert_eq!(
        prompt(&requests[2]),
        prompt(&requests[1]),
        "the same is asked again"
    );
}

#[tokio::test]
async fn any_number_of_replies_are_alternatives_in_their_order() {
    let app = talked(1).await;
    for reply in ["second", "third"] {
        app.simulator.script(Script::new().text(reply));
        regenerate(&app, "c1", json!({})).await;
    }

    let document = app.document("c1").await;

    assert_eq!(texts(&document), ["m1", "third"]);
    let newest = &document["messages"][1];
    assert_eq!(others(newest), ["r1", "second"]);
    assert!(newest["alternatives"][1].get("alternatives").is_none());
    app.simulator.script(Script::new().text("of course"));
    app.chat("c1", "go on").await;
    let requests = app.simulator.chat_requests();
    let sent = prompt(requests.last().unwrap());
    let sent: Vec<_> = sent
        .iter()
        .map(|it| it["content"].as_str().unwrap())
        .collect();
    assert_eq!(sent, ["m1", "third", "go on"], "only what is shown is sent");
}

#[tokio::test]
async fn a_reply_in_the_middle_takes_the_place_of_all_that_follows() {
    let app = talked(3).await;
    let before = app.document("c1").await;
    let id = |index: usize| before["messages"][index]["id"].clone();
    app.simulator.script(Script::new().text("other"));

    let body = json!({"message_id": id(1), "model": "sim/tokens=3,key=other"});
    let told = regenerate(&app, "c1", body).await;

    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1", "other"]);
    assert_eq!(others(&after["messages"][1]), ["r1"]);
    assert_eq!(told[0]["replaces"], id(1));
    let request = app
        .simulator
        .chat_requests()
        .last()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(request["model"], "sim/tokens=3,key=other");
    // What follows is one exchange later, whatever was there before.
    app.chat("c1", "next").await;
    assert_eq!(app.said("c1").await.len(), 4);
    // Ids of replaced messages stand for what replaced them, which is told with what follows.
    for index in 1..6 {
        let after = id(index);
        let path = format!("/conversation/c1?after={}", after.as_str().unwrap());
        let page: Value = app.get(&path).await.json().await.unwrap();
        assert_eq!(texts(&page)[..2], ["other", "next"], "{index}");
        assert_eq!(others(&page["messages"][0]), ["r1"]);
    }
}

#[tokio::test]
async fn a_reply_is_found_by_what_it_answers_and_by_what_it_replaced() {
    let app = talked(2).await;
    let ids: Vec<Value> = app.document("c1").await["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    for (name, id) in [
        ("by message", &ids[2]),
        ("by reply", &ids[3]),
        ("by old reply", &ids[3]),
    ] {
        app.simulator.script(Script::new().text(name));
        let before = app.document("c1").await["messages"][3]["id"].clone();

        let told = regenerate(&app, "c1", json!({"message_id": id})).await;

        assert_eq!(told[0]["replaces"], before, "{name}");
        assert_eq!(texts(&app.document("c1").await), ["m1", "r1", "m2", name]);
    }
}

#[tokio::test]
async fn nothing_is_replaced_before_the_new_reply_is_there_nor_where_there_is_none() {
    let app = talked(2).await;
    let before = app.document("c1").await;
    let gate = app.simulator.gate();
    let script = Script::new().text("half a reply").hold_at(1, &gate);
    app.simulator.script(script);
    let body = json!({"message_id": before["messages"][1]["id"]});
    let mut under_way = Events::of(post(&app, "c1", "regenerate", body.clone()).await);
    gate.reached(1, DEADLINE).await.unwrap();
    assert_eq!(
        under_way.next().await.unwrap()["type"],
        "conversation_start"
    );

    assert_eq!(app.document("c1").await["messages"], before["messages"]);

    gate.open();
    assert_eq!(types(&under_way.all().await), ["done"]);
    let after = app.document("c1").await;
    assert_eq!(texts(&after), ["m1", "half a reply"]);
    // A failure without a word leaves everything as it is.
    app.simulator.script("fault=status:unknown_model");
    let told = regenerate(&app, "c1", json!({})).await;
    assert_eq!(told.last().unwrap()["type"], "error");
    assert_eq!(app.document("c1").await["messages"], after["messages"]);
    // So does one that is stopped before it.
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("never").hold_headers(&gate));
    let stopped = Events::of(post(&app, "c1", "regenerate", json!({})).await);
    gate.reached(1, DEADLINE).await.unwrap();
    app.post("/conversation/c1/cancel", json!({})).await;
    let told = stopped.all().await;
    assert_eq!(told.last().unwrap()["finish_reason"], "cancelled");
    assert!(told.last().unwrap().get("message_id").is_none());
    assert_eq!(app.document("c1").await["messages"], after["messages"]);
}

#[tokio::test]
async fn a_reply_that_is_cut_with_text_replaces_and_says_so() {
    let app = talked(1).await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().tokens(["half ", "a reply"]).hold_at(1, &gate));
    let mut told = Events::of(post(&app, "c1", "regenerate", json!({})).await);
    while told.next().await.unwrap()["choices"][0]["delta"]["content"] != "half " {}

    app.post("/conversation/c1/cancel", json!({})).await;

    told.all().await;
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "half "]);
    assert_eq!(document["messages"][1]["finish_reason"], "cancelled");
    assert_eq!(others(&document["messages"][1]), ["r1"]);
}

#[tokio::test]
async fn a_message_without_a_reply_is_answered() {
    let app = talked(1).await;
    app.simulator.script("fault=status:unknown_model");
    let failed = app.post("/chat", crate::helpers::say("c1", "m2")).await;
    refused(failed, 400, "upstream_rejected").await;
    app.simulator.script(Script::new().text("r2"));

    let told = regenerate(&app, "c1", json!({})).await;

    assert!(told[0].get("replaces").is_none(), "{told:?}");
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "r1", "m2", "r2"]);
    assert_eq!(told[0]["message_id"], document["messages"][2]["id"]);
    assert!(document["messages"][3].get("alternatives").is_none());
}

#[tokio::test]
async fn a_repeat_with_its_key_is_told_the_same_turn() {
    let app = talked(1).await;
    let key = "a-key-of-a-regenerate";
    app.simulator.script("fault=status:unknown_model");
    let failed = events(keyed(&app, "c1", "regenerate", key, &json!({})).await).await;
    assert_eq!(failed.last().unwrap()["type"], "error");
    app.simulator.script(Script::new().text("again"));

    let first = events(keyed(&app, "c1", "regenerate", key, &json!({})).await).await;
    let repeat = events(keyed(&app, "c1", "regenerate", key, &json!({})).await).await;

    // The first try had no text: the same turn ran once more.
    assert_eq!(first[0]["turn_id"], failed[0]["turn_id"]);
    for told in [&first, &repeat] {
        assert_eq!(text_of(told), "again");
        assert_eq!(told[0], first[0]);
        assert_eq!(
            told.last().unwrap()["message_id"],
            first.last().unwrap()["message_id"]
        );
    }
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["m1", "again"]);
    assert_eq!(others(&document["messages"][1]), ["r1"]);
    assert_eq!(app.simulator.chat_requests().len(), 3);
    let body = json!({"message_id": document["messages"][1]["id"]});
    let other = keyed(&app, "c1", "regenerate", key, &body).await;
    refused(other, 422, "idempotency_mismatch").await;
}

#[tokio::test]
async fn the_request_of_a_replaced_turn_is_answered_with_what_it_was() {
    let app = crate::helpers::TestApp::start().await;
    let key = "a-key-of-a-message";
    let ask = async || {
        let request = app
            .http
            .post(app.url("/chat"))
            .header("Idempotency-Key", key);
        let sent = request.json(&crate::helpers::say("c1", "hi")).send();
        sent.await.unwrap().json::<Value>().await.unwrap()
    };
    app.simulator.script(Script::new().text("first"));
    let first = ask().await;
    app.simulator.script(Script::new().text("second"));
    regenerate(&app, "c1", json!({})).await;

    let repeat = ask().await;

    assert_eq!(repeat["message_id"], first["message_id"]);
    assert_eq!(repeat["choices"][0]["message"]["content"], "first");
    assert_eq!(texts(&app.document("c1").await), ["hi", "second"]);
}

#[tokio::test]
async fn what_was_said_before_the_repeat_of_one_that_failed_stays_behind_its_reply() {
    for what in ["regenerate", "edit"] {
        let app = talked(1).await;
        let first = app.document("c1").await["messages"][0]["id"].clone();
        let (body, said) = match what {
            "edit" => (json!({"message_id": first, "message": "m1!"}), "m1!"),
            _ => (json!({}), "m1"),
        };
        let key = "a-key-of-one-that-failed";
        app.simulator.script("fault=status:unknown_model");
        let failed = events(keyed(&app, "c1", what, key, &body).await).await;
        assert_eq!(failed.last().unwrap()["type"], "error");
        app.simulator.script(Script::new().text("r2"));
        app.chat("c1", "m2").await;
        app.simulator.script(Script::new().text("again"));

        let told = events(keyed(&app, "c1", what, key, &body).await).await;

        assert_eq!(text_of(&told), "again");
        let document = app.document("c1").await;
        assert_eq!(texts(&document), [said, "again", "m2", "r2"]);
        let times = document["messages"].as_array().unwrap().iter();
        assert!(times.map(|it| it["timestamp"].as_str()).is_sorted());
        let requests = app.simulator.chat_requests();
        assert_eq!(prompt(&requests[3]), prompt(&requests[1]), "{what}");
    }
}

#[tokio::test]
async fn a_deletion_ends_one_that_runs_and_one_that_waits() {
    let app = talked(1).await;
    let gate = app.simulator.gate();
    let script = Script::new().text("never").hold_headers(&gate);
    app.simulator.script(script);
    let runs = Events::of(post(&app, "c1", "regenerate", json!({})).await);
    gate.reached(1, DEADLINE).await.unwrap();
    let waits = Events::of(post(&app, "c1", "regenerate", json!({})).await);

    let deleted = crate::deletion::delete(&app, "c1").await;

    assert_eq!(deleted.status(), 204);
    for events in [runs, waits] {
        let told = events.all().await;
        let end = told.last().unwrap();
        assert!(end["type"] == "done" || end["type"] == "error", "{end}");
    }
    let missing = app.get("/conversation/c1").await;
    refused(missing, 404, "conversation_not_found").await;
    app.simulator.script(Script::new().text("r"));
    app.chat("c1", "anew").await;
    assert_eq!(texts(&app.document("c1").await), ["anew", "r"]);
}

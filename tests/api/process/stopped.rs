//! SIGTERM: turns under way are finished, new ones refused, and everything is on disk at the end.

use idol_simulator::{Script, Simulator, reply_text};
use serde_json::json;

use super::{Launch, assistant, signal, user};
use crate::helpers::{DEADLINE, client, say, text_of, types, until, within};

#[tokio::test]
async fn a_turn_under_way_is_finished_and_new_turns_are_refused_meanwhile() {
    let simulator = Simulator::start().unwrap();
    // No document is written before the end but by the flush.
    let launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "3600");
    let gate = simulator.gate();
    let mut process = launch.start().await;
    process.chat("other", "kept from before").await;
    simulator.script(Script::from("tokens=6").hold_at(3, &gate));
    let mut events = process.stream("c1", "I am Alice").await;
    gate.reached(1, DEADLINE).await.unwrap();

    process.signal("TERM");

    process.drains().await;
    for path in ["/chat", "/chat/stream"] {
        // On a connection that was open before, and on a new one.
        for http in [process.http.clone(), client()] {
            let request = http
                .post(process.url(path))
                .json(&say("other", "new"))
                .send();
            let refused = request.await.unwrap();
            assert_eq!(refused.status(), 503);
            let wait = refused.headers()["retry-after"].to_str().unwrap();
            assert!((1..=60).contains(&wait.parse::<u64>().unwrap()));
            let body: serde_json::Value = refused.json().await.unwrap();
            assert_eq!(body["code"], "shutting_down");
            assert_eq!(body["conversation_id"], "other");
        }
    }
    assert_eq!(process.said("other").await.len(), 2, "reading goes on");
    gate.open();
    let mut received = Vec::new();
    while let Some(event) = events.next().await {
        received.push(event);
    }
    assert_eq!(text_of(&received), reply_text(0, 6));
    assert_eq!(received.last().unwrap()["type"], "done");
    assert_eq!(received.last().unwrap()["finish_reason"], "stop");
    process.http = client();
    assert_eq!(process.end().await.code(), Some(0), "{}", process.stderr());

    let files = [launch.json_file("c1"), launch.json_file("other")];
    let process = launch.start().await;
    assert_eq!(files[0], process.document("c1").await);
    assert_eq!(files[1], process.document("other").await);
    assert_eq!(
        process.said("c1").await,
        [user("I am Alice"), assistant(&reply_text(0, 6))]
    );
    process.stop().await;
}

#[tokio::test]
async fn a_turn_longer_than_the_grace_is_cut_and_its_text_kept() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator).set("SHUTDOWN_GRACE_SECS", "1");
    let gate = simulator.gate();
    simulator.script(Script::from("tokens=6").hold_at(3, &gate));
    let mut process = launch.start().await;
    let running = process.stream("c1", "I am Alice").await;
    gate.reached(1, DEADLINE).await.unwrap();
    let waiting = process.stream("c1", "And I am Bob").await;

    process.signal("INT");

    // The one that waits is not waited for.
    let waiting = waiting.all().await;
    assert_eq!(types(&waiting), ["error"]);
    assert_eq!(waiting[0]["code"], "shutting_down");
    let running = running.all().await;
    let last = running.last().unwrap();
    assert_eq!(text_of(&running), reply_text(0, 3));
    assert_eq!(last["type"], "error");
    assert_eq!(last["code"], "shutting_down");
    assert!(last["retry_after"].as_u64().unwrap() >= 1);
    process.http = client();
    assert_eq!(process.end().await.code(), Some(0), "{}", process.stderr());
    assert_eq!(simulator.counters().active_requests, 0, "the call is over");

    let file = launch.json_file("c1");
    let process = launch.start().await;
    let document = process.document("c1").await;
    assert_eq!(file, document);
    assert_eq!(
        super::said_in(&document),
        [
            user("I am Alice"),
            assistant(&reply_text(0, 3)),
            user("And I am Bob")
        ]
    );
    assert_eq!(document["messages"][1]["finish_reason"], "interrupted");
    assert!(
        !process.stderr().contains("left open"),
        "{}",
        process.stderr()
    );
    process.stop().await;
}

#[tokio::test]
async fn a_socket_gets_the_end_of_its_turn_before_it_is_told_to_go() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let gate = simulator.gate();
    simulator.script(Script::from("tokens=6").hold_at(3, &gate));
    let mut process = launch.start().await;
    let mut socket = process.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1",
        "character_id": "nova", "message": "I am Alice"});
    socket.send(start).await;
    socket.until("chunk").await;
    let mut idle = process.socket().await;

    process.signal("TERM");
    process.drains().await;
    let late = json!({"type": "start_conversation", "conversation_id": "c2",
        "character_id": "nova", "message": "I am late"});
    idle.send(late).await;
    let refused = idle.next().await;
    assert_eq!(refused["code"], "shutting_down");
    assert_eq!(refused["conversation_id"], "c2");
    assert!(refused["retry_after"].as_u64().unwrap() >= 1);
    gate.open();

    let messages = socket.until("response_complete").await;
    assert_eq!(messages.last().unwrap()["finish_reason"], "stop");
    for mut socket in [socket, idle] {
        let close = socket.next_or_close().await.unwrap_err().unwrap();
        assert_eq!(u16::from(close.code), 1001);
    }
    process.http = client();
    assert_eq!(process.end().await.code(), Some(0), "{}", process.stderr());
}

#[tokio::test]
async fn a_signal_that_comes_during_the_start_ends_the_process_in_order() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let mut child = launch.command(&["--port", "0"]).spawn().unwrap();
    until("the lock, the first thing a start makes", async || {
        launch.data().join("lock").exists().then_some(())
    })
    .await;

    signal(child.id().unwrap(), "TERM");

    let end = within("the end of the process", child.wait())
        .await
        .unwrap();
    assert_eq!(end.code(), Some(0));
}

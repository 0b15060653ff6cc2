//! What was acknowledged is there after SIGKILL.

use idol_simulator::{Script, Simulator};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Launch, assistant, user};
use crate::helpers::{DEADLINE, say, within};

/// What the operator reads when a run begins after a cut.
const RECOVERED: &str = "ended the turns that the last run left open turns=1";

#[tokio::test]
async fn a_message_whose_start_was_announced_survives_a_kill() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    for (id, held) in [("no-head", None), ("no-text", Some(0)), ("text", Some(3))] {
        let gate = simulator.gate();
        simulator.script(match held {
            None => Script::new().hold_headers(&gate),
            Some(deltas) => Script::new().hold_at(deltas, &gate),
        });
        let process = launch.start().await;
        let _events = process.stream(id, "I am Alice").await;
        gate.reached(1, DEADLINE).await.unwrap();

        process.kill().await;

        let process = launch.start().await;
        assert!(process.stderr().contains(RECOVERED), "{}", process.stderr());
        let users = |said: Vec<_>| -> Vec<_> {
            let role = |it: &(String, String)| it.0 == "user";
            said.into_iter().filter(role).collect()
        };
        assert_eq!(users(process.said(id).await), [user("I am Alice")]);
        simulator.script(Script::new().text("Hello again!"));
        assert_eq!(process.chat(id, "Are you there?").await, "Hello again!");
        assert_eq!(
            users(process.said(id).await),
            [user("I am Alice"), user("Are you there?")]
        );
        gate.open();
        process.kill().await;
    }
}

#[tokio::test]
async fn a_retry_of_a_message_whose_reply_a_kill_cut_is_not_doubled() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let gate = simulator.gate();
    simulator.script(Script::new().hold_at(0, &gate));
    let process = launch.start().await;
    let _events = process.stream("c1", "I am Alice").await;
    process.kill().await;
    let process = launch.start().await;

    simulator.script(Script::new().text("Hello Alice!"));
    process.chat("c1", "I am Alice").await;

    assert_eq!(
        process.said("c1").await,
        [user("I am Alice"), assistant("Hello Alice!")]
    );
    let prompt = simulator.chat_requests().pop().unwrap().json().unwrap();
    assert_eq!(
        prompt["messages"].as_array().unwrap().len(),
        2,
        "system, user"
    );
}

#[tokio::test]
async fn what_a_socket_was_told_was_received_survives_a_kill() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let gate = simulator.gate();
    simulator.script(Script::new().hold_headers(&gate));
    let process = launch.start().await;
    let mut socket = process.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1",
        "character_id": "nova", "user_id": "alice"});
    socket.send(start).await;
    socket.until("conversation_started").await;
    socket
        .send(json!({"type": "message", "message": "I am Alice"}))
        .await;
    let received = socket.until("message_received").await.pop().unwrap();

    process.kill().await;

    let process = launch.start().await;
    let document = process.document("c1").await;
    assert_eq!(document["character_id"], "nova");
    assert_eq!(document["user_id"], "alice");
    assert_eq!(document["messages"][0]["content"], "I am Alice");
    assert_eq!(document["messages"][0]["id"], received["message_id"]);
    assert_eq!(document["messages"].as_array().unwrap().len(), 1);
    process.chat("c1", "Are you there?").await;
}

#[tokio::test]
async fn every_turn_that_was_answered_before_a_kill_is_there_after_it_once_and_in_order() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator).set("DEFAULT_MODEL", "sim/echo");
    for (round, answers) in [1, 9, 60].into_iter().enumerate() {
        let process = launch.start().await;
        let (answered, mut heard) = mpsc::unbounded_channel();
        let talkers: Vec<_> = (0..6)
            .map(|talker| {
                let (http, url) = (process.http.clone(), process.url("/chat"));
                let answered = answered.clone();
                tokio::spawn(async move {
                    let id = format!("round-{round}-{talker}");
                    for number in 0.. {
                        let text = format!("message {number} of {id}");
                        let sent = http.post(&url).json(&say(&id, &text)).send().await;
                        let Ok(response) = sent else { return };
                        assert_eq!(response.status(), 200);
                        answered.send((talker, text)).unwrap();
                    }
                })
            })
            .collect();
        drop(answered);
        let mut known: Vec<Vec<String>> = vec![Vec::new(); 6];
        for _ in 0..answers {
            let (talker, text) = within("an answer", heard.recv()).await.unwrap();
            known[talker].push(text);
        }

        process.kill().await;

        for talker in talkers {
            within("the end of a talker", talker).await.unwrap();
        }
        while let Some((talker, text)) = heard.recv().await {
            known[talker].push(text);
        }
        let process = launch.start().await;
        for (talker, known) in known.iter().enumerate() {
            let id = format!("round-{round}-{talker}");
            if known.is_empty() {
                continue;
            }
            let said = process.said(&id).await;
            let expected: Vec<_> = known
                .iter()
                .flat_map(|text| [user(text), assistant(text)])
                .collect();
            assert_eq!(said[..expected.len()], expected, "{id}");
            // At most the one message more that nobody had been told about yet, and its reply.
            let next = format!("message {} of {id}", known.len());
            let rest = &said[expected.len()..];
            assert!(
                rest == &[] as &[(String, String)]
                    || rest == [user(&next)]
                    || rest == [user(&next), assistant(&next)],
                "{rest:?}"
            );
        }
        process.kill().await;
    }
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_process_and_the_next_one_has_all_that_was_answered() {
    let simulator = Simulator::start().unwrap();
    let mut launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "3600");
    launch.file_blocks_max = Some(800);
    let mut process = launch.start().await;
    let mut answered = 0;
    loop {
        let text = format!("message {answered} {}", "x".repeat(20_000));
        let request = process.http.post(process.url("/chat"));
        match request.json(&say("c1", &text)).send().await {
            Ok(response) if response.status() == 200 => answered += 1,
            Ok(response) => {
                assert_eq!(response.status(), 503);
                break;
            }
            // It ended before the answer was out.
            Err(_) => break,
        }
        assert!(answered < 100, "the disk never fails");
    }

    let status = process.end().await;

    assert_eq!(status.code(), Some(74), "{}", process.stderr());
    launch.file_blocks_max = None;
    let process = launch.start().await;
    let said = process.said("c1").await;
    assert!(
        answered > 1 && said.len() >= answered * 2,
        "{answered} answers"
    );
    for (number, turn) in said.chunks(2).take(answered).enumerate() {
        assert!(turn[0].1.starts_with(&format!("message {number} ")));
        assert_eq!(turn[1].0, "assistant");
    }
    process.chat("c1", "Are you there?").await;
}

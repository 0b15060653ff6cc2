//! A disk that others have filled.

use std::pin::pin;

use futures::poll;
use idol_actors::shared::Placement;
use idol_simulator::{Script, Simulator};

use super::Disk;
use crate::{
    helpers::{mirrored, refused, say, text_of, until, within},
    process::{Launch, assistant, user},
    resilience::{full_disk, no_room},
};

/// Nothing looks ahead: the log itself meets the end of the disk.
fn launch_on(disk: &Disk, simulator: &Simulator) -> Launch {
    Launch::with(simulator)
        .set("DATA_DIR", disk.path().join("data").to_str().unwrap())
        .set("MIN_FREE_MB", "0")
        .set("MIRROR_IDLE_SECS", "3600")
}

#[tokio::test]
async fn a_full_disk_refuses_turns_holds_the_end_of_one_and_serves_again_once_there_is_room() {
    let Some(disk) = Disk::mount(16) else {
        return full_disk::refuses_turns_cancels_their_calls_and_leaves_everything_readable().await;
    };
    let simulator = Simulator::start().unwrap();
    let launch = launch_on(&disk, &simulator);
    let process = launch.start().await;
    process.chat("early", "I am Alice").await;
    let gate = simulator.gate();
    let script = Script::from("tokens=4,size=100000").hold_at(0, &gate);
    let reply = script.expected_text().unwrap();
    simulator.script(script);
    let mut events = process.stream("running", "Tell me a story").await;

    let filler = disk.fill();

    let long = "x".repeat(200_000);
    let answer = process.post("/chat", &say("late", &long)).await;
    refused(answer, 503, "storage_unavailable").await;
    gate.open();
    let mut seen = Vec::new();
    let mut heard = process.heard.clone();
    let refuses = |text: &String| {
        text.lines()
            .any(|line| line.contains("the log refuses to write") && line.contains("running"))
    };
    let held = within("the end of the turn to be refused", heard.wait_for(refuses));
    held.await.unwrap();
    // What was said before can be read, and nothing was begun that was refused.
    assert_eq!(process.said("early").await[0], user("I am Alice"));
    assert_eq!(process.said("running").await, [user("Tell me a story")]);
    assert_eq!(process.get("/conversation/late").await.status(), 404);
    assert_eq!(process.get("/ready").await.status(), 200);
    {
        // The text may have been shown; that it is done is not told.
        let mut all = pin!(async {
            while let Some(event) = events.next().await {
                seen.push(event);
            }
        });
        assert!(poll!(&mut all).is_pending());
        filler.remove();
        all.await;
    }
    assert_eq!(seen.last().unwrap()["type"], "done");
    assert_eq!(seen.last().unwrap()["finish_reason"], "stop");
    assert_eq!(text_of(&seen), reply);
    let said = [user("Tell me a story"), assistant(&reply)];
    assert_eq!(process.said("running").await, said);
    process.chat("late", &long).await;
    assert_eq!(process.said("late").await[0], user(&long));
    process.stop().await;
    let process = launch.start().await;
    assert_eq!(process.said("running").await, said);
}

#[tokio::test]
async fn a_turn_ends_on_a_full_disk_with_the_room_that_was_kept_for_it() {
    let Some(disk) = Disk::mount(64) else {
        return full_disk::begins_nothing_below_the_floor_and_ends_what_runs().await;
    };
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator)
        .set("DATA_DIR", disk.path().join("data").to_str().unwrap())
        .set("MIN_FREE_MB", "16");
    let process = launch.start().await;
    let ballast = disk.path().join("data/ballast");
    until("the ballast", async || ballast.exists().then_some(())).await;
    let gate = simulator.gate();
    let script = Script::from("tokens=4,size=100000").hold_at(0, &gate);
    let reply = script.expected_text().unwrap();
    simulator.script(script);
    let events = process.stream("running", "Tell me a story").await;

    let filler = disk.fill();

    until("the ballast to be given up", async || {
        (!ballast.exists()).then_some(())
    })
    .await;
    let answer = process.post("/chat", &say("late", "hi")).await;
    refused(answer, 503, "storage_unavailable").await;
    gate.open();
    let events = events.all().await;
    assert_eq!(events.last().unwrap()["type"], "done");
    assert_eq!(text_of(&events), reply);
    filler.remove();
    until("service to resume", async || {
        let answer = process.post("/chat", &say("late", "hi")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    until("the ballast again", async || ballast.exists().then_some(())).await;
    let document = process.document("running").await;
    assert_eq!(document["messages"][1]["content"], reply);
    process.stop().await;
    let file = disk.path().join("data/conversations/running.json");
    assert_eq!(mirrored(&std::fs::read(file).unwrap()), document);
}

#[tokio::test]
async fn a_start_on_a_disk_that_is_full_reads_and_serves_again_once_there_is_room() {
    let Some(disk) = Disk::mount(16) else {
        return no_room::reads_and_serves_again_by_itself(Placement::Engine(2)).await;
    };
    let simulator = Simulator::start().unwrap();
    let launch = launch_on(&disk, &simulator);
    let process = launch.start().await;
    process.chat("early", "I am Alice").await;
    let gate = simulator.gate();
    // So much text that its end finds no room in what SQLite has reserved already.
    let script = Script::from("tokens=4,size=200000").hold_at(3, &gate);
    let reply = script.expected_text().unwrap();
    simulator.script(script);
    let mut events = process.stream("running", "Tell me a story").await;
    let mut seen = Vec::new();
    while text_of(&seen).len() < 200_000 {
        seen.push(events.next().await.unwrap());
    }
    until("the text to be kept", async || {
        let metrics = process.get("/metrics").await.text().await.unwrap();
        let pieces = metrics
            .lines()
            .find_map(|line| line.strip_prefix("idol_router_reply_pieces_kept_total "));
        (pieces.unwrap() != "0").then_some(())
    })
    .await;
    process.kill().await;
    let filler = disk.fill();

    let process = launch.start().await;

    assert_eq!(process.get("/ready").await.status(), 503);
    assert_eq!(process.said("early").await[0], user("I am Alice"));
    assert_eq!(process.said("running").await, [user("Tell me a story")]);
    for id in ["running", "early", "new"] {
        let answer = process.post("/chat", &say(id, "hi")).await;
        refused(answer, 503, "storage_unavailable").await;
    }
    filler.remove();
    until("service to resume", async || {
        let answer = process.post("/chat", &say("running", "hi")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    assert_eq!(process.get("/ready").await.status(), 200);
    let document = process.document("running").await;
    let kept = document["messages"][1]["content"].as_str().unwrap();
    assert!(
        !kept.is_empty() && reply.starts_with(kept),
        "{}",
        kept.len()
    );
    assert_eq!(document["messages"][1]["finish_reason"], "interrupted");
}

//! When and in how many writes a reply comes.

use std::time::{Duration, Instant};

use idol_simulator::{Script, Simulator, reply_text};

use crate::client::{
    DEADLINE, body, complete, connect, payloads, read_to_end, read_until, send, stream, text,
};

#[tokio::test]
async fn a_batch_shares_one_write() {
    let simulator = Simulator::start().unwrap();
    // The first write carries the comment and the empty delta as well, the last one the finish.
    let count = async |model: &'static str| stream(&simulator, model).await.chunks().pieces.len();
    assert_eq!(count("sim/tokens=12,batch=1").await, 13);
    assert_eq!(count("sim/tokens=12,batch=4").await, 4);
    assert_eq!(count("sim/tokens=12,batch=100").await, 1);
}

#[tokio::test]
async fn pauses_last_as_long_as_told() {
    let simulator = Simulator::start().unwrap();
    for (model, least) in [
        ("sim/tokens=2,headers=60", 60),
        ("sim/tokens=2,first=60", 60),
        ("sim/tokens=6,gap=10", 60),
        ("sim/tokens=6,gap=20000us,batch=2", 60),
        ("sim/tokens=6,rate=100,batch=2", 60),
    ] {
        let start = Instant::now();
        assert!(!stream(&simulator, model).await.text().is_empty());
        assert!(start.elapsed() >= Duration::from_millis(least), "{model}");
        let start = Instant::now();
        complete(&simulator, model).await;
        assert!(start.elapsed() >= Duration::from_millis(least), "{model}");
    }
}

#[tokio::test]
async fn comments_bridge_a_late_first_token() {
    let simulator = Simulator::start().unwrap();
    let body = stream(&simulator, "sim/tokens=1,comments=0,first=50,beat=10")
        .await
        .body();
    assert_eq!(body.matches(": OPENROUTER PROCESSING").count(), 4);
    assert!(body.starts_with(": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"));
}

#[tokio::test]
async fn a_gate_holds_a_reply_in_mid_stream() {
    let simulator = Simulator::start().unwrap();
    let (first, second) = (simulator.gate(), simulator.gate());
    simulator.script(
        Script::from("tokens=9,batch=99")
            .hold_at(3, &first)
            .hold_at(5, &second),
    );
    let mut socket = connect(simulator.address()).await;
    send(
        &mut socket,
        "/api/v1/chat/completions",
        &body("m", true).to_string(),
    )
    .await;

    first.reached(1, DEADLINE).await.unwrap();
    assert_eq!(second.arrived(), 0);
    let held = read_until(&mut socket, "\n\n\r\n").await;
    assert_eq!(text(&payloads(&held)), reply_text(0, 3));

    first.open();
    second.reached(1, DEADLINE).await.unwrap();
    let more = read_until(&mut socket, "\n\n\r\n").await;
    assert_eq!(reply_text(0, 3) + &text(&payloads(&more)), reply_text(0, 5));

    second.open();
    let (rest, _) = read_to_end(&mut socket).await;
    assert!(String::from_utf8_lossy(&rest).contains("[DONE]"));
    simulator
        .wait_for("end", |counters| counters.streams_completed == 1, DEADLINE)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wait_that_fails_says_what_it_waited_for() {
    let simulator = Simulator::start().unwrap();
    let never = simulator.wait_for(
        "miracle",
        |counters| counters.requests > 5,
        Duration::from_millis(5),
    );
    let error = never.await.unwrap_err().to_string();
    assert!(
        error.contains("no miracle within 5ms") && error.contains("requests: 0"),
        "{error}"
    );
    assert!(
        simulator
            .gate()
            .reached(1, Duration::from_millis(5))
            .await
            .is_err()
    );
}

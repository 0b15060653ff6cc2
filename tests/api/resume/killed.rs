//! What a client goes on with whose server was killed.

use idol_simulator::{Script, Simulator};
use serde_json::json;

use super::{Picture, event_source::EventSource, resume};
use crate::{
    helpers::{DEADLINE, Socket, say},
    process::{Launch, Process},
};

/// Goes on at its place; what is told last is that all is told.
async fn socket_goes_on(process: &Process, id: &str, picture: &mut Picture) {
    let cursor = picture.cursor.clone().unwrap();
    let mut socket = process.socket().await;
    socket.send(resume(id, &[("cursor", &cursor)])).await;
    loop {
        let told = socket.next().await;
        picture.take(&told);
        if told["type"] == "resumed" {
            assert!(told.get("turn").is_none(), "nobody works on it any more");
            return;
        }
    }
}

/// As a browser does.
async fn source_goes_on(process: &Process, id: &str, picture: &mut Picture) {
    let cursor = picture.cursor.clone().unwrap();
    let url = process.url(&format!("/conversation/{id}/events"));
    let mut source = EventSource::connect(&process.http, &url, cursor.as_str()).await;
    loop {
        let told = source.next().await.unwrap();
        picture.take(&told);
        if told["type"] == "resumed" || told["type"] == "response_complete" {
            return;
        }
    }
}

#[tokio::test]
async fn a_client_whose_server_is_killed_amid_a_reply_goes_on_with_what_survived() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    // Killed right when text was seen, and long after: then it must be there.
    for (round, kept) in [false, true, false, true, false, false]
        .into_iter()
        .enumerate()
    {
        let id = format!("c{round}");
        let gate = simulator.gate();
        let script = Script::from("tokens=20").hold_at(12, &gate);
        let seen_bytes = idol_simulator::reply_text(0, 12).len();
        simulator.script(script);
        let process = launch.start().await;
        let mut socket: Socket = process.socket().await;
        let start = json!({"type": "start_conversation", "conversation_id": id,
            "character_id": "nova", "watch": true});
        socket.send(start).await;
        let _answer = tokio::spawn(
            process
                .http
                .post(process.url("/chat"))
                .json(&say(&id, "hi"))
                .send(),
        );
        let mut picture = Picture::default();
        for told in socket.until_text(seen_bytes).await {
            picture.take(&told);
        }
        gate.reached(1, DEADLINE).await.unwrap();
        if kept {
            // Half a second passes, by the turns of another conversation.
            let marker = format!("{id}-other");
            for _ in 0..8 {
                simulator.script(Script::from("tokens=3,gap=60"));
                process.chat(&marker, "time passes").await;
            }
        }

        process.kill().await;

        let process = launch.start().await;
        let (mut by_socket, mut by_source) = (picture.clone(), picture.clone());
        socket_goes_on(&process, &id, &mut by_socket).await;
        source_goes_on(&process, &id, &mut by_source).await;
        let said = process.said(&id).await;
        assert_eq!(by_socket.said(), said, "round {round}");
        assert_eq!(by_source.said(), said, "round {round}");
        if kept {
            assert_eq!(said, picture.said(), "what was seen for long is there");
        }
        for (_, finish_reason) in by_socket.ended.iter().chain(&by_source.ended) {
            assert_eq!(finish_reason, "interrupted");
        }
        process.kill().await;
        gate.open();
    }
}

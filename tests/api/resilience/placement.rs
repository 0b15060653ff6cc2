//! Conversations on the threads of their callers keep the same promises.

use futures::future::join_all;
use idol_actors::shared::Placement;
use idol_router::application::Ended;
use idol_simulator::{Script, Simulator, reply_text};
use serde_json::json;

use super::{assistant, raw, user};
use crate::helpers::{DEADLINE, Setup, client, say, text_of};

#[tokio::test]
async fn conversations_on_the_threads_of_their_callers_serve_every_door() {
    let app = Setup::new()
        .set("WORKERS", "3")
        .tuning(|tuning| tuning.placement = Some(Placement::Caller))
        .start()
        .await;
    let reply = reply_text(0, 5);
    app.chat("c1", "by chat").await;
    let events = app.stream(say("c1", "by stream")).await.all().await;
    assert_eq!(text_of(&events), reply);
    assert_eq!(events.last().unwrap()["type"], "done");
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1",
        "character_id": "nova", "message": "by socket"});
    socket.send(start).await;
    socket.until("response_complete").await;

    // Clients on every worker, at once, in one conversation.
    let clients: Vec<_> = (0..6).map(|_| client()).collect();
    let posts = clients.iter().enumerate().map(|(number, http)| {
        let body = say("c1", &format!("number {number}"));
        http.post(app.url("/chat")).json(&body).send()
    });
    for response in join_all(posts).await {
        assert_eq!(response.unwrap().status(), 200);
    }

    let said = app.said("c1").await;
    assert_eq!(said.len(), 18);
    for (place, by) in ["by chat", "by stream", "by socket"].iter().enumerate() {
        let turn = [user(by), assistant(&reply)];
        assert_eq!(said[place * 2..place * 2 + 2], turn);
    }
    let replies = said.iter().skip(1).step_by(2);
    assert!(replies.clone().all(|it| *it == assistant(&reply)));
    drop(socket);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_stop_in_the_midst_of_a_stream_finishes_it_also_on_its_callers_thread() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || {
        Setup::new()
            .data_dir(directory.path())
            .set("MIRROR_IDLE_SECS", "3600")
            .tuning(|tuning| tuning.placement = Some(Placement::Caller))
    };
    let mut app = setup().start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let events = app.stream(say("c1", "I am Alice")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let engine = app.engine.clone();
    app.http = client();

    let stopped = tokio::spawn(app.stop());
    crate::helpers::until("the drain", async || {
        engine.observe().draining.then_some(())
    })
    .await;
    gate.open();

    let events = events.all().await;
    assert_eq!(text_of(&events), reply_text(0, 6));
    assert_eq!(events.last().unwrap()["type"], "done");
    assert_eq!(stopped.await.unwrap(), Ended::Stopped);
    let file = directory.path().join("conversations/c1.json");
    let file = crate::helpers::mirrored(&std::fs::read(file).unwrap());
    let app = setup().start_with(Simulator::start().unwrap()).await;
    let (document, _) = raw(&app, "c1").await;
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(file, document);
    assert_eq!(
        app.said("c1").await,
        [user("I am Alice"), assistant(&reply_text(0, 6))]
    );
}

//! A command that is sent twice is carried out once.

use std::time::Duration;

use futures::poll;
use idol_actors::{
    error::EngineError,
    id::{ConversationId, TurnId},
    shared::Failpoint,
};
use idol_simulator::{Script, reply_text};

use super::{Watch, assistant, command, user};
use crate::helpers::{DEADLINE, Setup, say, until, within};

#[tokio::test]
async fn a_turn_that_is_started_again_is_one_turn_with_one_reply_and_one_call() {
    let watch = Watch::default();
    let app = Setup::new()
        .tuning(|tuning| tuning.failpoints = Some(watch.failpoints()))
        .start()
        .await;
    let conversation = app
        .engine
        .conversation(ConversationId::parse("c1").unwrap(), None);
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=6").hold_at(3, &gate));
    let turn = TurnId::now();
    let start = async || {
        let command = command(turn, "I am Alice");
        let started = conversation.start_turn(command, None).await.unwrap();
        (started.turn, started.reply, started.message.unwrap())
    };

    let first = start().await;
    gate.reached(1, DEADLINE).await.unwrap();
    let while_it_runs = start().await;
    gate.open();
    watch.reached(Failpoint::Committed, "c1", 2).await;
    let once_it_is_over = start().await;
    // The actor dies over another turn; the next one reads the turn from the log.
    watch.panic_at(Failpoint::Progress, "c1", 1);
    assert_eq!(app.post("/chat", say("c1", "x")).await.status(), 503);
    let after_the_actors_death = start().await;

    assert_eq!(first.0, turn);
    for again in [while_it_runs, once_it_is_over, after_the_actors_death] {
        assert_eq!(again, first);
    }
    let said = app.said("c1").await;
    assert_eq!(
        said[..2],
        [user("I am Alice"), assistant(&reply_text(0, 6))]
    );
    assert_eq!(said[2..], [user("x")]);
    let document = app.document("c1").await;
    assert_eq!(document["messages"][0]["id"], first.2.to_string());
    assert_eq!(document["messages"][1]["id"], first.1.to_string());
    let asked = |text: &str| {
        let body = |request: &std::sync::Arc<idol_simulator::Request>| request.json().unwrap();
        let last = |body: serde_json::Value| body["messages"].as_array().unwrap().last().cloned();
        let requests = app.simulator.chat_requests();
        let asked = requests.iter().map(body).filter_map(last);
        asked.filter(|it| it["content"] == text).count()
    };
    assert_eq!(asked("I am Alice"), 1);
}

#[tokio::test]
async fn no_turn_begins_once_the_server_drains_however_far_its_command_had_come() {
    let app = Setup::new().start().await;
    let gate = app.simulator.gate();
    app.simulator.set_default(Script::new().hold_headers(&gate));
    let handles: Vec<_> = (0..200)
        .map(|number| {
            let id = ConversationId::parse(&format!("c{number}")).unwrap();
            app.engine.conversation(id, None)
        })
        .collect();
    let command = || {
        let mut command = super::command(TurnId::now(), "hello");
        command.parameters.model = "any/model".into();
        command
    };
    let mut starts: Vec<_> = handles
        .iter()
        .map(|handle| Box::pin(handle.start_turn(command(), None)))
        .collect();
    // Each has passed the engine's door and asks for its conversation.
    for start in &mut starts {
        assert!(poll!(start).is_pending());
    }

    // How many conversations it finds is left to chance.
    let drained = tokio::spawn({
        let engine = app.engine.clone();
        async move { engine.drain(Duration::ZERO).await }
    });
    until("the drain to begin", async || {
        app.engine.observe().draining.then_some(())
    })
    .await;

    let mut refused = 0;
    for start in starts {
        match start.await {
            // It was taken before the drain, which cuts it.
            Ok(_) => {}
            Err(EngineError::ShuttingDown { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(refused > 0);
    within("the end of the drain", drained).await.unwrap();
    let none = app.simulator.wait_for(
        "the end of every upstream call",
        |counters| counters.active_requests == 0,
        DEADLINE,
    );
    none.await.unwrap();
}

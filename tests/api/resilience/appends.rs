//! Nothing is acknowledged before it is synced, and nothing at all by a log that gives no clear answer.

use idol_actors::shared::Failpoint;
use idol_router::application::Ended;
use idol_simulator::{Script, Simulator, reply_text};
use serde_json::json;

use super::{Commits, Watch, answered, assistant, raw, sent, user};
use crate::helpers::{DEADLINE, Events, Setup, TestApp, say, text_of, types};

/// A server whose commits and conversations are watched; its mirror is quiet.
async fn watched(commits: &Commits, watch: &Watch) -> TestApp {
    Setup::new()
        .set("MIRROR_IDLE_SECS", "3600")
        .tuning(|tuning| {
            tuning.log.before_commit = Some(commits.failpoint());
            tuning.failpoints = Some(watch.failpoints());
        })
        .start()
        .await
}

/// Waits until the upstream has said everything and the conversation has taken it.
async fn reply_taken(app: &TestApp, watch: &Watch, id: &str) {
    let sent = app.simulator.wait_for(
        "the whole reply, sent before the message was synced",
        |counters| counters.streams_completed == 1,
        DEADLINE,
    );
    sent.await.unwrap();
    watch.reached(Failpoint::Progress, id, 1).await;
    // Whatever the server had to say by now, it has said before it answers this.
    app.get("/health").await;
}

#[tokio::test]
async fn the_upstream_is_asked_while_a_message_is_synced_and_the_stream_begins_after_it() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = watched(&commits, &watch).await;
    commits.hold();

    let answer = sent(&app, "/chat/stream", say("c1", "I am Alice"));

    commits.reached().await;
    reply_taken(&app, &watch, "c1").await;

    assert!(!answer.is_finished(), "the head came before the sync");
    commits.release();
    let events = Events::of(answered(answer).await).all().await;
    assert_eq!(events[0]["type"], "conversation_start");
    assert_eq!(text_of(&events), reply_text(0, 5));
    assert_eq!(events.last().unwrap()["type"], "done");
}

#[tokio::test]
async fn the_answer_to_a_chat_waits_for_the_sync_of_the_reply() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = watched(&commits, &watch).await;
    commits.hold();
    let answer = sent(&app, "/chat", say("c1", "I am Alice"));
    commits.reached().await;
    reply_taken(&app, &watch, "c1").await;

    // The message is let through; the reply, which is there, is not.
    commits.let_one_through();
    watch.reached(Failpoint::Committed, "c1", 1).await;
    commits.reached().await;

    app.get("/health").await;
    assert!(!answer.is_finished());
    commits.release();
    assert_eq!(answered(answer).await.status(), 200);
    let said = [user("I am Alice"), assistant(&reply_text(0, 5))];
    assert_eq!(app.said("c1").await, said);
}

#[tokio::test]
async fn a_socket_hears_nothing_of_a_turn_before_its_message_is_synced() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = watched(&commits, &watch).await;
    let mut socket = app.socket().await;
    let start = json!({"type": "start_conversation", "conversation_id": "c1",
        "character_id": "nova"});
    socket.send(start).await;
    socket.until("conversation_started").await;
    commits.hold();
    socket
        .send(json!({"type": "message", "message": "I am Alice"}))
        .await;
    commits.reached().await;
    reply_taken(&app, &watch, "c1").await;

    socket.send(json!({"type": "ping"})).await;

    assert_eq!(types(&socket.until("pong").await), ["pong"]);
    commits.release();
    let messages = socket.until("response_complete").await;
    assert_eq!(
        types(&messages)[..3],
        ["message_received", "response_start", "chunk"]
    );
}

#[tokio::test]
async fn a_document_shows_only_what_is_synced() {
    let (commits, watch) = (Commits::default(), Watch::default());
    let app = watched(&commits, &watch).await;
    app.chat("c1", "first").await;
    let before = raw(&app, "c1").await;
    commits.hold();
    let answer = sent(&app, "/chat", say("c1", "second"));
    commits.reached().await;

    assert_eq!(raw(&app, "c1").await, before);

    commits.release();
    assert_eq!(answered(answer).await.status(), 200);
    assert_eq!(app.said("c1").await.len(), 4);
}

#[tokio::test]
async fn a_commit_that_fails_is_not_acknowledged_and_ends_the_server() {
    for failing in [Failing::Message, Failing::Reply, Failing::AcknowledgedLate] {
        let directory = tempfile::tempdir().unwrap();
        let commits = Commits::default();
        let setup = || {
            Setup::new()
                .data_dir(directory.path())
                .set("MIRROR_IDLE_SECS", "3600")
        };
        let app = setup()
            .tuning(|tuning| match failing {
                Failing::Message | Failing::Reply => {
                    tuning.log.before_commit = Some(commits.failpoint());
                }
                Failing::AcknowledgedLate => tuning.log.after_commit = Some(commits.failpoint()),
            })
            .start()
            .await;
        app.chat("c1", "first").await;
        let gate = app.simulator.gate();
        app.simulator.script(Script::new().hold_at(0, &gate));

        match failing {
            Failing::Message | Failing::AcknowledgedLate => {
                commits.fail_next();
                let sent = app.http.post(app.url("/chat")).json(&say("c1", "second"));
                // The connection may end before the answer is out.
                if let Ok(response) = sent.send().await {
                    assert_eq!(response.status(), 503);
                }
            }
            Failing::Reply => {
                let mut events = app.stream(say("c1", "second")).await;
                assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
                commits.fail_next();
                gate.open();
                let rest = events.all_until_cut().await;
                assert!(rest.iter().all(|event| event["type"] != "done"), "{rest:?}");
            }
        }

        let ended = app.ended().await;
        assert!(matches!(ended, Ended::LogDied(_)), "{ended:?}");
        let app = setup().start_with(Simulator::start().unwrap()).await;
        let first = [user("first"), assistant(&reply_text(0, 5))];
        let said = app.said("c1").await;
        match failing {
            Failing::Message => assert_eq!(said, first),
            Failing::Reply | Failing::AcknowledgedLate => {
                assert_eq!(said[..2], first);
                assert_eq!(said[2..], [user("second")]);
            }
        }
        // A client that tries again is answered, and its message is there once.
        app.simulator.script(Script::new().text("second reply"));
        app.chat("c1", "second").await;
        let said = app.said("c1").await;
        assert_eq!(said[2..], [user("second"), assistant("second reply")]);
    }
}

/// Which commit fails, and on which side of the disk.
#[derive(Debug, Clone, Copy)]
enum Failing {
    Message,
    Reply,
    /// It is on disk, and nobody knows.
    AcknowledgedLate,
}

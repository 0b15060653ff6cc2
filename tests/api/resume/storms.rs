//! Many clients that come back at once.

use std::collections::HashSet;

use futures::{StreamExt, stream};
use idol_simulator::{Script, Simulator};
use serde_json::json;

use super::{Picture, assert_whole, resume, resumed, streams::events, take_until_the_end};
use crate::{
    helpers::{DEADLINE, SERVICE_KEY, Setup, Socket, TestApp, say, until},
    process::Launch,
    resilience::{Commits, answered, sent},
};

/// Sockets of one process have two ends here, so this is as many as a test may open beside others.
const CLIENTS: usize = 300;

#[tokio::test]
async fn a_storm_of_clients_that_come_back_asks_neither_the_upstream_nor_the_store() {
    let remote = Simulator::start().unwrap();
    remote.require_service_key(Some(SERVICE_KEY));
    // The mirror has its say after the storm.
    let setup = Setup::new().supabase(&remote);
    let app = setup.set("MIRROR_IDLE_SECS", "3600").start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::from("tokens=9").hold_at(4, &gate));
    let _running = app.stream(say("c1", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut first = app.socket().await;
    first.send(resume("c1", &[])).await;
    let mut before = Picture::default();
    before.take(&first.next().await);
    let place = before.cursor.clone().unwrap();
    // What a start asks the store for is asked.
    until("the store to be left alone", async || {
        let before = remote.supabase_requests().len();
        tokio::task::yield_now().await;
        app.get("/ready").await;
        (before > 0 && remote.supabase_requests().len() == before).then_some(())
    })
    .await;
    let stored = remote.supabase_requests().len();

    let clients = (0..CLIENTS).map(|_| async {
        let mut socket = app.socket().await;
        socket.send(resume("c1", &[("cursor", &place)])).await;
        let mut picture = before.clone();
        picture.take(&socket.next().await);
        (socket, picture)
    });
    let mut clients = futures::future::join_all(clients).await;
    gate.open();

    for (socket, picture) in &mut clients {
        take_until_the_end(socket, picture).await;
    }
    for (_, picture) in &clients {
        assert_whole(&app, "c1", picture).await;
    }
    assert_eq!(app.simulator.chat_requests().len(), 1);
    assert_eq!(remote.supabase_requests().len(), stored);
}

#[tokio::test]
async fn all_who_come_back_while_their_conversation_is_read_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(directory.path()).start().await;
    app.chat("c1", "hi").await;
    let said = app.said("c1").await;
    app.stop().await;
    let commits = Commits::default();
    let setup = Setup::new().data_dir(directory.path());
    let app = setup
        .tuning(|tuning| tuning.log.before_commit = Some(commits.failpoint()))
        .start()
        .await;
    let clients = (0..CLIENTS).map(|_| app.socket());
    let mut clients = futures::future::join_all(clients).await;
    // What is read from the log waits for what is being written to it.
    commits.hold();
    let other = sent(&app, "/chat", say("other", "hi"));
    commits.reached().await;

    for socket in &mut clients {
        socket.send(resume("c1", &[])).await;
        socket.send(json!({"type": "ping"})).await;
    }
    // Each has been asked, and none is answered.
    for socket in &mut clients {
        assert_eq!(socket.next().await["type"], "pong");
    }
    commits.release();

    for socket in &mut clients {
        let mut picture = Picture::default();
        picture.take(&socket.next().await);
        assert_eq!(picture.said(), said);
    }
    assert_eq!(answered(other).await.status(), 200);
}

#[tokio::test]
async fn a_server_that_stops_asks_its_clients_to_come_back_at_different_times() {
    // That so many are told the same of ten seconds is no chance.
    const CLIENTS: usize = 16;
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let (mut sockets, mut sources) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        sockets.push(resumed(&app, "c1", &[]).await.0);
        let mut source = events(&app, "c1", None).await;
        source.next().await.unwrap();
        sources.push(source);
    }
    let firsts: HashSet<_> = sources.iter().map(|source| source.retry).collect();

    let stopping = tokio::spawn(app.stop());

    let (mut waits, mut retries) = (HashSet::new(), HashSet::new());
    for socket in &mut sockets {
        let going = socket.next().await;
        assert_eq!(going["type"], "going_away");
        waits.insert(going["retry_after"].as_u64().unwrap());
    }
    for source in &mut sources {
        source.retry = None;
        assert!(source.next().await.is_none());
        retries.insert(source.retry.expect("another wait at the end"));
    }
    for told in [firsts.len(), waits.len(), retries.len()] {
        assert!(told > 1, "{firsts:?} {waits:?} {retries:?}");
    }
    drop((sockets, sources));
    stopping.await.unwrap();
}

/// Clients of the storm, and the conversations that they watch.
const STORM: (usize, usize) = (5_000, 50);

/// Handshakes under way at once: the storm, as a network lets it through.
const AT_ONCE: usize = 1_000;

#[tokio::test]
async fn five_thousand_clients_that_come_back_at_once_all_go_on_at_their_byte() {
    let (clients, conversations) = STORM;
    let allowed = idol_router::open_files::raise();
    assert!(
        allowed.is_none_or(|files| files > clients as u64 + 1_000),
        "this machine allows {allowed:?} open files: raise its hard limit (ulimit -Hn)"
    );
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    let process = Launch::with(&simulator).start().await;
    let mut running = Vec::new();
    for conversation in 0..conversations {
        simulator.script(Script::from("tokens=9").hold_at(4, &gate));
        let id = format!("c{conversation}");
        running.push(process.stream(&id, "hi").await);
    }
    gate.reached(conversations as u64, DEADLINE).await.unwrap();
    let connect = async |client: usize, picture: Picture| {
        let mut picture = picture;
        let id = format!("c{}", client % conversations);
        let mut socket = Socket::connect(process.address).await;
        let place = picture.cursor.clone();
        let has: Vec<_> = place.iter().map(|place| ("cursor", place)).collect();
        socket.send(resume(&id, &has)).await;
        picture.take(&socket.next().await);
        (socket, picture)
    };
    let calm: Vec<_> = stream::iter(0..clients)
        .map(|client| connect(client, Picture::default()))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let pictures: Vec<Picture> = calm.into_iter().map(|(_socket, picture)| picture).collect();

    let back: Vec<_> = stream::iter(pictures.into_iter().enumerate())
        .map(|(client, picture)| connect(client, picture))
        .buffered(AT_ONCE)
        .collect()
        .await;
    gate.open();

    let wholes: Vec<_> = stream::iter(back)
        .map(|(mut socket, mut picture)| async move {
            take_until_the_end(&mut socket, &mut picture).await;
            picture.said()
        })
        .buffered(clients)
        .collect()
        .await;
    let mut documents = Vec::new();
    for conversation in 0..conversations {
        documents.push(process.said(&format!("c{conversation}")).await);
    }
    for (client, whole) in wholes.iter().enumerate() {
        assert_eq!(*whole, documents[client % conversations], "client {client}");
    }
    assert_eq!(simulator.chat_requests().len(), conversations);
}

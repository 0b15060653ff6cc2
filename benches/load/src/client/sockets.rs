//! Sockets that are open and quiet.

use std::{io, net::SocketAddr};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    AT_ONCE, Greeting,
    peer::Peer,
    say,
    websocket::{Socket, source},
};
use crate::error::LoadError;

/// Opens sockets that each say one thing.
async fn open(
    address: SocketAddr,
    sockets: usize,
    greeting: Greeting,
) -> Result<Vec<Socket>, LoadError> {
    stream::iter(0..sockets)
        .map(|number| async move {
            let mut socket = Socket::open(&Peer::from(address).through(source(number))).await?;
            let started = json!({"type": "start_conversation", "character_id": "load",
                "conversation_id": format!("idle-{number}")});
            socket.send(started.to_string()).await?;
            let answer = socket.next().await?;
            let expected = match greeting {
                Greeting::Conversation => "\"conversation_started\"",
                Greeting::Echo => "\"start_conversation\"",
            };
            match memchr::memmem::find(&answer, expected.as_bytes()) {
                Some(_) => Ok(socket),
                None => Err(LoadError::Protocol(
                    String::from_utf8_lossy(&answer).into_owned(),
                )),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Holds sockets open until a line comes on the input, then closes them.
pub(super) async fn hold(
    address: SocketAddr,
    sockets: usize,
    greeting: Greeting,
) -> Result<(), LoadError> {
    let mut open = open(address, sockets, greeting).await?;
    say("ready")?;
    let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
    // Each is polled only when something comes for it.
    let mut quiet: stream::FuturesUnordered<_> = open.iter_mut().map(Socket::idle).collect();
    tokio::select! {
        read = line => {
            let read = read.map_err(io::Error::other).flatten();
            read.map(drop).map_err(LoadError::io("stdin"))?;
        }
        lost = quiet.next() => {
            let lost = lost.map_or(Ok(()), |lost| lost);
            return Err(lost.err().unwrap_or_else(|| LoadError::Ended("a socket".to_owned())));
        }
    };
    drop(quiet);
    for socket in open {
        socket.close().await?;
    }
    say("closed")
}

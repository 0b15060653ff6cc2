//! One conversation that many watch: how long until all have a token that the first has.

use std::{collections::HashMap, net::SocketAddr};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    AT_ONCE,
    peer::Peer,
    reply::{Known, Reply},
    turn,
    websocket::{Socket, source},
};
use crate::{error::LoadError, model::Model, stats::Spread};

const CONVERSATION: &str = "watched-by-many";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) tokens: usize,
    /// Milliseconds between the first and the last watcher that get a token.
    pub(crate) spread: Spread,
    /// Milliseconds from the upstream's write of a token to the last watcher.
    pub(crate) last: Spread,
}

pub(super) async fn run(
    address: SocketAddr,
    watchers: usize,
    model: &str,
) -> Result<Watched, LoadError> {
    let tokens = model.parse::<Model>()?.tokens;
    let watching: Vec<Socket> = stream::iter(0..watchers)
        .map(|number| async move {
            let mut socket = Socket::open(&Peer::from(address).through(source(number))).await?;
            let start = json!({"type": "start_conversation", "character_id": "load",
                "conversation_id": CONVERSATION, "watch": true});
            socket.send(start.to_string()).await?;
            socket.next().await?;
            Ok::<_, LoadError>(socket)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let mut sender = Socket::open(&address.into()).await?;
    let message = json!({"type": "message", "message": "Tell us a story.", "model": model,
        "character_id": "load", "conversation_id": CONVERSATION});
    sender.send(message.to_string()).await?;
    let watches = watching
        .into_iter()
        .chain([sender])
        .map(|mut socket| async move {
            let mut reply = Reply::new(Known::Stamps(tokens));
            turn::socket_reply(&mut socket, &mut reply).await?;
            reply.end()
        });
    let seen = futures::future::try_join_all(watches).await?;
    // Each token is known by the time at which it was sent.
    let mut by_token: HashMap<u64, (u64, u64)> = HashMap::new();
    for token in seen.into_iter().flatten() {
        let (first, last) = by_token
            .entry(token.sent)
            .or_insert((token.came, token.came));
        *first = token.came.min(*first);
        *last = token.came.max(*last);
    }
    if by_token.len() != tokens as usize {
        return Err(LoadError::WrongReply(
            "the watchers saw other tokens".to_owned(),
        ));
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a short run")]
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let spread = by_token.values().map(|(first, last)| millis(last - first));
    let last = by_token.iter().map(|(sent, (_, last))| millis(last - sent));
    Ok(Watched {
        tokens: by_token.len(),
        spread: Spread::of(spread.collect()),
        last: Spread::of(last.collect()),
    })
}

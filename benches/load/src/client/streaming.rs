//! Many slow replies at once: does every token come, and how late is it.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{
    AT_ONCE,
    peer::Peer,
    reply::Known,
    stamps::Seen,
    turn::{Ask, Client, Taken},
    websocket::source,
};
use crate::{clock, error::LoadError, model::Model, stats::Spread};

/// What came of all replies.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    pub(crate) tokens: usize,
    /// Milliseconds from the upstream's write of a token to its arrival.
    pub(crate) delay: Spread,
    /// The same of the tokens that were sent when all replies had begun.
    pub(crate) settled: Spread,
    /// Pieces that the tokens came in.
    pub(crate) deltas: u64,
}

pub(super) async fn run(
    address: SocketAddr,
    ask: Ask,
    clients: usize,
    name: &str,
    ramp: Duration,
) -> Result<Streamed, LoadError> {
    let model: Model = name.parse()?;
    let connected: Vec<Client> = stream::iter(0..clients)
        .map(|number| async move {
            let peer = Peer::from(address).through(source(number));
            Client::connect(&peer, ask).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let apart = ramp / u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
    let all_begun = clock::nanos() + u64::try_from(ramp.as_nanos()).unwrap_or(u64::MAX);
    let turns = connected
        .into_iter()
        .zip(0_u32..)
        .map(|(mut client, number)| async move {
            tokio::time::sleep(apart * number).await;
            let conversation = format!("streaming-{number}");
            let known = Known::Stamps(model.tokens);
            client.turn(Some(name), Some(&conversation), known).await
        });
    let taken: Vec<Taken> = futures::future::try_join_all(turns).await?;
    let deltas = taken.iter().map(|turn| turn.deltas).sum();
    let seen: Vec<Seen> = taken.into_iter().flat_map(|turn| turn.seen).collect();
    let late = |it: &Seen| Duration::from_nanos(it.came - it.sent).as_secs_f64() * 1000.0;
    let settled = seen.iter().filter(|it| it.sent > all_begun);
    let settled = Spread::of(settled.map(late).collect());
    let delay = Spread::of(seen.iter().map(late).collect());
    Ok(Streamed {
        tokens: delay.count,
        delay,
        settled,
        deltas,
    })
}

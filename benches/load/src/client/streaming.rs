//! Many slow replies at once: does every token come, and how late is it.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{
    AT_ONCE,
    reply::Known,
    turn::{Ask, Client, Taken},
    websocket::source,
};
use crate::{error::LoadError, model::Model, stats::Spread};

/// What came of all replies.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    pub(crate) tokens: usize,
    /// Milliseconds from the upstream's write of a token to its arrival.
    pub(crate) delay: Spread,
    /// Pieces that the tokens came in.
    pub(crate) deltas: u64,
}

pub(super) async fn run(
    address: SocketAddr,
    ask: Ask,
    clients: usize,
    name: &str,
) -> Result<Streamed, LoadError> {
    let model: Model = name.parse()?;
    let connected: Vec<Client> = stream::iter(0..clients)
        .map(|number| Client::connect(address, source(number), ask, ""))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    // Spread over the gap between two tokens, as users would be.
    let apart = model.gap() / u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
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
    let seen = taken.into_iter().flat_map(|turn| turn.seen);
    let delay = seen.map(|it| Duration::from_nanos(it.came - it.sent).as_secs_f64() * 1000.0);
    let delay = Spread::of(delay.collect());
    Ok(Streamed {
        tokens: delay.count,
        delay,
        deltas,
    })
}

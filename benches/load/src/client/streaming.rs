//! Many slow replies at once: does every token come, and how late is it.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Greeting, field::Field, sockets, websocket::Socket};
use crate::{clock, error::LoadError, model::Model, stats::Spread};

/// What came of all replies.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    pub(crate) tokens: usize,
    /// Milliseconds from the upstream's write of a token to its arrival.
    pub(crate) delay: Spread,
    /// Pieces that the tokens came in.
    pub(crate) chunks: usize,
}

/// Tokens that say when they were sent, as they arrive in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    pending: String,
}

impl Stamps {
    /// The times in a piece.
    pub(super) fn take(&mut self, text: &str) -> Result<Vec<u64>, LoadError> {
        self.pending.push_str(text);
        let Some(end) = self.pending.rfind(' ') else {
            return Ok(Vec::new());
        };
        let stamps = self.pending[..end].split(' ').map(|stamp| {
            let wrong = |_| LoadError::WrongReply(format!("{stamp:?} is no time"));
            stamp.parse().map_err(wrong)
        });
        let stamps = stamps.collect::<Result<_, _>>()?;
        self.pending.drain(..=end);
        Ok(stamps)
    }

    /// All of it was taken.
    pub(super) fn end(&self) -> Result<(), LoadError> {
        match &*self.pending {
            "" => Ok(()),
            rest => Err(LoadError::WrongReply(format!("{rest:?} is left"))),
        }
    }
}

pub(super) async fn run(
    address: SocketAddr,
    count: usize,
    model: &str,
) -> Result<Streamed, LoadError> {
    let asked: Model = model.parse()?;
    let open = sockets::open(address, count, Greeting::Conversation).await?;
    // Spread over the gap between two tokens, as users would be.
    let apart = asked.gap() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let replies: Vec<_> = stream::iter(open.into_iter().zip(0_u32..))
        .map(|(socket, number)| one(socket, model, asked.tokens, apart * number))
        .buffer_unordered(count.max(1))
        .try_collect()
        .await?;
    let chunks = replies.iter().map(|reply| reply.1).sum();
    let delays: Vec<f64> = replies.into_iter().flat_map(|reply| reply.0).collect();
    Ok(Streamed {
        tokens: delays.len(),
        delay: Spread::of(delays),
        chunks,
    })
}

/// The delay of each token of one reply, and its pieces.
async fn one(
    mut socket: Socket,
    model: &str,
    tokens: u32,
    after: Duration,
) -> Result<(Vec<f64>, usize), LoadError> {
    tokio::time::sleep(after).await;
    let message = json!({"type": "message", "message": "Tell me a long story.", "model": model});
    socket.send(message.to_string()).await?;
    let (kind, content) = (Field::new("type"), Field::new("content"));
    let (mut stamps, mut delays, mut chunks) = (Stamps::default(), Vec::new(), 0);
    let mut last = 0;
    loop {
        let event = socket.next().await?;
        let now = clock::nanos();
        match kind.get(&event)?.as_deref() {
            Some("chunk") => {
                chunks += 1;
                for sent in stamps.take(&content.get(&event)?.unwrap_or_default())? {
                    if sent < last || sent > now {
                        return Err(LoadError::WrongReply(format!("{sent} behind {last}")));
                    }
                    last = sent;
                    delays.push(Duration::from_nanos(now - sent).as_secs_f64() * 1000.0);
                }
            }
            Some("response_complete") => break,
            Some("error") => {
                let event = String::from_utf8_lossy(&event).into_owned();
                return Err(LoadError::TurnFailed(event));
            }
            _ => {}
        }
    }
    stamps.end()?;
    if delays.len() != tokens as usize {
        let came = delays.len();
        return Err(LoadError::WrongReply(format!("{came} of {tokens} tokens")));
    }
    Ok((delays, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_they_are_cut() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.take("12 3").unwrap(), [12]);
        assert_eq!(stamps.take("4").unwrap(), []);
        assert_eq!(stamps.take("5 6 ").unwrap(), [345, 6]);
        stamps.end().unwrap();
        assert!(stamps.take("x ").is_err());
        let mut cut = Stamps::default();
        assert_eq!(cut.take("7").unwrap(), []);
        assert!(cut.end().is_err());
    }
}

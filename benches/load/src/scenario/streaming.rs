//! Many sockets with a slow reply each, all at once.

use crate::{
    bench::Bench,
    client::{Job, Streamed},
    error::LoadError,
    figure::{Figure, Target},
    model::{Model, Words},
};

/// Milliseconds between two tokens of a reply: 20 a second.
const GAP: u64 = 50;

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let upstream = bench.upstream().await?;
    let ours = bench.server(&upstream, &[]).await?;
    let model = Model {
        tokens: bench.scale.streaming_tokens,
        first: 100,
        gap: GAP,
        batch: 1,
        words: Words::Stamps,
    };
    let before = ours.service.process.cpu()?;
    let came: Streamed = bench
        .run(&Job::Streaming {
            address: ours.address(),
            sockets: bench.scale.streaming_sockets,
            model: model.to_string(),
        })
        .await?;
    let cpu = ours.service.process.cpu()? - before;
    ours.end().await?;
    let due = bench.scale.streaming_sockets * bench.scale.streaming_tokens as usize;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let (tokens, due, chunks) = (came.tokens as f64, due as f64, came.chunks as f64);
    Ok(vec![
        Figure::new(name, "tokens lost", "", due - tokens).aimed(Target::AtMost(0.0)),
        Figure::new(name, "delay of a token p50", "ms", came.delay.p50),
        Figure::new(name, "delay of a token p99", "ms", came.delay.p99)
            .aimed(Target::AtMost(100.0)),
        Figure::new(name, "delay of a token, most", "ms", came.delay.most),
        Figure::new(name, "CPU per 1,000 tokens", "s", cpu * 1000.0 / tokens),
        Figure::new(name, "tokens in a chunk", "", tokens / chunks),
    ])
}

//! Many sockets with a slow reply each, all at once.

use crate::{
    bench::Bench,
    client::{Ask, Job, Streamed},
    error::LoadError,
    figure::{Figure, Target},
    model::{Model, Words},
    process::Service,
};

/// Milliseconds between two tokens of a reply: 20 a second.
const GAP: u64 = 50;

/// One way's tokens, and the CPU that they took of its process.
struct Way {
    came: Streamed,
    cpu_per_thousand: f64,
}

async fn measure(
    bench: &Bench,
    ask: Ask,
    service: &Service,
    model: Model,
) -> Result<Way, LoadError> {
    let before = service.process.cpu()?;
    let came: Streamed = bench
        .run(&Job::Streaming {
            address: service.address,
            ask,
            clients: bench.scale.streaming_sockets,
            model: model.to_string(),
            ramp: bench.scale.streaming_ramp,
        })
        .await?;
    let used = service.process.cpu()? - before;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let cpu_per_thousand = used * 1000.0 / came.tokens.max(1) as f64;
    Ok(Way {
        came,
        cpu_per_thousand,
    })
}

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let upstream = bench.upstream().await?;
    let model = Model {
        tokens: bench.scale.streaming_tokens,
        first: 100,
        gap: GAP,
        batch: 1,
        words: Words::Stamps,
    };
    // Beside ours: how late tokens are on this machine where nobody looks at them.
    let direct = measure(bench, Ask::Completions, &upstream, model).await?;
    let pass = bench.pass_through(&upstream).await?;
    let passed = measure(bench, Ask::Completions, &pass, model).await?;
    pass.process.end().await?;
    let server = bench.server(&upstream, &[]).await?;
    let ours = measure(bench, Ask::WebSocket, &server.service, model).await?;
    server.end().await?;
    let figure = |what: &str, unit: &str, reading: fn(&Way) -> f64| {
        Figure::new(name, what, unit, reading(&ours))
            .beside(reading(&passed))
            .and_direct(reading(&direct))
    };
    let due = bench.scale.streaming_sockets * bench.scale.streaming_tokens as usize;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let lost = due as f64 - ours.came.tokens as f64;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let joined = |way: &Way| way.came.tokens as f64 / way.came.deltas.max(1) as f64;
    Ok(vec![
        Figure::new(name, "tokens lost", "", lost).aimed(Target::AtMost(0.0)),
        figure("delay of a token p50", "ms", |way| way.came.delay.p50),
        figure("delay of a token p99", "ms", |way| way.came.delay.p99).aimed(Target::AtMost(100.0)),
        figure("delay p99 once all have begun", "ms", |way| {
            way.came.settled.p99
        }),
        figure("delay of a token, most", "ms", |way| way.came.delay.most),
        figure("CPU per 1,000 tokens", "s", |way| way.cpu_per_thousand),
        Figure::new(name, "tokens in a piece", "", joined(&ours)).beside(joined(&passed)),
    ])
}

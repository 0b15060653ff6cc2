//! One conversation, many watchers.

use crate::{
    bench::Bench,
    client::{Job, Watched},
    error::LoadError,
    figure::{Figure, Target},
    model::{Model, Words},
};

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let upstream = bench.upstream().await?;
    let ours = bench.server(&upstream, &[]).await?;
    let model = Model {
        tokens: bench.scale.fan_out_tokens,
        first: 200,
        gap: 100,
        batch: 1,
        words: Words::Stamps,
    };
    let before = ours.service.process.cpu()?;
    let seen: Watched = bench
        .run(&Job::FanOut {
            address: ours.address(),
            watchers: bench.scale.watchers,
            model: model.to_string(),
        })
        .await?;
    let cpu = ours.service.process.cpu()? - before;
    ours.end().await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let told = (seen.tokens * bench.scale.watchers) as f64;
    Ok(vec![
        Figure::new(name, "first to last watcher p50", "ms", seen.spread.p50)
            .aimed(Target::AtMost(25.0)),
        Figure::new(name, "first to last watcher p99", "ms", seen.spread.p99),
        Figure::new(name, "upstream to last watcher p50", "ms", seen.last.p50),
        Figure::new(
            name,
            "CPU per 1,000 told, openings included",
            "s",
            cpu * 1000.0 / told,
        ),
    ])
}

//! What a turn costs behind a short and behind a long history, where both prompts hold the same
//! window.

use super::documents;
use crate::{
    bench::{Bench, Server},
    client::{Ask, Bound, Conversations, Expect, Job, Turns, TurnsJob},
    error::LoadError,
    figure::{Figure, Target},
    model::Model,
    stats::{Ratio, median},
};

const SHORT: usize = 10;
const LONG: usize = 10_000;

#[derive(Default)]
struct Costs {
    cpu_ms: Vec<f64>,
    disk_bytes: Vec<f64>,
}

async fn turns(bench: &Bench, server: &Server, prefix: &str, count: u64) -> Result<f64, LoadError> {
    let model = Model {
        tokens: 32,
        ..Model::default()
    };
    let done: Turns = bench
        .run(&Job::Turns(TurnsJob {
            peer: server.address().into(),
            ask: Ask::Chat,
            clients: bench.scale.histories,
            model: Some(model.to_string()),
            bound: Bound::Count(count),
            conversations: Conversations::Named(prefix.to_owned()),
            expect: Expect::ModelText,
        }))
        .await?;
    match done.first_failure {
        Some(failure) => Err(LoadError::TurnFailed(failure)),
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        None => Ok(done.all as f64),
    }
}

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let documents = bench.directory()?;
    for number in 0..bench.scale.histories {
        documents::write(documents.path(), &format!("short-{number}"), SHORT)?;
        documents::write(documents.path(), &format!("long-{number}"), LONG)?;
    }
    let data = bench.directory()?;
    bench.import(data.path(), documents.path()).await?;
    let upstream = bench.upstream().await?;
    // The reply's 1,000 tokens and a window of some ten messages.
    let settings = [("DEFAULT_CONTEXT_TOKENS", "1600")];
    let server = bench.server_in(data, &upstream, &settings).await?;
    let mut costs = [Costs::default(), Costs::default()];
    for prefix in ["short-", "long-"] {
        turns(bench, &server, prefix, 2).await?;
    }
    let process = &server.service.process;
    for round in 0..bench.scale.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (cpu, disk) = (process.cpu()?, process.written()?);
            let prefix = ["short-", "long-"][which];
            let done = turns(bench, &server, prefix, bench.scale.history_turns).await?;
            costs[which]
                .cpu_ms
                .push((process.cpu()? - cpu) * 1000.0 / done);
            costs[which]
                .disk_bytes
                .push((process.written()? - disk) / done);
        }
    }
    server.end().await?;
    let [short, long] = costs;
    let figure = |what: &str, unit: &str, short: &[f64], long: &[f64]| {
        Figure::new(name, what, unit, median(long.iter().copied()))
            .beside(median(short.iter().copied()))
            .ratio(
                "x 10 messages",
                Ratio::of(long, short),
                Some(Target::AtMost(1.3)),
            )
    };
    Ok(vec![
        figure(
            "CPU of a turn behind 10,000 (beside: 10)",
            "ms",
            &short.cpu_ms,
            &long.cpu_ms,
        ),
        figure(
            "disk writes of a turn behind 10,000 (beside: 10)",
            "bytes",
            &short.disk_bytes,
            &long.disk_bytes,
        ),
    ])
}

//! Whole replies: `POST /chat` beside the same completion through the pass-through.

use super::grid::{CPU, Grid, Lane, PER_SECOND, WHOLE_P50};
use crate::{
    bench::Bench,
    client::Ask,
    error::LoadError,
    figure::{Figure, Target},
    model::Model,
};

const CLIENTS: usize = 32;

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let upstream = bench.upstream().await?;
    let pass = bench.pass_through(&upstream).await?;
    let ours = bench.server(&upstream, &[]).await?;
    let lane = |ask, service| Lane { ask, service };
    // The server streams from its upstream whatever its client asks for.
    let lanes = [
        lane(Ask::WholeCompletion, &upstream),
        lane(Ask::WholeCompletion, &pass),
        lane(Ask::Chat, &ours.service),
    ];
    let grid = Grid::measure(bench, &lanes, CLIENTS, Model::default()).await?;
    ours.end().await?;
    let figure = |what: &str, unit: &str, reading| {
        Figure::new(name, what, unit, grid.median(2, reading))
            .beside(grid.median(1, reading))
            .and_direct(grid.median(0, reading))
    };
    let ratio = |reading| grid.ratio(2, 1, reading);
    Ok(vec![
        figure("replies", "/s", PER_SECOND).ratio(
            "x pass-through",
            ratio(PER_SECOND),
            Some(Target::AtLeast(0.6)),
        ),
        figure("CPU per 1,000", "s", CPU).ratio("x pass-through", ratio(CPU), None),
        figure("whole reply p50", "ms", WHOLE_P50),
        grid.failures(name),
    ])
}

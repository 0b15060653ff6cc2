//! Streamed replies: the server over SSE and over WebSocket, the pass-through, the upstream itself.

use super::grid::{CPU, DELTAS, FIRST_P50, FIRST_P99, Grid, Lane, PER_SECOND};
use crate::{
    bench::Bench,
    client::Ask,
    error::LoadError,
    figure::{Figure, Target},
    model::Model,
};

const DIRECT: usize = 0;
const PASS: usize = 1;
const SSE: usize = 2;
const SOCKET: usize = 3;

/// What is the same within the noise of such a run.
const NOISE: f64 = 0.05;

/// A load without pauses, and what is aimed at beside the pass-through.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) clients: usize,
    pub(super) model: Model,
    pub(super) streams_least: f64,
    pub(super) cpu_most: f64,
}

async fn measure(bench: &Bench, clients: usize, model: Model) -> Result<Grid, LoadError> {
    let upstream = bench.upstream().await?;
    let pass = bench.pass_through(&upstream).await?;
    let ours = bench.server(&upstream, &[]).await?;
    let lane = |ask, service| Lane { ask, service };
    let lanes = [
        lane(Ask::Completions, &upstream),
        lane(Ask::Completions, &pass),
        lane(Ask::ChatStream, &ours.service),
        lane(Ask::WebSocket, &ours.service),
    ];
    let grid = Grid::measure(bench, &lanes, clients, model).await?;
    ours.end().await?;
    Ok(grid)
}

/// As many replies as there can be.
pub(super) async fn saturated(
    bench: &Bench,
    name: &str,
    shape: Shape,
) -> Result<Vec<Figure>, LoadError> {
    let grid = measure(bench, shape.clients, shape.model).await?;
    let figure = |what: &str, unit: &str, lane, reading| {
        Figure::new(name, what, unit, grid.median(lane, reading))
            .beside(grid.median(PASS, reading))
            .and_direct(grid.median(DIRECT, reading))
    };
    let least = Some(Target::AtLeast(shape.streams_least));
    let most = Some(Target::AtMost(shape.cpu_most));
    Ok(vec![
        figure("SSE streams", "/s", SSE, PER_SECOND).ratio(
            "x pass-through",
            grid.ratio(SSE, PASS, PER_SECOND),
            least,
        ),
        figure("SSE CPU per 1,000", "s", SSE, CPU).ratio(
            "x pass-through",
            grid.ratio(SSE, PASS, CPU),
            most,
        ),
        figure("SSE first token p50", "ms", SSE, FIRST_P50),
        figure("SSE first token p99", "ms", SSE, FIRST_P99),
        figure("SSE pieces of a reply", "", SSE, DELTAS),
        figure("WebSocket turns", "/s", SOCKET, PER_SECOND).ratio(
            "x SSE",
            grid.ratio(SOCKET, SSE, PER_SECOND),
            Some(Target::AtLeast(1.0 - NOISE)),
        ),
        figure("WebSocket turns to pass-through", "/s", SOCKET, PER_SECOND).ratio(
            "x pass-through",
            grid.ratio(SOCKET, PASS, PER_SECOND),
            None,
        ),
        figure("WebSocket CPU per 1,000", "s", SOCKET, CPU).ratio(
            "x SSE",
            grid.ratio(SOCKET, SSE, CPU),
            Some(Target::AtMost(1.0 + NOISE)),
        ),
        figure("WebSocket pieces of a reply", "", SOCKET, DELTAS),
        grid.failures(name),
    ])
}

/// Replies at the pace of a model, with the machine mostly at rest.
pub(super) async fn gentle(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    const CLIENTS: usize = 50;
    let model = Model {
        tokens: 32,
        first: 50,
        gap: 10,
        ..Model::default()
    };
    let grid = measure(bench, CLIENTS, model).await?;
    let figure = |what: &str, unit: &str, lane, reading| {
        Figure::new(name, what, unit, grid.median(lane, reading))
            .beside(grid.median(PASS, reading))
            .and_direct(grid.median(DIRECT, reading))
    };
    let mut figures = Vec::new();
    for (way, lane) in [("SSE", SSE), ("WebSocket", SOCKET)] {
        for (part, reading, most) in [("p50", FIRST_P50, 1.0), ("p99", FIRST_P99, 5.0)] {
            let what = format!("{way} first token {part}");
            let over = grid.over(lane, DIRECT, reading);
            let target = Some(Target::AtMost(most));
            figures.push(figure(&what, "ms", lane, reading).compared(
                over,
                "ms over direct",
                target,
            ));
        }
    }
    figures.push(figure("SSE CPU per 1,000", "s", SSE, CPU).ratio(
        "x pass-through",
        grid.ratio(SSE, PASS, CPU),
        Some(Target::AtMost(1.5)),
    ));
    figures.push(figure("WebSocket CPU per 1,000", "s", SOCKET, CPU).ratio(
        "x SSE",
        grid.ratio(SOCKET, SSE, CPU),
        Some(Target::AtMost(1.0 + NOISE)),
    ));
    figures.push(figure("SSE streams", "/s", SSE, PER_SECOND));
    figures.push(grid.failures(name));
    Ok(figures)
}

//! Measures several ways to the same reply in turns, and compares them within each round.

use std::time::Duration;

use crate::{
    bench::Bench,
    client::{Ask, Bound, Conversations, Expect, Job, Turns, TurnsJob},
    error::LoadError,
    figure::{Figure, Target},
    model::Model,
    process::Service,
    stats::{Ratio, median},
};

/// One way to a reply.
pub(super) struct Lane<'a> {
    pub(super) ask: Ask,
    /// Whom it asks, and whose CPU it is.
    pub(super) service: &'a Service,
}

/// One lane in one round.
pub(super) struct Window {
    turns: Turns,
    cpu_per_thousand: f64,
}

/// All windows of a scenario: a list of rounds for each lane.
pub(super) struct Grid(Vec<Vec<Window>>);

/// Reads one figure of a window.
pub(super) type Reading = fn(&Window) -> f64;

pub(super) const PER_SECOND: Reading = |window| window.turns.per_second;
pub(super) const CPU: Reading = |window| window.cpu_per_thousand;
pub(super) const FIRST_P50: Reading = |window| window.turns.first_token.p50;
pub(super) const FIRST_P99: Reading = |window| window.turns.first_token.p99;
pub(super) const WHOLE_P50: Reading = |window| window.turns.whole.p50;
pub(super) const DELTAS: Reading = |window| window.turns.deltas;

impl Grid {
    /// Goes through the lanes A B C, then C B A, and so on.
    pub(super) async fn measure(
        bench: &Bench,
        lanes: &[Lane<'_>],
        clients: usize,
        model: Model,
    ) -> Result<Self, LoadError> {
        let mut grid: Vec<Vec<Window>> = lanes.iter().map(|_| Vec::new()).collect();
        for round in 0..bench.scale.rounds {
            let mut order: Vec<usize> = (0..lanes.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for lane in order {
                grid[lane].push(window(bench, &lanes[lane], clients, model).await?);
            }
        }
        Ok(Self(grid))
    }

    pub(super) fn rounds(&self, lane: usize, reading: Reading) -> Vec<f64> {
        self.0[lane].iter().map(reading).collect()
    }

    pub(super) fn median(&self, lane: usize, reading: Reading) -> f64 {
        median(self.rounds(lane, reading))
    }

    pub(super) fn ratio(&self, lane: usize, base: usize, reading: Reading) -> Option<Ratio> {
        Ratio::of(&self.rounds(lane, reading), &self.rounds(base, reading))
    }

    /// By how much a lane is above another, over rounds.
    pub(super) fn over(&self, lane: usize, base: usize, reading: Reading) -> Ratio {
        let pairs = self
            .rounds(lane, reading)
            .into_iter()
            .zip(self.rounds(base, reading));
        let over: Vec<f64> = pairs.map(|(value, base)| value - base).collect();
        Ratio {
            median: median(over.iter().copied()),
            least: over.iter().copied().fold(f64::INFINITY, f64::min),
            most: over.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Turns that failed, in all lanes: a figure that must be none.
    pub(super) fn failures(&self, scenario: &str) -> Figure {
        let windows = || self.0.iter().flatten();
        for failure in windows().filter_map(|window| window.turns.first_failure.as_ref()) {
            eprintln!("{scenario}: a turn failed: {failure}");
        }
        let failed: u64 = windows().map(|window| window.turns.failed).sum();
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        Figure::new(scenario, "turns that failed", "", failed as f64).aimed(Target::AtMost(0.0))
    }
}

async fn window(
    bench: &Bench,
    lane: &Lane<'_>,
    clients: usize,
    model: Model,
) -> Result<Window, LoadError> {
    /// Lets what the window before left behind come to its end.
    const SETTLE: Duration = Duration::from_millis(100);
    tokio::time::sleep(SETTLE).await;
    let job = Job::Turns(TurnsJob {
        peer: lane.service.address.into(),
        ask: lane.ask,
        clients,
        model: Some(model.to_string()),
        bound: Bound::Seconds {
            warm_up: bench.scale.warm_up,
            window: bench.scale.window,
        },
        conversations: match bench.scale.turns {
            0 | 1 => Conversations::Fresh,
            turns => Conversations::Lasting(turns),
        },
        expect: Expect::ModelText,
    });
    let before = lane.service.process.cpu()?;
    let turns: Turns = bench.run(&job).await?;
    let used = lane.service.process.cpu()? - before;
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
    let cpu_per_thousand = used * 1000.0 / turns.all.max(1) as f64;
    Ok(Window {
        turns,
        cpu_per_thousand,
    })
}

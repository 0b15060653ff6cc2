//! How soon a server with a large log is ready.

use std::time::{Duration, Instant};

use crate::{
    bench::Bench,
    client,
    error::{LoadError, within},
    figure::{Figure, Target},
    stats::{Ratio, Spread},
};

const STARTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let upstream = bench.upstream().await?;
    let mut data = bench.directory()?;
    bench
        .fill_log(data.path(), bench.scale.cold_conversations)
        .await?;
    let mut seconds = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let server = bench.server_in(data, &upstream, &[]).await?;
        within("a start", DEADLINE, async {
            while client::get(server.address(), "/ready").await?.0 != 200 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        })
        .await?;
        seconds.push(start.elapsed().as_secs_f64());
        data = server.end().await?;
    }
    let spread = Spread::of(seconds.clone());
    let over = Ratio {
        median: spread.p50,
        least: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        most: spread.most,
    };
    let conversations = bench.scale.cold_conversations;
    let what = format!("until /ready is 200, {conversations} conversations");
    Ok(vec![Figure::new(name, &what, "s", spread.p50).compared(
        over,
        "s",
        Some(Target::AtMost(1.0)),
    )])
}

//! The log alone, with 64 writers that each wait for the disk.

use crate::{
    bench::Bench,
    error::LoadError,
    figure::{Figure, Target},
    roles::log::Appended,
};

const WRITERS: usize = 64;

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let directory = bench.directory()?;
    let data = directory.path().join("data");
    let appended: Appended = bench.append_log(&data, WRITERS)?.outcome().await?;
    Ok(vec![
        Figure::new(name, "appends of 64 writers", "/s", appended.per_second)
            .aimed(Target::AtLeast(20_000.0)),
        Figure::new(name, "append p50", "ms", appended.latency.p50),
        Figure::new(name, "append p99", "ms", appended.latency.p99).aimed(Target::AtMost(20.0)),
    ])
}

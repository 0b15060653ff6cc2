//! Quiet sockets: memory and CPU of each, beside a bare echo in the same run.

use std::{net::SocketAddr, time::Duration};

use crate::{
    bench::Bench,
    client::{Greeting, Job},
    error::LoadError,
    figure::{Figure, Target},
    process::Process,
};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

struct Quiet {
    kib_per_socket: f64,
    /// Percent of a core while nothing is said.
    cpu: f64,
    /// MiB more than before the first socket, soon after the last was closed.
    kept: f64,
}

/// Lets buffers and timers of what just happened settle.
const SETTLE: Duration = Duration::from_secs(2);

async fn watch(
    bench: &Bench,
    process: &Process,
    address: SocketAddr,
    greeting: Greeting,
) -> Result<(Quiet, f64), LoadError> {
    let before = process.resident()?;
    let sockets = bench.scale.idle_sockets;
    let mut client = bench.client(&Job::Idle {
        address,
        sockets,
        greeting,
    })?;
    client.ready().await?;
    tokio::time::sleep(SETTLE).await;
    #[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
    let kib_per_socket = (process.resident()? - before) / KIB / sockets as f64;
    let cpu = process.cpu()?;
    let watched = Duration::from_secs(bench.scale.idle_seconds);
    tokio::time::sleep(watched).await;
    let cpu = (process.cpu()? - cpu) / watched.as_secs_f64() * 100.0;
    client.release().await?;
    tokio::time::sleep(SETTLE).await;
    let kept = (process.resident()? - before) / MIB;
    let quiet = Quiet {
        kib_per_socket,
        cpu,
        kept,
    };
    Ok((quiet, before))
}

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    let echo = bench.echo().await?;
    let (bare, _) = watch(bench, &echo.process, echo.address, Greeting::Echo).await?;
    echo.process.end().await?;
    let upstream = bench.upstream().await?;
    let seconds = bench.scale.conversation_idle_seconds;
    let settings = [("CONVERSATION_IDLE_SECS", &*seconds.to_string())];
    let ours = bench.server(&upstream, &settings).await?;
    let process = &ours.service.process;
    let (full, before) = watch(bench, process, ours.address(), Greeting::Conversation).await?;
    // The conversations themselves leave memory later than their sockets.
    tokio::time::sleep(Duration::from_secs(seconds + seconds / 4 + 3)).await;
    let left = (process.resident()? - before) / MIB;
    ours.end().await?;
    Ok(vec![
        Figure::new(name, "memory of a socket", "KiB", full.kib_per_socket)
            .beside(bare.kib_per_socket)
            .judged(
                full.kib_per_socket - bare.kib_per_socket,
                "KiB over echo",
                Target::AtMost(4.0),
            ),
        Figure::new(name, "CPU while idle", "% of a core", full.cpu)
            .beside(bare.cpu)
            .aimed(Target::AtMost(2.0)),
        Figure::new(name, "memory kept once closed", "MiB", full.kept).beside(bare.kept),
        Figure::new(name, "memory kept, conversations idle", "MiB", left)
            .aimed(Target::AtMost(20.0)),
    ])
}

//! Memory of conversations that were read, beside the size of their documents.

use std::time::Duration;

use super::documents;
use crate::{
    bench::Bench,
    client::{self, Job, Visited},
    error::LoadError,
    figure::{Figure, Target},
    process::number_after,
};

const MESSAGES: usize = 20;

pub(super) async fn run(bench: &Bench, name: &str) -> Result<Vec<Figure>, LoadError> {
    const SETTLE: Duration = Duration::from_secs(1);
    let count = bench.scale.resident;
    let documents = bench.directory()?;
    for number in 0..count {
        documents::write(documents.path(), &format!("resident-{number}"), MESSAGES)?;
    }
    let data = bench.directory()?;
    bench.import(data.path(), documents.path()).await?;
    drop(documents);
    let upstream = bench.upstream().await?;
    let server = bench.server_in(data, &upstream, &[]).await?;
    let process = &server.service.process;
    tokio::time::sleep(SETTLE).await;
    let before = process.resident()?;
    let visited: Visited = bench
        .run(&Job::Visit {
            address: server.address(),
            prefix: "resident-".to_owned(),
            conversations: count,
        })
        .await?;
    tokio::time::sleep(SETTLE).await;
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and sizes of a short run"
    )]
    let (count, bytes) = (count as f64, visited.bytes as f64);
    let (each, document) = ((process.resident()? - before) / count, bytes / count);
    let metrics = client::get(server.address(), "/metrics").await?.1;
    let actors = number_after(&metrics, "idol_router_conversation_actors ");
    server.end().await?;
    Ok(vec![
        Figure::new(
            name,
            "memory of a conversation of 20 messages",
            "bytes",
            each,
        )
        .judged(each / document, "x its document", Target::AtMost(3.0)),
        Figure::new(name, "its document", "bytes", document),
        // Otherwise the figure above is of something else.
        Figure::new(
            name,
            "conversations in memory",
            "",
            actors.unwrap_or_default(),
        )
        .aimed(Target::AtLeast(count)),
    ])
}

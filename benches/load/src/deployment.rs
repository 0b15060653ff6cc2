//! Loads a server that runs elsewhere.

use std::{net::SocketAddr, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::Deployment,
    client::{self, Ask, Bound, Conversations, Expect, Peer, Progress, Security, Turns, TurnsJob},
    error::{LoadError, within},
    model::Model,
    stats::Spread,
    table::number,
};

/// After the duration turns under way may come to their end.
const GRACE: Duration = Duration::from_secs(120);

pub(crate) async fn run(asked: Deployment) -> Result<(), LoadError> {
    let job = job(&asked).await?;
    println!(
        "{} clients on {} for {} s. {}",
        job.clients,
        asked.url,
        asked.duration,
        match job.expect {
            Expect::ModelText =>
                "Every byte of the replies is compared with what the model's name says.",
            Expect::Framing =>
                "The text of the replies is not known here: only their framing is checked (one end, no error).",
        }
    );
    let progress = Progress::default();
    let bar = ProgressBar::new(u64::from(asked.duration));
    let style = "{wide_bar} {pos}/{len} s  {msg}";
    let style = ProgressStyle::with_template(style)
        .map_err(|error| LoadError::Unusable(format!("a progress bar: {error}")))?;
    bar.set_style(style);
    let deadline = Duration::from_secs(u64::from(asked.duration)) + GRACE;
    let work = within("the run", deadline, client::turns(&job, &progress));
    let turns = tokio::select! {
        turns = work => turns?,
        () = show(&bar, &progress) => return Ok(()),
    };
    bar.finish_and_clear();
    report(&turns, asked.duration);
    match (turns.all, turns.first_failure) {
        (0, Some(failure)) => Err(LoadError::TurnFailed(failure)),
        _ => Ok(()),
    }
}

/// Moves the bar for as long as it is polled.
async fn show(bar: &ProgressBar, progress: &Progress) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(u64::from(bar.position() < bar.length().unwrap_or(0)));
        let (done, failed) = (progress.done.get(), progress.failed.get());
        bar.set_message(format!("{done} turns, {failed} failed"));
    }
}

async fn job(asked: &Deployment) -> Result<TurnsJob, LoadError> {
    let unusable = |why: &str| LoadError::Unusable(format!("{}: {why}", asked.url));
    let security = match asked.url.scheme() {
        "http" => Security::None,
        "https" => Security::Tls,
        _ => return Err(unusable("http and https are spoken")),
    };
    if asked.url.path() != "/" {
        return Err(unusable(
            "a path is not taken: the server is asked at its root",
        ));
    }
    let host = asked.url.host_str().ok_or_else(|| unusable("no host"))?;
    let port = asked.url.port_or_known_default().unwrap_or(80);
    let mut found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
        .await
        .map_err(LoadError::io(host))?;
    let address: SocketAddr = found.next().ok_or_else(|| unusable("no address"))?;
    let model = match (asked.tokens, asked.gap_ms) {
        (None, None) => asked.model.clone(),
        (tokens, gap) => {
            let default = Model::default();
            let model = Model {
                tokens: tokens.unwrap_or(default.tokens),
                gap: gap.unwrap_or(default.gap),
                ..default
            };
            Some(model.to_string())
        }
    };
    let known = model
        .as_ref()
        .is_some_and(|name| name.parse::<Model>().is_ok());
    let headers = match &asked.authorization {
        Some(value) if value.contains(['\r', '\n']) => {
            return Err(unusable("a header has one line"));
        }
        Some(value) => format!("authorization: {value}\r\n"),
        None => String::new(),
    };
    Ok(TurnsJob {
        peer: Peer::from(address)
            .named(host, security)
            .with_headers(headers),
        ask: Ask::from(asked.transport),
        clients: usize::try_from(asked.clients).unwrap_or(usize::MAX),
        model,
        bound: Bound::Seconds {
            warm_up: 0.0,
            window: f64::from(asked.duration),
        },
        conversations: Conversations::Fresh,
        expect: if known {
            Expect::ModelText
        } else {
            Expect::Framing
        },
    })
}

fn report(turns: &Turns, seconds: u32) {
    let spread = |spread: &Spread| {
        let Spread { p50, p99, most, .. } = *spread;
        format!(
            "p50 {} ms, p99 {} ms, most {} ms",
            number(p50),
            number(p99),
            number(most)
        )
    };
    println!(
        "turns        {} ({} /s within {seconds} s)",
        turns.all,
        number(turns.per_second)
    );
    println!("first token  {}", spread(&turns.first_token));
    println!("whole turn   {}", spread(&turns.whole));
    println!("pieces       {} a reply", number(turns.deltas));
    println!("failed       {}", turns.failed);
    if let Some(failure) = turns.first_failure.as_ref().filter(|_| turns.all > 0) {
        println!("             the first: {failure}");
    }
}

//! Many clients in a closed loop.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::{
    peer::Peer,
    reply::Known,
    turn::{Ask, Client, Taken},
};
use crate::{error::LoadError, model::Model, stats::Spread};

/// How long the clients go on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Bound {
    /// So many seconds; turns that end within the first part are left out of rates and times.
    Seconds { warm_up: f64, window: f64 },
    /// So many turns each.
    Count(u64),
}

/// Which conversations the turns are in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Conversations {
    /// A new one each time: the prompt stays as short as a peer's without memory.
    Fresh,
    /// A new one for each client after so many turns.
    Lasting(u64),
    /// One for each client, of this name and its number.
    Named(String),
}

/// What the replies are compared with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Expect {
    /// The text that the model's name says.
    ModelText,
    /// Only that they end well.
    Framing,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TurnsJob {
    pub(crate) peer: Peer,
    pub(crate) ask: Ask,
    pub(crate) clients: usize,
    pub(crate) model: Option<String>,
    pub(crate) bound: Bound,
    pub(crate) conversations: Conversations,
    pub(crate) expect: Expect,
}

/// What a run of turns came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Turns {
    /// Turns that ended well, the warm-up included: what the CPU was spent on.
    pub(crate) all: u64,
    /// Turns that did not.
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    /// Turns a second within the window.
    pub(crate) per_second: f64,
    /// Milliseconds from the request to the first text.
    pub(crate) first_token: Spread,
    /// Milliseconds from the request to the end.
    pub(crate) whole: Spread,
    /// Pieces that a reply came in.
    pub(crate) deltas: f64,
}

/// Lets others see how far a run is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) done: Cell<u64>,
    pub(crate) failed: Cell<u64>,
}

#[derive(Default)]
struct Tally {
    taken: RefCell<Vec<Taken>>,
    failed: Cell<u64>,
    first_failure: RefCell<Option<String>>,
}

impl Tally {
    fn note(&self, error: &LoadError) {
        self.failed.set(self.failed.get() + 1);
        let mut first = self.first_failure.borrow_mut();
        first.get_or_insert_with(|| error.to_string());
    }
}

pub(super) async fn run(job: &TurnsJob, progress: &Progress) -> Result<Turns, LoadError> {
    let model = match (job.expect, &job.model) {
        (Expect::ModelText, Some(model)) => Some(model.parse::<Model>()?),
        (Expect::ModelText, None) | (Expect::Framing, _) => None,
    };
    let text = model.as_ref().map(Model::text).unwrap_or_default();
    let known = model.map_or(Known::Nothing, |model| Known::of(&model, &text));
    let tally = Rc::new(Tally::default());
    let start = Instant::now();
    let clients = (0..job.clients).map(|number| drive(job, number, start, known, &tally, progress));
    let ended = LocalSet::new()
        .run_until(futures::future::try_join_all(clients))
        .await;
    ended?;
    Ok(summary(job.bound, start, &tally))
}

/// One client's loop. Only wrong text ends the run; whatever else fails is counted.
async fn drive(
    job: &TurnsJob,
    number: usize,
    start: Instant,
    known: Known<'_>,
    tally: &Tally,
    progress: &Progress,
) -> Result<(), LoadError> {
    /// Before another try on a new connection: a refusing peer is not to be flooded.
    const PAUSE: Duration = Duration::from_millis(100);
    let goes_on = |turns: u64| match job.bound {
        Bound::Seconds { warm_up, window } => start.elapsed().as_secs_f64() < warm_up + window,
        Bound::Count(count) => turns < count,
    };
    let (mut turns, mut connected) = (0, None);
    let mut lasting = String::new();
    while goes_on(turns) {
        turns += 1;
        let conversation = match (&job.conversations, job.ask) {
            (Conversations::Lasting(count), _) => {
                if (turns - 1) % count == 0 {
                    lasting = uuid::Uuid::new_v4().to_string();
                }
                Some(lasting.clone())
            }
            (Conversations::Named(prefix), _) => Some(format!("{prefix}{number}")),
            // A socket would go on with its last one.
            (Conversations::Fresh, Ask::WebSocket) => Some(uuid::Uuid::new_v4().to_string()),
            (Conversations::Fresh, _) => None,
        };
        let turn = async {
            let client = match &mut connected {
                Some(client) => client,
                none => none.insert(Client::connect(&job.peer, job.ask).await?),
            };
            client
                .turn(job.model.as_deref(), conversation.as_deref(), known)
                .await
        };
        match turn.await {
            Ok(taken) => {
                tally.taken.borrow_mut().push(taken);
                progress.done.set(progress.done.get() + 1);
            }
            Err(error) if error.is_wrong_reply() => return Err(error),
            Err(error) => {
                progress.failed.set(progress.failed.get() + 1);
                tally.note(&error);
                connected = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
fn summary(bound: Bound, start: Instant, tally: &Tally) -> Turns {
    let taken = tally.taken.borrow();
    let (from, seconds) = match bound {
        Bound::Seconds { warm_up, window } => (start + Duration::from_secs_f64(warm_up), window),
        Bound::Count(_) => (start, start.elapsed().as_secs_f64()),
    };
    let until = from + Duration::from_secs_f64(seconds);
    let within: Vec<&Taken> = taken
        .iter()
        .filter(|turn| turn.over >= from && turn.over <= until)
        .collect();
    let since = |turn: &Taken, at: Instant| at.duration_since(turn.begun).as_secs_f64() * 1000.0;
    let first = within
        .iter()
        .filter_map(|turn| Some(since(turn, turn.first?)));
    Turns {
        all: taken.len() as u64,
        failed: tally.failed.get(),
        first_failure: tally.first_failure.borrow().clone(),
        per_second: within.len() as f64 / seconds,
        first_token: Spread::of(first.collect()),
        whole: Spread::of(within.iter().map(|turn| since(turn, turn.over)).collect()),
        deltas: within.iter().map(|turn| turn.deltas as f64).sum::<f64>()
            / within.len().max(1) as f64,
    }
}

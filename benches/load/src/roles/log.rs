//! The log by itself: durable appends by many writers, and logs of many conversations.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use idol_actors::{
    conversation::message::{Draft, Role, Stamp, StoredMessage},
    id::{ConversationId, MessageId, TurnId},
    json_text::JsonText,
    log::{
        Append, Log as _,
        data_dir::DataDir,
        entry::{Begun, Entry, EntryHead, Owed, TurnAccepted, TurnEnded},
        sqlite::{LogObserver, SqliteLog, SqliteOptions},
    },
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{error::LoadError, stats::Spread};

/// Appends under way at once while a log is filled.
const PAGE: u64 = 1000;

/// What appending came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub(crate) per_second: f64,
    /// From queueing to acknowledgement, in milliseconds.
    pub(crate) latency: Spread,
}

#[derive(Default)]
struct Latencies(Mutex<Vec<f64>>);

impl LogObserver for Latencies {
    fn appended(&self, latency: Duration) {
        if let Ok(mut all) = self.0.lock() {
            all.push(latency.as_secs_f64() * 1000.0);
        }
    }

    fn committed(&self, _: usize) {}
}

fn failed(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Unusable(format!("the log: {error}"))
}

fn open(directory: &Path, observer: Option<Arc<dyn LogObserver>>) -> Result<SqliteLog, LoadError> {
    let directory = DataDir::lock(directory.to_owned()).map_err(|error| failed(&error))?;
    let options = SqliteOptions {
        observer,
        ..SqliteOptions::default()
    };
    SqliteLog::open(&directory, options).map_err(|error| failed(&error))
}

/// Appends with so many writers for so long; each waits until its append is on the disk.
pub(crate) async fn append(
    directory: &Path,
    writers: usize,
    window: Duration,
) -> Result<Appended, LoadError> {
    let latencies = Arc::new(Latencies::default());
    let observer = Arc::clone(&latencies) as Arc<dyn LogObserver>;
    let log = Arc::new(open(directory, Some(observer))?);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        tasks.spawn(write(Arc::clone(&log), start + window));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| failed(&error))??;
    }
    let took = start.elapsed().as_secs_f64();
    log.close().await;
    let Ok(mut all) = latencies.0.lock() else {
        return Err(failed(&"its observer failed"));
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
    let per_second = all.len() as f64 / took;
    Ok(Appended {
        per_second,
        latency: Spread::of(std::mem::take(&mut *all)),
    })
}

/// One conversation after another, ten turns each: two appends a turn, as the engine makes them.
async fn write(log: Arc<SqliteLog>, until: Instant) -> Result<(), LoadError> {
    let (mut id, mut seq, mut turn) = (ConversationId::random(), 0, TurnId::now());
    // Made once: what is measured is the log, which does not look into them.
    let (question, reply) = (question(turn), reply(turn, MessageId::now()));
    while Instant::now() < until {
        let entries = if seq == 0 {
            vec![begun(), accepted(turn, MessageId::now(), &question)]
        } else if seq % 2 == 0 {
            vec![ended(turn, &reply)]
        } else {
            turn = TurnId::now();
            vec![accepted(turn, MessageId::now(), &question)]
        };
        let append = Append {
            id: id.clone(),
            expected_seq: seq,
            entries,
        };
        seq = log.append(append).await.map_err(|error| failed(&error))?;
        if seq > 20 {
            (id, seq, turn) = (ConversationId::random(), 0, TurnId::now());
        }
    }
    Ok(())
}

/// Makes a log of so many conversations with a turn each.
pub(crate) async fn fill(directory: &Path, conversations: u64) -> Result<(), LoadError> {
    let log = open(directory, None)?;
    let mut left = conversations;
    while left > 0 {
        let page = left.min(PAGE);
        let appends = (0..page).map(|_| {
            let (turn, id) = (TurnId::now(), MessageId::now());
            let (question, reply) = (question(turn), reply(turn, id));
            log.append(Append {
                id: ConversationId::random(),
                expected_seq: 0,
                entries: vec![begun(), accepted(turn, id, &question), ended(turn, &reply)],
            })
        });
        for outcome in futures::future::join_all(appends.collect::<Vec<_>>()).await {
            outcome.map_err(|error| failed(&error))?;
        }
        left -= page;
    }
    log.close().await;
    Ok(())
}

fn begun() -> Entry {
    Entry {
        head: EntryHead::Begun(Begun {
            at: Timestamp::now(),
            incarnation: 1,
            user_id: None,
            character_id: None,
            imported_updated_at: None,
            voice_usage: None,
            unverified: false,
        }),
        messages: vec![],
    }
}

fn question(turn: TurnId) -> Arc<str> {
    message(Role::User, turn, MessageId::now(), &"q".repeat(150))
}

fn reply(turn: TurnId, id: MessageId) -> Arc<str> {
    message(Role::Assistant, turn, id, &"r".repeat(900))
}

fn message(role: Role, turn: TurnId, id: MessageId, text: &str) -> Arc<str> {
    let stamp = Stamp {
        timestamp: Timestamp::now(),
        id,
        turn: Some(turn),
        model: None,
        models: &[],
        finish_reason: (role == Role::Assistant).then_some("stop"),
    };
    let draft = Draft::text(role, JsonText::escape(text));
    Arc::clone(StoredMessage::new(&draft, &stamp).fragment())
}

fn accepted(turn: TurnId, reply: MessageId, text: &Arc<str>) -> Entry {
    Entry {
        head: EntryHead::TurnAccepted(TurnAccepted {
            at: Timestamp::now(),
            turn,
            reply,
            user_id: None,
            character_id: None,
            model: String::new(),
            key: None,
            replaces: None,
            owed: Owed::Reply,
        }),
        messages: vec![Arc::clone(text)],
    }
}

fn ended(turn: TurnId, text: &Arc<str>) -> Entry {
    Entry {
        head: EntryHead::TurnEnded(TurnEnded {
            at: Timestamp::now(),
            turn,
            attempt: 1,
            finish_reason: "stop".to_owned(),
            usage: None,
            error: None,
        }),
        messages: vec![Arc::clone(text)],
    }
}

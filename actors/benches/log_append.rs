//! Durable appends per second with 1, 8 and 64 writers, each waiting for its acknowledgement;
//! then how long a log of 100,000 conversations takes to open and recover.
//!
//! Runs in the target directory: a memory file system would sync for nothing.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run may as well panic"
)]

use std::{
    hint::black_box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use idol_actors::{
    id::{ConversationId, MessageId, TurnId},
    log::{
        Append, Log as _,
        data_dir::DataDir,
        entry::{Begun, Entry, EntryHead, Owed, TurnAccepted, TurnEnded},
        sqlite::{LogObserver, SqliteLog, SqliteOptions},
    },
    recovery::recover,
    time::Timestamp,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

const CONVERSATIONS: u64 = 100_000;

#[derive(Default)]
struct Latencies {
    micros: Mutex<Vec<u128>>,
    commits: AtomicU64,
}

impl LogObserver for Latencies {
    fn appended(&self, latency: Duration) {
        if let Ok(mut micros) = self.micros.lock() {
            micros.push(latency.as_micros());
        }
    }

    fn committed(&self, _: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

impl Latencies {
    fn print(&self, writers: u64) {
        let Ok(mut micros) = self.micros.lock() else {
            return;
        };
        micros.sort_unstable();
        let at = |part: f64| micros.get((micros.len() as f64 * part) as usize).copied();
        println!(
            "{writers} writers: {} appends, {:.1} per commit, p50 {:?} us, p99 {:?} us, max {:?} us",
            micros.len(),
            micros.len() as f64 / self.commits.load(Ordering::Relaxed).max(1) as f64,
            at(0.5).unwrap_or_default(),
            at(0.99).unwrap_or_default(),
            micros.last().copied().unwrap_or_default(),
        );
    }
}

fn data_dir() -> (TempDir, DataDir) {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let dir = DataDir::lock(temp.path().join("data")).expect("a data directory");
    (temp, dir)
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

fn accepted(turn: TurnId, text: &Arc<str>) -> Entry {
    Entry {
        head: EntryHead::TurnAccepted(TurnAccepted {
            at: Timestamp::now(),
            turn,
            reply: MessageId::now(),
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

/// One conversation after another, ten turns each: two appends a turn, as the engine makes them.
async fn write(log: Arc<SqliteLog>, appends: u64) {
    let (question, reply) = (Arc::from("q".repeat(150)), Arc::from("r".repeat(900)));
    let (mut id, mut seq, mut turn) = (ConversationId::random(), 0, TurnId::now());
    for _ in 0..appends {
        let entries = if seq == 0 {
            vec![begun(), accepted(turn, &question)]
        } else if seq % 2 == 0 {
            vec![ended(turn, &reply)]
        } else {
            turn = TurnId::now();
            vec![accepted(turn, &question)]
        };
        let append = Append {
            id: id.clone(),
            expected_seq: seq,
            entries,
        };
        seq = log.append(append).await.expect("an append");
        if seq > 20 {
            (id, seq, turn) = (ConversationId::random(), 0, TurnId::now());
        }
    }
}

fn appends(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("log_append");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for writers in [1_u64, 8, 64] {
        let (_temp, dir) = data_dir();
        let latencies = Arc::new(Latencies::default());
        let options = SqliteOptions {
            observer: Some(Arc::clone(&latencies) as Arc<dyn LogObserver>),
            ..SqliteOptions::default()
        };
        let log = Arc::new(SqliteLog::open(&dir, options).expect("a log"));
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::from_parameter(writers), |bencher| {
            bencher.to_async(&runtime).iter_custom(|rounds| {
                let log = Arc::clone(&log);
                async move {
                    let started = Instant::now();
                    let mut tasks = JoinSet::new();
                    for _ in 0..writers {
                        tasks.spawn(write(Arc::clone(&log), rounds));
                    }
                    tasks.join_all().await;
                    started.elapsed()
                }
            });
        });
        latencies.print(writers);
        println!("{:?}", log.stats());
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (_temp, dir) = data_dir();
    let log = SqliteLog::open(&dir, SqliteOptions::default()).expect("a log");
    runtime.block_on(async {
        let question = Arc::from("q".repeat(150));
        for page in 0..CONVERSATIONS / 1000 {
            let appends = (0..1000).map(|number| {
                // A hundred of them were cut by a crash.
                let mut entries = vec![begun()];
                if (page * 1000 + number) % 1000 == 0 {
                    entries.push(accepted(TurnId::now(), &question));
                }
                log.append(Append {
                    id: ConversationId::random(),
                    expected_seq: 0,
                    entries,
                })
            });
            for outcome in futures::future::join_all(appends.collect::<Vec<_>>()).await {
                outcome.expect("an append");
            }
        }
        log.close().await;
    });
    drop(log);
    let started = Instant::now();
    let log = SqliteLog::open(&dir, SqliteOptions::default()).expect("a log");
    let recovered = runtime.block_on(recover(&log, None)).expect("a recovery");
    println!(
        "{CONVERSATIONS} conversations: first open {:?}, {recovered:?}",
        started.elapsed()
    );
    drop(log);
    let mut group = criterion.benchmark_group("log_open");
    group.sample_size(10);
    group.bench_function("100000", |bencher| {
        bencher.iter(|| {
            let log = SqliteLog::open(&dir, SqliteOptions::default()).expect("a log");
            black_box(runtime.block_on(recover(&log, None)).expect("a recovery"));
        });
    });
    let log = SqliteLog::open(&dir, SqliteOptions::default()).expect("a log");
    group.bench_function("sweep_of_all", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let page = log.lagging("none", Default::default(), usize::MAX).await;
            black_box(page.expect("a page").rows.len())
        });
    });
    group.finish();
}

criterion_group!(benches, appends, open);
criterion_main!(benches);

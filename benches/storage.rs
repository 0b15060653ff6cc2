//! What it costs to keep conversations. Prints figures, each from one long run:
//!
//! 1. uploads and bytes a turn, of 64 conversations with 200 turns each;
//! 2. bytes that the Supabase mirror sends a turn, at 100 and at 10,000 messages, once it is in its
//!    stride: between one rewriting of the document and the fourth one after it;
//! 3. CPU and disk bytes of a turn at 10 and at 10,000 messages of history, where both prompts hold
//!    the same window;
//! 4. what keeping the text of 2,000 replies under way costs: one tick of the log.
//!
//! The server is a process of its own, so that its CPU and its writes are told apart from those of
//! the clients and of the simulated upstreams. Client, server and upstreams share the machine.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run may as well panic"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use idol_actors::{
    id::{ConversationId, MessageId, TurnId},
    log::{
        Append, Checkpoint, Log as _,
        data_dir::DataDir,
        entry::{Begun, Entry, EntryHead, Owed, TurnAccepted},
        sqlite::{SqliteLog, SqliteOptions},
    },
    time::Timestamp,
};
use idol_simulator::Simulator;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const KIB: f64 = 1024.0;

/// A server in a process of its own.
struct Server {
    child: Child,
    url: String,
    http: reqwest::Client,
}

impl Server {
    fn start(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_idol-router"))
            .env_clear()
            .env("PORT", "0")
            .env("DATA_DIR", directory)
            .env("LOG_LEVEL", "warn")
            .envs(settings.iter().copied())
            .current_dir(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the server ended").unwrap();
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.trim().to_owned();
            }
        };
        // Whatever else it says is passed on: a pipe that nobody reads would fill.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        Self {
            child,
            url,
            http: reqwest::Client::new(),
        }
    }

    async fn turn(&self, conversation: &str, text: &str) {
        let body = json!({"conversation_id": conversation,
            "messages": [{"role": "user", "content": text}]});
        let answer = self.http.post(format!("{}/chat", self.url)).json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        drop(answer.bytes().await.unwrap());
    }

    /// CPU that it has used, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    /// Bytes that it has written to the disk.
    fn written(&self) -> f64 {
        disk_bytes(&self.child.id().to_string())
    }

    /// Stops it as SIGTERM does.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

fn disk_bytes(process: &str) -> f64 {
    let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes:"));
    line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

/// In the target directory: a memory file system would sync for nothing.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn settings(simulator: &Simulator) -> Vec<(&'static str, String)> {
    vec![
        ("OPENROUTER_BASE_URL", simulator.base_url()),
        ("OPENROUTER_API_KEY", "sk-or-bench".to_owned()),
        ("DEFAULT_MODEL", "sim/tokens=64,batch=64".to_owned()),
    ]
}

fn with_supabase(simulator: &Simulator) -> Vec<(&'static str, String)> {
    let mut settings = settings(simulator);
    settings.push(("SUPABASE_URL", simulator.supabase_url()));
    settings.push(("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_bench".to_owned()));
    settings
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect()
}

/// Puts a document of so many messages where the server imports from.
fn seed(directory: &Path, conversation: &str, messages: usize) {
    let said: Vec<Value> = (0..messages)
        .map(|number| {
            json!({"role": if number % 2 == 0 { "user" } else { "assistant" },
                "content": format!("message {number}: {}", "and so on ".repeat(15)),
                "timestamp": "2026-01-01T00:00:00.000000Z"})
        })
        .collect();
    let document = json!({"id": conversation, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "messages": said});
    let conversations = directory.join("conversations");
    fs::create_dir_all(&conversations).unwrap();
    fs::write(
        conversations.join(format!("{conversation}.json")),
        document.to_string(),
    )
    .unwrap();
}

async fn many_conversations(simulator: &Simulator) {
    const CONVERSATIONS: usize = 64;
    const TURNS: usize = 200;
    simulator.supabase().reset_counts();
    let home = directory();
    let settings = with_supabase(simulator);
    let server = Arc::new(Server::start(home.path(), &borrowed(&settings)));
    let start = Instant::now();
    let mut talkers = JoinSet::new();
    for talker in 0..CONVERSATIONS {
        let server = server.clone();
        talkers.spawn(async move {
            for turn in 0..TURNS {
                let text = format!("turn {turn} of this conversation");
                server.turn(&format!("many-{talker}"), &text).await;
            }
        });
    }
    talkers.join_all().await;
    let took = start.elapsed();
    let under_way = simulator.supabase().counts().uploads;
    Arc::into_inner(server)
        .expect("all talkers are done")
        .stop();
    let counts = simulator.supabase().counts().uploads;
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let (uploads, bytes, turns) = (
        counts.count as f64,
        counts.bytes as f64,
        (CONVERSATIONS * TURNS) as f64,
    );
    println!(
        "1. {CONVERSATIONS} conversations x {TURNS} turns in {took:.1?}: {:.4} uploads and {:.2} KiB \
         a turn ({} uploads, {} of them while turns ran)",
        uploads / turns,
        bytes / turns / KIB,
        counts.count,
        under_way.count,
    );
}

async fn steady_bytes(simulator: &Simulator, messages: usize) -> f64 {
    const REWRITINGS: u64 = 4;
    simulator.supabase().reset_counts();
    let home = directory();
    let conversation = format!("steady-{messages}");
    seed(home.path(), &conversation, messages);
    let settings = with_supabase(simulator);
    let server = Server::start(home.path(), &borrowed(&settings));
    let text = "x".repeat(2_000);
    let uploads = || simulator.supabase().counts().uploads;
    let mut turns = 0_u32;
    // In its stride: it has been written once while turns went on.
    let until = async |count: u64, turns: &mut u32| {
        while uploads().count < count {
            server.turn(&conversation, &text).await;
            *turns += 1;
        }
        uploads()
    };
    let first = until(2, &mut turns).await;
    let begun = turns;
    let last = until(first.count + REWRITINGS, &mut turns).await;
    server.stop();
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
    let bytes = (last.bytes - first.bytes) as f64;
    bytes / f64::from(turns - begun)
}

struct Cost {
    cpu_ms: f64,
    disk_kib: f64,
}

async fn turn_cost(simulator: &Simulator, messages: usize) -> Cost {
    const TURNS: u32 = 1_000;
    let home = directory();
    let conversation = format!("cost-{messages}");
    seed(home.path(), &conversation, messages);
    let mut settings = settings(simulator);
    settings.push(("MIRROR_IDLE_SECS", "3600".to_owned()));
    // The reply's 1,000 tokens, and a window of some ten messages: the same at any length.
    settings.push(("DEFAULT_CONTEXT_TOKENS", "1600".to_owned()));
    let server = Server::start(home.path(), &borrowed(&settings));
    for _ in 0..20 {
        server.turn(&conversation, "a turn to warm up").await;
    }
    let (cpu, written) = (server.cpu(), server.written());
    for _ in 0..TURNS {
        server.turn(&conversation, "a turn that is measured").await;
    }
    let cost = Cost {
        cpu_ms: (server.cpu() - cpu) * 1000.0 / f64::from(TURNS),
        disk_kib: (server.written() - written) / KIB / f64::from(TURNS),
    };
    server.stop();
    cost
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn checkpoints() {
    const REPLIES: usize = 2_000;
    const TICKS: u32 = 50;
    /// What comes in 200 ms at 40 tokens a second.
    const PIECE: usize = 40;
    let home = directory();
    let data = DataDir::lock(home.path().join("data")).unwrap();
    let log = SqliteLog::open(&data, SqliteOptions::default()).unwrap();
    let turns: Vec<TurnId> = (0..REPLIES).map(|_| TurnId::now()).collect();
    for (number, turn) in turns.iter().enumerate() {
        let heads = [
            EntryHead::Begun(Begun {
                at: Timestamp::now(),
                incarnation: 1,
                user_id: None,
                character_id: None,
                imported_updated_at: None,
                voice_usage: None,
                unverified: false,
            }),
            EntryHead::TurnAccepted(TurnAccepted {
                at: Timestamp::now(),
                turn: *turn,
                reply: MessageId::now(),
                user_id: None,
                character_id: None,
                model: "a/model".to_owned(),
                key: None,
                replaces: None,
                owed: Owed::Reply,
            }),
        ];
        let entries = heads.map(|head| Entry {
            head,
            messages: Vec::new(),
        });
        let append = log.append(Append {
            id: ConversationId::parse(&format!("c{number}")).unwrap(),
            expected_seq: 0,
            entries: entries.into(),
        });
        append.await.unwrap();
    }
    let own_cpu = || {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
    };
    let (cpu, written) = (own_cpu(), disk_bytes("self"));
    let mut ticks = Vec::new();
    for tick in 0..TICKS {
        let start = Instant::now();
        let pieces = turns.iter().map(|turn| {
            log.checkpoint(Checkpoint {
                turn: *turn,
                attempt: 1,
                offset: u64::from(tick) * PIECE as u64,
                text: "x".repeat(PIECE),
            })
        });
        for kept in futures::future::join_all(pieces.collect::<Vec<_>>()).await {
            kept.unwrap();
        }
        ticks.push(start.elapsed().as_secs_f64() * 1000.0);
        // The next tick comes later: the log rests meanwhile, as it does between real ones.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let per_tick = |total: f64| total / f64::from(TICKS);
    let cpu = per_tick(own_cpu() - cpu);
    println!(
        "4. keeping {REPLIES} replies: a tick takes {:.1} ms (median), {cpu:.1} ms of CPU and {:.0} \
         KiB of disk; at 5 ticks a second {:.1} % of a core",
        median(ticks),
        per_tick(disk_bytes("self") - written) / KIB,
        cpu * 5.0 / 10.0,
    );
}

#[tokio::main]
async fn main() {
    // A run of the test harness only asks whether this can be run.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let simulator = Simulator::start().unwrap();
    many_conversations(&simulator).await;
    let short = steady_bytes(&simulator, 100).await;
    let long = steady_bytes(&simulator, 10_000).await;
    println!(
        "2. mirror bytes a turn: {:.1} KiB at 100 messages, {:.1} KiB at 10,000 ({:.2} x)",
        short / KIB,
        long / KIB,
        long / short
    );
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        short.push(turn_cost(&simulator, 10).await);
        long.push(turn_cost(&simulator, 10_000).await);
    }
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
    for (what, of) in [
        ("ms of CPU", (|cost| cost.cpu_ms) as fn(&Cost) -> f64),
        ("KiB of disk", |cost| cost.disk_kib),
    ] {
        let (short, long) = (middle(&short, of), middle(&long, of));
        println!(
            "3. a turn: {short:.2} {what} at 10 messages, {long:.2} at 10,000 ({:.2} x)",
            long / short
        );
    }
    checkpoints().await;
}

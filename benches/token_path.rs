//! A token's way from the provider to a session, under both placements of conversations.
//!
//! `token_path`: two worker threads hold the sessions, the simulator sends replies of 64 tokens
//! over loopback, the log acknowledges without writing: what is left is the HTTP client, the
//! reader, the conversation and the way to the session. `server_path`: the whole server, its log
//! included, with 32 clients that read `POST /chat/stream` from raw sockets. `burst` has the reply
//! in one write, `single` one write a token. Time is for 32 turns at once; read the ratio of the
//! placements in one run.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{FutureExt, future::BoxFuture};
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{At, Attachment, Deliver, Listener, StartTurn, Want},
        event::EventBody,
        message::{Draft, Role},
        prompt::Parameters,
    },
    engine::Engine,
    id::{ConversationId, TurnId},
    json_text::JsonText,
    limits::{CREDIT_BATCH, CREDIT_WINDOW},
    log::{Append, AppendError, Checkpoint, Loaded, Log, LogError, entry::Owed},
    metrics::Metrics,
    provider::{
        attempts::RetryPolicy,
        openrouter::{Deadlines, OpenRouterConfig},
    },
    shared::{ChatProvider, EngineConfig, Home, Placement, Sessions},
};
use idol_router::{
    application::{Application, Tuning},
    config::Config,
};
use idol_simulator::{Options, Simulator};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::oneshot;

const TURNS: usize = 32;
const TOKENS: usize = 64;
const WORKERS: usize = 2;

const PACES: [(&str, &str); 2] = [
    ("burst", "sim/tokens=64,batch=64"),
    ("single", "sim/tokens=64,batch=1"),
];

const PLACEMENTS: [(&str, Placement); 2] = [
    ("a_with_the_caller", Placement::Caller),
    ("b_engine_threads", Placement::Engine(WORKERS)),
];

/// Acknowledges everything and keeps nothing.
#[derive(Debug)]
struct Forgetful;

impl Log for Forgetful {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<u64, AppendError>> {
        let seq = append.expected_seq + append.entries.len() as u64;
        async move { Ok(seq) }.boxed()
    }

    fn checkpoint(&self, _: Checkpoint) -> BoxFuture<'static, Result<(), LogError>> {
        async { Ok(()) }.boxed()
    }

    fn load(&self, _: ConversationId) -> BoxFuture<'static, Result<Option<Loaded>, LogError>> {
        async { Ok(None) }.boxed()
    }
}

/// Takes a turn's events as a fast client does.
struct Listening {
    attachment: Option<Attachment>,
    taken: u32,
    events: usize,
    done: Option<oneshot::Sender<usize>>,
}

impl Actor for Listening {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Adopt(Attachment);

impl Handler<Adopt> for Listening {
    type Result = ();

    fn handle(&mut self, Adopt(attachment): Adopt, _: &mut Self::Context) {
        self.attachment = Some(attachment);
        self.give();
    }
}

impl Listening {
    fn give(&mut self) {
        if let Some(attachment) = &self.attachment
            && self.taken >= CREDIT_BATCH
            && attachment.credit(self.taken)
        {
            self.taken = 0;
        }
    }
}

impl Handler<Deliver> for Listening {
    type Result = ();

    fn handle(&mut self, msg: Deliver, _: &mut Self::Context) {
        self.events += 1;
        self.taken += 1;
        self.give();
        if let EventBody::Ended(outcome) = &msg.event.body {
            assert!(outcome.error.is_none(), "{outcome:?}");
            self.attachment = None;
            if let Some(done) = self.done.take() {
                done.send(self.events).ok();
            }
        }
    }
}

/// A worker thread that starts turns, as an HTTP worker does.
struct Worker {
    engine: Engine,
    home: Option<Arc<Home>>,
    model: &'static str,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "usize")]
struct Turn;

impl Handler<Turn> for Worker {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, _: Turn, _: &mut Self::Context) -> Self::Result {
        let conversation = self
            .engine
            .conversation(ConversationId::random(), self.home.clone());
        let (done, finished) = oneshot::channel();
        let session = Listening {
            attachment: None,
            taken: 0,
            events: 0,
            done: Some(done),
        }
        .start();
        let listener = Listener {
            attachment: 0,
            sink: session.clone().recipient(),
            want: Want::Everything,
            credit: CREDIT_WINDOW,
        };
        let command = StartTurn {
            caller: Caller::Anonymous,
            turn: TurnId::now(),
            at: At::End,
            messages: vec![Draft::text(
                Role::User,
                JsonText::escape("Tell me a story."),
            )],
            owed: Owed::Reply,
            parameters: Parameters {
                model: self.model.into(),
                fallbacks: Vec::new(),
                system: JsonText::escape("You are a companion."),
                max_tokens: 1_000,
                members: "\"temperature\":0.7".into(),
            },
            user_id: None,
            character_id: None,
            key: None,
            seen: None,
        };
        Box::pin(async move {
            let started = conversation.start_turn(command, Some(listener)).await;
            let attachment = started.unwrap().attachment.unwrap();
            session.send(Adopt(attachment)).await.unwrap();
            finished.await.unwrap()
        })
    }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    workers: Vec<Addr<Worker>>,
}

impl Bench {
    /// An engine on a thread of its own, with its workers.
    fn start(placement: Placement, model: &'static str, base_url: &str) -> Self {
        let base_url = base_url.to_owned();
        let (ready, workers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let config = EngineConfig {
                    placement,
                    chat: ChatProvider::OpenRouter(
                        Box::new(OpenRouterConfig {
                            base_url,
                            api_key: None,
                            http_referer: None,
                            title: None,
                            deadlines: Deadlines::default(),
                            reply_bytes_max: 1 << 20,
                            retry: RetryPolicy::default(),
                        }),
                        Arc::default(),
                    ),
                    default_context_tokens: 8_192,
                    conversation_idle: Duration::from_secs(1),
                    resident_bytes_max: 1 << 30,
                    abandon_after: None,
                    sessions: Sessions::Unnamed,
                    models_file: None,
                    stall_deadline: Duration::from_secs(60),
                    turn_deadline: Duration::from_secs(60),
                    json_files: None,
                    remote: None,
                    space: None,
                    failpoints: None,
                };
                let metrics = Metrics::register(&mut Registry::default());
                let engine = Engine::start(config, Arc::new(Forgetful), vec![], metrics).unwrap();
                let workers: Vec<_> = (0..WORKERS)
                    .map(|_| {
                        let arbiter = actix::Arbiter::new();
                        let engine = engine.clone();
                        Worker::start_in_arbiter(&arbiter.handle(), move |_| Worker {
                            home: engine.home_here().unwrap(),
                            engine,
                            model,
                        })
                    })
                    .collect();
                ready.send(workers).unwrap();
                std::future::pending::<()>().await;
            });
        });
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            workers: workers.recv().unwrap(),
        }
    }

    /// Runs turns at once; tells the events that the sessions got.
    fn turns(&self) -> usize {
        let turns = (0..TURNS).map(|turn| self.workers[turn % WORKERS].send(Turn));
        let events = self.runtime.block_on(futures::future::join_all(turns));
        events.into_iter().map(Result::unwrap).sum()
    }
}

fn token_path(criterion: &mut Criterion) {
    let simulator = Simulator::start_with(Options {
        threads: 1,
        ..Options::default()
    })
    .unwrap();
    let base_url = simulator.base_url();
    for (pace, model) in PACES {
        let mut group = criterion.benchmark_group(format!("token_path/{pace}"));
        group.throughput(Throughput::Elements((TURNS * TOKENS) as u64));
        for (name, placement) in PLACEMENTS {
            let bench = Bench::start(placement, model, &base_url);
            let events = bench.turns();
            eprintln!(
                "{pace}/{name}: {:.1} events a turn of {TOKENS} tokens",
                events as f64 / TURNS as f64
            );
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let start = Instant::now();
                    for _ in 0..rounds {
                        bench.turns();
                    }
                    start.elapsed()
                });
            });
        }
        group.finish();
    }
}

/// More bytes than the last event of a turn has.
const TAIL: usize = 4 << 10;

/// A client on one connection; each message to it is one turn.
struct Client {
    go: std::sync::mpsc::Sender<()>,
    done: std::sync::mpsc::Receiver<usize>,
}

impl Client {
    fn connect(address: SocketAddr, model: &str) -> Self {
        let body = format!(
            "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
        );
        let request = format!(
            "POST /chat/stream HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let (go, begin) = std::sync::mpsc::channel();
        let (finished, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while begin.recv().is_ok() {
                stream.write_all(request.as_bytes()).unwrap();
                let (mut tail, mut reads) = (Vec::new(), 0);
                // The last chunk of a chunked body.
                while !tail.ends_with(b"\r\n0\r\n\r\n") {
                    let length = stream.read(&mut buffer).unwrap();
                    assert!(length > 0, "the server hung up");
                    reads += 1;
                    tail.extend_from_slice(&buffer[..length]);
                    let keep = tail.len().saturating_sub(TAIL);
                    tail.drain(..keep);
                }
                let tail = String::from_utf8_lossy(&tail);
                assert!(tail.contains("\"type\":\"done\""), "{tail}");
                finished.send(reads).unwrap();
            }
        });
        Self { go, done }
    }
}

/// A whole server in this process.
fn serve(placement: Placement, base_url: &str) -> (SocketAddr, TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let settings = HashMap::from([
        ("PORT", "0".to_owned()),
        ("DATA_DIR", directory.path().to_str().unwrap().to_owned()),
        ("OPENROUTER_BASE_URL", base_url.to_owned()),
        ("WORKERS", WORKERS.to_string()),
        ("CONVERSATION_IDLE_SECS", "1".to_owned()),
        ("MIRROR_IDLE_SECS", "3600".to_owned()),
    ]);
    let (ready, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let config = Config::from_lookup(&|name| settings.get(name).cloned()).unwrap();
            let tuning = Tuning {
                placement: Some(placement),
                ..Tuning::default()
            };
            let application = Application::build(config, tuning).await.unwrap();
            ready.send(application.address()).unwrap();
            application.run_until(std::future::pending()).await.unwrap();
        });
    });
    (address.recv().unwrap(), directory)
}

fn server_path(criterion: &mut Criterion) {
    let simulator = Simulator::start_with(Options {
        threads: 1,
        ..Options::default()
    })
    .unwrap();
    for (pace, model) in PACES {
        let mut group = criterion.benchmark_group(format!("server_path/{pace}"));
        group.throughput(Throughput::Elements((TURNS * TOKENS) as u64));
        for (name, placement) in PLACEMENTS {
            let (address, _directory) = serve(placement, &simulator.base_url());
            let clients: Vec<_> = (0..TURNS)
                .map(|_| Client::connect(address, model))
                .collect();
            let turns = || -> usize {
                clients
                    .iter()
                    .for_each(|client| client.go.send(()).unwrap());
                clients
                    .iter()
                    .map(|client| client.done.recv().unwrap())
                    .sum()
            };
            let reads = turns();
            eprintln!(
                "{pace}/{name}: {:.1} reads a turn of {TOKENS} tokens",
                reads as f64 / TURNS as f64
            );
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let start = Instant::now();
                    for _ in 0..rounds {
                        turns();
                    }
                    start.elapsed()
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(6));
    targets = token_path, server_path
}
criterion_main!(benches);

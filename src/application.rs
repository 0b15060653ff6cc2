//! The composition root: opens the log, starts the engine, binds, wires the routes, drains.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::dev::{Server as HttpRunning, ServerHandle};
use idol_actors::{
    engine::Engine,
    loading::JsonSource,
    log::{
        Log,
        data_dir::{DataDir, DataDirError},
        space::{DiskSpace, Probe},
        sqlite::{LogObserver, OpenError, SqliteLog, SqliteOptions},
    },
    metrics::Metrics,
    mirror::{
        Adopter, MirrorHook,
        supabase::SupabaseConfigError,
        supabase_mirror::{SupabaseState, Waits},
    },
    provider::{
        EndpointError, Upstream,
        attempts::{RetryPolicy, RetryWaits},
        breaker::BreakerPolicy,
        embedded::Pace,
        openrouter::{Deadlines, OpenRouterConfig, OpenRouterConfigError},
        protection::{Protection, ProtectionPolicy},
    },
    recovery::{Recovery, RecoveryError, recover, settle},
    shared::{ChatProvider, EngineConfig, Failpoints, Placement, Sessions},
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::serving::{Parts, listen, serve};
use crate::{
    claims::Claims,
    config::{self, Config},
    mirrors::Mirrors,
    sockets::Sockets,
    upstream::UpstreamMetrics,
    voices::VoiceParts,
    wire::chat::Dialect,
};

mod serving;

/// What tests choose and operators do not.
#[derive(Clone, Default)]
pub struct Tuning {
    /// Which threads conversations live on.
    pub placement: Option<Placement>,
    /// Fault injection in conversations.
    pub failpoints: Option<Failpoints>,
    /// Fault injection in the log.
    pub log: SqliteOptions,
    /// Fault injection in the mirrors.
    pub mirror: Option<MirrorHook>,
    /// Pace of the embedded companion.
    pub pace: Option<Pace>,
    /// Waits between two requests for one reply.
    pub retry_waits: Option<RetryWaits>,
    /// How long a call waits for room.
    pub queue_wait: Option<Duration>,
    /// How long a model that fails is left alone the first time.
    pub breaker_open: Option<Duration>,
    /// How long the copy in Supabase waits for what.
    pub supabase_waits: Option<Waits>,
    /// Tells the free bytes on the disk of the log.
    pub free_space: Option<Probe>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Turns of the last run cannot be ended.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] OpenRouterConfigError),
    /// A voice provider.
    #[error(transparent)]
    Voice(#[from] EndpointError),
    /// Supabase.
    #[error(transparent)]
    Supabase(#[from] SupabaseConfigError),
    /// The port.
    #[error("HOST and PORT: cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The HTTP server.
    #[error("the HTTP server cannot start: {0}")]
    Http(#[source] io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped,
    /// The log gave no clear answer: the next start decides what is in it.
    LogDied(Arc<str>),
}

/// A server that is bound and ready to run.
pub struct Application {
    running: HttpRunning,
    handle: ServerHandle,
    address: SocketAddr,
    engine: Engine,
    log: Arc<SqliteLog>,
    space: Arc<DiskSpace>,
    mirrors: Mirrors,
    sockets: Arc<Sockets>,
    grace: Duration,
    ping: Duration,
}

/// Connections that wait to be accepted: a storm of reconnecting clients finds room.
const BACKLOG: i32 = 4_096;

/// How long open connections get once everything else has ended.
const CLOSE_SECS: u64 = 5;

impl Application {
    /// Opens and recovers the log, starts the engine, binds the port. Needs a running actix system.
    pub async fn build(config: Config, tuning: Tuning) -> Result<Self, StartError> {
        let mut registry = Registry::with_prefix("idol_router");
        let metrics = Metrics::register(&mut registry);
        let data_dir = DataDir::lock(&config.storage.data_dir)?;
        let space = Arc::new(match tuning.free_space.clone() {
            Some(probe) => DiskSpace::probed(data_dir.path(), config.storage.min_free, probe),
            None => DiskSpace::new(data_dir.path(), config.storage.min_free),
        });
        space.check();
        let log = Arc::new(open_log(&data_dir, tuning.log.clone(), &metrics)?);
        let json_files = JsonSource {
            directory: data_dir.conversations(),
            log: log.clone(),
        };
        let (recovery, owes) = match recover(&log, Some(&json_files)).await {
            Ok(recovery) => (recovery, false),
            Err(error) if error.is_for_want_of_room() => {
                tracing::error!(%error, "no room to end the turns that the last run left open: no new turns until there is");
                space.owe();
                (Recovery::default(), true)
            }
            Err(error) => return Err(error.into()),
        };
        if recovery.turns_interrupted > 0 {
            tracing::warn!(
                turns = recovery.turns_interrupted,
                replies_kept = recovery.replies_kept,
                found = recovery.turns_found,
                "ended the turns that the last run left open"
            );
        }
        let mirrors = Mirrors::start(&config, &tuning, &data_dir, &log, &space)?;
        registry.register_collector(Box::new(mirrors.metrics()));
        let engine_config = EngineConfig {
            placement: tuning.placement.unwrap_or_else(default_placement),
            chat: chat_provider(&config, &tuning),
            default_context_tokens: config.conversations.default_context_tokens,
            conversation_idle: config.conversations.idle,
            resident_bytes_max: config.conversations.resident_history_bytes,
            stall_deadline: config.conversations.stall_deadline,
            abandon_after: config.conversations.abandon_after,
            // The provider's own deadline comes first; this one is for a provider that has died.
            turn_deadline: config.openrouter.total_timeout + Duration::from_secs(60),
            sessions: match Dialect::of(config.openrouter.base_url.as_str()) {
                Dialect::OpenRouter => Sessions::Named,
                Dialect::OpenAi => Sessions::Unnamed,
            },
            models_file: Some(data_dir.path().join("models.json")),
            json_files: Some(json_files),
            remote: mirrors.documents(),
            space: Some(space.clone()),
            failpoints: tuning.failpoints,
        };
        let engine = Engine::start(
            engine_config,
            log.clone() as Arc<dyn Log>,
            mirrors.recipients(),
            metrics,
        )?;
        if let Some(protection) = engine.protection() {
            registry.register_collector(Box::new(UpstreamMetrics {
                prefix: "upstream",
                protection: protection.clone(),
            }));
        }
        let voices = VoiceParts::new(&config, tuning.retry_waits);
        let calls = [
            ("speech_upstream", voices.speech().map(|(calls, _)| calls)),
            ("transcription_upstream", voices.hearing()),
        ];
        for (prefix, calls) in calls {
            if let Some(protection) = calls.cloned() {
                registry.register_collector(Box::new(UpstreamMetrics { prefix, protection }));
            }
        }
        mirrors.connect(&(Arc::new(engine.clone()) as Arc<dyn Adopter>));
        if owes {
            let home = engine.home_here()?;
            tokio::task::spawn_local(settle(log.clone(), space.clone(), engine.clone(), home));
        }
        let sockets = Arc::new(Sockets::register(&mut registry));
        let listener = listen(&config.server.host, config.server.port)?;
        let address = listener.local_addr().map_err(StartError::Http)?;
        let running = serve(
            &config,
            listener,
            &Parts {
                engine: engine.clone(),
                log: log.clone(),
                sockets: sockets.clone(),
                claims: Claims::default(),
                mirror: mirrors.json_files_state(),
                supabase: mirrors.supabase_state(),
                registry: Arc::new(registry),
                voices,
            },
        )?;
        Ok(Self {
            space,
            handle: running.handle(),
            running,
            address,
            engine,
            log,
            mirrors,
            sockets,
            grace: config.server.shutdown_grace,
            ping: config.server.ws_ping,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for observing it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The open sockets, for observing them.
    #[must_use]
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// The log, for observing it.
    #[must_use]
    pub fn log(&self) -> &Arc<SqliteLog> {
        &self.log
    }

    /// The copy in Supabase, for observing it.
    #[must_use]
    pub fn supabase(&self) -> Option<watch::Receiver<SupabaseState>> {
        self.mirrors.supabase_state()
    }

    /// Serves until `stop` resolves, then drains; or until the log dies.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> io::Result<Ended> {
        let serving = tokio::task::spawn_local(self.running);
        let sockets = self.sockets.clone();
        let beat = async move { sockets.beat(self.ping).await };
        let _beating = AbortOnDropHandle::new(tokio::task::spawn_local(beat));
        let ended = tokio::select! {
            () = stop => Ended::Stopped,
            () = watch_space(self.space.clone()) => Ended::Stopped,
            reason = self.log.died() => Ended::LogDied(reason),
        };
        if let Ended::LogDied(reason) = &ended {
            tracing::error!(%reason, "the log has died, ending the process");
            self.handle.stop(false).await;
            self.mirrors.stop();
            self.log.close().await;
            return Ok(ended);
        }
        tracing::info!(grace_secs = self.grace.as_secs(), "shutting down");
        self.engine.drain(self.grace).await;
        self.sockets.close_all();
        let stop = self.handle.stop(true);
        let flush = self.mirrors.flush(self.grace.max(Duration::from_secs(1)));
        futures::join!(stop, flush);
        self.mirrors.stop();
        self.log.close().await;
        serving.await.map_err(io::Error::other)??;
        Ok(ended)
    }
}

/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// Looks at the free space for as long as it is polled.
async fn watch_space(space: Arc<DiskSpace>) {
    let mut looks = tokio::time::interval(SPACE_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let space = space.clone();
        // A panic in it would be said by the panic hook, and the next look is due all the same.
        drop(tokio::task::spawn_blocking(move || space.check()).await);
    }
}

fn open_log(
    data_dir: &DataDir,
    options: SqliteOptions,
    metrics: &Metrics,
) -> Result<SqliteLog, OpenError> {
    #[derive(Debug)]
    struct Observer(Metrics);

    impl LogObserver for Observer {
        fn appended(&self, latency: Duration) {
            self.0.append_latency.observe(latency.as_secs_f64());
        }

        fn committed(&self, batch: usize) {
            // Batches are far below 2^52.
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            self.0.append_batch.observe(batch as f64);
        }
    }

    SqliteLog::open(
        data_dir,
        SqliteOptions {
            observer: Some(Arc::new(Observer(metrics.clone()))),
            ..options
        },
    )
}

/// Engine threads: one for every core.
fn default_placement() -> Placement {
    Placement::Engine(cores())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn chat_provider(config: &Config, tuning: &Tuning) -> ChatProvider {
    match config.chat_provider() {
        config::ChatProvider::Embedded => {
            ChatProvider::Embedded(tuning.pace.unwrap_or(Pace::Human))
        }
        config::ChatProvider::NotConfigured { .. } => ChatProvider::NotConfigured,
        config::ChatProvider::OpenRouter => {
            let openrouter = &config.openrouter;
            let config = OpenRouterConfig {
                base_url: openrouter.base_url.as_str().to_owned(),
                api_key: openrouter.api_key.clone(),
                http_referer: openrouter.http_referer.clone(),
                title: openrouter.x_title.clone(),
                deadlines: Deadlines {
                    connect: openrouter.connect_timeout,
                    first_token: openrouter.first_token_timeout,
                    silence: openrouter.silence_timeout,
                    whole: openrouter.total_timeout,
                },
                reply_bytes_max: config.conversations.max_reply_bytes,
                retry: RetryPolicy {
                    attempts: openrouter.attempts,
                    repair: openrouter.midstream_repair,
                    waits: tuning.retry_waits.unwrap_or_default(),
                },
            };
            let defaults = ProtectionPolicy::default();
            let protection = Protection::new(ProtectionPolicy {
                upstream: Upstream::OpenRouter,
                calls: openrouter.calls_max,
                calls_of_model: openrouter.model_calls_max,
                queued: openrouter.queue_max,
                queue_wait: tuning.queue_wait.unwrap_or(defaults.queue_wait),
                repeats: openrouter.retry_budget,
                breaker: BreakerPolicy {
                    percent: openrouter.breaker_percent,
                    open_first: tuning.breaker_open.unwrap_or(defaults.breaker.open_first),
                    ..defaults.breaker
                },
            });
            ChatProvider::OpenRouter(Box::new(config), Arc::new(protection))
        }
    }
}

//! What all conversations of an engine share.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Addr, Recipient};
use actix_rt::ArbiterHandle;
use dashmap::DashMap;

use crate::{
    conversation::Conversation,
    error::EngineError,
    id::ConversationId,
    keys::KeyAges,
    loading::{JsonSource, Loader},
    log::space::DiskSpace,
    metrics::Metrics,
    mirror::{Changed, RemoteDocuments},
    patience::Patience,
    provider::{
        Generate, Upstream, UpstreamError, UpstreamErrorKind, embedded::Pace,
        openrouter::OpenRouterConfig, protection::Protection,
    },
    supervisor::Stopped,
    ticker::Ticker,
};

/// What an operator chooses for the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Which threads conversations live on.
    pub placement: Placement,
    /// Who answers.
    pub chat: ChatProvider,
    /// Context length, in tokens, of a model that the upstream does not list.
    pub default_context_tokens: u32,
    /// How long a conversation that nobody listens to stays in memory.
    pub conversation_idle: Duration,
    /// Bytes of history in memory above which the conversations unused longest are dropped.
    pub resident_bytes_max: usize,
    /// How long a session may have unread events before it is detached.
    pub stall_deadline: Duration,
    /// How long a reply that nobody listens to goes on; none: to its end.
    pub abandon_after: Option<Duration>,
    /// Longest turn; more than the provider's own deadlines, which end it first.
    pub turn_deadline: Duration,
    /// Whether the upstream is told which prompts belong together.
    pub sessions: Sessions,
    /// Where the upstream's model list is kept over restarts; none: nowhere.
    pub models_file: Option<PathBuf>,
    /// JSON documents to import from on first use.
    pub json_files: Option<JsonSource>,
    /// Where else documents may be of ids that the log does not have.
    pub remote: Option<Arc<dyn RemoteDocuments>>,
    /// The room on the log's disk; none: it is not watched.
    pub space: Option<Arc<DiskSpace>>,
    /// For fault injection.
    pub failpoints: Option<Failpoints>,
}

/// Which threads conversations live on. Decided by measurement: see the `token_path` bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On the thread that first asked for it: a token never crosses a thread.
    Caller,
    /// On one of so many engine threads, by the hash of the id.
    Engine(usize),
}

/// Whether the upstream is told which prompts belong together: a strict one refuses the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// By an opaque id, the same for all turns of a conversation.
    Named,
    /// Not at all.
    Unnamed,
}

/// Who answers.
#[derive(Debug, Clone)]
pub enum ChatProvider {
    /// OpenRouter, or a server that speaks its protocol; what its calls share.
    OpenRouter(Box<OpenRouterConfig>, Arc<Protection>),
    /// The companion inside this process.
    Embedded(Pace),
    /// Nobody: turns are refused.
    NotConfigured,
}

/// A place in the code where a test may inject a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// Entries are about to be handed to the log.
    BeforeAppend,
    /// The log acknowledged, the conversation has not yet acted on it.
    Committed,
    /// A piece of a reply came.
    Progress,
    /// The text of a reply under way, as far as it had come, is in the log.
    Kept,
    /// A piece of a reply came and is not shown: the log is behind with what was.
    Withheld,
}

/// A hook that is called at every [`Failpoint`], on the conversation's thread. It may panic.
#[derive(Clone)]
pub struct Failpoints(Arc<Hook>);

type Hook = dyn Fn(Failpoint, &ConversationId) + Send + Sync;

impl Failpoints {
    /// Calls `hook` at every failpoint.
    #[must_use]
    pub fn new(hook: impl Fn(Failpoint, &ConversationId) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn reached(&self, failpoint: Failpoint, id: &ConversationId) {
        (self.0)(failpoint, id);
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failpoints")
    }
}

/// A thread that conversations live on, and its provider.
#[derive(Debug)]
pub struct Home {
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) provider: Option<Recipient<Generate>>,
}

impl Home {
    /// Whether turns can be answered at all.
    pub(crate) fn may_generate(&self) -> Result<(), EngineError> {
        match self.provider {
            Some(_) => Ok(()),
            None => Err(EngineError::Upstream(UpstreamError {
                upstream: Upstream::OpenRouter,
                kind: UpstreamErrorKind::NotConfigured {
                    variable: "OPENROUTER_API_KEY",
                },
                message: "No model provider is configured: set OPENROUTER_API_KEY".into(),
                retry_after: None,
                retryable: None,
                too_long: None,
            })),
        }
    }
}

/// What the supervisor may know of a conversation without asking it.
#[derive(Debug)]
pub(crate) struct Vitals {
    epoch: Instant,
    active_ms: AtomicU64,
    /// Bytes of history in memory.
    pub(crate) bytes: AtomicUsize,
}

impl Vitals {
    pub(crate) fn new(epoch: Instant) -> Self {
        let vitals = Self {
            epoch,
            active_ms: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        };
        vitals.touch();
        vitals
    }

    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(now, Ordering::Relaxed);
    }

    pub(crate) fn active_ms(&self) -> u64 {
        self.active_ms.load(Ordering::Relaxed)
    }
}

/// The living conversations. Read by everybody, written by the supervisor, and by a conversation
/// that takes itself out.
#[derive(Debug, Default)]
pub(crate) struct Directory(DashMap<ConversationId, Listed>);

/// A living conversation.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) addr: Addr<Conversation>,
    pub(crate) generation: u64,
    pub(crate) vitals: Arc<Vitals>,
}

impl Directory {
    /// The conversation's address, if it lives.
    pub(crate) fn get(&self, id: &ConversationId) -> Option<Addr<Conversation>> {
        let listed = self.0.get(id)?;
        listed.addr.connected().then(|| listed.addr.clone())
    }

    pub(crate) fn insert(&self, id: ConversationId, listed: Listed) {
        self.0.insert(id, listed);
    }

    /// Removes this life of a conversation, not one that came after it.
    pub(crate) fn remove(&self, id: &ConversationId, generation: u64) {
        self.0
            .remove_if(id, |_, listed| listed.generation == generation);
    }

    pub(crate) fn all(&self) -> Vec<Listed> {
        self.0.iter().map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What all conversations of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) loader: Loader,
    pub(crate) metrics: Metrics,
    pub(crate) directory: Directory,
    /// Bytes of history in memory, of all conversations.
    pub(crate) resident: AtomicUsize,
    pub(crate) supervisor: SupervisorLine,
    pub(crate) ticker: Ticker,
    /// How long the next look for a document elsewhere is waited for.
    pub(crate) patience: Patience,
    pub(crate) key_ages: KeyAges,
    pub(crate) mirrors: Vec<Recipient<Changed>>,
    pub(crate) context_lengths: RwLock<HashMap<String, u32>>,
    pub(crate) draining: AtomicBool,
}

/// The way to the supervisor, which is started after what it shares.
#[derive(Debug, Default)]
pub(crate) struct SupervisorLine(OnceLock<Recipient<Stopped>>);

impl SupervisorLine {
    pub(crate) fn connect(&self, supervisor: Recipient<Stopped>) {
        // Only the engine's start calls this, once.
        drop(self.0.set(supervisor));
    }

    pub(crate) fn try_send(
        &self,
        stopped: Stopped,
    ) -> Result<(), actix::prelude::SendError<Stopped>> {
        match self.0.get() {
            Some(supervisor) => supervisor.try_send(stopped),
            None => Err(actix::prelude::SendError::Closed(stopped)),
        }
    }
}

/// Models whose context length is learned from refusals, those listed counted in; routers have
/// some hundreds.
const MODELS_MAX: usize = 10_000;

impl Shared {
    /// Tokens that a model's context holds.
    pub(crate) fn context_tokens(&self, model: &str) -> u32 {
        self.context_lengths
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(model)
            .copied()
            .unwrap_or(self.config.default_context_tokens)
    }

    /// Notes a length that the upstream stated. Its model list, read again, is believed again.
    pub(crate) fn learn_context(&self, model: &str, tokens: u32) {
        let mut lengths = self
            .context_lengths
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Clients name models: one that no list has room for is asked twice each time.
        if lengths.len() < MODELS_MAX || lengths.contains_key(model) {
            lengths.insert(model.to_owned(), tokens);
        }
    }

    /// Takes the upstream's model list; lengths of models that it does not have stay.
    pub(crate) fn know_contexts(&self, lengths: HashMap<String, u32>) {
        self.context_lengths
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(lengths);
    }

    /// Tells the mirrors; a notice that finds no room is found by a mirror's next sweep.
    pub(crate) fn changed(&self, changed: &Changed) {
        for mirror in &self.mirrors {
            if let Err(error) = mirror.try_send(changed.clone()) {
                tracing::debug!(%error, "a mirror will find a change by itself");
            }
        }
    }

    /// When clients of a stopping server may come back; jittered, so that they don't all at once.
    #[expect(clippy::unused_self, reason = "an operator's choice to be")]
    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_secs(fastrand::u64(2..=8))
    }
}

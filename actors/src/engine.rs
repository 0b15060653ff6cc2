//! The engine: its threads, its supervisor, and the way in.

use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Recipient};
use actix_rt::{Arbiter, ArbiterHandle};
use futures::{FutureExt as _, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    conversation::command::{Adopting, AskDrain},
    error::EngineError,
    handle::ConversationHandle,
    id::ConversationId,
    keys::KeyAges,
    loading::Loader,
    log::Log,
    metrics::Metrics,
    mirror::{AdoptError, Adopted, Adopter, Changed, imported::ImportedDocument},
    patience::Patience,
    provider::{
        Generate,
        embedded::Embedded,
        openrouter::{OpenRouter, OpenRouterConfigError, models},
        protection::Protection,
    },
    shared::{ChatProvider, Directory, EngineConfig, Home, Placement, Shared, SupervisorLine},
    supervisor::Supervisor,
    ticker::{self, Ticker},
};

/// A running engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    supervisor: Addr<Supervisor>,
}

/// What the engine is doing, for the readiness page and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Conversation actors.
    pub conversations: usize,
    /// Bytes of history in memory.
    pub resident_bytes: usize,
    /// Whether new turns are refused.
    pub draining: bool,
    /// The room on the log's disk; `None`: it is not watched.
    pub disk: Option<Disk>,
}

/// The room on the log's disk, as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Whether that is too little for new turns.
    pub is_low: bool,
}

/// How often the upstream's model list is read again, and how soon after a failure.
const MODELS_REFRESH: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(60));

impl Engine {
    /// Starts an engine on a running actix system. Fails if the provider cannot be set up.
    pub fn start(
        config: EngineConfig,
        log: Arc<dyn Log>,
        mirrors: Vec<Recipient<Changed>>,
        metrics: Metrics,
    ) -> Result<Self, OpenRouterConfigError> {
        let shared = Arc::new(Shared {
            loader: Loader {
                log,
                json_files: config.json_files.clone(),
            },
            metrics,
            directory: Directory::default(),
            resident: AtomicUsize::new(0),
            supervisor: SupervisorLine::default(),
            ticker: Ticker::default(),
            patience: Patience::default(),
            key_ages: KeyAges::new(Instant::now()),
            mirrors,
            context_lengths: RwLock::new(HashMap::new()),
            draining: AtomicBool::new(false),
            config,
        });
        let own_threads = match shared.config.placement {
            Placement::Caller => 0,
            Placement::Engine(threads) => threads.max(1),
        };
        let homes = (0..own_threads)
            .map(|_| {
                let arbiter = Arbiter::new().handle();
                Ok(Arc::new(Home {
                    provider: start_provider(&shared.config.chat, &arbiter)?,
                    arbiter,
                }))
            })
            .collect::<Result<_, OpenRouterConfigError>>()?;
        let supervisor = {
            let shared = shared.clone();
            Supervisor::start_in_arbiter(&Arbiter::new().handle(), move |_| {
                Supervisor::new(shared, homes)
            })
        };
        shared.supervisor.connect(supervisor.clone().recipient());
        Arbiter::current().spawn(ticker::run(Arc::downgrade(&shared)));
        refresh_models(&shared);
        Ok(Self { shared, supervisor })
    }

    /// Makes the current thread one that conversations may live on, if placement wants it.
    pub fn home_here(&self) -> Result<Option<Arc<Home>>, OpenRouterConfigError> {
        match self.shared.config.placement {
            Placement::Engine(_) => Ok(None),
            Placement::Caller => {
                let arbiter = Arbiter::current();
                Ok(Some(Arc::new(Home {
                    provider: start_provider(&self.shared.config.chat, &arbiter)?,
                    arbiter,
                })))
            }
        }
    }

    /// A conversation by its id; `home` is the asker's thread, from [`Engine::home_here`].
    #[must_use]
    pub fn conversation(&self, id: ConversationId, home: Option<Arc<Home>>) -> ConversationHandle {
        ConversationHandle::new(id, self.clone(), home)
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What it is doing.
    #[must_use]
    pub fn observe(&self) -> Observed {
        Observed {
            conversations: self.shared.directory.len(),
            resident_bytes: self.shared.resident.load(Ordering::Relaxed),
            draining: self.shared.draining.load(Ordering::Acquire),
            disk: self.shared.config.space.as_ref().map(|space| Disk {
                free_bytes: space.free_bytes(),
                is_low: space.is_low(),
            }),
        }
    }

    /// What the calls to the upstream share; none without one.
    #[must_use]
    pub fn protection(&self) -> Option<&Arc<Protection>> {
        match &self.shared.config.chat {
            ChatProvider::OpenRouter(_, protection) => Some(protection),
            ChatProvider::Embedded(_) | ChatProvider::NotConfigured => None,
        }
    }

    /// Refuses new turns, lets turns under way finish for up to `grace`, then cuts them, and
    /// returns when the end of each is in the log (or another `grace` has passed).
    pub async fn drain(&self, grace: Duration) {
        self.shared.draining.store(true, Ordering::Release);
        let mut open: FuturesUnordered<_> = self
            .shared
            .directory
            .all()
            .into_iter()
            .map(|listed| listed.addr.send(AskDrain { grace }))
            .collect();
        let all = async { while open.next().await.is_some() {} };
        if tokio::time::timeout(grace * 2 + Duration::from_secs(1), all)
            .await
            .is_err()
        {
            tracing::warn!("some turns could not be ended in time; the next start ends them");
        }
    }

    /// Refuses when new turns are refused.
    pub(crate) fn open(&self) -> Result<(), EngineError> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown {
                retry_after: self.shared.retry_after(),
            });
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn supervisor(&self) -> &Addr<Supervisor> {
        &self.supervisor
    }
}

impl Adopter for Engine {
    fn adopt(
        &self,
        id: ConversationId,
        document: ImportedDocument,
    ) -> BoxFuture<'static, Result<Adopted, AdoptError>> {
        let conversation = self.conversation(id, None);
        async move {
            match conversation.adopt(document).await {
                Ok(Adopting::Nothing) => Ok(Adopted::Nothing),
                Ok(Adopting::Messages(messages)) => Ok(Adopted::Messages(messages)),
                Ok(Adopting::Parted) => Err(AdoptError::Parted),
                Err(error) => Err(AdoptError::Unavailable(error.to_string().into())),
            }
        }
        .boxed()
    }
}

fn start_provider(
    chat: &ChatProvider,
    arbiter: &ArbiterHandle,
) -> Result<Option<Recipient<Generate>>, OpenRouterConfigError> {
    Ok(match chat {
        ChatProvider::OpenRouter(config, protection) => {
            let actor = OpenRouter::new(config, protection.clone())?;
            Some(OpenRouter::start_in_arbiter(arbiter, move |_| actor).recipient())
        }
        ChatProvider::Embedded(pace) => {
            let actor = Embedded::new(*pace);
            Some(Embedded::start_in_arbiter(arbiter, move |_| actor).recipient())
        }
        ChatProvider::NotConfigured => None,
    })
}

/// Reads the upstream's model list in the background, again and again, for the context lengths.
///
/// What an earlier process read holds until then, and while the upstream does not give it.
fn refresh_models(shared: &Arc<Shared>) {
    let ChatProvider::OpenRouter(config, _) = shared.config.chat.clone() else {
        return;
    };
    let file = shared.config.models_file.clone();
    if let Some(file) = &file {
        shared.know_contexts(models::kept(file, &config.base_url));
    }
    // Weak: the task ends with the engine.
    let shared = Arc::downgrade(shared);
    let refresh = async move {
        loop {
            let found = models::fetch_context_lengths(&config).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let wait = match found {
                Ok(lengths) => {
                    tracing::info!(models = lengths.len(), "read the upstream's model list");
                    if let Some(file) = &file {
                        models::keep(file, &config.base_url, &lengths).await;
                    }
                    shared.know_contexts(lengths);
                    MODELS_REFRESH.0
                }
                Err(error) => {
                    tracing::warn!(%error, "the upstream's model list cannot be read");
                    MODELS_REFRESH.1
                }
            };
            drop(shared);
            tokio::time::sleep(wait.mul_f64(0.9 + fastrand::f64() * 0.2)).await;
        }
    };
    Arbiter::current().spawn(refresh);
}

//! The handle a test holds: start, tell, ask, wait.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

use crate::counters::{Counters, WaitError};
use crate::elevenlabs::ElevenLabs;
use crate::gate::Gate;
use crate::http::Request;
use crate::openrouter::{ModelCard, Route, Script};
use crate::server::{self, Shared};
use crate::supabase::{self, Supabase};
use crate::whisper::Whisper;

/// Connections that may wait to be accepted: a load test opens thousands at once.
const BACKLOG: u32 = 4096;

/// How a simulator is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The port on loopback; 0 takes a free one.
    pub port: u16,
    /// The threads that serve.
    pub threads: usize,
    /// The bearer key that requests must carry; none asks for none.
    pub key: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            threads: 1,
            key: None,
        }
    }
}

/// A running simulator; once it is dropped, its port and every connection are closed.
///
/// It serves on threads of its own, so that a test whose runtime is blocked or has its time
/// paused does not stall the upstream it talks to.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    clock: tokio::runtime::Handle,
}

impl Simulator {
    /// Starts a simulator on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be bound or no thread be started.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts a simulator with these options.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound or no thread be started.
    pub fn start_with(options: Options) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("simulator")
            .enable_all()
            .build()?;
        let clock = runtime.handle().clone();
        let listener = {
            let _inside = clock.enter();
            listen(options.port)?
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options.key));
        clock.spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            runtime: Some(runtime),
            clock,
        })
    }

    /// Returns the address that the simulator listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL to configure as OpenRouter's, without a slash at its end.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// Returns the base URL to configure as Supabase's, without a slash at its end.
    pub fn supabase_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the handle of the simulated Supabase.
    pub fn supabase(&self) -> Supabase {
        Supabase::new(Arc::clone(&self.shared), self.clock.clone())
    }

    /// Returns the base URL to configure as ElevenLabs', without a slash at its end.
    ///
    /// Its sockets are at the same place with `ws:` for `http:`.
    pub fn elevenlabs_url(&self) -> String {
        format!("http://{}/elevenlabs/v1", self.address)
    }

    /// Returns the base URL to configure as OpenAI's for transcriptions, without a slash at its
    /// end.
    pub fn whisper_url(&self) -> String {
        format!("http://{}/whisper/v1", self.address)
    }

    /// Returns the base URL of whisper.cpp's server, without a slash at its end; `/inference`
    /// below it answers as that server does.
    pub fn whispercpp_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the handle of the simulated ElevenLabs.
    pub fn elevenlabs(&self) -> ElevenLabs {
        ElevenLabs::new(Arc::clone(&self.shared))
    }

    /// Returns the handle of the simulated transcription.
    pub fn whisper(&self) -> Whisper {
        Whisper::new(Arc::clone(&self.shared))
    }

    /// Sets the service key that requests to Supabase must carry from now on.
    ///
    /// It has the form of a JWT or begins with `sb_secret_`, and goes in both `apikey` and
    /// `Authorization: Bearer`. `None`, as at the start, takes any value that both agree on.
    pub fn require_service_key(&self, key: Option<&str>) {
        self.supabase().require_key(key);
    }

    /// Queues what the next chat completion shall do.
    ///
    /// Each call adds one request's behaviour; queued behaviours are played in order, and come
    /// before what a model name or the default asks for.
    pub fn script(&self, script: impl Into<Script>) {
        self.script_on(Route::Chat, script);
    }

    /// Queues what the next request on a route shall do.
    ///
    /// On routes other than [`Route::Chat`] and those of speech only what concerns a whole answer
    /// is played: status and body faults, late or missing headers, cut bodies.
    pub fn script_on(&self, route: Route, script: impl Into<Script>) {
        self.shared.openrouter.queue(route, script.into());
    }

    /// Returns how many queued behaviours no request has used up yet.
    pub fn scripts_left(&self) -> usize {
        self.shared.openrouter.queued()
    }

    /// Sets what a chat completion does that nothing else speaks for.
    pub fn set_default(&self, script: impl Into<Script>) {
        self.set_default_on(Route::Chat, script);
    }

    /// Sets what a request on a route does that nothing else speaks for.
    pub fn set_default_on(&self, route: Route, script: impl Into<Script>) {
        self.shared.openrouter.set_default(route, script.into());
    }

    /// Adds a model to `GET /models`; one of the same id is replaced.
    pub fn add_model(&self, card: ModelCard) {
        self.shared.openrouter.add_model(card);
    }

    /// Sets the bearer key that requests to OpenRouter must carry from now on; `None` asks for none.
    pub fn require_key(&self, key: Option<&str>) {
        self.shared.openrouter.require_key(key.map(str::to_owned));
    }

    /// Makes a gate to hold replies at, see [`Script::hold_at`], or requests to Supabase, see
    /// [`supabase::Fault::Hold`].
    pub fn gate(&self) -> Gate {
        Gate::new(self.clock.clone())
    }

    /// Returns the last requests, oldest first; administrative ones are not among them.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.log.all()
    }

    /// Returns the last requests and forgets them.
    pub fn take_requests(&self) -> Vec<Arc<Request>> {
        self.shared.log.take()
    }

    /// Returns the last chat completion requests, oldest first.
    pub fn chat_requests(&self) -> Vec<Arc<Request>> {
        self.requests_on(Route::Chat)
    }

    /// Returns the last requests on a route, oldest first.
    pub fn requests_on(&self, route: Route) -> Vec<Arc<Request>> {
        let mut requests = self.requests();
        requests.retain(|request| Route::of(request.path()) == Some(route));
        requests
    }

    /// Returns the last requests to Supabase, oldest first.
    ///
    /// Those that were refused before their body was read have none here.
    pub fn supabase_requests(&self) -> Vec<Arc<Request>> {
        let mut requests = self.requests();
        requests.retain(|request| supabase::serves(request.path()));
        requests
    }

    /// Returns the counts as of now.
    pub fn counters(&self) -> Counters {
        self.shared.meter.read()
    }

    /// Waits until the counts satisfy a condition, and returns them.
    ///
    /// # Errors
    ///
    /// When the deadline passes first; the error names `what` was awaited and the last counts.
    pub async fn wait_for(
        &self,
        what: &str,
        condition: impl Fn(&Counters) -> bool,
        deadline: Duration,
    ) -> Result<Counters, WaitError> {
        self.shared
            .meter
            .wait_for(&self.clock, what, condition, deadline)
            .await
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be dropped inside another one, so a thread of its own does it.
            // Nothing blocks on these threads: the wait is as long as the longest poll.
            drop(std::thread::spawn(move || drop(runtime)).join());
        }
    }
}

/// Listens on loopback; a port whose last connections have just ended can be taken again.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

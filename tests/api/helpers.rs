//! A server under test, and clients that speak to it.

use std::{
    collections::HashMap, net::SocketAddr, path::PathBuf, thread::JoinHandle, time::Duration,
};

use futures::{SinkExt, StreamExt};
use idol_actors::{
    engine::Engine,
    mirror::supabase_mirror::{Backoff, SupabaseState, Waits},
    provider::attempts::RetryWaits,
};
use idol_router::{
    application::{Application, Ended, Tuning},
    config::Config,
};
use idol_simulator::Simulator;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

/// Long enough for the slowest machine; a test that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits something, or fails by saying what did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {DEADLINE:?}"),
    }
}

/// Asks again and again until the answer is there. For states that nobody announces.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let mut probes = tokio::time::interval(Duration::from_millis(5));
    within(what, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            probes.tick().await;
        }
    })
    .await
}

/// A server in this process, with its own upstream and its own directory.
pub struct TestApp {
    pub address: SocketAddr,
    pub simulator: Simulator,
    pub engine: Engine,
    pub sockets: std::sync::Arc<idol_router::sockets::Sockets>,
    pub http: reqwest::Client,
    /// What the copy in Supabase is at, if there is one.
    pub supabase: Option<watch::Receiver<SupabaseState>>,
    data_dir: DataDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Ended>>,
}

enum DataDir {
    Own(TempDir),
    Given(PathBuf),
}

/// The service key of the simulated Supabase.
pub const SERVICE_KEY: &str = "sb_secret_of_a_test";

/// The bucket of the documents.
pub const BUCKET: &str = "conversations";

/// Waits that do not hold up a test.
pub fn quick_waits() -> Waits {
    Waits {
        unconfirmed: Duration::from_millis(300),
        looks: vec![Duration::from_millis(50), Duration::from_millis(100)],
        backoff: Backoff {
            first: Duration::from_millis(20),
            longest: Duration::from_millis(200),
            key: Duration::from_millis(100),
        },
        sweep: Duration::from_millis(200),
        limit: Duration::from_millis(100),
        rows: Duration::from_millis(20),
    }
}

/// Waits between requests for one reply that do not hold up a test.
pub fn quick_retries() -> RetryWaits {
    RetryWaits {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(100),
        ..RetryWaits::default()
    }
}

/// How a test wants its server.
pub struct Setup {
    settings: HashMap<String, String>,
    tuning: Tuning,
    data_dir: DataDir,
}

impl Setup {
    pub fn new() -> Self {
        Self {
            settings: HashMap::new(),
            tuning: Tuning {
                retry_waits: Some(quick_retries()),
                ..Tuning::default()
            },
            data_dir: DataDir::Own(tempfile::tempdir().unwrap()),
        }
    }

    /// Sets a configuration variable.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn tuning(mut self, tune: impl FnOnce(&mut Tuning)) -> Self {
        tune(&mut self.tuning);
        self
    }

    /// Copies to this Supabase, with waits that suit a test.
    pub fn supabase(self, remote: &Simulator) -> Self {
        self.set("SUPABASE_URL", &remote.supabase_url())
            .set("SUPABASE_SERVICE_ROLE_KEY", SERVICE_KEY)
            .set("SUPABASE_STORAGE_BUCKET", BUCKET)
            .tuning(|tuning| tuning.supabase_waits = Some(quick_waits()))
    }

    /// Speaks and listens through the simulator, too.
    pub fn voiced(self) -> Self {
        self.set("ELEVENLABS_API_KEY", "xi-test")
            .set("OPENAI_API_KEY", "sk-test")
    }

    /// Asks the upstream once for a reply, and however often it failed: what it does wrong reaches
    /// the client.
    pub fn asking_once(self) -> Self {
        self.set("OPENROUTER_ATTEMPTS", "1")
            .set("OPENROUTER_BREAKER_PERCENT", "0")
    }

    /// Uses a directory that outlives the server.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = DataDir::Given(path.into());
        self
    }

    pub async fn start(self) -> TestApp {
        let simulator = Simulator::start().unwrap();
        self.start_with(simulator).await
    }

    pub async fn start_with(mut self, simulator: Simulator) -> TestApp {
        let data_dir = match &self.data_dir {
            DataDir::Own(own) => own.path().to_owned(),
            DataDir::Given(path) => path.clone(),
        };
        for (name, value) in [
            ("PORT", "0".to_owned()),
            ("DATA_DIR", data_dir.to_str().unwrap().to_owned()),
            ("OPENROUTER_BASE_URL", simulator.base_url()),
            ("OPENROUTER_API_KEY", "sk-or-test".to_owned()),
            ("DEFAULT_MODEL", "sim/tokens=5".to_owned()),
            ("MIRROR_IDLE_SECS", "0".to_owned()),
            ("SHUTDOWN_GRACE_SECS", "5".to_owned()),
        ] {
            self.settings.entry(name.to_owned()).or_insert(value);
        }
        for (key, url, value) in [
            (
                "ELEVENLABS_API_KEY",
                "ELEVENLABS_BASE_URL",
                simulator.elevenlabs_url(),
            ),
            ("OPENAI_API_KEY", "OPENAI_BASE_URL", simulator.whisper_url()),
        ] {
            if self
                .settings
                .get(key)
                .is_some_and(|key| key.ends_with("-test"))
            {
                self.settings.entry(url.to_owned()).or_insert(value);
            }
        }
        let settings = self.settings;
        let config = Config::from_lookup(&|name| settings.get(name).cloned()).unwrap();
        let tuning = self.tuning;
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("server-under-test".into())
            .spawn(move || {
                actix_web::rt::System::new().block_on(async move {
                    let application = Application::build(config, tuning).await.unwrap();
                    let parts = (
                        application.address(),
                        application.engine().clone(),
                        application.sockets().clone(),
                        application.supabase(),
                    );
                    started.send(parts).ok();
                    application
                        .run_until(async { stopped.await.unwrap_or(()) })
                        .await
                        .unwrap()
                })
            })
            .unwrap();
        let (address, engine, sockets, supabase) =
            within("the server's start", start).await.unwrap();
        TestApp {
            address,
            simulator,
            engine,
            sockets,
            http: client(),
            supabase,
            data_dir: self.data_dir,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// An HTTP client that never waits for good.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(DEADLINE)
        .build()
        .unwrap()
}

impl TestApp {
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    pub fn data_dir(&self) -> PathBuf {
        match &self.data_dir {
            DataDir::Own(own) => own.path().to_owned(),
            DataDir::Given(path) => path.clone(),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn post(&self, path: &str, body: Value) -> reqwest::Response {
        let request = self.http.post(self.url(path)).json(&body);
        within("an answer", request.send()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        within("an answer", self.http.get(self.url(path)).send())
            .await
            .unwrap()
    }

    /// `POST /chat` with one user message; the answer's JSON.
    pub async fn chat(&self, conversation: &str, text: &str) -> Value {
        let response = self.post("/chat", say(conversation, text)).await;
        let status = response.status();
        let answer = response.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// `POST /chat/stream`; its events as they come.
    pub async fn stream(&self, body: Value) -> Events {
        let response = self.post("/chat/stream", body).await;
        assert_eq!(response.status(), 200);
        Events::of(response)
    }

    /// `GET /conversation/{id}`; the document.
    pub async fn document(&self, conversation: &str) -> Value {
        let response = self.get(&format!("/conversation/{conversation}")).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// Role and content of every message of the document.
    pub async fn said(&self, conversation: &str) -> Vec<(String, String)> {
        let document = self.document(conversation).await;
        let messages = document["messages"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        messages
            .iter()
            .map(|message| (text(&message["role"]), text(&message["content"])))
            .collect()
    }

    pub async fn socket(&self) -> Socket {
        Socket::connect(self.address).await
    }

    /// Stops the server as SIGTERM does, and waits for its end.
    pub async fn stop(mut self) -> Ended {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        self.ended().await
    }

    /// Waits for its end: of one that is stopped, or ends by itself.
    pub async fn ended(mut self) -> Ended {
        let thread = self.thread.take().unwrap();
        within(
            "the server's end",
            tokio::task::spawn_blocking(move || thread.join()),
        )
        .await
        .unwrap()
        .unwrap()
    }

    /// Fails unless nothing is left of what the test did: no upstream call, no socket.
    pub async fn assert_nothing_left(&self) {
        let left = self.simulator.wait_for(
            "the end of every upstream call",
            |counters| counters.active_requests == 0 && counters.active_streams == 0,
            DEADLINE,
        );
        left.await.unwrap();
        until("the end of every socket", async || {
            self.sockets.is_empty().then_some(())
        })
        .await;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // Not joined: a failing test must not wait for a server that hangs.
        self.stop.take();
    }
}

/// A chat body with one user message.
pub fn say(conversation: &str, text: &str) -> Value {
    json!({
        "conversation_id": conversation,
        "messages": [{"role": "user", "content": text}],
    })
}

/// The events of a stream, split as the ancestor's front ends split them.
pub struct Events {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
    /// Everything received.
    pub raw: Vec<u8>,
}

impl Events {
    pub fn of(response: reqwest::Response) -> Self {
        Self {
            body: Box::pin(response.bytes_stream()),
            buffer: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// The next event's JSON; none at the end of the stream. Comments are passed over.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let Some(data) = block.trim_end().strip_prefix("data: ") else {
                    assert!(
                        block.starts_with(':'),
                        "neither an event nor a comment: {block:?}"
                    );
                    continue;
                };
                return Some(serde_json::from_str(data).unwrap());
            }
            let piece = within("the next event", self.body.next()).await?;
            let Ok(piece) = piece else {
                return None;
            };
            self.raw.extend_from_slice(&piece);
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// All events up to the end.
    pub async fn all(mut self) -> Vec<Value> {
        let events = self.rest().await;
        assert!(self.buffer.is_empty(), "half an event at the end");
        events
    }

    /// All whole events up to the end, or to where the connection was cut.
    pub async fn all_until_cut(mut self) -> Vec<Value> {
        self.rest().await
    }

    async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// The reply text of a stream's chunks.
pub fn text_of(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

/// A WebSocket client.
pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// None if nobody is there, or not for long enough.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        // The default buffer of 128 KiB a socket would be most of a test's memory.
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let url = format!("ws://{address}/ws/chat");
        let connect = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
        let (stream, _) = within("the upgrade", connect).await.ok()?;
        Some(Self { stream })
    }

    pub async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        within("sending a frame", self.stream.send(message))
            .await
            .unwrap();
    }

    /// Several frames in one write.
    pub async fn send_together(&mut self, frames: impl IntoIterator<Item = Message>) {
        for frame in frames {
            within("room for a frame", self.stream.feed(frame))
                .await
                .unwrap();
        }
        within("sending frames", self.stream.flush()).await.unwrap();
    }

    /// The same where the server may be gone: none if it is.
    pub async fn try_send(&mut self, message: Value) -> Option<()> {
        let sent = self.stream.send(Message::text(message.to_string()));
        within("sending a frame", sent).await.ok()
    }

    /// The next JSON message; pings are answered and passed over.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(message) => message,
            Err(close) => panic!("the socket was closed: {close:?}"),
        }
    }

    /// The next JSON message, or how the socket was closed.
    pub async fn next_or_close(
        &mut self,
    ) -> Result<Value, Option<tungstenite::protocol::CloseFrame>> {
        // Around the loop: the server's pings must not put the deadline off.
        within("the next frame", async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(frame))) => return Err(frame),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        })
        .await
    }

    /// Messages until so many bytes of reply text have come.
    pub async fn until_text(&mut self, bytes: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        while content_of(&messages).len() < bytes {
            messages.push(self.next().await);
        }
        messages
    }

    /// Messages up to and including the first of this type.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let last = message["type"] == kind;
            messages.push(message);
            if last {
                return messages;
            }
        }
    }
}

/// The text of the chunks among messages of a socket, or events of a conversation.
pub fn content_of(messages: &[Value]) -> String {
    messages
        .iter()
        .filter(|message| message["type"] == "chunk")
        .map(|chunk| chunk["content"].as_str().unwrap())
        .collect()
}

/// The types of messages, in order.
pub fn types(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .filter_map(|message| message["type"].as_str())
        .collect()
}

/// The messages of a prompt that the upstream received, the system prompt left out.
pub fn prompt(request: &idol_simulator::Request) -> Vec<Value> {
    let body = request.json().unwrap();
    let messages = body["messages"].as_array().unwrap();
    assert_eq!(messages[0]["role"], "system");
    messages[1..].to_vec()
}

/// The document that a mirror wrote, without what it says of the log it is from.
pub fn mirrored(bytes: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(bytes).unwrap();
    let revision = document
        .as_object_mut()
        .unwrap()
        .remove("revision")
        .unwrap();
    assert!(revision["seq"].as_u64().unwrap() > 0, "{revision}");
    document
}

/// Fails unless the answer is this error in the one shape of errors; returns its body.
pub async fn refused(response: reqwest::Response, status: u16, code: &str) -> Value {
    let (given, headers) = (response.status(), response.headers().clone());
    let text = within("an error's body", response.text()).await.unwrap();
    assert_eq!(given, status, "{text}");
    assert_eq!(headers["content-type"], "application/json", "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], code, "{text}");
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{text}"
    );
    assert!(!body["detail"].is_null(), "{text}");
    let wait = headers
        .get("retry-after")
        .map(|wait| wait.to_str().unwrap());
    let told = body["retry_after"].as_u64().map(|wait| wait.to_string());
    assert_eq!(wait, told.as_deref(), "{text}");
    if matches!(status, 400..=428 | 430..=499) {
        assert_eq!(headers["x-should-retry"], "false", "{text}");
    }
    body
}

/// What an environment variable says that a test heeds.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}: a number")),
    )
}

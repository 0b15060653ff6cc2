//! The server, the listener, and what they say to each other.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, Context, Handler};
use bytes::Bytes;
use idol_actors::{
    id::TurnId,
    json_text::unescape,
    provider::{
        Delta, Generate, Generation, Progress, UpstreamError, UpstreamErrorKind,
        attempts::RetryPolicy,
        openrouter::{Deadlines, OpenRouter, OpenRouterConfig},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Nothing on loopback takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
pub(crate) const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
pub(crate) const DONE: &str = "data: [DONE]\n\n";

pub(crate) fn chunk(text: &str) -> String {
    format!("data: {{\"id\":\"gen-1\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

pub(crate) fn finish(reason: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n")
}

pub(crate) fn framed(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n", body.len())
}

/// A server that accepts one connection after the other, as the test asks.
pub(crate) struct Upstream {
    pub(crate) listener: TcpListener,
}

/// One connection, its request read.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(crate) fn config(&self) -> OpenRouterConfig {
        let port = self.listener.local_addr().unwrap().port();
        OpenRouterConfig {
            base_url: format!("http://127.0.0.1:{port}/api/v1/"),
            api_key: Some("key-of-the-test".into()),
            http_referer: Some("https://example.org".to_owned()),
            title: Some("Idol".to_owned()),
            deadlines: Deadlines::default(),
            reply_bytes_max: 1 << 20,
            // One call is looked at here.
            retry: RetryPolicy {
                attempts: 1,
                ..RetryPolicy::default()
            },
        }
    }

    pub(crate) async fn accept(&self) -> Connection {
        let (socket, _) = timeout(PATIENCE, self.listener.accept())
            .await
            .expect("a call")
            .unwrap();
        socket.set_nodelay(true).unwrap();
        let mut connection = Connection {
            socket,
            head: String::new(),
            body: String::new(),
        };
        connection.next_request().await;
        connection
    }
}

impl Connection {
    pub(crate) async fn next_request(&mut self) {
        let mut request = Vec::new();
        let head_end = loop {
            let mut piece = [0; 4096];
            let read = timeout(PATIENCE, self.socket.read(&mut piece))
                .await
                .expect("a request")
                .unwrap();
            assert!(read > 0, "the connection was closed before its request");
            request.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let Some(end) = text.find("\r\n\r\n") else {
                continue;
            };
            let length = text.split("content-length: ").nth(1);
            let length = length.map_or(0, |tail| tail.lines().next().unwrap().parse().unwrap());
            if request.len() >= end + 4 + length {
                break end + 4;
            }
        };
        let text = String::from_utf8(request).unwrap();
        self.head = text[..head_end].to_lowercase();
        self.body = text[head_end..].to_owned();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Says the same again and again, until the client closes.
    pub(crate) async fn say_for_ever(mut self, text: &str) {
        let saying = async {
            while self.socket.write_all(text.as_bytes()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, saying)
            .await
            .expect("the connection stays open");
    }

    /// Waits until the client closes.
    pub(crate) async fn closed(mut self) {
        let closing = async {
            let mut piece = [0; 1024];
            while let Ok(1..) = self.socket.read(&mut piece).await {}
        };
        timeout(PATIENCE, closing)
            .await
            .expect("the connection stays open");
    }
}

/// Passes every message on to the test.
pub(crate) struct Listener(pub(crate) mpsc::UnboundedSender<Progress>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Progress> for Listener {
    type Result = ();

    fn handle(&mut self, progress: Progress, _: &mut Context<Self>) {
        self.0.send(progress).unwrap();
    }
}

/// A call under way and its messages.
pub(crate) struct Call {
    pub(crate) turn: TurnId,
    pub(crate) guard: Generation,
    pub(crate) messages: mpsc::UnboundedReceiver<Progress>,
    pub(crate) listener: Addr<Listener>,
}

impl Call {
    pub(crate) async fn start(config: &OpenRouterConfig) -> Self {
        Self::with(&OpenRouter::new(config, Arc::default()).unwrap().start()).await
    }

    pub(crate) async fn with(provider: &Addr<OpenRouter>) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let listener = Listener(sender).start();
        let turn = TurnId::now();
        let body = Bytes::from_static(b"{\"stream\":true}").into();
        let reply_to = listener.clone().recipient();
        let guard = provider
            .send(Generate {
                turn,
                body,
                models: Vec::new(),
                reply_to,
            })
            .await
            .unwrap();
        Self {
            turn,
            guard,
            messages,
            listener,
        }
    }

    pub(crate) async fn next(&mut self) -> Progress {
        let next = timeout(PATIENCE, self.messages.recv())
            .await
            .expect("a message");
        let progress = next.expect("the listener lives");
        assert_eq!(progress.turn, self.turn);
        progress
    }

    /// All of the reply, checked to have one end and nothing after it.
    pub(crate) async fn reply(mut self) -> Reply {
        let mut reply = Reply::default();
        loop {
            let progress = self.next().await;
            assert!(
                !progress.deltas.is_empty() || progress.end.is_some(),
                "an empty message"
            );
            reply.messages += 1;
            for delta in progress.deltas {
                match delta {
                    Delta::Text(text) => reply.text.push_str(&unescape(text.as_escaped())),
                    Delta::Finish { reason, .. } => reply.finish.push(reason),
                    _ => {}
                }
            }
            if let Some(end) = progress.end {
                reply.end = Some(end);
                break;
            }
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(self.messages.try_recv().is_err(), "a message after the end");
        drop(self.guard);
        reply
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) finish: Vec<String>,
    pub(crate) messages: usize,
    pub(crate) end: Option<Result<(), UpstreamError>>,
}

impl Reply {
    #[track_caller]
    pub(crate) fn is_whole(&self, text: &str, finish: &str) {
        let found = (self.text.as_str(), &self.finish[..], &self.end);
        assert_eq!(found, (text, &[finish.to_owned()][..], &Some(Ok(()))));
    }

    #[track_caller]
    pub(crate) fn failed(
        &self,
        text: &str,
        kind: &UpstreamErrorKind,
        words: &str,
    ) -> UpstreamError {
        let Some(Err(error)) = &self.end else {
            panic!("{self:?}")
        };
        assert_eq!((self.text.as_str(), &error.kind), (text, kind), "{error}");
        assert!(error.message.contains(words), "{error}");
        error.clone()
    }
}

/// Runs one call against a script.
pub(crate) async fn call(
    config: impl FnOnce(&mut OpenRouterConfig),
    script: impl AsyncFnOnce(Connection),
) -> Reply {
    let upstream = Upstream::start().await;
    let mut chosen = upstream.config();
    config(&mut chosen);
    let call = Call::start(&chosen).await;
    let serve = async { script(upstream.accept().await).await };
    tokio::join!(serve, call.reply()).1
}

pub(crate) fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

//! The OpenRouter provider against a server on loopback that says what the test tells it to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use bytes::Bytes;
use idol_actors::{
    id::TurnId,
    json_text::unescape,
    provider::{
        Delta, Generate, Generation, Progress, UpstreamError, UpstreamErrorKind,
        openrouter::{Deadlines, OpenRouter, OpenRouterConfig, models::fetch_context_lengths},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

/// Nothing on loopback takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const DONE: &str = "data: [DONE]\n\n";

fn chunk(text: &str) -> String {
    format!("data: {{\"id\":\"gen-1\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

fn finish(reason: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n")
}

fn framed(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n", body.len())
}

/// A server that accepts one connection after the other, as the test asks.
struct Upstream {
    listener: TcpListener,
}

/// One connection, its request read.
struct Connection {
    socket: TcpStream,
    head: String,
    body: String,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    fn config(&self) -> OpenRouterConfig {
        let port = self.listener.local_addr().unwrap().port();
        OpenRouterConfig {
            base_url: format!("http://127.0.0.1:{port}/api/v1/"),
            api_key: Some("sk-test-key".into()),
            http_referer: Some("https://example.org".to_owned()),
            title: Some("Idol".to_owned()),
            deadlines: Deadlines::default(),
            reply_bytes_max: 1 << 20,
        }
    }

    async fn accept(&self) -> Connection {
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
    async fn next_request(&mut self) {
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

    async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits until the client closes.
    async fn closed(mut self) {
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
struct Listener(mpsc::UnboundedSender<Progress>);

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
struct Call {
    turn: TurnId,
    guard: Generation,
    messages: mpsc::UnboundedReceiver<Progress>,
    listener: Addr<Listener>,
}

impl Call {
    async fn start(config: &OpenRouterConfig) -> Self {
        Self::with(&OpenRouter::new(config).unwrap().start()).await
    }

    async fn with(provider: &Addr<OpenRouter>) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let listener = Listener(sender).start();
        let turn = TurnId::now();
        let body = Bytes::from_static(b"{\"stream\":true}");
        let reply_to = listener.clone().recipient();
        let guard = provider
            .send(Generate {
                turn,
                body,
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

    async fn next(&mut self) -> Progress {
        let next = timeout(PATIENCE, self.messages.recv())
            .await
            .expect("a message");
        let progress = next.expect("the listener lives");
        assert_eq!(progress.turn, self.turn);
        progress
    }

    /// All of the reply, checked to have one end and nothing after it.
    async fn reply(mut self) -> Reply {
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
struct Reply {
    text: String,
    finish: Vec<String>,
    messages: usize,
    end: Option<Result<(), UpstreamError>>,
}

impl Reply {
    #[track_caller]
    fn is_whole(&self, text: &str, finish: &str) {
        let found = (self.text.as_str(), &self.finish[..], &self.end);
        assert_eq!(found, (text, &[finish.to_owned()][..], &Some(Ok(()))));
    }

    #[track_caller]
    fn failed(&self, text: &str, kind: &UpstreamErrorKind, words: &str) -> UpstreamError {
        let Some(Err(error)) = &self.end else {
            panic!("{self:?}")
        };
        assert_eq!((self.text.as_str(), &error.kind), (text, kind), "{error}");
        assert!(error.message.contains(words), "{error}");
        error.clone()
    }
}

/// Runs one call against a script.
async fn call(
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

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[actix::test]
async fn a_reply_is_streamed_and_the_request_says_who_asks() {
    let reply = call(
        |_| {},
        async |mut connection| {
            assert!(
                connection
                    .head
                    .starts_with("post /api/v1/chat/completions http/1.1\r\n")
            );
            for header in [
                "authorization: bearer sk-test-key",
                "http-referer: https://example.org",
                "x-openrouter-title: idol",
                "x-title: idol",
                "accept: text/event-stream",
                "content-type: application/json",
                concat!("user-agent: idol-router/", env!("CARGO_PKG_VERSION")),
            ] {
                assert!(
                    connection.head.contains(&format!("\r\n{header}\r\n")),
                    "{header}"
                );
            }
            assert_eq!(connection.body, "{\"stream\":true}");
            let all = [
                STREAM,
                ": OPENROUTER PROCESSING\n\n",
                &chunk("a"),
                &chunk("b\\n"),
                &finish("stop"),
                DONE,
            ];
            connection.say(&all.concat()).await;
        },
    )
    .await;
    reply.is_whole("ab\n", "stop");
}

#[actix::test]
async fn without_a_key_none_is_sent() {
    let reply = call(
        |config| {
            config.api_key = None;
            config.title = None;
            config.http_referer = None;
        },
        async |mut connection| {
            for header in ["authorization", "referer", "title"] {
                assert!(!connection.head.contains(header), "{header}");
            }
            connection
                .say(&[STREAM, &chunk("a"), &finish("stop")].concat())
                .await;
        },
    )
    .await;
    reply.is_whole("a", "stop");
}

#[actix::test]
async fn bytes_may_come_in_any_pieces() {
    let stream = include_str!("fixtures/openrouter_stream_basic.sse");
    let reply = call(
        |_| {},
        async |mut connection| {
            connection.say(CHUNKED).await;
            for piece in stream.as_bytes().chunks(11) {
                connection.say(&format!("{:x}\r\n", piece.len())).await;
                connection.socket.write_all(piece).await.unwrap();
                connection.say("\r\n").await;
                tokio::task::yield_now().await;
            }
            connection.say("0\r\n\r\n").await;
        },
    )
    .await;
    reply.is_whole("Grüße aus 東京 🚀.", "stop");
}

#[actix::test]
async fn each_read_is_one_message_and_comments_are_none() {
    let upstream = Upstream::start().await;
    let mut call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    for text in ["a", "b", "c"] {
        connection.say(": ping\n\n").await;
        connection.say(&chunk(text)).await;
        let progress = call.next().await;
        assert!(progress.end.is_none());
        let Some(Delta::Text(found)) = progress.deltas.last() else {
            panic!("{progress:?}")
        };
        assert_eq!(found.as_escaped(), text);
    }
    connection.say(&[&finish("stop"), DONE].concat()).await;
    assert_eq!(call.next().await.end, Some(Ok(())));
}

#[actix::test]
async fn a_reply_without_finish_reason_but_done_is_whole() {
    let reply = call(
        |_| {},
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a"), DONE].concat()).await;
        },
    )
    .await;
    reply.is_whole("a", "unknown");
}

#[actix::test]
async fn a_stream_that_ends_early_is_no_whole_reply() {
    let clean = call(
        |_| {},
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
        },
    );
    clean
        .await
        .failed("a", &UpstreamErrorKind::Failed, "broke off");
    let cut = call(
        |_| {},
        async |mut connection| {
            connection
                .say(&[CHUNKED, &framed(&chunk("a"))].concat())
                .await;
        },
    );
    cut.await
        .failed("a", &UpstreamErrorKind::Failed, "broke off");
    let empty = call(|_| {}, async |mut connection| connection.say(STREAM).await);
    empty
        .await
        .failed("", &UpstreamErrorKind::Failed, "broke off");
}

#[actix::test]
async fn a_reset_is_no_whole_reply() {
    let upstream = Upstream::start().await;
    let mut call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(&[STREAM, &chunk("a")].concat()).await;
    assert!(call.next().await.end.is_none());
    connection.socket.set_zero_linger().unwrap();
    drop(connection);
    call.reply()
        .await
        .failed("", &UpstreamErrorKind::Failed, "broke off");
}

#[actix::test]
async fn a_finished_reply_survives_a_cut() {
    let reply = call(
        |_| {},
        async |mut connection| {
            let body = [chunk("a"), finish("stop")].concat();
            connection.say(&[CHUNKED, &framed(&body)].concat()).await;
        },
    );
    reply.await.is_whole("a", "stop");
}

#[actix::test]
async fn an_error_in_the_stream_comes_after_its_text() {
    let reply = call(
        |_| {},
        async |mut connection| {
            let error =
                "data: {\"error\":{\"code\":429,\"message\":\"slow down sk-test-key\"}}\n\n";
            connection
                .say(&[STREAM, &chunk("a"), error, &chunk("b")].concat())
                .await;
        },
    )
    .await;
    let error = reply.failed("a", &UpstreamErrorKind::RateLimited, "slow down (key)");
    assert!(!error.message.contains("sk-test-key"));
}

#[actix::test]
async fn comments_do_not_hold_up_the_first_token_deadline() {
    let began = Instant::now();
    let reply = call(
        |config| config.deadlines.first_token = milliseconds(150),
        async |mut connection| {
            connection.say(STREAM).await;
            while connection.socket.write_all(b": ping\n\n").await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    )
    .await;
    reply.failed("", &UpstreamErrorKind::Timeout, "did not begin");
    assert!(began.elapsed() >= milliseconds(150));
}

#[actix::test]
async fn no_answer_at_all_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.first_token = milliseconds(50),
        async |connection| connection.closed().await,
    );
    reply
        .await
        .failed("", &UpstreamErrorKind::Timeout, "did not begin");
}

#[actix::test]
async fn silence_within_a_reply_is_a_timeout_though_comments_come() {
    let reply = call(
        |config| config.deadlines.silence = milliseconds(100),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            tokio::time::sleep(milliseconds(60)).await;
            connection.say(&chunk("b")).await;
            while connection.socket.write_all(b":\n\n").await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    );
    reply
        .await
        .failed("ab", &UpstreamErrorKind::Timeout, "silent");
}

#[actix::test]
async fn a_reply_that_trickles_for_ever_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            let empty = chunk("");
            while connection.socket.write_all(empty.as_bytes()).await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    );
    reply
        .await
        .failed("a", &UpstreamErrorKind::Timeout, "did not finish");
}

#[actix::test]
async fn a_finished_reply_whose_stream_stays_open_is_whole() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection
                .say(&[STREAM, &chunk("a"), &finish("stop")].concat())
                .await;
            connection.closed().await;
        },
    );
    reply.await.is_whole("a", "stop");
}

#[actix::test]
async fn dropping_the_guard_closes_the_connection_and_sends_nothing_more() {
    // Before the answer's head, after it, and within the reply.
    for said in [
        String::new(),
        STREAM.to_owned(),
        [STREAM, &chunk("a")].concat(),
    ] {
        let upstream = Upstream::start().await;
        let mut call = Call::start(&upstream.config()).await;
        let mut connection = upstream.accept().await;
        connection.say(&said).await;
        if said.contains("data") {
            call.next().await;
        }
        let began = Instant::now();
        drop(call.guard);
        connection.closed().await;
        assert!(began.elapsed() < milliseconds(500), "{:?}", began.elapsed());
        assert!(call.messages.try_recv().is_err());
    }
}

#[actix::test]
async fn when_nobody_listens_the_connection_is_closed() {
    struct Stop;
    impl actix::Message for Stop {
        type Result = ();
    }
    impl Handler<Stop> for Listener {
        type Result = ();
        fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
            actix::ActorContext::stop(ctx);
        }
    }
    let upstream = Upstream::start().await;
    let call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    call.listener.send(Stop).await.unwrap();
    connection.say(&chunk("a")).await;
    connection.closed().await;
}

/// Takes one message at a time, and its time for each.
struct SlowListener(mpsc::UnboundedSender<Progress>);

impl Actor for SlowListener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
    }
}

impl Handler<Progress> for SlowListener {
    type Result = actix::AtomicResponse<Self, ()>;

    fn handle(&mut self, progress: Progress, _: &mut Context<Self>) -> Self::Result {
        use actix::{ActorFutureExt as _, WrapFuture as _};
        self.0.send(progress).unwrap();
        let pause = tokio::time::sleep(milliseconds(5));
        actix::AtomicResponse::new(Box::pin(pause.into_actor(self).map(|(), _, _| ())))
    }
}

#[actix::test]
async fn a_slow_listener_gets_everything_in_order() {
    let upstream = Upstream::start().await;
    let provider = OpenRouter::new(&upstream.config()).unwrap().start();
    let (sender, mut messages) = mpsc::unbounded_channel();
    let generate = Generate {
        turn: TurnId::now(),
        body: Bytes::from_static(b"{}"),
        reply_to: SlowListener(sender).start().recipient(),
    };
    let _guard = provider.send(generate).await.unwrap();
    let mut connection = upstream.accept().await;
    let serve = async move {
        connection.say(STREAM).await;
        for number in 0..200 {
            connection.say(&chunk(&format!("{number} "))).await;
            tokio::task::yield_now().await;
        }
        connection.say(&[&finish("stop"), DONE].concat()).await;
    };
    let listen = async {
        let (mut text, mut count) = (String::new(), 0);
        loop {
            let progress = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
            count += 1;
            for delta in progress.deltas {
                if let Delta::Text(piece) = delta {
                    text.push_str(piece.as_escaped());
                }
            }
            if let Some(end) = progress.end {
                break (text, count, end);
            }
        }
    };
    let ((), (text, count, end)) = tokio::join!(serve, listen);
    let expected: String = (0..200).map(|number| format!("{number} ")).collect();
    assert_eq!((text, end), (expected, Ok(())));
    assert!(count < 200, "what came meanwhile is joined: {count}");
}

#[actix::test]
async fn a_reply_that_is_too_long_is_cut_and_its_connection_closed() {
    let reply = call(
        |config| config.reply_bytes_max = 5,
        async |mut connection| {
            connection.say(STREAM).await;
            let began = Instant::now();
            while connection
                .socket
                .write_all(chunk("abc").as_bytes())
                .await
                .is_ok()
            {
                tokio::time::sleep(milliseconds(5)).await;
            }
            assert!(began.elapsed() < milliseconds(500), "{:?}", began.elapsed());
        },
    )
    .await;
    reply.is_whole("abcab", "length");
}

#[actix::test]
async fn a_connection_is_used_again_after_a_reply() {
    let upstream = Upstream::start().await;
    let provider = OpenRouter::new(&upstream.config()).unwrap().start();
    let all = [chunk("a"), finish("stop"), DONE.to_owned()].concat();
    let first = Call::with(&provider).await;
    let mut connection = upstream.accept().await;
    connection.say(&[CHUNKED, &framed(&all)].concat()).await;
    first.reply().await.is_whole("a", "stop");
    // The end of the body comes after the end of the reply.
    connection.say("0\r\n\r\n").await;
    tokio::time::sleep(milliseconds(50)).await;
    let second = Call::with(&provider).await;
    connection.next_request().await;
    connection
        .say(&[CHUNKED, &framed(&all), "0\r\n\r\n"].concat())
        .await;
    second.reply().await.is_whole("a", "stop");
}

#[actix::test]
async fn refusals_have_their_kinds() {
    use UpstreamErrorKind as Kind;
    for (head, body, kind, words) in [
        (
            "401 Unauthorized",
            "{\"error\":{\"message\":\"no sk-test-key\"}}",
            Kind::Auth,
            "API key",
        ),
        (
            "400 Bad Request",
            "{\"error\":{\"message\":\"bad sk-test-key!\"}}",
            Kind::Rejected,
            "bad (key)",
        ),
        (
            "429 Too Many\r\nretry-after: 7",
            "",
            Kind::RateLimited,
            "HTTP 429",
        ),
        (
            "524 Timeout\r\ncontent-type: text/html",
            "<html>x</html>",
            Kind::Timeout,
            "HTTP 524",
        ),
        (
            "302 Found\r\nlocation: http://127.0.0.1:1/",
            "",
            Kind::Failed,
            "redirect",
        ),
        (
            "200 OK\r\ncontent-type: text/html",
            "<html>x</html>",
            Kind::Failed,
            "web page",
        ),
        (
            "200 OK\r\ncontent-type: application/json",
            "{\"error\":{\"code\":402,\"message\":\"x\"}}",
            Kind::Credits,
            "credit",
        ),
    ] {
        let reply = call(
            |_| {},
            async |mut connection| {
                let length = body.len();
                connection
                    .say(&format!(
                        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}"
                    ))
                    .await;
            },
        );
        let error = reply.await.failed("", &kind, words);
        assert!(!error.message.contains("sk-test-key"));
        let wait = (kind == Kind::RateLimited).then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after, wait);
    }
}

#[actix::test]
async fn an_endless_error_body_is_not_read_to_its_end() {
    let reply = call(
        |_| {},
        async |mut connection| {
            connection
                .say("HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n")
                .await;
            let noise = [b'x'; 8192];
            while connection.socket.write_all(&noise).await.is_ok() {}
        },
    )
    .await;
    let error = reply.failed("", &UpstreamErrorKind::Failed, "HTTP 500");
    assert!(error.message.chars().count() < 600);
}

#[actix::test]
async fn an_answer_that_is_not_streamed_is_understood() {
    let body = include_str!("fixtures/openrouter_nonstream_leading_newlines.txt");
    let reply = call(
        |_| {},
        async |mut connection| {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            connection.say(&[head, body].concat()).await;
        },
    );
    reply.await.is_whole("Hello", "stop");
}

#[actix::test]
async fn an_upstream_that_is_not_there_has_failed() {
    let config = Upstream::start().await.config();
    let reply = Call::start(&config).await.reply().await;
    reply.failed("", &UpstreamErrorKind::Failed, "no connection");
}

#[actix::test]
async fn context_lengths_are_fetched() {
    let upstream = Upstream::start().await;
    let config = upstream.config();
    let list = include_str!("fixtures/openrouter_models.json");
    let serve = async {
        let mut connection = upstream.accept().await;
        assert!(connection.head.starts_with("get /api/v1/models "));
        connection
            .say(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}",
                list.len()
            ))
            .await;
        connection
    };
    let (_connection, lengths) = tokio::join!(serve, fetch_context_lengths(&config));
    assert_eq!(lengths.unwrap().get("example/model-1"), Some(&131_072));
}

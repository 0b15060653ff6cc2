//! The server, and the client that asks it.

use std::{sync::Arc, time::Duration};

use idol_actors::mirror::supabase::{
    Deadlines, Metadata, SupabaseClient, SupabaseConfig, SupabaseError,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use uuid::Uuid;

/// Nothing on loopback takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const KEY: &str = "sb_secret_of-the-test";

pub(crate) const NO_SUCH_KEY: &str =
    r#"{"statusCode":"404","error":"not_found","message":"Object not found","code":"NoSuchKey"}"#;
pub(crate) const NO_SUCH_BUCKET: &str = r#"{"statusCode":"404","error":"Bucket not found","message":"Bucket not found","code":"NoSuchBucket"}"#;
pub(crate) const DUPLICATE: &str = r#"{"statusCode":"409","error":"Duplicate","message":"The resource already exists","code":"KeyAlreadyExists"}"#;
pub(crate) const FORBIDDEN: &str = r#"{"statusCode":"403","error":"Unauthorized","message":"new row violates row-level security policy","code":"AccessDenied"}"#;
pub(crate) const STORED: &str =
    r#"{"Key":"docs/c.json","Id":"7d0f6f0e-1111-4222-8333-444455556666"}"#;

/// A server that accepts one connection after the other, as the test asks.
pub(crate) struct Server {
    listener: TcpListener,
}

pub(crate) struct Connection {
    socket: TcpStream,
    /// What was read beyond the last request.
    rest: Vec<u8>,
}

pub(crate) struct Request {
    /// `GET /path`.
    pub(crate) line: String,
    /// In lower case.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(crate) fn client(&self) -> SupabaseClient {
        self.client_with(PATIENCE)
    }

    pub(crate) fn client_with(&self, request: Duration) -> SupabaseClient {
        let port = self.listener.local_addr().unwrap().port();
        SupabaseClient::new(&SupabaseConfig {
            url: format!("http://127.0.0.1:{port}/"),
            service_role_key: KEY.into(),
            bucket: "docs".to_owned(),
            deadlines: Deadlines {
                connect: PATIENCE,
                request,
            },
        })
        .unwrap()
    }

    pub(crate) async fn accept(&self) -> Connection {
        let (socket, _) = timeout(PATIENCE, self.listener.accept())
            .await
            .expect("a new connection")
            .unwrap();
        socket.set_nodelay(true).unwrap();
        let rest = Vec::new();
        Connection { socket, rest }
    }

    /// Takes one request on a connection of its own, and answers it.
    pub(crate) async fn serve(&self, status: &str, body: &str) -> Request {
        let mut connection = self.accept().await;
        let request = connection.request().await;
        connection.answer(status, body).await;
        request
    }
}

impl Connection {
    /// Reads the next request, but of its body only what came with the head.
    pub(crate) async fn request_head(&mut self) -> Request {
        loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let body = self.rest.split_off(at + 4);
                let head = String::from_utf8(std::mem::take(&mut self.rest)).unwrap();
                let line = head.lines().next().unwrap();
                return Request {
                    line: line.strip_suffix(" HTTP/1.1").unwrap().to_owned(),
                    head: head.to_lowercase(),
                    body,
                };
            }
            self.read_more().await;
        }
    }

    /// Reads the next request.
    pub(crate) async fn request(&mut self) -> Request {
        let mut request = self.request_head().await;
        let length = request.header("content-length").map(|n| n.parse().unwrap());
        let length = length.unwrap_or(0);
        self.rest = std::mem::take(&mut request.body);
        while self.rest.len() < length {
            self.read_more().await;
        }
        let beyond = self.rest.split_off(length);
        request.body = std::mem::replace(&mut self.rest, beyond);
        request
    }

    async fn read_more(&mut self) {
        let read = self.socket.read_buf(&mut self.rest);
        let read = timeout(PATIENCE, read).await.expect("a request").unwrap();
        assert!(read > 0, "the connection was closed before its request");
    }

    /// Answers, and keeps the connection open.
    pub(crate) async fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.say(&format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // A client that has heard enough closes; what it makes of that is for the test to judge.
        drop(self.socket.write_all(text.as_bytes()).await);
    }

    /// Waits until the client closes.
    pub(crate) async fn closed(mut self) {
        let closing = async {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(1..) = self.socket.read(&mut piece).await {}
        };
        timeout(PATIENCE, closing)
            .await
            .expect("the connection stays open");
    }
}

impl Request {
    /// A header's value, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found == name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        log: Uuid::from_u128(1),
        incarnation: u64::MAX,
        seq: 3,
        hash: "00ff".to_owned(),
    }
}

pub(crate) fn pieces(pieces: &[&str]) -> Vec<Arc<str>> {
    pieces.iter().map(|piece| Arc::from(*piece)).collect()
}

/// Uploads with [`metadata`].
pub(crate) async fn upload(
    client: &SupabaseClient,
    document: Vec<Arc<str>>,
) -> Result<(), SupabaseError> {
    client.upload("c d.json", document, &metadata()).await
}

/// A document of 16 MiB: more than the sockets between client and server can hold.
pub(crate) fn long_document() -> Vec<Arc<str>> {
    let piece: Arc<str> = "x".repeat(1 << 20).into();
    vec![piece; 16]
}

//! A client that hides nothing: it reads the raw answer, and how the connection ended.

use std::net::SocketAddr;
use std::time::Duration;

use idol_simulator::Simulator;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No wait in these tests may last longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// A raw answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: String,
    /// The bytes after the head.
    pub(crate) raw: Vec<u8>,
    pub(crate) end: End,
}

/// A chunked body taken apart.
#[derive(Debug)]
pub(crate) struct Chunks {
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Whether the last chunk came.
    pub(crate) terminated: bool,
}

/// The body of a chat completion request.
pub(crate) fn body(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "héllo you"}]})
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Writes a request whose connection is to close after the answer.
pub(crate) async fn send(stream: &mut TcpStream, target: &str, body: &str) {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until the connection ends.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) => return End::Fin,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return End::Reset;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let end = timeout(DEADLINE, reading)
        .await
        .expect("the connection never ended");
    (bytes, end)
}

/// Reads until the bytes contain `needle`.
pub(crate) async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(needle) {
            assert_ne!(
                stream.read_buf(&mut bytes).await.unwrap(),
                0,
                "ended before {needle:?}"
            );
        }
    };
    timeout(DEADLINE, reading)
        .await
        .unwrap_or_else(|_| panic!("never saw {needle:?}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Streams a chat completion and returns the raw answer.
pub(crate) async fn stream(simulator: &Simulator, model: &str) -> Reply {
    exchange(
        simulator,
        "/api/v1/chat/completions",
        &body(model, true).to_string(),
    )
    .await
}

/// Asks for a chat completion without a stream and returns the raw answer.
pub(crate) async fn complete(simulator: &Simulator, model: &str) -> Reply {
    exchange(
        simulator,
        "/api/v1/chat/completions",
        &body(model, false).to_string(),
    )
    .await
}

/// Sends one request on a connection of its own and returns the raw answer.
pub(crate) async fn exchange(simulator: &Simulator, target: &str, body: &str) -> Reply {
    let mut stream = connect(simulator.address()).await;
    send(&mut stream, target, body).await;
    read_reply(&mut stream).await
}

/// Reads an answer whose connection ends after it.
pub(crate) async fn read_reply(stream: &mut TcpStream) -> Reply {
    let (bytes, end) = read_to_end(stream).await;
    let head = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(0, |at| at + 4);
    let (head, raw) = bytes.split_at(head);
    Reply {
        head: String::from_utf8(head.to_vec()).unwrap(),
        raw: raw.to_vec(),
        end,
    }
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .expect("no status line")
            .parse()
            .unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap()
    }

    /// Takes a chunked body apart.
    pub(crate) fn chunks(&self) -> Chunks {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let mut pieces = Vec::new();
        let mut rest = self.raw.as_slice();
        while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&rest[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let data = &rest[line + 2..];
            if size == 0 {
                assert_eq!(data, b"\r\n");
                return Chunks {
                    pieces,
                    terminated: true,
                };
            }
            pieces.push(data[..size].to_vec());
            assert_eq!(&data[size..size + 2], b"\r\n");
            rest = &data[size + 2..];
        }
        assert!(rest.is_empty());
        Chunks {
            pieces,
            terminated: false,
        }
    }

    /// The body without its framing.
    pub(crate) fn body(&self) -> String {
        String::from_utf8(self.chunks().pieces.concat()).unwrap()
    }

    /// The payloads of the data lines, the end marker not among them.
    pub(crate) fn payloads(&self) -> Vec<Value> {
        payloads(&self.body())
    }

    /// The text that the stream tells.
    pub(crate) fn text(&self) -> String {
        text(&self.payloads())
    }
}

/// Reads data lines with any line end, with or without the space.
pub(crate) fn payloads(body: &str) -> Vec<Value> {
    body.split(['\n', '\r'])
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim_start)
        .filter(|data| !data.is_empty() && *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Joins one field of the deltas.
pub(crate) fn joined(payloads: &[Value], field: &str) -> String {
    payloads
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str())
        .collect()
}

/// Joins the content of the deltas.
pub(crate) fn text(payloads: &[Value]) -> String {
    joined(payloads, "content")
}

//! A WebSocket client that writes its bytes itself, so that it may break every rule.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::helpers::within;

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

const MASKED: u8 = 0x80;
/// A mask that changes nothing.
const MASK: [u8; 4] = [0; 4];

/// A frame as a client sends it.
pub fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first_byte, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a frame that announces so many bytes.
pub fn head(first_byte: u8, announced: u64) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match announced {
        0..126 => bytes.push(MASKED | announced as u8),
        126..=0xFFFF => {
            bytes.push(MASKED | 126);
            bytes.extend_from_slice(&(announced as u16).to_be_bytes());
        }
        _ => {
            bytes.push(MASKED | 127);
            bytes.extend_from_slice(&announced.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes
}

/// A frame from the server.
#[derive(Debug)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Bytes,
}

pub struct Raw {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("the connection", TcpStream::connect(address)).await;
        Self::upgrade(stream.unwrap()).await
    }

    /// Upgrades a connection.
    pub async fn upgrade(stream: TcpStream) -> Self {
        let mut raw = Self {
            stream,
            buffer: BytesMut::new(),
        };
        raw.send(
            b"GET /ws/chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        loop {
            if let Some(end) = raw.buffer.windows(4).position(|it| it == b"\r\n\r\n") {
                let head = raw.buffer.split_to(end + 4);
                assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
                return raw;
            }
            assert!(raw.fill().await, "the server closed before the upgrade");
        }
    }

    /// Sends bytes. A server that has closed already is no failure: it may have said why.
    pub async fn send(&mut self, bytes: &[u8]) {
        drop(within("sending", self.stream.write_all(bytes)).await);
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes())).await;
    }

    /// The next frame; none at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next text frame's JSON.
    pub async fn next_json(&mut self) -> Value {
        // Around the loop: the server's pings must not put the deadline off.
        within("the next message", async {
            loop {
                let frame = self.next().await.expect("the connection is open");
                if frame.opcode == TEXT {
                    return serde_json::from_slice(&frame.payload).unwrap();
                }
            }
        })
        .await
    }

    /// The code of the close frame; none if the connection ended without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            let mut frame = self.next().await?;
            if frame.opcode == CLOSE {
                return Some(frame.payload.get_u16());
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let first = *self.buffer.first()?;
        let (head, length) = match *self.buffer.get(1)? {
            126 => {
                let bytes = self.buffer.get(2..4)?;
                (4, u16::from_be_bytes(bytes.try_into().unwrap()) as usize)
            }
            127 => {
                let bytes = self.buffer.get(2..10)?;
                (10, u64::from_be_bytes(bytes.try_into().unwrap()) as usize)
            }
            short => (2, short as usize),
        };
        if self.buffer.len() < head + length {
            return None;
        }
        self.buffer.advance(head);
        Some(Frame {
            opcode: first & 0x0F,
            payload: self.buffer.split_to(length).freeze(),
        })
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        let read = within("bytes from the server", async {
            self.stream.read_buf(&mut self.buffer).await
        });
        matches!(read.await, Ok(bytes) if bytes > 0)
    }
}

//! A WebSocket with small buffers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_http::ws::{Codec, Frame, Message};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio_util::{
    codec::{Decoder as _, Encoder as _},
    either::Either,
};

use super::{
    http,
    peer::{self, Peer, Wire},
};
use crate::error::LoadError;

const READ_BYTES: usize = 4096;
/// The largest message that is taken.
const MESSAGE_BYTES: usize = 8 << 20;
/// Sockets that one source address gets: far fewer than it has ports.
const SOCKETS_PER_SOURCE: usize = 5_000;

/// An open WebSocket.
pub(super) struct Socket {
    wire: Wire,
    input: BytesMut,
    codec: Codec,
}

/// The loopback address that the socket of this number comes from.
pub(super) fn source(number: usize) -> Option<SocketAddr> {
    let last = u8::try_from(2 + number / SOCKETS_PER_SOURCE).ok()?;
    Some((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())
}

impl Socket {
    /// Opens one at `/ws/chat`.
    pub(super) async fn open(peer: &Peer) -> Result<Self, LoadError> {
        let mut wire = peer.connect().await?;
        let headers = peer.head();
        let request = format!(
            "GET /ws/chat HTTP/1.1\r\n{headers}upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: bG9hZCB0ZXN0IG9mIGlkb2w=\r\n\r\n"
        );
        let sent = peer::send(&mut wire, request.as_bytes()).await;
        sent.map_err(LoadError::io("a handshake"))?;
        let mut input = BytesMut::new();
        let (head, length) = loop {
            peer::read(&mut wire, &mut input, 512).await?;
            if let Some(parsed) = http::parse(&input)? {
                break parsed;
            }
        };
        if head.status != 101 {
            let status = head.status;
            return Err(LoadError::TurnFailed(format!("a handshake got {status}")));
        }
        input.advance(length);
        Ok(Self {
            wire,
            input,
            codec: Codec::new().client_mode().max_size(MESSAGE_BYTES),
        })
    }

    pub(super) async fn send(&mut self, text: String) -> Result<(), LoadError> {
        self.write(Message::Text(text.into())).await
    }

    async fn write(&mut self, message: Message) -> Result<(), LoadError> {
        let mut out = BytesMut::new();
        let encoded = self.codec.encode(message, &mut out);
        encoded.map_err(|error| LoadError::Protocol(error.to_string()))?;
        let sent = peer::send(&mut self.wire, &out).await;
        sent.map_err(LoadError::io("a message"))
    }

    /// The next text, within the deadline of an answer; pings are answered meanwhile.
    pub(super) async fn next(&mut self) -> Result<Bytes, LoadError> {
        loop {
            match self.decode()? {
                Some(Frame::Text(text)) => return Ok(text),
                Some(frame) => self.control(frame).await?,
                None => peer::read(&mut self.wire, &mut self.input, READ_BYTES).await?,
            }
        }
    }

    /// Answers pings until the peer closes or the future is dropped.
    pub(super) async fn idle(&mut self) -> Result<(), LoadError> {
        loop {
            match self.decode()? {
                Some(frame) => self.control(frame).await?,
                None => {
                    // No room is kept for what does not come.
                    if let Either::Left(stream) = &self.wire {
                        let readable = stream.readable().await;
                        readable.map_err(LoadError::io("an idle socket"))?;
                    }
                    peer::read(&mut self.wire, &mut self.input, 256).await?;
                }
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Frame>, LoadError> {
        let decoded = self.codec.decode(&mut self.input);
        decoded.map_err(|error| LoadError::Protocol(error.to_string()))
    }

    async fn control(&mut self, frame: Frame) -> Result<(), LoadError> {
        match frame {
            Frame::Ping(bytes) => self.write(Message::Pong(bytes)).await,
            Frame::Close(reason) => Err(LoadError::Ended(format!("a socket ({reason:?})"))),
            Frame::Text(_) | Frame::Binary(_) | Frame::Continuation(_) | Frame::Pong(_) => Ok(()),
        }
    }

    /// Takes leave, and does not wait for the answer.
    pub(super) async fn close(mut self) -> Result<(), LoadError> {
        self.write(Message::Close(None)).await?;
        let ended = self.wire.shutdown().await;
        ended.map_err(LoadError::io("closing a socket"))
    }
}

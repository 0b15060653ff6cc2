//! A connection of HTTP/1.1 that is kept.

use bytes::{Buf as _, BytesMut};

use super::peer::{self, Peer, Wire};
use crate::error::LoadError;

const READ_BYTES: usize = 16 * 1024;

/// How the end of a body is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are left.
    Length(usize),
    /// Of this chunk so many bytes are left, with the line break behind them.
    Chunk(usize),
    /// The length of the next chunk comes.
    ChunkHead,
    /// All of it was read.
    Over,
}

impl Body {
    /// Moves what is there of the body to `out`.
    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<(), LoadError> {
        loop {
            match self {
                Self::Length(0) | Self::Over => {
                    *self = Self::Over;
                    return Ok(());
                }
                Self::Length(left) => {
                    if input.is_empty() {
                        return Ok(());
                    }
                    let taken = input.split_to(input.len().min(*left));
                    out.extend_from_slice(&taken);
                    *left -= taken.len();
                }
                Self::Chunk(left) => {
                    let text = left.saturating_sub(2).min(input.len());
                    out.extend_from_slice(&input[..text]);
                    input.advance(text);
                    *left -= text;
                    if *left > 2 || input.len() < *left {
                        return Ok(());
                    }
                    if !input.starts_with(b"\r\n") {
                        return Err(LoadError::Protocol("a chunk of another length".to_owned()));
                    }
                    input.advance(2);
                    *self = Self::ChunkHead;
                }
                Self::ChunkHead => {
                    let Some(end) = memchr::memmem::find(input, b"\r\n") else {
                        return Ok(());
                    };
                    let head = String::from_utf8_lossy(&input[..end]).into_owned();
                    let length = usize::from_str_radix(head.trim(), 16)
                        .map_err(|_| LoadError::Protocol(format!("a chunk's head: {head}")))?;
                    if length > 0 {
                        input.advance(end + 2);
                        *self = Self::Chunk(length + 2);
                    } else if input.len() < end + 4 {
                        return Ok(());
                    } else {
                        input.advance(end + 4);
                        *self = Self::Over;
                    }
                }
            }
        }
    }
}

/// What an answer begins with.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) body: Body,
}

/// One connection, with what was read of it and not yet looked at.
pub(super) struct Http {
    wire: Wire,
    input: BytesMut,
    /// Header lines that each request has.
    headers: String,
}

impl Http {
    pub(super) async fn connect(peer: &Peer) -> Result<Self, LoadError> {
        Ok(Self {
            wire: peer.connect().await?,
            input: BytesMut::with_capacity(READ_BYTES),
            headers: peer.head(),
        })
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Head, LoadError> {
        let (headers, length) = (&self.headers, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let sent = peer::send(&mut self.wire, request.as_bytes()).await;
        sent.map_err(LoadError::io("a request"))?;
        loop {
            if let Some((head, length)) = parse(&self.input)? {
                self.input.advance(length);
                return Ok(head);
            }
            self.read().await?;
        }
    }

    /// Reads more of a body into `out`: all that is there, and at least something, unless it is over.
    pub(super) async fn more(
        &mut self,
        body: &mut Body,
        out: &mut Vec<u8>,
    ) -> Result<(), LoadError> {
        let before = out.len();
        loop {
            body.decode(&mut self.input, out)?;
            if *body == Body::Over || out.len() > before {
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Reads all of a body.
    pub(super) async fn rest(&mut self, mut body: Body) -> Result<Vec<u8>, LoadError> {
        let mut out = Vec::new();
        while body != Body::Over {
            self.more(&mut body, &mut out).await?;
        }
        Ok(out)
    }

    async fn read(&mut self) -> Result<(), LoadError> {
        peer::read(&mut self.wire, &mut self.input, READ_BYTES).await
    }
}

/// The head of an answer and its length, once all of it is there.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Head, usize)>, LoadError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(input);
    let parsed = parsed.map_err(|error| LoadError::Protocol(error.to_string()))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let mut body = Body::Length(0);
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).unwrap_or_default();
            let value = value.trim().parse();
            body = Body::Length(value.map_err(|_| LoadError::Protocol("a length".to_owned()))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::ChunkHead;
        }
    }
    let status = head.code.unwrap_or_default();
    Ok(Some((Head { status, body }, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let wire = b"5\r\nhello\r\n1\r\n,\r\nA\r\n 0123456\r\n\r\n0\r\n\r\nrest";
        for cut in 0..wire.len() {
            let (mut body, mut out) = (Body::ChunkHead, Vec::new());
            let mut input = BytesMut::from(&wire[..cut]);
            body.decode(&mut input, &mut out).unwrap();
            input.extend_from_slice(&wire[cut..]);
            body.decode(&mut input, &mut out).unwrap();
            assert_eq!(out, b"hello, 0123456\r\n", "cut at {cut}");
            assert_eq!((body, &*input), (Body::Over, &b"rest"[..]));
        }
    }

    #[test]
    fn a_chunk_that_is_longer_than_it_says_is_an_error() {
        let (mut body, mut out) = (Body::ChunkHead, Vec::new());
        let mut input = BytesMut::from(&b"2\r\nabcd\r\n"[..]);
        assert!(body.decode(&mut input, &mut out).is_err());
    }

    #[test]
    fn a_body_of_a_length_leaves_what_follows() {
        let (mut body, mut out) = (Body::Length(3), Vec::new());
        let mut input = BytesMut::from(&b"abcd"[..]);
        body.decode(&mut input, &mut out).unwrap();
        assert_eq!((body, &*out, &*input), (Body::Over, &b"abc"[..], &b"d"[..]));
    }

    #[test]
    fn a_head_says_how_the_body_ends() {
        let head = b"HTTP/1.1 503 Busy\r\nContent-Length: 7\r\n\r\n";
        let (parsed, length) = parse(head).unwrap().unwrap();
        assert_eq!((parsed.status, parsed.body), (503, Body::Length(7)));
        assert_eq!(length, head.len());
        assert!(parse(&head[..20]).unwrap().is_none());
    }
}

//! A body on its way out: gathered, cut, framed and written.

use std::future::Future;

use super::{Connection, Gone, Split};

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Chunked: a last chunk of size zero ends it.
    Chunked,
    /// The bytes as they are: the head's length or the end of the connection ends it.
    Plain,
}

/// Gathers body bytes and writes them, one flush at a time.
///
/// The head travels with the first flush, so a reply without pauses costs one write.
#[derive(Debug)]
pub(crate) struct Body<'c> {
    connection: &'c mut Connection,
    framing: Framing,
    split: Split,
    /// Framed bytes: the head, then what a flush is about to write.
    wire: Vec<u8>,
    /// Body bytes since the last flush.
    pending: Vec<u8>,
    /// Body bytes flushed so far.
    written: usize,
}

impl<'c> Body<'c> {
    /// Starts a body; `head` is the finished response head.
    pub(crate) fn new(
        connection: &'c mut Connection,
        head: Vec<u8>,
        framing: Framing,
        split: Split,
    ) -> Self {
        Self {
            connection,
            framing,
            split,
            wire: head,
            pending: Vec::new(),
            written: 0,
        }
    }

    /// Returns the buffer that the next flush sends.
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Sends everything gathered so far.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        if self.split != Split::Whole && !self.wire.is_empty() {
            self.send().await?;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut start = 0;
        let cuts = self.split.cuts(&pending, self.written);
        for end in cuts.into_iter().chain([pending.len()]) {
            self.frame(&pending[start..end]);
            if end < pending.len() {
                self.send().await?;
            }
            start = end;
        }
        self.written += pending.len();
        self.pending = pending;
        self.pending.clear();
        self.send().await
    }

    /// Flushes, then waits for the future; a client that closes meanwhile is `Gone`.
    pub(crate) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Gone> {
        self.flush().await?;
        self.connection.wait(future).await
    }

    /// Sends the rest and marks the end of the body.
    pub(crate) async fn finish(mut self) -> Result<(), Gone> {
        match self.framing {
            Framing::Chunked if self.split == Split::Whole => {
                let pending = std::mem::take(&mut self.pending);
                self.frame(&pending);
                self.wire.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::Chunked => {
                self.flush().await?;
                self.wire.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::Plain => self.flush().await?,
        }
        self.send().await
    }

    fn frame(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        match self.framing {
            Framing::Chunked => {
                self.wire
                    .extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                self.wire.extend_from_slice(piece);
                self.wire.extend_from_slice(b"\r\n");
            }
            Framing::Plain => self.wire.extend_from_slice(piece),
        }
    }

    async fn send(&mut self) -> Result<(), Gone> {
        if self.wire.is_empty() {
            return Ok(());
        }
        let sent = self.connection.write(&self.wire).await;
        self.wire.clear();
        sent
    }
}

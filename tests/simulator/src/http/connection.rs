//! One client connection: whole requests in, exact bytes out.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::request::{BODY_MAX, BodyLength, HEAD_MAX, Head, Request, parse_head};
use super::{Gone, Next};

/// The most bytes kept that a client sends ahead of its turn.
const PIPELINE_MAX: usize = 1024 * 1024;
/// The most bytes of a refused request that are read and dropped before the connection closes.
const DRAIN_MAX: usize = 2 * BODY_MAX;

/// The bytes that sockets swallow of a body which nobody reads, measured on loopback.
///
/// They are read here, so that it does not depend on this machine's buffers.
const SWALLOWED: usize = 3 * 1024 * 1024;
/// The longest time that a connection stays open which nothing is answered on any more.
const STUCK_MAX: Duration = Duration::from_secs(300);

/// A client's socket and the bytes read from it that no request has used yet.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    inbound: BytesMut,
}

/// Why no request could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Something this layer does not take; the status says why.
    Refused(u16),
    /// The client closed, or broke off inside a request.
    Closed,
}

impl Connection {
    /// Takes over an accepted socket.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            inbound: BytesMut::with_capacity(8 * 1024),
        }
    }

    /// Reads the head of the next request; its body is still to be read.
    pub(crate) async fn next_head(&mut self) -> Result<Head, Unread> {
        let head = loop {
            match parse_head(&self.inbound) {
                Ok(Some(head)) => break head,
                Ok(None) if self.inbound.len() > HEAD_MAX => return Err(Unread::Refused(431)),
                Ok(None) => {}
                Err(_) => return Err(Unread::Refused(400)),
            }
            self.fill().await.map_err(|Gone| Unread::Closed)?;
        };
        self.inbound.advance(head.len);
        if head.expects_continue {
            let told = self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            told.map_err(|Gone| Unread::Closed)?;
        }
        Ok(head)
    }

    /// Reads the body that follows a head.
    pub(crate) async fn read_body(&mut self, head: Head) -> Result<Request, Unread> {
        self.read_body_told(head, |_| {}).await
    }

    /// Reads the body that follows a head, and tells whenever more of it has come how many bytes
    /// have so far.
    ///
    /// What a body that comes in chunks has besides its bytes counts as well.
    pub(crate) async fn read_body_told(
        &mut self,
        head: Head,
        mut arrived: impl FnMut(usize),
    ) -> Result<Request, Unread> {
        let body = match head.body {
            BodyLength::Exact(length) => self.exact_body(length, &mut arrived).await?,
            BodyLength::Chunked => self.chunked_body(&mut arrived).await?,
        };
        Ok(Request {
            body,
            ..head.request
        })
    }

    /// Waits until so many bytes of a body have come, and leaves them to be read.
    pub(crate) async fn gather(
        &mut self,
        bytes: usize,
        arrived: &mut impl FnMut(usize),
    ) -> Result<(), Unread> {
        loop {
            arrived(self.inbound.len().min(bytes));
            if self.inbound.len() >= bytes {
                return Ok(());
            }
            self.fill().await.map_err(|Gone| Unread::Closed)?;
        }
    }

    /// Reads the body that follows a head and keeps nothing of it.
    pub(crate) async fn drain_body(&mut self, length: BodyLength) -> Result<(), Unread> {
        let BodyLength::Exact(mut left) = length else {
            return self.chunked_body(&mut |_| {}).await.map(drop);
        };
        while left > 0 {
            if self.inbound.is_empty() {
                self.fill().await.map_err(|Gone| Unread::Closed)?;
            }
            let dropped = left.min(self.inbound.len());
            self.inbound.advance(dropped);
            left -= dropped;
        }
        Ok(())
    }

    async fn exact_body(
        &mut self,
        length: usize,
        arrived: &mut impl FnMut(usize),
    ) -> Result<Bytes, Unread> {
        if length > BODY_MAX {
            return Err(Unread::Refused(413));
        }
        self.inbound
            .reserve(length.saturating_sub(self.inbound.len()));
        self.gather(length, arrived).await?;
        Ok(self.inbound.split_to(length).freeze())
    }

    async fn chunked_body(&mut self, arrived: &mut impl FnMut(usize)) -> Result<Bytes, Unread> {
        let mut body = BytesMut::new();
        let mut total = self.inbound.len();
        let mut read = |more: usize| {
            total += more;
            arrived(total);
        };
        read(0);
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.inbound) {
                    Ok(httparse::Status::Complete((line, size))) => break (line, size),
                    Ok(httparse::Status::Partial) => {}
                    Err(_) => return Err(Unread::Refused(400)),
                }
                read(self.fill().await.map_err(|Gone| Unread::Closed)?);
            };
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > BODY_MAX - body.len() {
                return Err(Unread::Refused(413));
            }
            // The line, the data and the CRLF after it. Trailers are not read: a trailer would
            // show as a malformed next request, and no client of ours sends one.
            while self.inbound.len() < line + size + 2 {
                read(self.fill().await.map_err(|Gone| Unread::Closed)?);
            }
            self.inbound.advance(line);
            body.extend_from_slice(&self.inbound[..size]);
            self.inbound.advance(size + 2);
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }

    /// Reads what has come, and returns how much it was.
    async fn fill(&mut self) -> Result<usize, Gone> {
        match self.stream.read_buf(&mut self.inbound).await {
            Ok(0) | Err(_) => Err(Gone),
            Ok(read) => Ok(read),
        }
    }

    /// Returns the socket, and what was read from it that no request has used.
    pub(crate) fn upgraded(&mut self) -> (&mut TcpStream, Vec<u8>) {
        let read = self.inbound.split().to_vec();
        (&mut self.stream, read)
    }

    /// Writes these bytes and nothing else.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).await.map_err(|_| Gone)
    }

    /// Waits for the future while watching the client: a client that closes meanwhile is `Gone`.
    pub(crate) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::pin!(future);
        while self.inbound.len() < PIPELINE_MAX {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                read = self.stream.read_buf(&mut self.inbound) => match read {
                    Ok(0) | Err(_) => return Err(Gone),
                    Ok(_) => {}
                },
            }
        }
        Ok(future.await)
    }

    /// Waits for the future and reads nothing meanwhile; a client that closes is `Gone`.
    ///
    /// What the client sends stays in the socket, so a client with much to send is held up. One
    /// that closes with such bytes unsent is not noticed: its FIN waits behind them.
    pub(crate) async fn wait_unread<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Gone> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.closed_unread() => Err(Gone),
        }
    }

    /// Waits until the client leaves, and answers nothing.
    async fn stick(&mut self) {
        let mut swallowed = self.inbound.len();
        while swallowed < SWALLOWED {
            self.inbound.clear();
            if self.fill().await.is_err() {
                return;
            }
            swallowed += self.inbound.len();
        }
        self.closed_unread().await;
    }

    async fn closed_unread(&self) {
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                Ok(_) | Err(_) => return,
            }
            // Forgets that there are bytes to read, or the next call would return at once; that
            // the peer has closed is not forgotten. The error is the one given here.
            let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            drop(self.stream.try_io(Interest::READABLE, would_block));
        }
    }

    /// Ends the connection the way the last answer asked for.
    pub(crate) async fn end(mut self, next: Next) {
        match next {
            // When the socket is already broken there is nothing left to reset or to close.
            Next::Reset => drop(reset(self.stream).await),
            Next::KeepAlive | Next::Close => drop(self.stream.shutdown().await),
            Next::Stuck => {
                // Whether the client left first or the time is over, the connection ends here.
                let stuck = tokio::time::timeout(STUCK_MAX, self.stick());
                stuck.await.unwrap_or_default();
            }
        }
    }

    /// Ends the connection after a refusal, reading what the client still sends so that the
    /// refusal is not lost to a reset.
    pub(crate) async fn end_refused(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut dropped = 0;
        while dropped < DRAIN_MAX && self.fill().await.is_ok() {
            dropped += self.inbound.len();
            self.inbound.clear();
        }
    }
}

/// Resets a connection once all that was written to it has left.
///
/// A reset drops what the kernel still holds back, which would take tokens from the client that
/// the script promised.
async fn reset(stream: TcpStream) -> io::Result<()> {
    let stream = stream.into_std()?;
    // From here on the socket counts as writable only when nothing waits to be sent. Registered
    // anew it is asked once more, for the runtime still remembers an earlier answer.
    SockRef::from(&stream).set_tcp_notsent_lowat(1)?;
    let stream = TcpStream::from_std(stream)?;
    stream.writable().await?;
    // A linger of zero turns the close that follows into a RST.
    stream.set_zero_linger()
}

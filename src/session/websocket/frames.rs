//! Reads messages from the bytes of a socket. Sizes are judged before anything is gathered, and no
//! more is read than a message needs: a client that floods waits in its own connection.

use std::{
    io,
    pin::Pin,
    str::Utf8Error,
    task::{Context, Poll, ready},
};

use actix_http::ws::{Codec, Frame, Item, Message, ProtocolError};
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures::Stream;
use tokio_util::codec::Decoder;

/// The messages of a client. Pieces are put together; what it yields is never a continuation.
///
/// After an error it ends.
pub(super) struct Messages<S> {
    payload: S,
    buffer: BytesMut,
    codec: Codec,
    assembler: Assembler,
    bytes_max: usize,
    over: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    No,
    Yes,
}

/// Whether an error says that text was no UTF-8.
pub(super) fn is_not_utf8(error: &ProtocolError) -> bool {
    let ProtocolError::Io(error) = error else {
        return false;
    };
    error.get_ref().is_some_and(|inner| inner.is::<Utf8Error>())
}

impl<S> Messages<S> {
    /// For messages of at most so many bytes.
    pub(super) fn new(payload: S, bytes_max: usize) -> Self {
        Self {
            payload,
            buffer: BytesMut::new(),
            codec: Codec::new().max_size(bytes_max),
            assembler: Assembler::new(bytes_max),
            bytes_max,
            over: Over::No,
        }
    }

    /// The next message in what was read so far.
    fn take(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            // The codec looks at the size when all of the frame is there.
            let too_large = |announced| announced > self.bytes_max as u64;
            if announced(&self.buffer).is_some_and(too_large) {
                return Err(ProtocolError::Overflow);
            }
            let Some(frame) = self.codec.decode(&mut self.buffer)? else {
                return Ok(None);
            };
            return Ok(Some(match frame {
                Frame::Text(bytes) => Message::Text(text(bytes)?),
                Frame::Binary(bytes) => Message::Binary(bytes),
                Frame::Continuation(piece) => match self.assembler.take(piece)? {
                    Some(message) => message,
                    None => continue,
                },
                Frame::Ping(bytes) => Message::Ping(bytes),
                Frame::Pong(bytes) => Message::Pong(bytes),
                Frame::Close(reason) => Message::Close(reason),
            }));
        }
    }
}

fn text(bytes: Bytes) -> Result<ByteString, ProtocolError> {
    ByteString::try_from(bytes).map_err(|error| ProtocolError::Io(io::Error::other(error)))
}

/// The length in the head of a frame, once the head is there.
fn announced(buffer: &[u8]) -> Option<u64> {
    let short = buffer.get(1)? & 0x7F;
    match short {
        126 => Some(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?).into()),
        127 => Some(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
        length => Some(length.into()),
    }
}

impl<S> Stream for Messages<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Message, ProtocolError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.over == Over::No {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                // A large message's memory is not kept for the life of a quiet connection.
                Ok(None) if self.buffer.is_empty() => self.buffer = BytesMut::new(),
                Ok(None) => {}
                Err(error) => {
                    self.over = Over::Yes;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match ready!(Pin::new(&mut self.payload).poll_next(cx)) {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                // The connection has ended, in order or not.
                Some(Err(_)) | None => self.over = Over::Yes,
            }
        }
        Poll::Ready(None)
    }
}

/// The message under way, if it came in pieces.
#[derive(Debug)]
struct Assembler {
    bytes_max: usize,
    kind: Kind,
    gathered: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

impl Assembler {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kind: Kind::Text,
            gathered: BytesMut::new(),
        }
    }

    /// Takes a piece; gives the message that it completes. The codec has checked that pieces come
    /// in order.
    fn take(&mut self, piece: Item) -> Result<Option<Message>, ProtocolError> {
        let (bytes, last) = match piece {
            Item::FirstText(bytes) => {
                self.kind = Kind::Text;
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.kind = Kind::Binary;
                (bytes, false)
            }
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        if self.gathered.len() + bytes.len() > self.bytes_max {
            return Err(ProtocolError::Overflow);
        }
        self.gathered.extend_from_slice(&bytes);
        if !last {
            return Ok(None);
        }
        let gathered = self.gathered.split().freeze();
        Ok(Some(match self.kind {
            Kind::Binary => Message::Binary(gathered),
            Kind::Text => Message::Text(text(gathered)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    /// A masked frame; the mask changes nothing.
    fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first_byte, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    fn read(chunks: Vec<Vec<u8>>) -> Vec<Result<Message, ProtocolError>> {
        let payload = stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        let all = Messages::new(payload, 64).collect();
        FutureExt::now_or_never(all).unwrap()
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_messages(
            mut cuts in prop::collection::vec(0usize..48, 0..8)
        ) {
            // A text in pieces, cut inside a character, with a ping between them; then a text.
            let rocket = "é🚀".as_bytes();
            let bytes = [
                frame(0x01, &rocket[..1]),
                frame(0x89, b"!"),
                frame(0x80, &rocket[1..]),
                frame(0x81, b"whole"),
            ]
            .concat();
            cuts.retain(|cut| *cut < bytes.len());
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
            let messages: Vec<_> = read(chunks).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(
                messages,
                [
                    Message::Ping("!".into()),
                    Message::Text("é🚀".into()),
                    Message::Text("whole".into()),
                ]
            );
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_there() {
        let announced = [vec![0x81, 0xFE, 0, 65, 0, 0, 0, 0]];
        let pieces = [frame(0x01, &[b'x'; 60]), frame(0x00, &[b'x'; 5])];
        for bytes in [announced.concat(), pieces.concat()] {
            let read = read(vec![bytes]);
            assert!(
                matches!(read[..], [Err(ProtocolError::Overflow)]),
                "{read:?}"
            );
        }
    }
}

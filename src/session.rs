//! Sessions: one actor per live request or socket, on the worker that holds the connection.
//!
//! A session translates between the wire and the engine and owns nothing else. It gives credit
//! back for an event once the HTTP server has taken the event's bytes, which it does only while
//! its write buffer has room: a client that does not read stops the events, not the memory.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix::Message;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures::Stream;
use idol_actors::{
    conversation::command::{Attachment, Detached},
    error::EngineError,
    limits::{CREDIT_BATCH, CREDIT_WINDOW},
};

pub mod ahead;
pub mod events;
pub mod hearing;
pub mod http;
mod pace;
pub mod speech;
pub mod sse;
pub mod tts_stream;
pub mod websocket;

/// Without a write for this long, a stream gets a comment: a client that has left is noticed by writes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An attachment has ended, as its lifeline tells. The session's own events come first.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Broken {
    attachment: u64,
    why: Detached,
}

impl Broken {
    /// What a client is told whose turn was cut off so.
    fn error(&self) -> EngineError {
        match self.why {
            Detached::Deleted => EngineError::NotFound,
            Detached::Stalled | Detached::Lost => EngineError::Restarted,
        }
    }
}

/// The attachments of a session, and what is owed to each. Shared by the session and its body.
#[derive(Debug, Default)]
struct CreditBook {
    lines: BTreeMap<u64, Line>,
}

#[derive(Debug)]
struct Line {
    /// None while it is being asked for: events may come before the answer does.
    attachment: Option<Attachment>,
    given: Given,
    /// Events encoded whose bytes the server has not taken yet.
    encoded: u32,
    /// Events taken for which no credit was given back yet.
    owed: u32,
}

impl CreditBook {
    /// Opens a line for an attachment that is about to be asked for.
    fn expect(&mut self, number: u64, given: Given) {
        let line = Line {
            attachment: None,
            given,
            encoded: 0,
            owed: 0,
        };
        self.lines.insert(number, line);
    }

    /// The attachment is there. If its line was closed in the meantime, it is let go.
    fn open(&mut self, number: u64, attachment: Attachment) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.attachment = Some(attachment);
            line.give_batch();
        }
    }

    fn close(&mut self, number: u64) {
        self.lines.remove(&number);
    }

    /// Notes an event that was encoded.
    fn encoded(&mut self, number: u64) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.encoded += 1;
        }
    }

    /// Notes an event for which nothing is written.
    fn skipped(&mut self, number: u64) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.owed += 1;
            line.give_batch();
        }
    }

    /// Lets an attachment begin that was held back. Once is enough.
    fn release_held(&mut self, number: u64) {
        if let Some(line) = self.lines.get_mut(&number)
            && line.given == Given::Nothing
            && line.attachment.is_some()
        {
            line.owed += CREDIT_WINDOW;
            line.give();
        }
    }

    /// The server took bytes: its client takes them.
    fn taken(&mut self, taken: Taken) {
        for line in self.lines.values_mut() {
            let events = match taken {
                Taken::Everything => line.encoded,
                Taken::OneEvent => line.encoded.min(1),
            };
            line.encoded -= events;
            line.owed += events;
            line.give_batch();
        }
    }
}

/// How much of what was encoded a poll of the body takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Everything,
    OneEvent,
}

/// Whether a conversation was ever allowed to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    Window,
}

impl Line {
    fn give_batch(&mut self) {
        if self.owed >= CREDIT_BATCH {
            self.give();
        }
    }

    /// Where the conversation has no room, an earlier credit of ours is still to be handled; the
    /// events it brings come this way again.
    fn give(&mut self) {
        if let Some(attachment) = &self.attachment
            && attachment.credit(self.owed)
        {
            self.owed = 0;
            self.given = Given::Window;
        }
    }
}

/// The body of a session's response: an actor that is polled as the server takes its bytes.
struct SessionBody<S> {
    stream: S,
    book: Rc<RefCell<CreditBook>>,
    /// What one poll takes.
    takes: Taken,
}

impl<S> MessageBody for SessionBody<S>
where
    S: Stream<Item = Result<Bytes, actix_web::Error>> + Unpin,
{
    type Error = actix_web::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let polled = Pin::new(&mut self.stream).poll_next(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.book.borrow_mut().taken(self.takes);
        }
        polled
    }
}

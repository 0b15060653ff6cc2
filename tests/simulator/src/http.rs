//! The small HTTP/1.1 layer every simulated upstream stands on.
//!
//! It works on a raw socket, because a test double must control what a framework hides: where a
//! write ends, whether the last chunk is sent, whether a connection closes or is reset. A
//! [`Connection`] reads one [`Request`] after another, head and body apart; a handler writes the answer itself, most
//! often through a [`Body`], and says in [`Next`] what becomes of the connection.

mod answer;
mod body;
mod connection;
mod request;
mod split;

pub(crate) use answer::{Answer, response_head};
pub(crate) use body::{Body, Framing};
pub(crate) use connection::{Connection, Unread};
pub use request::Request;
pub(crate) use request::{BodyLength, Head, Persistence};
pub use split::Split;

/// The client went away before the answer was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why a connection ended in the midst of a request or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client went away before the answer was whole.
    Gone,
    /// The request could not be read.
    Unread(Unread),
}

impl From<Gone> for Ended {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Unread> for Ended {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next request may follow, if the client keeps the connection.
    KeepAlive,
    /// The connection ends with a FIN.
    Close,
    /// The connection ends with a RST.
    Reset,
    /// The connection stays open and is never answered on; what it sends piles up in the sockets.
    Stuck,
}

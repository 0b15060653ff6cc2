//! The small HTTP/1.1 layer every simulated upstream stands on.
//!
//! It works on a raw socket, because a test double must control what a framework hides: where a
//! write ends, whether the last chunk is sent, whether a connection closes or is reset. A
//! [`Connection`] reads one [`Request`] after another; a handler writes the answer itself, most
//! often through a [`Body`], and says in [`Next`] what becomes of the connection.

mod answer;
mod body;
mod connection;
mod request;
mod split;

pub(crate) use answer::{Answer, response_head};
pub(crate) use body::{Body, Framing};
pub(crate) use connection::{Connection, Incoming};
pub(crate) use request::Persistence;
pub use request::Request;
pub use split::Split;

/// The client went away before the answer was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next request may follow, if the client keeps the connection.
    KeepAlive,
    /// The connection ends with a FIN.
    Close,
    /// The connection ends with a RST.
    Reset,
}

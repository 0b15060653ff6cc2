//! A document's pieces as the body of a request.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::stream;
use reqwest::Body;

/// Says whether the last byte of a body has been handed to the connection.
///
/// Before that the server cannot have the whole body, and it keeps nothing of half a body.
#[derive(Debug, Clone)]
pub(super) struct HandedOver(Arc<AtomicBool>);

impl HandedOver {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The total length in bytes of a document in pieces.
pub(super) fn length(pieces: &[Arc<str>]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// Makes the body. The pieces are shared, not joined or copied.
pub(super) fn body(mut pieces: Vec<Arc<str>>) -> (Body, HandedOver) {
    pieces.retain(|piece| !piece.is_empty());
    let last = pieces.len().checked_sub(1);
    let handed_over = HandedOver(Arc::new(AtomicBool::new(last.is_none())));
    let flag = handed_over.clone();
    let pieces = pieces.into_iter().enumerate().map(move |(index, piece)| {
        if Some(index) == last {
            flag.0.store(true, Ordering::Release);
        }
        Ok::<_, Infallible>(Bytes::from_owner(Piece(piece)))
    });
    (Body::wrap_stream(stream::iter(pieces)), handed_over)
}

struct Piece(Arc<str>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

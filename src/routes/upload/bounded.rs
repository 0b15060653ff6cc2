//! The bytes of a form, no more than there may be.
//!
//! The reader of forms gathers the head of a part, and what stands before the first one, however long
//! it is: a form that goes on without a part is not read on.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_multipart::MultipartError;
use actix_web::{error::PayloadError, web::Bytes};
use futures::{Stream, StreamExt as _};

/// Most bytes between two things that are read of a form. Those of a value are read as they come, in
/// pieces of some 64 KiB; a head has a few hundred.
const UNREAD_MAX: usize = 256 << 10;

/// How far the reading of a form has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Rc<Come>);

#[derive(Debug, Default)]
struct Come {
    /// Bytes that came since something was read of the form.
    unread: Cell<usize>,
    /// Whether the body is over.
    over: Cell<bool>,
}

impl Progress {
    /// Something was read.
    pub(super) fn made(&self) {
        self.0.unread.set(0);
    }

    /// What is read next of a form. The reader of forms waits for ever for the rest of one whose body
    /// has ended where a boundary could begin: that is an end, and the form is not whole.
    pub(super) async fn next<T>(
        &self,
        parts: &mut (impl Stream<Item = Result<T, MultipartError>> + Unpin),
    ) -> Option<Result<T, MultipartError>> {
        let mut waited = false;
        poll_fn(|cx| match parts.poll_next_unpin(cx) {
            Poll::Pending if self.0.over.get() => {
                if waited {
                    return Poll::Ready(Some(Err(MultipartError::Incomplete)));
                }
                waited = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            ready_or_not => ready_or_not,
        })
        .await
    }
}

/// A body that breaks off with [`PayloadError::Overflow`] where it goes too far.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    body: S,
    left: usize,
    progress: Progress,
}

impl<S> Bounded<S> {
    /// A body of at most so many bytes.
    pub(super) fn new(body: S, bytes_max: usize, progress: Progress) -> Self {
        Self {
            body,
            left: bytes_max,
            progress,
        }
    }
}

impl<S> Stream for Bounded<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(None) => {
                self.progress.0.over.set(true);
                return Poll::Ready(None);
            }
            other => return other,
        };
        let unread = &self.progress.0.unread;
        unread.set(unread.get().saturating_add(piece.len()));
        let is_stuck = unread.get() > UNREAD_MAX;
        Poll::Ready(Some(match self.left.checked_sub(piece.len()) {
            Some(left) if !is_stuck => {
                self.left = left;
                Ok(piece)
            }
            Some(_) | None => Err(PayloadError::Overflow),
        }))
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    /// So many pieces of 100 KiB, each of which is read if `reads` says so, until one is refused.
    async fn taken(bytes_max: usize, reads: impl Fn(usize) -> bool) -> usize {
        let piece = || Ok(Bytes::from_static(&[b'x'; 100 << 10]));
        let progress = Progress::default();
        let body = stream::repeat_with(piece).take(50);
        let mut body = Bounded::new(body, bytes_max, progress.clone());
        let mut taken = 0;
        while let Some(Ok(_piece)) = body.next().await {
            if reads(taken) {
                progress.made();
            }
            taken += 1;
        }
        taken
    }

    #[tokio::test]
    async fn a_body_that_goes_too_far_breaks_off() {
        assert_eq!(taken(usize::MAX, |_| true).await, 50);
        assert_eq!(taken(1_000 << 10, |_| true).await, 10);
        // Nothing is read of it from the third on.
        assert_eq!(taken(usize::MAX, |number| number < 2).await, 4);
    }
}

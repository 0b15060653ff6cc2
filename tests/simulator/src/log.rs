//! The last requests, kept for assertions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::Request;

/// The most requests kept.
pub(crate) const KEPT_REQUESTS: usize = 4096;
/// The most bytes of requests kept; the newest request is kept whatever its size.
pub(crate) const KEPT_BYTES: usize = 128 * 1024 * 1024;

/// A bounded log: the oldest requests make room for new ones.
#[derive(Debug, Default)]
pub(crate) struct Log {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<Arc<Request>>,
    bytes: usize,
}

impl Log {
    pub(crate) fn push(&self, request: Arc<Request>) {
        let mut kept = self.lock();
        kept.bytes += request.weight();
        kept.requests.push_back(request);
        while kept.requests.len() > KEPT_REQUESTS
            || (kept.bytes > KEPT_BYTES && kept.requests.len() > 1)
        {
            let Some(oldest) = kept.requests.pop_front() else {
                break;
            };
            kept.bytes -= oldest.weight();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Request>> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(crate) fn take(&self) -> Vec<Arc<Request>> {
        std::mem::take(&mut *self.lock()).requests.into()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(body: usize) -> Arc<Request> {
        Arc::new(Request {
            method: "POST".into(),
            target: "/".into(),
            body: Bytes::from(vec![b'x'; body]),
            headers: Vec::new(),
        })
    }

    #[test]
    fn the_log_is_bounded_by_count() {
        let log = Log::default();
        (0..KEPT_REQUESTS + 5).for_each(|index| log.push(request(index)));
        let kept = log.take();
        assert_eq!(kept.len(), KEPT_REQUESTS);
        assert_eq!(kept[0].body.len(), 5);
        assert!(log.all().is_empty());
    }

    #[test]
    fn the_log_is_bounded_by_bytes() {
        let log = Log::default();
        (0..5).for_each(|_| log.push(request(KEPT_BYTES / 4)));
        assert_eq!(log.all().len(), 3);
        log.push(request(KEPT_BYTES + 1));
        assert_eq!(log.all().len(), 1);
    }
}

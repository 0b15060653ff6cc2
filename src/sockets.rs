//! The open sockets and streams of events, so that each can be told when the server stops.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix::{Message, Recipient};
use dashmap::DashMap;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// The server stops; clients may come back after a while.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct GoAway {
    /// When to come back.
    pub retry_after: Duration,
}

/// The open sockets and streams of all workers.
#[derive(Debug, Default)]
pub struct Sockets {
    open: DashMap<u64, (Kind, Recipient<GoAway>)>,
    next: AtomicU64,
    sockets: Gauge,
    streams: Gauge,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Socket,
    Stream,
}

/// The wait that clients are told, in seconds: spread, so that they don't all come back at once.
const COME_BACK: std::ops::RangeInclusive<u64> = 1..=10;

impl Sockets {
    /// No sockets yet.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let sockets = Self::default();
        registry.register("websockets", "Open WebSockets", sockets.sockets.clone());
        registry.register(
            "event_streams",
            "Open streams of a conversation's events",
            sockets.streams.clone(),
        );
        sockets
    }

    /// A number for a new socket.
    pub fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a socket.
    pub fn add(&self, number: u64, socket: Recipient<GoAway>) {
        self.insert(number, Kind::Socket, socket);
    }

    /// Notes a stream of events.
    pub fn add_stream(&self, number: u64, stream: Recipient<GoAway>) {
        self.insert(number, Kind::Stream, stream);
    }

    fn insert(&self, number: u64, kind: Kind, session: Recipient<GoAway>) {
        self.open.insert(number, (kind, session));
        self.gauge(kind).inc();
    }

    fn gauge(&self, kind: Kind) -> &Gauge {
        match kind {
            Kind::Socket => &self.sockets,
            Kind::Stream => &self.streams,
        }
    }

    /// Forgets a socket or stream.
    pub fn remove(&self, number: u64) {
        if let Some((_, (kind, _))) = self.open.remove(&number) {
            self.gauge(kind).dec();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Tells every socket to go away.
    pub fn close_all(&self) {
        for socket in &self.open {
            let retry_after = Duration::from_secs(fastrand::u64(COME_BACK));
            let (_, session) = &*socket;
            if let Err(error) = session.try_send(GoAway { retry_after }) {
                tracing::debug!(%error, "a socket is not told; its connection is closed");
            }
        }
    }
}

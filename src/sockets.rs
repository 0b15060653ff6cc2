//! The open sockets and streams of events, so that each can be told when the server stops, and the
//! sockets when to look whether their peers are there: a timer for each would cost memory.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use actix::{Message, Recipient};
use dashmap::DashMap;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// What all sockets are told.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub enum Notice {
    /// It is time for a ping.
    Beat {
        /// When this was said: a session that was frozen finds all of them at once.
        at: Instant,
    },
    /// The server stops; clients may come back after a while.
    GoAway {
        /// When to come back.
        retry_after: Duration,
    },
}

/// The open sockets and streams of all workers.
#[derive(Debug, Default)]
pub struct Sockets {
    open: DashMap<u64, (Kind, Recipient<Notice>)>,
    next: AtomicU64,
    sockets: Gauge,
    streams: Gauge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Stream,
}

/// Sockets are told of a beat in so many groups, one after the other.
const GROUPS: u32 = 16;

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
    pub fn add(&self, number: u64, socket: Recipient<Notice>) {
        self.insert(number, Kind::Socket, socket);
    }

    /// Notes a stream of events.
    pub fn add_stream(&self, number: u64, stream: Recipient<Notice>) {
        self.insert(number, Kind::Stream, stream);
    }

    fn insert(&self, number: u64, kind: Kind, session: Recipient<Notice>) {
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

    /// Tells each socket once in `every` that it is time for a ping, for as long as it is polled.
    pub async fn beat(&self, every: Duration) {
        let mut beats = tokio::time::interval(every / GROUPS);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for group in (0..u64::from(GROUPS)).cycle() {
            beats.tick().await;
            let at = Instant::now();
            for socket in &self.open {
                let (kind, session) = &*socket;
                let due = *kind == Kind::Socket && socket.key() % u64::from(GROUPS) == group;
                if due && let Err(error) = session.try_send(Notice::Beat { at }) {
                    tracing::trace!(%error, "a socket has no room for a beat");
                }
            }
        }
    }

    /// Tells every socket to go away.
    pub fn close_all(&self) {
        for socket in &self.open {
            let retry_after = Duration::from_secs(fastrand::u64(COME_BACK));
            let (_, session) = &*socket;
            if let Err(error) = session.try_send(Notice::GoAway { retry_after }) {
                tracing::debug!(%error, "a socket is not told; its connection is closed");
            }
        }
    }
}

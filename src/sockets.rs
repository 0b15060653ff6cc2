//! The open sockets and streams of events, so that each can be told when the server stops, and the
//! sockets when to look whether their peers are there: a timer for each would cost memory.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
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
    /// The group that was told of a beat last: whoever comes now belongs to it, and is told when it
    /// is its turn again.
    group: AtomicU32,
    sockets: Gauge,
    streams: Gauge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket { group: u32 },
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
        let group = self.group.load(Ordering::Relaxed);
        self.insert(number, Kind::Socket { group }, socket);
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
            Kind::Socket { .. } => &self.sockets,
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

    /// Tells each socket once in `every` that it is time for a ping, for as long as it is polled; a
    /// new one after about as long.
    pub async fn beat(&self, every: Duration) {
        let step = every / GROUPS;
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + step, step);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Those that are there already are of the first group.
        for group in (0..GROUPS).cycle().skip(1) {
            beats.tick().await;
            let at = Instant::now();
            for socket in &self.open {
                let (kind, session) = &*socket;
                if *kind == (Kind::Socket { group })
                    && let Err(error) = session.try_send(Notice::Beat { at })
                {
                    tracing::trace!(%error, "a socket has no room for a beat");
                }
            }
            self.group.store(group, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};
    use tokio::sync::mpsc;

    use super::*;

    struct Session(mpsc::UnboundedSender<Notice>);

    impl Actor for Session {
        type Context = Context<Self>;
    }

    impl Handler<Notice> for Session {
        type Result = ();

        fn handle(&mut self, msg: Notice, _: &mut Self::Context) {
            self.0.send(msg).unwrap();
        }
    }

    #[actix::test]
    async fn a_socket_is_told_of_a_beat_each_period_and_not_when_it_is_new() {
        tokio::time::pause();
        const EVERY: Duration = Duration::from_secs(16);
        let sockets = Sockets::default();
        let work = async {
            for opened in 0..20_u64 {
                // At any place in the period.
                tokio::time::advance(EVERY / 7).await;
                let (told, mut beats) = mpsc::unbounded_channel();
                let begun = tokio::time::Instant::now();
                sockets.add(opened, Session(told).start().recipient());
                for period in 1..4 {
                    assert!(matches!(beats.recv().await, Some(Notice::Beat { .. })));
                    let passed = begun.elapsed();
                    assert!(passed > EVERY * period - EVERY / 8, "{opened}: {passed:?}");
                    assert!(passed < EVERY * period + EVERY / 8, "{opened}: {passed:?}");
                }
                sockets.remove(opened);
            }
        };
        tokio::select! {
            () = work => {}
            () = sockets.beat(EVERY) => panic!("it has ended"),
        }
    }
}

//! What the simulator has seen so far, countable and awaitable.

use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The counts of one simulator since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Whole requests read, of every route but the administrative ones.
    pub requests: u64,
    /// Requests for a chat completion among them.
    pub chat_requests: u64,
    /// Requests whose answer has not ended yet.
    pub active_requests: u64,
    /// Connections accepted.
    pub accepted_connections: u64,
    /// Connections that are open now.
    pub open_connections: u64,
    /// Answers that the client did not wait for: it closed before their end.
    pub client_disconnects: u64,
    /// Streamed replies that are being sent now, those that still wait for their head included.
    pub active_streams: u64,
    /// Streamed replies sent to their end, with no fault that cut them.
    pub streams_completed: u64,
    /// Faults that were played.
    pub faults_played: u64,
    /// Requests for speech among `requests`, sockets not included.
    pub speech_requests: u64,
    /// Generations of speech that are under way now: answers, and texts that sockets speak.
    pub active_generations: u64,
    /// The most of them that were ever under way at once.
    pub most_generations: u64,
    /// Generations that have ended as they should.
    pub generations_completed: u64,
    /// Sockets for speech that were opened.
    pub speech_sockets: u64,
    /// Those of them that are open now.
    pub open_speech_sockets: u64,
    /// Messages that clients have sent on them.
    pub socket_messages: u64,
    /// Requests for a transcription whose body has begun to arrive.
    pub audio_uploads_begun: u64,
    /// Bytes of such bodies that have arrived, those under way included.
    pub audio_bytes_received: u64,
    /// Requests for a transcription that have arrived whole.
    pub transcription_requests: u64,
    /// Requests to Supabase among `requests`.
    pub supabase_requests: u64,
    /// Objects that uploads have written to the simulated Supabase.
    pub uploads: u64,
    /// The bytes of these objects.
    pub uploaded_bytes: u64,
    /// Objects that requests have deleted from it.
    pub deletes: u64,
    /// Rows that requests have written to its table, updates that changed nothing included.
    pub rows_written: u64,
    /// Changes of its objects, buckets and rows, by requests or by the test.
    pub store_changes: u64,
    /// Requests that it holds, to apply them later; see [`supabase::Fault::Late`].
    ///
    /// [`supabase::Fault::Late`]: crate::supabase::Fault::Late
    pub held_writes: u64,
}

/// A condition did not come true in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} within {deadline:?}; last seen: {last}")]
pub struct WaitError {
    /// What was awaited.
    pub what: String,
    /// How long it was awaited.
    pub deadline: Duration,
    /// The state at the end of the wait.
    pub last: String,
}

/// The one owner of the counts; everything else changes them through it.
#[derive(Debug)]
pub(crate) struct Meter {
    counts: watch::Sender<Counters>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            counts: watch::Sender::new(Counters::default()),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Counters)) {
        self.counts.send_modify(change);
    }

    pub(crate) fn read(&self) -> Counters {
        *self.counts.borrow()
    }

    /// Waits until the counts satisfy the condition.
    pub(crate) async fn wait_for(
        &self,
        clock: &Handle,
        what: &str,
        condition: impl Fn(&Counters) -> bool,
        deadline: Duration,
    ) -> Result<Counters, WaitError> {
        let mut watched = self.counts.subscribe();
        wait_on(&mut watched, clock, what, condition, deadline).await
    }
}

/// Waits on a watched value with a deadline that runs on the simulator's clock.
///
/// A caller's own runtime may have its time paused, which would end the wait at once.
pub(crate) async fn wait_on<T: Copy + std::fmt::Debug>(
    watched: &mut watch::Receiver<T>,
    clock: &Handle,
    what: &str,
    condition: impl Fn(&T) -> bool,
    deadline: Duration,
) -> Result<T, WaitError> {
    let mut timer = clock.spawn(tokio::time::sleep(deadline));
    let found = tokio::select! {
        biased;
        found = watched.wait_for(|value| condition(value)) => found.map(|value| *value).ok(),
        _ = &mut timer => None,
    };
    timer.abort();
    found.ok_or_else(|| WaitError {
        what: what.to_owned(),
        deadline,
        last: format!("{:?}", *watched.borrow()),
    })
}

/// Takes back one count when it is dropped, however the work it stands for ends.
#[derive(Debug)]
pub(crate) struct Counted<'m> {
    meter: &'m Meter,
    undo: fn(&mut Counters),
}

impl<'m> Counted<'m> {
    /// Makes a change now, and its opposite at the end of the scope.
    pub(crate) fn new(meter: &'m Meter, make: fn(&mut Counters), undo: fn(&mut Counters)) -> Self {
        meter.change(make);
        Self { meter, undo }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.meter.change(self.undo);
    }
}

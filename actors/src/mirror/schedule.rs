//! When which document is written. No clock, no I/O.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::id::ConversationId;

/// A document is rewritten early when it lacks more than one part in this many of what it has.
const FRACTION: u64 = 4;

/// A document of unknown size waits at most this long for a quiet moment.
const UNQUIET_MAX: Duration = Duration::from_secs(30);

/// Conversations remembered as lacking. Those beyond it are found in the log by the next sweep.
const PENDING_MAX: usize = 100_000;

/// Bytes of a document that one quiet time pays for. A larger one waits for a longer quiet, so that
/// somebody who says a word a minute does not have the whole history written each time: the bytes
/// written for one conversation are at most this much in each quiet time, however long it is.
const LARGE: u64 = 256 << 10;

/// Longest quiet that a large document waits for.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// Large documents whose size is remembered; of others the first writing comes early.
const LARGE_MAX: usize = 100_000;

/// First wait after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What came of a word that a document is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is due now.
    New,
    /// That was known; its time stays.
    Before,
    /// The next sweep finds it again.
    NoRoom,
}

/// The desired state: which documents lack something, and when each is due.
#[derive(Debug)]
pub(super) struct Schedule {
    idle: Duration,
    pending: HashMap<ConversationId, Pending>,
    /// Those not in flight, by the time they are due.
    by_due: BTreeSet<(Instant, ConversationId)>,
    /// Sizes of large documents that lack nothing, so that the next turn does not have them written
    /// as if they were small.
    large: HashMap<ConversationId, u64>,
}

#[derive(Debug)]
struct Pending {
    wanted_seq: u64,
    /// Bytes said since the document was last taken up.
    lacking: u64,
    /// Size of the document, once this run has written it.
    size: Option<u64>,
    /// Since when it lacks something.
    since: Instant,
    /// `None`: in flight.
    due: Option<Instant>,
    failures: u32,
    hold: Hold,
}

/// Whether a flush may bring the time forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It is due then for convenience.
    None,
    /// Something has to be waited for.
    Until,
}

impl Schedule {
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            idle,
            pending: HashMap::new(),
            by_due: BTreeSet::new(),
            large: HashMap::new(),
        }
    }

    /// A conversation grew.
    pub(super) fn changed(&mut self, now: Instant, id: ConversationId, seq: u64, bytes: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.wanted_seq = pending.wanted_seq.max(seq);
            pending.lacking = pending.lacking.saturating_add(bytes);
            // In flight, or waiting after a failure: its time is set elsewhere.
            if let Some(due) = pending.due
                && pending.failures == 0
            {
                let next = pending.next_due(now, self.idle);
                pending.due = Some(next);
                self.by_due.remove(&(due, id.clone()));
                self.by_due.insert((next, id));
            }
            return;
        }
        let wait = quiet(self.large.get(&id).copied(), self.idle);
        self.insert(id, seq, bytes, now, now + wait);
    }

    /// The log says that a document is behind.
    pub(super) fn behind(&mut self, now: Instant, id: ConversationId, seq: u64) -> Noted {
        match self.pending.get_mut(&id) {
            Some(pending) => {
                pending.wanted_seq = pending.wanted_seq.max(seq);
                Noted::Before
            }
            None => self.insert(id, seq, 0, now, now),
        }
    }

    fn insert(
        &mut self,
        id: ConversationId,
        seq: u64,
        bytes: u64,
        now: Instant,
        due: Instant,
    ) -> Noted {
        if self.pending.len() >= PENDING_MAX {
            return Noted::NoRoom;
        }
        self.by_due.insert((due, id.clone()));
        let size = self.large.remove(&id);
        self.pending.insert(
            id,
            Pending {
                wanted_seq: seq,
                lacking: bytes,
                size,
                since: now,
                due: Some(due),
                failures: 0,
                hold: Hold::None,
            },
        );
        Noted::New
    }

    /// Takes up to `limit` documents whose time has come; each must be settled.
    pub(super) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<ConversationId> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((due, id)) = self.by_due.pop_first()
        {
            if due > now {
                self.by_due.insert((due, id));
                break;
            }
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.due = None;
                pending.hold = Hold::None;
                pending.lacking = 0;
                taken.push(id);
            }
        }
        taken
    }

    /// A document was written and shows `seq` entries.
    pub(super) fn written(&mut self, now: Instant, id: &ConversationId, seq: u64, size: u64) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        if seq >= pending.wanted_seq {
            self.pending.remove(id);
            if size > LARGE && self.large.len() < LARGE_MAX {
                self.large.insert(id.clone(), size);
            }
            return;
        }
        pending.failures = 0;
        pending.size = Some(size);
        pending.since = now;
        let due = pending.next_due(now, self.idle);
        pending.due = Some(due);
        self.by_due.insert((due, id.clone()));
    }

    /// The log has no such conversation.
    pub(super) fn gone(&mut self, id: &ConversationId) {
        self.pending.remove(id);
    }

    /// A document was not written for want of room in the batch.
    pub(super) fn postponed(&mut self, now: Instant, id: &ConversationId) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.due = Some(now);
            self.by_due.insert((now, id.clone()));
        }
    }

    /// A document's time has not come: something has to be waited for, which no flush shortens.
    pub(super) fn hold(&mut self, id: &ConversationId, until: Instant) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        if let Some(due) = pending.due.replace(until) {
            self.by_due.remove(&(due, id.clone()));
        }
        pending.hold = Hold::Until;
        self.by_due.insert((until, id.clone()));
    }

    /// A document could not be written; says how often in a row. `jitter`: 0 to 1.
    pub(super) fn failed(&mut self, now: Instant, id: &ConversationId, jitter: f64) -> u32 {
        let Some(pending) = self.pending.get_mut(id) else {
            return 0;
        };
        let doubled = RETRY_MIN.saturating_mul(1 << pending.failures.min(16));
        let wait = doubled.min(RETRY_MAX).mul_f64(0.5 + jitter / 2.0);
        pending.failures += 1;
        pending.due = Some(now + wait);
        self.by_due.insert((now + wait, id.clone()));
        pending.failures
    }

    /// Makes everything due, failures too.
    pub(super) fn hasten(&mut self, now: Instant) {
        for (_, id) in std::mem::take(&mut self.by_due) {
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.due = Some(now);
                self.by_due.insert((now, id));
            }
        }
    }

    /// Makes everything due that did not fail, and that nothing has to be waited for.
    pub(super) fn hasten_untried(&mut self, now: Instant) {
        for (due, id) in std::mem::take(&mut self.by_due) {
            let untried = self
                .pending
                .get_mut(&id)
                .filter(|it| it.failures == 0 && it.hold == Hold::None);
            if let Some(pending) = untried {
                pending.due = Some(now);
                self.by_due.insert((now, id));
            } else {
                self.by_due.insert((due, id));
            }
        }
    }

    /// When the next document is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Documents that lack something.
    pub(super) fn backlog(&self) -> usize {
        self.pending.len()
    }

    /// Since when the one that lacks something longest does.
    ///
    /// Looks at all of them: for the occasional report.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.since).min()
    }
}

/// The quiet that a document of a size waits for.
fn quiet(size: Option<u64>, idle: Duration) -> Duration {
    let times = u32::try_from(size.unwrap_or(0) / LARGE).unwrap_or(u32::MAX);
    idle.saturating_mul(times.max(1)).min(QUIET_MAX.max(idle))
}

impl Pending {
    fn next_due(&self, now: Instant, idle: Duration) -> Instant {
        match self.size {
            Some(size) if self.lacking.saturating_mul(FRACTION) > size => now,
            Some(size) => now + quiet(Some(size), idle),
            // Whatever it has, it lacks enough to be worth a writing.
            None if self.lacking > LARGE => now,
            None => (now + idle).min(self.since + UNQUIET_MAX.max(idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(2);

    fn id(name: &str) -> ConversationId {
        ConversationId::parse(name).unwrap()
    }

    #[test]
    fn a_document_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            schedule.changed(now, id("a"), second + 1, 10);
            if !schedule.take_due(now, 9).is_empty() {
                assert_eq!(now, start + UNQUIET_MAX);
                return;
            }
        }
        panic!("never due");
    }

    #[test]
    fn one_that_lacks_much_is_written_early() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        schedule.changed(start, id("a"), 1, 10);
        assert!(schedule.take_due(start + IDLE / 2, 9).is_empty());
        assert_eq!(schedule.take_due(start + IDLE, 9), [id("a")]);
        // What comes while it is written is not shown by it, and nothing is in flight twice.
        schedule.changed(start + IDLE, id("a"), 2, 10);
        assert!(schedule.take_due(start + IDLE * 9, 9).is_empty());
        schedule.written(start + IDLE, &id("a"), 1, 1000);
        assert_eq!(schedule.next_due(), Some(start + IDLE * 2));
        schedule.changed(start + IDLE, id("a"), 3, 250);
        assert_eq!(schedule.take_due(start + IDLE, 9), [id("a")]);
        schedule.written(start + IDLE, &id("a"), 3, 1260);
        assert_eq!(schedule.backlog(), 0);
    }

    #[test]
    fn what_has_to_wait_is_hastened_by_news_alone() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        assert_eq!(schedule.behind(start, id("a"), 5), Noted::New);
        assert_eq!(schedule.behind(start, id("a"), 6), Noted::Before);
        assert_eq!(schedule.take_due(start, 9), [id("a")]);
        schedule.hold(&id("a"), start + IDLE * 100);
        schedule.hasten_untried(start);
        assert_eq!(schedule.next_due(), Some(start + IDLE * 100));
        schedule.changed(start, id("a"), 7, 1);
        assert_eq!(schedule.next_due(), Some(start + IDLE));
        assert_eq!(schedule.take_due(start + IDLE * 200, 9), [id("a")]);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn failures_wait_longer_each_time_and_hold_up_nobody() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        schedule.behind(start, id("bad"), 5);
        assert_eq!(schedule.take_due(start, 9), [id("bad")]);
        let mut waits = vec![];
        for _ in 0..12 {
            schedule.failed(start, &id("bad"), 1.0);
            let due = schedule.next_due().unwrap();
            waits.push(due - start);
            schedule.changed(start, id("bad"), 6, 1_000_000);
            assert_eq!(
                schedule.next_due(),
                Some(due),
                "a notice does not hasten it"
            );
            schedule.behind(start, id("good"), 1);
            assert_eq!(schedule.take_due(start, 9), [id("good")]);
            schedule.written(start, &id("good"), 1, 10);
            assert_eq!(schedule.take_due(due, 9), [id("bad")]);
        }
        assert!(waits.is_sorted() && waits[0] == RETRY_MIN, "{waits:?}");
        assert_eq!(waits.last(), Some(&RETRY_MAX));
        schedule.failed(start, &id("bad"), 0.0);
        schedule.hasten(start);
        assert_eq!(schedule.take_due(start, 9), [id("bad")]);
    }

    #[test]
    fn one_of_unknown_size_that_lacks_very_much_is_written_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        schedule.changed(start, id("a"), 1, LARGE);
        schedule.changed(start, id("a"), 2, 1);
        assert_eq!(schedule.take_due(start, 9), [id("a")]);
    }

    #[test]
    fn a_large_document_waits_for_a_longer_quiet() {
        let start = Instant::now();
        let mut schedule = Schedule::new(IDLE);
        schedule.changed(start, id("a"), 1, 10);
        assert_eq!(schedule.take_due(start + IDLE, 9), [id("a")]);
        let size = 5 * LARGE + 1;
        schedule.written(start + IDLE, &id("a"), 1, size);
        assert_eq!(schedule.backlog(), 0);
        // A word now and then: five times the quiet, since it costs five times the bytes.
        schedule.changed(start, id("a"), 2, 10);
        assert_eq!(schedule.next_due(), Some(start + IDLE * 5));
        schedule.changed(start + IDLE, id("a"), 3, 10);
        assert_eq!(schedule.next_due(), Some(start + IDLE * 6));
        // Much at once does not wait.
        schedule.changed(start + IDLE, id("a"), 4, size / FRACTION);
        assert_eq!(schedule.take_due(start + IDLE, 9), [id("a")]);
        schedule.written(start + IDLE, &id("a"), 4, LARGE * 1_000_000);
        schedule.changed(start, id("a"), 5, 10);
        assert_eq!(schedule.next_due(), Some(start + QUIET_MAX));
    }
}

//! Who listens, how far each has come, and who may be sent more. Pure: times are handed in.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    backlog::{Backlog, Rest},
    event::Event,
    stream::Position,
    streams::Streams,
};

/// Names a subscriber within its conversation.
pub type SubscriberKey = u64;

/// What a session wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Every event of one turn, by its ordinal.
    Turn(u64),
    /// Only how one turn ends.
    Outcome(u64),
    /// Every event of every turn.
    All,
    /// Only what it was given of the history.
    History,
}

/// A session's place in the stream.
#[derive(Debug)]
pub struct Subscriber<S> {
    /// Where its events go.
    pub sink: S,
    interest: Interest,
    /// What of the history is told before anything else.
    backlog: Option<Box<Backlog>>,
    /// What is told beside the turns, as soon as there is credit.
    beside: VecDeque<Arc<Event>>,
    position: Position,
    credit: u32,
    /// Since when there is something to send but no credit.
    waiting_since: Option<Instant>,
    patience: Patience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Held back by its own session, which has never given credit: it may take its time.
    Held,
    /// Had credit once: using none for long means that its client has stopped reading.
    Counting,
}

/// What became of an event handed to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// The session's mailbox has no room now.
    Full,
    /// The session is gone.
    Gone,
}

/// The sessions attached to a conversation.
#[derive(Debug)]
pub struct Subscribers<S> {
    next: SubscriberKey,
    all: BTreeMap<SubscriberKey, Subscriber<S>>,
}

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Self {
            next: 0,
            all: BTreeMap::new(),
        }
    }
}

impl<S> Subscribers<S> {
    /// Adds one.
    pub fn add(
        &mut self,
        sink: S,
        interest: Interest,
        position: Position,
        credit: u32,
    ) -> SubscriberKey {
        let key = self.next;
        self.next += 1;
        let patience = match credit {
            0 => Patience::Held,
            _ => Patience::Counting,
        };
        self.all.insert(
            key,
            Subscriber {
                sink,
                interest,
                backlog: None,
                beside: VecDeque::new(),
                position,
                credit,
                waiting_since: None,
                patience,
            },
        );
        key
    }

    /// Gives one a part of the history, to be told before anything else.
    pub fn tell_first(&mut self, key: SubscriberKey, backlog: Box<Backlog>) {
        if let Some(subscriber) = self.all.get_mut(&key) {
            subscriber.backlog = Some(backlog);
        }
    }

    /// Tells all who hear every turn something that is no event of one.
    pub fn tell_watchers(&mut self, event: &Arc<Event>) {
        let watches = |it: &&mut Subscriber<S>| it.interest == Interest::All;
        for watcher in self.all.values_mut().filter(watches) {
            watcher.beside.push_back(event.clone());
        }
    }

    /// Removes one.
    pub fn remove(&mut self, key: SubscriberKey) -> Option<S> {
        self.all.remove(&key).map(|subscriber| subscriber.sink)
    }

    /// Removes all.
    pub fn take_all(&mut self) -> Vec<S> {
        std::mem::take(&mut self.all)
            .into_values()
            .map(|subscriber| subscriber.sink)
            .collect()
    }

    /// Gives one credit for more events.
    pub fn credit(&mut self, key: SubscriberKey, events: u32) {
        if let Some(subscriber) = self.all.get_mut(&key) {
            subscriber.credit = subscriber.credit.saturating_add(events);
            subscriber.waiting_since = None;
            subscriber.patience = Patience::Counting;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether somebody wants to hear a turn.
    #[must_use]
    pub fn hears(&self, ordinal: u64) -> bool {
        self.all
            .values()
            .any(|subscriber| match subscriber.interest {
                Interest::Turn(wanted) | Interest::Outcome(wanted) => wanted == ordinal,
                Interest::All => true,
                Interest::History => false,
            })
    }

    /// Whether somebody waits for credit with something to be sent.
    #[must_use]
    pub fn anyone_waits(&self) -> bool {
        self.all
            .values()
            .any(|subscriber| subscriber.waiting_since.is_some())
    }

    /// The oldest turn that somebody still reads; `end` if nobody reads any.
    #[must_use]
    pub fn oldest_needed(&self, end: u64) -> u64 {
        let needed = |subscriber: &Subscriber<S>| match subscriber.interest {
            Interest::Turn(ordinal) | Interest::Outcome(ordinal) => Some(ordinal),
            Interest::All => Some(subscriber.position.ordinal),
            Interest::History => None,
        };
        let oldest = self.all.values().filter_map(needed).min();
        oldest.unwrap_or(end).min(end)
    }

    /// Sends one subscriber what its credit allows.
    pub fn pump(
        &mut self,
        key: SubscriberKey,
        streams: &mut Streams,
        bytes_max: usize,
        now: Instant,
        mut send: impl FnMut(&S, Arc<Event>) -> Sent,
    ) {
        if let Some(subscriber) = self.all.get_mut(&key)
            && subscriber.pump(streams, bytes_max, now, &mut send) == Next::Remove
        {
            self.all.remove(&key);
        }
    }

    /// Sends everybody what their credit allows.
    pub fn pump_all(
        &mut self,
        streams: &mut Streams,
        bytes_max: usize,
        now: Instant,
        mut send: impl FnMut(&S, Arc<Event>) -> Sent,
    ) {
        self.all.retain(|_, subscriber| {
            subscriber.pump(streams, bytes_max, now, &mut send) == Next::Keep
        });
    }

    /// Removes those that have waited for credit longer than `deadline`, and those that wait for it
    /// so far behind that all since the turn `oldest` is kept for them alone.
    pub fn take_stalled(&mut self, now: Instant, deadline: Duration, oldest: u64) -> Vec<S> {
        let stalled = |subscriber: &mut Subscriber<S>| {
            let lags = subscriber.interest == Interest::All && subscriber.position.ordinal < oldest;
            subscriber.patience == Patience::Counting
                && subscriber
                    .waiting_since
                    .is_some_and(|since| lags || now.duration_since(since) >= deadline)
        };
        self.all
            .extract_if(.., |_, subscriber| stalled(subscriber))
            .map(|(_, subscriber)| subscriber.sink)
            .collect()
    }

    /// Removes those whose session is gone.
    pub fn retain(&mut self, mut alive: impl FnMut(&S) -> bool) {
        self.all.retain(|_, subscriber| alive(&subscriber.sink));
    }
}

/// An event, and the position that is reached with it.
fn placed((event, after): (Arc<Event>, Position)) -> (Arc<Event>, Option<Position>) {
    (event, Some(after))
}

#[derive(PartialEq, Eq)]
enum Next {
    Keep,
    Remove,
}

impl<S> Subscriber<S> {
    fn pump(
        &mut self,
        streams: &mut Streams,
        bytes_max: usize,
        now: Instant,
        send: &mut impl FnMut(&S, Arc<Event>) -> Sent,
    ) -> Next {
        match self.interest {
            Interest::Outcome(ordinal) => {
                let Some(position) = streams.last_of(ordinal) else {
                    return Next::Keep;
                };
                self.position = position;
            }
            Interest::Turn(_) | Interest::All | Interest::History => {}
        }
        loop {
            let next = match (&self.backlog, self.beside.front()) {
                // It may tell whole what was cut since.
                (Some(backlog), _) => backlog.read(bytes_max).map(placed),
                (None, Some(event)) => Some((event.clone(), None)),
                (None, None) if self.interest == Interest::History => return Next::Remove,
                (None, None) => streams.read(self.position, bytes_max).map(placed),
            };
            let Some((event, after)) = next else {
                self.waiting_since = None;
                return Next::Keep;
            };
            if self.credit == 0 {
                self.waiting_since.get_or_insert(now);
                return Next::Keep;
            }
            let last_wanted = match self.interest {
                Interest::Turn(_) | Interest::Outcome(_) => event.is_last(),
                Interest::All | Interest::History => false,
            };
            match send(&self.sink, event) {
                Sent::Yes => {}
                Sent::Full => {
                    self.waiting_since.get_or_insert(now);
                    return Next::Keep;
                }
                Sent::Gone => return Next::Remove,
            }
            self.credit -= 1;
            match (after, &mut self.backlog) {
                (None, _) => drop(self.beside.pop_front()),
                (Some(after), Some(backlog)) => {
                    if backlog.told(after) == Rest::Nothing {
                        self.backlog = None;
                    }
                }
                (Some(after), None) => self.position = after,
            }
            if last_wanted {
                return Next::Remove;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Requests that come again: the same command, or another one with the same idempotency key.
//!
//! A key counts within its conversation, whose one actor settles every race. It is claimed before
//! the upstream is asked, and stands in the entry that accepts the turn.

use std::time::Instant;

use actix::Context;

use super::{
    Conversation, answer,
    backlog::Backlog,
    command::{KeyedMessage, Listener, Reply, RequestKey, Started, Took, Want},
    document::{Document, TurnRecord, TurnState},
    event::Cursor,
    stream::{Position, TurnStream},
    subscribers::Interest,
};
use crate::{
    caller::Caller,
    error::EngineError,
    id::TurnId,
    json_text::unescape,
    log::entry::{ABANDONED, CANCELLED, IdempotencyKey, TurnEnded},
    time::Timestamp,
};

/// The key of a turn whose acceptance is on its way to the log.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) ordinal: u64,
    pub(super) key: IdempotencyKey,
}

/// A repeat of a request whose turn is on its way to the log.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) ordinal: u64,
    pub(super) seen: Option<Cursor>,
    pub(super) listener: Option<Listener>,
    pub(super) reply: Reply<Started>,
}

/// What is known of a request that may have come before.
pub(super) enum Known {
    /// Nothing: it is new.
    No,
    /// Its turn is here, under way or over, by its ordinal.
    Turn(u64),
    /// Its turn is over, and is told out of the history.
    Told(Box<TurnStream>),
    /// Its turn ended without a reply and is to run again.
    Again { turn: TurnId, attempt: u32 },
    /// It cannot be carried out.
    Refused(EngineError),
}

impl Conversation {
    /// Looks for the turn of a command that was sent again, or of a request with the same key.
    pub(super) fn known(&self, turn: TurnId, caller: &Caller, key: Option<&RequestKey>) -> Known {
        let here = self.streams.find(turn).is_some();
        if here || self.document().is_some_and(|it| it.turn(turn).is_some()) {
            return self.streamed(turn);
        }
        match key {
            Some(key) => self.keyed(caller, key),
            None => Known::No,
        }
    }

    /// What was kept with a key.
    pub(super) fn keyed_message(&self, caller: &Caller, key: &str) -> Option<KeyedMessage> {
        let document = self.document().filter(|it| caller.may_use(it.user_id()))?;
        let record = self.keyed_record(document, &caller.scope(), key)?;
        let said = record.received().last()?;
        Some(KeyedMessage {
            turn: record.turn?,
            message: said.id(),
            request: record.key.as_ref()?.0.request,
            text: unescape(&said.fragment()[said.text_range()]),
        })
    }

    fn keyed_record<'a>(
        &self,
        document: &'a Document,
        scope: &str,
        key: &str,
    ) -> Option<&'a TurnRecord> {
        let now = (Timestamp::now(), Instant::now());
        let ages = &self.shared.key_ages;
        document.keyed(scope, key, |turn, accepted_at| {
            ages.is_kept(turn, accepted_at, now)
        })
    }

    fn keyed(&self, caller: &Caller, key: &RequestKey) -> Known {
        let scope = caller.scope();
        let claimed = self
            .claims
            .iter()
            .find(|claim| claim.key.key == key.key && claim.key.scope == scope);
        if let Some(claim) = claimed {
            return match claim.key.request == key.request {
                true => Known::Turn(claim.ordinal),
                false => Known::Refused(EngineError::KeyReused),
            };
        }
        let document = self.document();
        let record = document.and_then(|it| self.keyed_record(it, &scope, &key.key));
        let Some(record) = record else {
            return Known::No;
        };
        let same = record
            .key
            .as_ref()
            .is_some_and(|known| known.0.request == key.request);
        let Some(turn) = record.turn.filter(|_| same) else {
            return Known::Refused(EngineError::KeyReused);
        };
        let replaced = self.document().is_some_and(|it| it.was_replaced(turn));
        match runs_again(record) {
            // What replaced it answers for it.
            Some(_) if replaced => {
                let stands = self.document().and_then(|it| it.stands_for(turn));
                return match stands {
                    Some(turn) => self.streamed(turn),
                    None => Known::Refused(EngineError::Restarted),
                };
            }
            // A turn that is about to replace something may replace it, too: that is waited for.
            Some(_) if self.is_replacing() => return Known::Refused(EngineError::Busy),
            Some(attempt) => return Known::Again { turn, attempt },
            None => {}
        }
        // What there is of a reply that broke off was paid for: a repeat gets it as it stands.
        if let TurnState::Ended(ended) = &record.state
            && ended.error.is_some()
        {
            return told(TurnStream::retold(record));
        }
        self.streamed(turn)
    }

    /// A turn from the streams that are kept, else from the history.
    fn streamed(&self, turn: TurnId) -> Known {
        if let Some(ordinal) = self.streams.find(turn) {
            return Known::Turn(ordinal);
        }
        let record = self.document().and_then(|it| it.turn(turn));
        told(record.and_then(TurnStream::from_record))
    }

    fn is_replacing(&self) -> bool {
        let running = self.running.as_ref().and_then(|running| running.replaces);
        running.is_some() || self.waiting.iter().any(|it| it.replaces.is_some())
    }

    /// Answers a repeat with its turn: at once if that is in the log, else when it is.
    pub(super) fn follow(
        &mut self,
        ordinal: u64,
        seen: Option<Cursor>,
        listener: Option<Listener>,
        reply: Reply<Started>,
        ctx: &mut Context<Self>,
    ) {
        let Some(stream) = self.streams.get(ordinal) else {
            answer(reply, Err(EngineError::Restarted.into()));
            return;
        };
        let Some(received) = stream.received() else {
            self.followers.push(Follower {
                ordinal,
                seen,
                listener,
                reply,
            });
            return;
        };
        let started = Started {
            turn: stream.turn(),
            reply: stream.reply(),
            message: received.message,
            attachment: None,
            took: Took::Repeat,
        };
        let at = seen_of(stream, ordinal, seen);
        let started = self.listen_to(ordinal, at, started, listener, ctx);
        answer(reply, started.map_err(Into::into));
    }

    /// Answers a repeat with its turn out of the history.
    pub(super) fn tell_again(
        &mut self,
        stream: TurnStream,
        seen: Option<Cursor>,
        listener: Option<Listener>,
        reply: Reply<Started>,
        ctx: &mut Context<Self>,
    ) {
        let mut started = Started {
            turn: stream.turn(),
            reply: stream.reply(),
            message: stream.received().and_then(|received| received.message),
            attachment: None,
            took: Took::Repeat,
        };
        if let Some(listener) = listener {
            let at = match listener.want {
                Want::Everything => Some(seen_of(&stream, 0, seen)),
                Want::Outcome => stream.last(0),
            };
            let history = at.and_then(|at| Backlog::of(stream, at));
            let Some(history) = history else {
                answer(reply, Err(EngineError::Restarted.into()));
                return;
            };
            let events = (Position::default(), Some(history));
            match self.subscribe(listener, Interest::History, events, ctx) {
                Ok(attachment) => started.attachment = Some(attachment),
                Err(error) => {
                    answer(reply, Err(error.into()));
                    return;
                }
            }
        }
        answer(reply, Ok(started));
    }

    /// The repeats that wait for a turn.
    pub(super) fn take_followers(&mut self, ordinal: u64) -> Vec<Follower> {
        let (followers, rest) = std::mem::take(&mut self.followers)
            .into_iter()
            .partition(|follower| follower.ordinal == ordinal);
        self.followers = rest;
        followers
    }
}

fn told(stream: Option<TurnStream>) -> Known {
    match stream {
        Some(stream) => Known::Told(Box::new(stream)),
        None => Known::Refused(EngineError::Restarted),
    }
}

/// Where a repeat goes on that has seen a part; from the beginning where that cannot be told. One
/// that has seen the end is told the end again, as that is what it waits for.
fn seen_of(stream: &TurnStream, ordinal: u64, seen: Option<Cursor>) -> Position {
    let start = Position {
        ordinal,
        ..Position::default()
    };
    let place = seen
        .filter(|cursor| cursor.turn == stream.turn())
        .and_then(|cursor| stream.place(ordinal, cursor).ok());
    match place {
        Some(place) if stream.is_told(place) && stream.ended() => {
            stream.last(ordinal).unwrap_or(start)
        }
        Some(place) => place,
        None => start,
    }
}

/// Whether a repeat of its request runs a turn once more, and which run that is.
///
/// One that failed, or was given up, before any text is tried again: nothing was shown. One that a
/// user stopped, or that the upstream ended in order without a word, is over.
fn runs_again(record: &TurnRecord) -> Option<u32> {
    let TurnState::Ended(ended) = &record.state else {
        return None;
    };
    let TurnEnded {
        finish_reason,
        error,
        attempt,
        ..
    } = &**ended;
    let failed = error.is_some() && finish_reason != CANCELLED || finish_reason == ABANDONED;
    (failed && record.reply().is_none()).then(|| attempt + 1)
}

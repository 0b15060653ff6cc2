//! Requests that come again: the same command, or another one with the same idempotency key.
//!
//! A key counts within its conversation, whose one actor settles every race. It is claimed before
//! the upstream is asked, and stands in the entry that accepts the turn.

use actix::Context;

use super::{
    Conversation, answer,
    command::{Listener, Reply, RequestKey, Started, Took},
    document::{TurnRecord, TurnState},
    stream::TurnStream,
};
use crate::{
    caller::Caller,
    error::EngineError,
    id::TurnId,
    limits,
    log::entry::{CANCELLED, IdempotencyKey, TurnEnded},
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
    pub(super) listener: Option<Listener>,
    pub(super) reply: Reply<Started>,
}

/// What is known of a request that may have come before.
pub(super) enum Known {
    /// Nothing: it is new.
    No,
    /// Its turn is here, under way or over, by its ordinal.
    Turn(u64),
    /// Its turn ended without a reply and is to run again.
    Again { turn: TurnId, attempt: u32 },
    /// It cannot be carried out.
    Refused(EngineError),
}

impl Conversation {
    /// Looks for the turn of a command that was sent again, or of a request with the same key.
    pub(super) fn known(
        &mut self,
        turn: TurnId,
        caller: &Caller,
        key: Option<&RequestKey>,
    ) -> Known {
        if let Some(ordinal) = self.streamed(turn) {
            return Known::Turn(ordinal);
        }
        if self.document().is_some_and(|it| it.turn(turn).is_some()) {
            return Known::Refused(EngineError::Restarted);
        }
        match key {
            Some(key) => self.keyed(caller, key),
            None => Known::No,
        }
    }

    fn keyed(&mut self, caller: &Caller, key: &RequestKey) -> Known {
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
        let kept = i64::try_from(limits::KEY_KEPT.as_micros()).unwrap_or(i64::MAX);
        let since = match self.shared.started.elapsed() > limits::KEY_KEPT {
            true => Timestamp::from_micros(Timestamp::now().micros() - kept),
            false => Timestamp::from_micros(0),
        };
        let Some(record) = self
            .document()
            .and_then(|document| document.keyed(&scope, &key.key, since))
        else {
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
                return match stands.and_then(|turn| self.streamed(turn)) {
                    Some(ordinal) => Known::Turn(ordinal),
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
            && let Some(stream) = TurnStream::retold(record)
        {
            return Known::Turn(self.streams.push(stream));
        }
        match self.streamed(turn) {
            Some(ordinal) => Known::Turn(ordinal),
            None => Known::Refused(EngineError::Restarted),
        }
    }

    fn is_replacing(&self) -> bool {
        let running = self.running.as_ref().and_then(|running| running.replaces);
        running.is_some() || self.waiting.iter().any(|it| it.replaces.is_some())
    }

    /// The ordinal of a turn, taken from the history if its items are not kept any more.
    pub(super) fn streamed(&mut self, turn: TurnId) -> Option<u64> {
        if let Some(ordinal) = self.streams.find(turn) {
            return Some(ordinal);
        }
        let stream = TurnStream::from_record(self.document()?.turn(turn)?)?;
        Some(self.streams.push(stream))
    }

    /// Answers a repeat with its turn: at once if that is in the log, else when it is.
    pub(super) fn follow(
        &mut self,
        ordinal: u64,
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
        let started = self.listen_to(ordinal, started, listener, ctx);
        answer(reply, started.map_err(Into::into));
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

/// Whether a repeat of its request runs a turn once more, and which run that is.
///
/// One that failed before any text is tried again: nothing was shown. One that a user stopped, or
/// that the upstream ended in order without a word, is over.
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
    let failed = error.is_some() && finish_reason != CANCELLED;
    (failed && record.reply().is_none()).then(|| attempt + 1)
}

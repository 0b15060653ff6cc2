//! One reply: as many requests as it takes, within bounds.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{
    account::Account,
    call::{Gone, Outbox, call},
    config::Endpoint,
    failure,
    passage::Passage,
    watch::Watch,
};
use crate::provider::{
    Delta, Generate, TooLong, UpstreamError, UpstreamErrorKind,
    attempts::{Attempts, Next, Reached},
    protection::{Counted, Protection},
};

/// A reply that is asked for.
pub(super) struct Asking {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) protection: Arc<Protection>,
    pub(super) generate: Generate,
}

/// Bytes of text that are at least one token. Erring high lets a continuation be a little longer
/// than `max_tokens` says; erring low would cut it.
const BYTES_A_TOKEN: usize = 5;

/// How one request ended.
enum Ended {
    Well,
    Badly(UpstreamError),
    /// It was to continue the reply, and added nothing.
    Empty(UpstreamError),
}

/// What goes on over all requests of a reply.
struct State {
    passage: Passage,
    attempts: Attempts,
    outbox: Outbox,
    /// Deltas that are not sent yet.
    deltas: Vec<Delta>,
    /// When all must be over.
    whole: Instant,
    account: Account,
    /// The place of the model that was asked last.
    last: usize,
    /// A model has said already that there is nothing to add.
    said_whole: bool,
    /// The reply broke off, and was asked to be continued.
    broke_off: bool,
}

impl Asking {
    /// Runs to the end. Exactly one message has an `end`, and it is the last, unless the listener
    /// is gone.
    pub(super) async fn run(self) {
        let state = State {
            passage: Passage::new(self.endpoint.retry.repair),
            attempts: Attempts::new(self.endpoint.retry, self.generate.models.len().max(1)),
            outbox: Outbox {
                turn: self.generate.turn,
                reply_to: self.generate.reply_to.clone(),
            },
            deltas: Vec::new(),
            whole: Instant::now() + self.endpoint.deadlines.whole,
            account: Account::new(Arc::clone(&self.protection)),
            last: 0,
            said_whole: false,
            broke_off: false,
        };
        // If the listener is gone, there is nothing left to stop.
        drop(self.ask(state).await);
    }

    async fn ask(&self, mut state: State) -> Result<(), Gone> {
        // Of many failures one is told: that which broke off the reply, else that of the model which
        // was asked for. A client can act upon these.
        let mut told: Option<UpstreamError> = None;
        let mut too_long = None;
        let end = loop {
            let place = state.attempts.model();
            let before = state.passage.reached();
            let error = match self.request(&mut state).await? {
                Ended::Well => break Ok(()),
                Ended::Badly(error) | Ended::Empty(error) => error,
            };
            tracing::debug!(
                kind = error.kind.code(),
                place,
                "a request for a reply failed"
            );
            if error.kind == UpstreamErrorKind::ContextTooLong && too_long.is_none() {
                let (model, message) = (self.model(place), error.message.clone());
                too_long = Some(Arc::new(TooLong { model, message }));
            }
            let broke_off = state.passage.reached() > Reached::Nothing;
            if before == Reached::Nothing && (broke_off || place == 0 || told.is_none()) {
                told = Some(error.clone());
            }
            if !self.goes_on(&error, &mut state).await? {
                break Err(UpstreamError {
                    too_long,
                    ..told.unwrap_or(error)
                });
            }
        };
        if end.is_ok() {
            state.account.ended_well();
            if state.broke_off {
                self.protection.count(Counted::Repaired);
            }
        }
        let end = end.map_err(|mut error| {
            self.endpoint.http.redact(&mut error.message);
            error
        });
        let usage = state.passage.usage();
        state.deltas.extend(usage.map(Delta::Usage));
        state.outbox.send(state.deltas, Some(end)).await
    }

    /// Makes one request, if it is let out.
    async fn request(&self, state: &mut State) -> Result<Ended, Gone> {
        let model = self.model(state.attempts.model());
        let call_out = match self.protection.admit(&model, state.whole).await {
            Ok(call) => call,
            Err(error) => return Ok(Ended::Badly(error)),
        };
        let body = match state.passage.prefix() {
            None => self.generate.body.asking(&model),
            Some(prefix) => {
                let spent = u32::try_from(prefix.decoded_len() / BYTES_A_TOKEN);
                let spent = spent.unwrap_or(u32::MAX);
                let body = &self.generate.body;
                match body.continuing(&model, prefix.as_escaped(), spent) {
                    Some(body) => body,
                    None => return Ok(Ended::Badly(failure::failed("broke off the reply"))),
                }
            }
        };
        let before = state.passage.reached();
        self.count(before, state);
        state.attempts.asked();
        state.passage.begin(model);
        let watch = Watch::new(self.endpoint.deadlines, state.whole);
        let State {
            passage, outbox, ..
        } = state;
        let called = call(&self.endpoint, body, watch, passage, outbox, &call_out).await?;
        call_out.ended(called.went);
        state.deltas = called.deltas;
        let end = match called.end {
            Err(error) => Ended::Badly(error),
            Ok(()) if state.passage.is_empty_continuation() && !state.said_whole => {
                // Cut right before its finish reason, or not understood: a second answer tells.
                state.said_whole = true;
                Ended::Empty(failure::failed("added nothing to a reply that broke off"))
            }
            Ok(()) => match state.passage.close() {
                Ok(held) => {
                    state.deltas.extend(held);
                    Ended::Well
                }
                Err(_) => Ended::Badly(failure::failed("began the reply anew")),
            },
        };
        state.passage.end_request();
        if let Ended::Badly(error) = &end {
            state.account.failed(error, before);
        }
        Ok(end)
    }

    /// Counts the request that goes out next.
    fn count(&self, reached: Reached, state: &mut State) {
        let place = state.attempts.model();
        let is_other = place != std::mem::replace(&mut state.last, place);
        if is_other {
            self.protection.count(Counted::Fallback);
        }
        if reached > Reached::Nothing {
            state.broke_off = true;
            self.protection.count(Counted::Continuation);
        } else if state.attempts.has_asked() && !is_other {
            self.protection.count(Counted::Retry);
        }
    }

    /// Whether to ask once more after this failure; returns when it is time to.
    async fn goes_on(&self, error: &UpstreamError, state: &mut State) -> Result<bool, Gone> {
        let reached = state.passage.reached();
        let next = state.attempts.failed(error, reached, fastrand::f64());
        let Next::Ask { after, .. } = next else {
            return Ok(false);
        };
        let at = Instant::now() + after;
        if at >= state.whole {
            return Ok(false);
        }
        if !state.account.pay(reached) {
            return Ok(false);
        }
        if !state.deltas.is_empty() {
            let deltas = std::mem::take(&mut state.deltas);
            state.outbox.send(deltas, None).await?;
        }
        sleep_until(at).await;
        Ok(true)
    }

    fn model(&self, place: usize) -> Arc<str> {
        self.generate.models.get(place).cloned().unwrap_or_default()
    }
}

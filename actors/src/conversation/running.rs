//! The turn that runs: asking the provider, taking its reply, ending.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::{
    Asked, Begun, Call, Conversation, Pending, Recovering, Running, Stage, Then, Waiting,
    command::{CancelTurn, Cancelled},
    context,
    document::{Document, History, TurnRecord, TurnState},
    event::Outcome,
    interrupting::Hearing,
    message::{Content, Draft, Role, Stamp, StoredMessage},
    orphan::Orphan,
    prompt,
    usage::tokens_of,
};
use crate::{
    caller::Caller,
    error::EngineError,
    id::TurnId,
    json_text::JsonText,
    limits::MODELS_MAX,
    log::Partial,
    log::entry::{
        ABANDONED, CANCELLED, EntryHead, FAILED, INTERRUPTED, Owed, TurnEnded, UNANSWERED, UNKNOWN,
    },
    metrics::{ProviderErrorLabels, TurnEnd, seconds},
    provider::{ChatBody, Delta, Generate, Progress, RawJson, UpstreamError, UpstreamErrorKind},
    shared::Failpoint,
    time::Timestamp,
};

/// Why a turn ends.
pub(super) enum Why {
    Complete,
    Failed(EngineError),
    Cancelled,
    /// Its listener interrupted it, having heard so many UTF-8 bytes of its text.
    Heard(usize),
    Abandoned,
    Interrupted(EngineError),
}

/// What a token is at least, by the estimate that prompts are cut by.
const BYTES_A_TOKEN: usize = 4;

/// Whether a reply is asked for once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shorter {
    No,
    Asked,
}

impl Conversation {
    /// Runs the turn that waits first, if none runs.
    pub(super) fn run_next(&mut self, ctx: &mut Context<Self>) {
        let retired = matches!(self.stage, Stage::Retired(_));
        let unheard = self.hearing == Hearing::Yes || self.hushing > 0;
        if self.running.is_some() || unheard || retired {
            return;
        }
        let asks = |next: &Waiting| next.owed == Owed::Reply;
        if self.home.provider.is_none() && self.waiting.front().is_some_and(asks) {
            return;
        }
        let Some(mut next) = self.waiting.pop_front() else {
            return;
        };
        let mut running = Running::new(&next);
        if next.owed == Owed::Nothing {
            // The next prompt holds its messages: it runs until they and its end are in the log.
            running.call = Call::Over;
            self.running = Some(Box::new(running));
            self.end_unstarted(&next, UNANSWERED, None);
            return;
        }
        let sessions = self.shared.config.sessions;
        context::name_session(&self.id, sessions, &mut next.parameters);
        let context_tokens = self.shared.context_tokens(&next.parameters.model);
        let body = self.prompt(&next, context_tokens);
        let models = models(&next.parameters);
        if let Some(stream) = self.streams.get_mut(next.ordinal) {
            stream.start(running.model.clone());
        }
        let limit = self.shared.config.turn_deadline;
        let run = (next.turn, next.attempt);
        running.deadline = Some(ctx.run_later(limit, move |act, ctx| act.overdue(run, ctx)));
        running.asked.context_tokens = context_tokens;
        running.asked.again = Some(next);
        self.running = Some(Box::new(running));
        self.ask(body, models, ctx);
        self.mind_listeners(ctx);
    }

    /// Asks the provider for the running turn's reply.
    fn ask(&mut self, body: ChatBody, models: Vec<Arc<str>>, ctx: &mut Context<Self>) {
        let (Some(running), Some(provider)) = (&mut self.running, &self.home.provider) else {
            return;
        };
        running.call = Call::Asked;
        running.asked.calls += 1;
        running.asked.prompt_bytes = body.json().len();
        let (turn, calls) = (running.turn, running.asked.calls);
        let ask = provider.send(Generate {
            turn,
            body,
            models,
            reply_to: ctx.address().recipient(),
        });
        ctx.spawn(ask.into_actor(self).map(move |asked, act, ctx| {
            let Some(running) = act
                .running
                .as_mut()
                .filter(|running| running.turn == turn && running.asked.calls == calls)
            else {
                // The turn is over, or asked again: dropping the guard cancels the call.
                return;
            };
            match asked {
                Ok(generation) if matches!(running.call, Call::Asked) => {
                    running.call = Call::Guarded(generation);
                }
                Ok(_over) => {}
                Err(error) => {
                    tracing::error!(%error, "the provider does not answer");
                    act.finish(Why::Failed(overdue_error()), ctx);
                }
            }
        }));
    }

    /// Asks once more, with less of the history, if the prompt was longer than the model's context.
    fn ask_shorter(&mut self, refusal: &UpstreamError, ctx: &mut Context<Self>) -> Shorter {
        let Some(running) = self.running.as_mut() else {
            return Shorter::No;
        };
        let Some(too_long) = &refusal.too_long else {
            return Shorter::No;
        };
        if running.first_token.is_some() {
            return Shorter::No;
        }
        let Some(next) = running.asked.again.take() else {
            return Shorter::No;
        };
        let (assumed, before) = (running.asked.context_tokens, running.asked.prompt_bytes);
        let stated = context::stated_length(&too_long.message).filter(|stated| *stated < assumed);
        if let Some(stated) = stated {
            self.shared.learn_context(&too_long.model, stated);
        }
        let known = Some(self.shared.context_tokens(&too_long.model));
        let known = known.filter(|known| *known < assumed);
        // Without a length that makes it shorter, half of what was sent: our estimate is too low for
        // this model.
        let half = u32::try_from(before / (2 * BYTES_A_TOKEN)).unwrap_or(u32::MAX);
        let half = half
            .saturating_add(next.parameters.max_tokens)
            .min(assumed / 2);
        let lengths = [stated, known, Some(half)].into_iter().flatten();
        let body = lengths
            .map(|length| self.prompt(&next, length))
            .find(|body| body.json().len() < before);
        let Some(body) = body else {
            return Shorter::No;
        };
        tracing::info!(conversation = %self.id, model = %too_long.model, assumed, stated, "a prompt was too long: asking once more with less of the history");
        self.shared.metrics.prompts_cut.inc();
        // Those before it have failed otherwise.
        let mut models = models(&next.parameters);
        let place = models.iter().position(|model| *model == too_long.model);
        models.drain(..place.unwrap_or_default());
        if let Some(running) = &mut self.running
            && refusal.kind != UpstreamErrorKind::ContextTooLong
        {
            running.asked.told = Some(refusal.clone());
        }
        self.ask(body, models, ctx);
        Shorter::Asked
    }

    fn prompt(&self, next: &Waiting, context_tokens: u32) -> ChatBody {
        if let (Some(at), Some(document)) = (next.replaces, self.document()) {
            let logged = document.turn(next.turn).map(|it| document.received(it));
            let own = logged.unwrap_or(&next.messages);
            let (history, new) = document.before(at, own);
            return prompt::assemble(&next.parameters, history, &new, context_tokens);
        }
        let document = self.document();
        let history = document.map_or(History::from([].as_slice()), |it| it.until(next.turn));
        // Before its acceptance is synced, no turn is behind the history.
        let logged = document.and_then(|it| it.turns().get(history.turns().len()));
        let new = logged.map_or(next.messages.as_slice(), TurnRecord::received);
        prompt::assemble(&next.parameters, history, new, context_tokens)
    }

    /// The deadline of this run has passed; another one has its own.
    fn overdue(&mut self, run: (TurnId, u32), ctx: &mut Context<Self>) {
        let running = self.running.as_ref();
        if running.is_some_and(|running| (running.turn, running.attempt) == run) {
            self.finish(Why::Failed(overdue_error()), ctx);
        }
    }

    fn take(&mut self, deltas: Vec<Delta>) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let Some(stream) = self.streams.get_mut(running.ordinal) else {
            return;
        };
        for delta in deltas {
            match delta {
                Delta::Head(head) => stream.set_head(head),
                Delta::Text(text) => {
                    self.shared.metrics.deltas.inc();
                    let writer = writer(&stream.head().model, &running.model);
                    if running.writers.last().is_none_or(|last| last != writer)
                        && !running.writers.iter().any(|known| known == writer)
                    {
                        running.writers.push(writer.to_owned());
                    }
                    stream.push_text(text);
                }
                Delta::Reasoning(text) => {
                    self.shared.metrics.deltas.inc();
                    stream.push_reasoning(text);
                }
                Delta::ToolCalls(fragments) => {
                    running.tool_calls.add(&fragments);
                    let members = format!("{{\"tool_calls\":{}}}", fragments.get());
                    if let Ok(members) = serde_json::value::RawValue::from_string(members) {
                        stream.push_delta(RawJson(members));
                    }
                }
                Delta::Other(members) => stream.push_delta(members),
                Delta::Finish { reason, native } => {
                    running.finish = Some((reason.clone(), native.clone()));
                    stream.push_finish(reason, native);
                }
                Delta::Usage(usage) => {
                    running.usage = Some(usage.clone());
                    stream.push_usage(usage);
                }
                Delta::Seam { model } => stream.push_seam(model),
            }
        }
    }

    /// Ends the running turn: what there is goes to the log; its end is told when it is there.
    pub(super) fn finish(&mut self, why: Why, ctx: &mut Context<Self>) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        if matches!(running.call, Call::Over) {
            return;
        }
        // Dropping the guard closes the upstream call at once.
        running.call = Call::Over;
        if let Some(deadline) = running.deadline.take() {
            ctx.cancel_future(deadline);
        }
        let (ordinal, turn, attempt) = (running.ordinal, running.turn, running.attempt);
        let finish = running.finish.take();
        let heard = match why {
            Why::Heard(bytes) => bytes,
            Why::Complete
            | Why::Failed(_)
            | Why::Cancelled
            | Why::Abandoned
            | Why::Interrupted(_) => usize::MAX,
        };
        // What comes behind its finish reason is no part of the reply: it is whole.
        let why = match finish {
            Some(_) => Why::Complete,
            None => why,
        };
        let usage = running.usage.take();
        let tool_calls = std::mem::take(&mut running.tool_calls);
        let writers = std::mem::take(&mut running.writers);
        let tool_calls = match &why {
            Why::Complete => {
                let reason = finish.as_ref().map(|(reason, _)| reason.as_str());
                tool_calls.finish(reason.unwrap_or(UNKNOWN))
            }
            // The arguments may be cut anywhere, and no prompt may hold a call in pieces.
            Why::Failed(_)
            | Why::Cancelled
            | Why::Heard(_)
            | Why::Abandoned
            | Why::Interrupted(_) => None,
        };
        let model = running.model.clone();
        let Some(stream) = self.streams.get(ordinal) else {
            return;
        };
        let head = stream.head().clone();
        let text = stream.text();
        let reasoning = Some(stream.reasoning()).filter(|text| !text.is_empty());
        let (mut finish_reason, mut native_finish_reason, error) = match why {
            Why::Complete => match finish {
                Some((reason, native)) => (reason, native, None),
                None => (UNKNOWN.to_owned(), None, None),
            },
            Why::Failed(error) => (FAILED.to_owned(), None, Some(error)),
            Why::Cancelled | Why::Heard(_) => (CANCELLED.to_owned(), None, None),
            Why::Abandoned => (ABANDONED.to_owned(), None, None),
            Why::Interrupted(error) => (INTERRUPTED.to_owned(), None, Some(error)),
        };
        let now = Timestamp::now();
        let timestamp = self
            .document()
            .map_or(now, |document| document.reply_timestamp(turn, now))
            .max(self.unlogged_stamp(ordinal));
        let draft = reply_draft(text, tool_calls);
        let mut reply = draft.map(|draft| {
            let model = writer(&head.model, &model);
            StoredMessage::new(
                &draft,
                &Stamp {
                    timestamp,
                    id: stream.reply(),
                    turn: Some(turn),
                    model: Some(model),
                    models: &writers,
                    finish_reason: Some(&finish_reason),
                },
            )
        });
        if let (Some(reply), Some(stream)) = (&reply, self.streams.get_mut(ordinal)) {
            stream.settle(reply);
        }
        if let Some(cut) = reply.as_ref().and_then(|it| it.heard(heard)) {
            finish_reason = CANCELLED.to_owned();
            native_finish_reason = None;
            if let Some(stream) = self.streams.get_mut(ordinal) {
                stream.cut(&cut);
            }
            reply = Some(cut);
        }
        if let Some(usage) = &usage {
            let tokens = tokens_of(usage);
            self.shared.metrics.prompt_tokens.inc_by(tokens.prompt);
            self.shared
                .metrics
                .completion_tokens
                .inc_by(tokens.completion);
        }
        self.pending.push(Pending {
            head: EntryHead::TurnEnded(TurnEnded {
                at: timestamp,
                turn,
                attempt,
                finish_reason: finish_reason.clone(),
                usage: usage.clone(),
                error: error.as_ref().map(|error| error.code().to_owned()),
            }),
            messages: reply.iter().cloned().collect(),
            then: Then::Ended {
                ordinal,
                outcome: Box::new(Outcome {
                    finish_reason,
                    native_finish_reason,
                    reply,
                    reasoning,
                    usage,
                    head,
                    timestamp,
                    error,
                }),
                since: Instant::now(),
            },
        });
        self.flush(ctx);
    }

    /// A turn may end before its acceptance is in the document: its messages are in the batch
    /// under way, stamped with the last stamp given.
    fn unlogged_stamp(&self, ordinal: u64) -> Timestamp {
        let logged = self
            .streams
            .get(ordinal)
            .is_some_and(|stream| stream.received().is_some());
        if logged {
            Timestamp::from_micros(0)
        } else {
            self.last_stamp.next()
        }
    }

    pub(super) fn cancel(
        &mut self,
        command: &CancelTurn,
        ctx: &mut Context<Self>,
    ) -> Result<Cancelled, EngineError> {
        self.may_stop(&command.caller)?;
        self.hush(command.turn, ctx);
        let wanted = |turn| command.turn.is_none_or(|wanted| wanted == turn);
        let mut turns = Vec::new();
        // Those that wait first, else ending the running one would start the next.
        let (stopped, kept): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..)
            .partition(|waiting| wanted(waiting.turn));
        self.waiting.extend(kept);
        for waiting in stopped {
            turns.push(waiting.turn);
            self.end_unstarted(&waiting, CANCELLED, None);
        }
        if let Some(running) = &self.running
            && wanted(running.turn)
            && !matches!(running.call, Call::Over)
        {
            // One that has its finish reason is whole: its end need not be waited for, no more.
            if running.finish.is_none() {
                turns.insert(0, running.turn);
            }
            self.finish(Why::Cancelled, ctx);
        }
        self.flush(ctx);
        Ok(Cancelled { turns })
    }

    pub(super) fn may_stop(&self, caller: &Caller) -> Result<(), EngineError> {
        // A conversation whose first entry is being synced exists for whoever began it.
        let exists = self.document().is_some() || self.begun == Begun::Yes;
        let owner = self.document().and_then(Document::user_id);
        match exists && caller.may_use(owner) {
            true => Ok(()),
            false => Err(EngineError::NotFound),
        }
    }

    pub(super) fn end_unstarted(
        &mut self,
        waiting: &Waiting,
        reason: &str,
        error: Option<EngineError>,
    ) {
        // Not before its messages, whatever the clock does.
        let timestamp = Timestamp::now().max(self.last_stamp);
        let mut outcome = Outcome::failed(Arc::default(), reason, EngineError::Restarted);
        outcome.error.clone_from(&error);
        outcome.timestamp = timestamp;
        self.pending.push(Pending {
            head: EntryHead::TurnEnded(TurnEnded {
                at: timestamp,
                turn: waiting.turn,
                attempt: waiting.attempt,
                finish_reason: reason.to_owned(),
                usage: None,
                error: error.map(|error| error.code().to_owned()),
            }),
            messages: Vec::new(),
            then: Then::Ended {
                ordinal: waiting.ordinal,
                outcome: Box::new(outcome),
                since: Instant::now(),
            },
        });
    }

    /// Ends the turns that an actor before this one left open, with the text that it had kept:
    /// nobody works on them any more.
    pub(super) fn end_orphans(&mut self, partials: Vec<Partial>, ctx: &mut Context<Self>) {
        let mut partials = partials;
        let orphans: Vec<Orphan> = self
            .document()
            .into_iter()
            .flat_map(Document::turns)
            .filter_map(|record| {
                let TurnState::Open {
                    attempt,
                    model,
                    owed,
                } = &record.state
                else {
                    return None;
                };
                let turn = record.turn?;
                let partial = partials.iter_mut().find(|partial| partial.turn == turn);
                Some(Orphan {
                    turn,
                    attempt: *attempt,
                    reply: record.reply_id?,
                    model: model.clone(),
                    owed: *owed,
                    text: partial
                        .map(|it| std::mem::take(&mut it.text))
                        .unwrap_or_default(),
                })
            })
            .collect();
        for orphan in orphans {
            self.shared.metrics.turn_ended(match orphan.owed {
                Owed::Reply => TurnEnd::Interrupted,
                Owed::Nothing => TurnEnd::Unanswered,
            });
            self.recovering = Recovering::Yes;
            self.last_stamp = Timestamp::now().max(self.last_stamp.next());
            let (head, reply) = orphan.end(self.last_stamp);
            self.pending.push(Pending {
                head,
                messages: reply.into_iter().collect(),
                then: Then::Recovered,
            });
        }
        self.flush(ctx);
    }

    /// Takes nothing new, ends what waits, gives what runs some time, then cuts it.
    pub(super) fn drain(&mut self, grace: Duration, ctx: &mut Context<Self>) {
        if self.stage == Stage::Open {
            self.stage = Stage::Draining;
            let error = EngineError::ShuttingDown {
                retry_after: self.shared.retry_after(),
            };
            for waiting in std::mem::take(&mut self.waiting) {
                match waiting.owed {
                    Owed::Reply => {
                        self.end_unstarted(&waiting, INTERRUPTED, Some(error.clone()));
                    }
                    Owed::Nothing => self.end_unstarted(&waiting, UNANSWERED, None),
                }
            }
            self.flush(ctx);
            if self.running.is_some() {
                ctx.run_later(grace, move |act, ctx| {
                    act.finish(Why::Interrupted(error), ctx)
                });
            }
        }
        if let Stage::Retired(_) = self.stage {
            self.drained.clear();
        }
        self.drained_check();
    }
}

impl Running {
    /// A turn whose reply is about to be asked for.
    fn new(next: &Waiting) -> Self {
        Self {
            ordinal: next.ordinal,
            turn: next.turn,
            attempt: next.attempt,
            replaces: next.replaces,
            model: next.parameters.model.as_str().into(),
            kept: super::Kept::default(),
            accepted_at: next.accepted_at,
            last_heard: Instant::now(),
            first_token: None,
            call: Call::Asked,
            asked: Asked::default(),
            finish: None,
            usage: None,
            writers: Vec::new(),
            tool_calls: super::ToolCalls::default(),
            deadline: None,
        }
    }
}

/// The model that was asked, and those to ask when it fails, each once.
fn models(parameters: &prompt::Parameters) -> Vec<Arc<str>> {
    let mut models: Vec<Arc<str>> = Vec::new();
    for model in iter::once(&parameters.model).chain(&parameters.fallbacks) {
        if models.len() < MODELS_MAX && !models.iter().any(|known| **known == **model) {
            models.push(model.as_str().into());
        }
    }
    models
}

/// The model that answers, where the upstream names it; else the one that was asked.
fn writer<'a>(answers: &'a str, asked: &'a str) -> &'a str {
    if answers.is_empty() { asked } else { answers }
}

fn reply_draft(text: JsonText, tool_calls: Option<RawJson>) -> Option<Draft> {
    if text.is_empty() && tool_calls.is_none() {
        return None;
    }
    let content = if text.is_empty() {
        Content::Null
    } else {
        Content::Text(text)
    };
    Some(Draft {
        role: Role::Assistant,
        content,
        name: None,
        tool_call_id: None,
        tool_calls,
    })
}

fn overdue_error() -> EngineError {
    EngineError::Upstream(UpstreamError {
        upstream: crate::provider::Upstream::OpenRouter,
        kind: UpstreamErrorKind::Timeout,
        message: "The model did not finish in time".into(),
        retry_after: None,
        retryable: None,
        too_long: None,
    })
}

impl Handler<Progress> for Conversation {
    type Result = ();

    fn handle(&mut self, msg: Progress, ctx: &mut Self::Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.turn != msg.turn || matches!(running.call, Call::Over) {
            return;
        }
        let speaks = |delta: &Delta| {
            matches!(
                delta,
                Delta::Text(_) | Delta::Reasoning(_) | Delta::ToolCalls(_)
            )
        };
        if running.first_token.is_none() && msg.deltas.iter().any(speaks) {
            let waited = running.accepted_at.elapsed();
            running.first_token = Some(waited);
            running.asked.again = None;
            self.shared.metrics.first_token.observe(seconds(waited));
        }
        self.at(Failpoint::Progress);
        let text = msg.deltas.iter().any(|it| matches!(it, Delta::Text(_)));
        self.take(msg.deltas);
        if text {
            self.text_came(ctx);
        }
        if self.is_paused() {
            self.at(Failpoint::Withheld);
        }
        self.pump_all(ctx);
        match msg.end {
            None => {}
            Some(Ok(())) => self.finish(Why::Complete, ctx),
            Some(Err(error)) => {
                let labels = ProviderErrorLabels {
                    provider: error.upstream.to_string(),
                    code: error.kind.code(),
                };
                self.shared
                    .metrics
                    .provider_errors
                    .get_or_create(&labels)
                    .inc();
                if self.ask_shorter(&error, ctx) == Shorter::No {
                    let running = self.running.as_mut();
                    let told = running
                        .filter(|running| running.first_token.is_none())
                        .and_then(|running| running.asked.told.take());
                    self.finish(Why::Failed(told.unwrap_or(error).into()), ctx);
                }
            }
        }
    }
}

impl Outcome {
    /// Which of the ways to end this is.
    #[must_use]
    pub fn kind(&self) -> TurnEnd {
        match self.finish_reason.as_str() {
            CANCELLED => TurnEnd::Cancelled,
            ABANDONED => TurnEnd::Abandoned,
            UNANSWERED => TurnEnd::Unanswered,
            INTERRUPTED => TurnEnd::Interrupted,
            _ if self.error.is_some() => TurnEnd::Failed,
            _ => TurnEnd::Complete,
        }
    }
}

//! The turn that runs: asking the provider, and taking its reply.

use std::{iter, sync::Arc, time::Instant};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::{
    Asked, Call, Conversation, Running, Stage, Waiting, context,
    document::{History, TurnRecord},
    ending::Why,
    interrupting::Hearing,
    prompt,
};
use crate::{
    error::EngineError,
    id::TurnId,
    limits::MODELS_MAX,
    log::entry::{Owed, UNANSWERED},
    metrics::{ProviderErrorLabels, seconds},
    provider::{ChatBody, Delta, Generate, Progress, RawJson, UpstreamError, UpstreamErrorKind},
    shared::Failpoint,
};

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
pub(super) fn writer<'a>(answers: &'a str, asked: &'a str) -> &'a str {
    if answers.is_empty() { asked } else { answers }
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

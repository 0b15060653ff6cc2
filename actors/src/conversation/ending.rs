//! The ends of turns: complete, failed, stopped, cut, or found open after a crash.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{AsyncContext, Context};

use super::{
    Begun, Call, Conversation, Pending, Recovering, Stage, Then, Waiting,
    command::{CancelTurn, Cancelled},
    document::{Document, TurnState},
    event::Outcome,
    message::{Content, Draft, Role, Stamp, StoredMessage},
    orphan::Orphan,
    running::writer,
    usage::tokens_of,
};
use crate::{
    caller::Caller,
    error::EngineError,
    json_text::JsonText,
    log::Partial,
    log::entry::{
        ABANDONED, CANCELLED, EntryHead, FAILED, INTERRUPTED, Owed, TurnEnded, UNANSWERED, UNKNOWN,
    },
    metrics::TurnEnd,
    provider::RawJson,
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

impl Conversation {
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

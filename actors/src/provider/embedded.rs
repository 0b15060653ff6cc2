//! The companion inside this process: answers when nothing is configured, without any network.
//!
//! It speaks as a remote provider does: a head, text at a human pace, a finish reason, usage.

mod companion;
mod facts;
mod language;
mod memory;
mod phrases;
mod request;
mod text;
pub mod voice;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Context, Handler, Recipient};
use serde::Serialize;

use super::{
    Delta, Generate, Generation, Progress, RawJson, ReplyHead, Upstream, UpstreamError,
    UpstreamErrorKind,
};
use crate::{id::TurnId, json_text::JsonText, time::Timestamp};
use request::Request;

/// The model it says it is.
pub const MODEL: &str = "embedded/companion";

/// How fast words come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Like a quick typist: 30 to 50 ms a word, the longer for longer words.
    Human,
    /// The same time for each word.
    Fixed(Duration),
}

impl Pace {
    fn before(self, word: &str) -> Duration {
        match self {
            Self::Human => Duration::from_millis(30 + 2 * word.len().min(10) as u64),
            Self::Fixed(time) => time,
        }
    }
}

/// Answers [`Generate`] by rules.
///
/// Keeps nothing between calls: all it knows of a conversation is in the request.
#[derive(Debug)]
pub struct Embedded {
    pace: Pace,
}

impl Embedded {
    /// Makes one that speaks at a pace.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace }
    }
}

impl Actor for Embedded {
    type Context = Context<Self>;
}

impl Handler<Generate> for Embedded {
    type Result = Generation;

    fn handle(&mut self, call: Generate, _: &mut Self::Context) -> Generation {
        // Not the actor's own future: whoever drops the guard must stop it from any thread.
        let task = tokio::task::spawn_local(answer(call, self.pace));
        Generation::new(task.abort_handle())
    }
}

/// Reports to whoever asked; `None` once nobody listens any more.
struct Reporter {
    turn: TurnId,
    reply_to: Recipient<Progress>,
}

impl Reporter {
    async fn report(
        &self,
        deltas: Vec<Delta>,
        end: Option<Result<(), UpstreamError>>,
    ) -> Option<()> {
        let turn = self.turn;
        // Waits until it is handled: a busy listener slows the speaker and fills no mailbox.
        let progress = Progress { turn, deltas, end };
        self.reply_to.send(progress).await.ok()
    }
}

async fn answer(call: Generate, pace: Pace) {
    let reporter = Reporter {
        turn: call.turn,
        reply_to: call.reply_to,
    };
    let heard = match Request::parse(call.body.json()) {
        Ok(request) => speak(&reporter, &request, pace).await,
        Err(error) => {
            reporter
                .report(Vec::new(), Some(Err(refusal(&error))))
                .await
        }
    };
    if heard.is_none() {
        tracing::debug!(turn = %reporter.turn, "the listener went away before the reply ended");
    }
}

async fn speak(reporter: &Reporter, request: &Request, pace: Pace) -> Option<()> {
    let head = ReplyHead {
        id: format!("embedded-{}", reporter.turn),
        model: MODEL.to_owned(),
        provider: None,
        created: Timestamp::now().micros() / 1_000_000,
    };
    reporter
        .report(vec![Delta::Head(Arc::new(head))], None)
        .await?;
    let reply = companion::reply(&request.dialogue);
    let words: Vec<_> = reply.split_inclusive(' ').collect();
    let allowed = words.len().min(request.words_max);
    for word in &words[..allowed] {
        tokio::time::sleep(pace.before(word)).await;
        let text = Delta::Text(JsonText::escape(word));
        reporter.report(vec![text], None).await?;
    }
    let reason = if allowed < words.len() {
        "length"
    } else {
        "stop"
    };
    let mut last = vec![Delta::Finish {
        reason: reason.to_owned(),
        native: None,
    }];
    last.extend(Usage::new(request.dialogue.word_count(), allowed).into_delta());
    reporter.report(last, Some(Ok(()))).await
}

fn refusal(error: &serde_json::Error) -> UpstreamError {
    UpstreamError {
        upstream: Upstream::Embedded,
        kind: UpstreamErrorKind::Rejected,
        message: format!("The request is not a chat completion: {error}"),
        retry_after: None,
        retryable: None,
        too_long: None,
    }
}

/// Words stand in for tokens: there is no tokenizer here, and none is pretended.
#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    cost: u8,
}

impl Usage {
    fn new(heard: usize, spoken: usize) -> Self {
        Self {
            prompt_tokens: heard,
            completion_tokens: spoken,
            total_tokens: heard + spoken,
            cost: 0,
        }
    }

    fn into_delta(self) -> Option<Delta> {
        let raw = serde_json::value::to_raw_value(&self).ok()?;
        Some(Delta::Usage(RawJson(raw)))
    }
}

#[cfg(test)]
mod tests;

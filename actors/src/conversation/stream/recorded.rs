//! Turns of the history, as their watchers see them.

use std::sync::Arc;

use super::{Item, Span, TurnStream};
use crate::{
    conversation::{
        document::{TurnRecord, TurnState},
        event::{EventBody, Outcome, Received},
        message::StoredMessage,
        tool_calls,
    },
    error::EngineError,
    log::entry::{ABANDONED, CANCELLED, INTERRUPTED, UNANSWERED},
    provider::ReplyHead,
};

impl TurnStream {
    /// A turn that has ended, from the history; one that failed fails again.
    #[must_use]
    pub fn from_record(record: &TurnRecord) -> Option<Self> {
        let TurnState::Ended(ended) = &record.state else {
            return None;
        };
        let error = ended.error.as_ref().map(|_code| EngineError::Restarted);
        Self::ended_as(record, error)
    }

    /// A turn that has ended, from the history; whatever there is of its reply is its reply, and
    /// the finish reason tells whether that is all.
    #[must_use]
    pub fn retold(record: &TurnRecord) -> Option<Self> {
        Self::ended_as(record, None)
    }

    /// The messages of a turn alone, from the history: its first run.
    #[must_use]
    pub fn of_messages(record: &TurnRecord) -> Option<Self> {
        let mut stream = Self::new(record.turn?, record.reply_id?);
        stream.show(Self::received_by(record));
        Some(stream)
    }

    /// The last run of a turn that has ended, from the history, without the messages: they were
    /// told with the first one.
    #[must_use]
    pub fn ran_again(record: &TurnRecord) -> Option<Self> {
        let mut stream = Self::retold(record)?;
        if let Some(Item::Whole(EventBody::Received(received))) = stream.items.first_mut() {
            received.before.clear();
            received.messages.clear();
        }
        Some(stream)
    }

    fn received_by(record: &TurnRecord) -> Received {
        let (received, before) = (record.received(), record.stayed());
        Received {
            message: received.last().and_then(StoredMessage::id),
            before: before.to_vec(),
            messages: received[before.len()..].to_vec(),
            key: record.key.as_ref().map(|known| known.0.key.clone()),
            replacing: record.branch.as_ref().map(|branch| branch.told()),
            told: 0,
        }
    }

    fn ended_as(record: &TurnRecord, error: Option<EngineError>) -> Option<Self> {
        let TurnState::Ended(ended) = &record.state else {
            return None;
        };
        let reply = record.reply();
        let timestamp = reply.map_or(ended.at, StoredMessage::timestamp);
        let turn = record.turn?;
        let mut stream = Self::new(turn, record.reply_id?);
        stream.epoch = ended.attempt;
        // The upstream's own id is not stored: the turn's stands for it.
        stream.set_head(Arc::new(ReplyHead {
            id: turn.to_string(),
            model: reply.and_then(StoredMessage::model).unwrap_or_default(),
            provider: None,
            created: timestamp.micros() / 1_000_000,
        }));
        stream.show(Self::received_by(record));
        let cut = ended.error.is_some()
            || [ABANDONED, CANCELLED, INTERRUPTED, UNANSWERED]
                .contains(&ended.finish_reason.as_str());
        // One that was stopped while it waited, or owed no reply, had no start.
        if reply.is_some() || !cut {
            stream.start(stream.head.model.as_str().into());
        }
        if let Some(reply) = reply {
            let range = reply.text_range();
            if !range.is_empty() {
                let text = Span::Stored(reply.fragment().clone(), range);
                stream.items.push(Item::Text(text));
            }
            if let Some(members) = reply.tool_calls().and_then(tool_calls::as_delta) {
                stream.push_delta(members);
            }
        }
        if !cut {
            stream.push_finish(ended.finish_reason.clone(), None);
        }
        if let Some(usage) = &ended.usage {
            stream.push_usage(usage.clone());
        }
        stream.end(Arc::new(Outcome {
            finish_reason: ended.finish_reason.clone(),
            native_finish_reason: None,
            reply: reply.cloned(),
            reasoning: None,
            usage: ended.usage.clone(),
            head: stream.head.clone(),
            timestamp,
            error,
        }));
        Some(stream)
    }
}

//! The end of a turn that nobody works on any more: after a crash, or after its actor died. Pure.

use super::message::{Content, Draft, Role, Stamp, StoredMessage};
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::JsonText,
    log::entry::{EntryHead, INTERRUPTED, Owed, TurnEnded, UNANSWERED},
    time::Timestamp,
};

/// A turn that was accepted and has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Which.
    pub turn: TurnId,
    /// Which run of it.
    pub attempt: u32,
    /// Id that its reply was given.
    pub reply: MessageId,
    /// Model that was asked.
    pub model: String,
    /// What it is owed.
    pub owed: Owed,
    /// Text of the reply as far as it was checkpointed, escaped.
    pub text: String,
}

impl Orphan {
    /// Ends it, keeping the text that there is of its reply.
    #[must_use]
    pub fn end(self, at: Timestamp) -> (EntryHead, Option<StoredMessage>) {
        let reply = (!self.text.is_empty()).then(|| {
            let mut text = JsonText::with_capacity(self.text.len());
            text.push_escaped(&self.text);
            let draft = Draft {
                role: Role::Assistant,
                content: Content::Text(text),
                name: None,
                tool_call_id: None,
                tool_calls: None,
            };
            let stamp = Stamp {
                timestamp: at,
                id: self.reply,
                turn: Some(self.turn),
                model: Some(&self.model)
                    .filter(|model| !model.is_empty())
                    .map(|model| &**model),
                models: &[],
                finish_reason: Some(INTERRUPTED),
            };
            StoredMessage::new(&draft, &stamp)
        });
        let ended = end(self.turn, self.attempt, self.owed, at);
        (EntryHead::TurnEnded(ended), reply)
    }
}

/// The end of a run of a turn that nobody works on: interrupted, if it was owed a reply.
#[must_use]
pub fn end(turn: TurnId, attempt: u32, owed: Owed, at: Timestamp) -> TurnEnded {
    let (finish_reason, error) = match owed {
        Owed::Reply => (INTERRUPTED, Some(EngineError::Restarted)),
        Owed::Nothing => (UNANSWERED, None),
    };
    TurnEnded {
        at,
        turn,
        attempt,
        finish_reason: finish_reason.to_owned(),
        usage: None,
        error: error.map(|error| error.code().to_owned()),
    }
}

//! Counting what is spoken and heard in a conversation: durable, as somebody charges for it.

use actix::Context;

use super::{Conversation, History, Pending, Then, answer, command::Reply};
use crate::{
    log::entry::{EntryHead, VoiceUsed},
    time::Timestamp,
    voice::usage::VoiceUsage,
};

impl Conversation {
    /// Counts what was used. What comes before the first message is kept until there is one.
    pub(super) fn count(&mut self, usage: VoiceUsage, reply: Reply<()>, ctx: &mut Context<Self>) {
        self.uncounted += usage;
        match self.history {
            History::Here(_) => self.count_what_is_not(Some(reply)),
            _ => answer(reply, Ok(())),
        }
        self.flush(ctx);
    }

    /// Puts what is not counted yet behind what is to be appended.
    pub(super) fn count_what_is_not(&mut self, reply: Option<Reply<()>>) {
        if !matches!(self.history, History::Here(_)) {
            return;
        }
        let usage = std::mem::take(&mut self.uncounted);
        if usage.is_nothing() {
            if let Some(reply) = reply {
                answer(reply, Ok(()));
            }
            return;
        }
        self.pending.push(Pending {
            head: EntryHead::VoiceUsed(VoiceUsed {
                at: Timestamp::now().max(self.last_stamp),
                usage,
            }),
            messages: Vec::new(),
            then: Then::Counted { usage, reply },
        });
    }
}

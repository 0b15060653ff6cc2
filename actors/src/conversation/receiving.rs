//! The mailbox: which commands are taken at which stage of the actor's life, and how each is answered.

use actix::{Handler, Response};
use tokio::sync::oneshot;

use super::{
    Conversation, History, Stage, answer,
    command::{
        Adopting, Answer, AskAdopt, AskAttach, AskAttend, AskBegin, AskCancel, AskCount, AskDelete,
        AskDrain, AskInterrupt, AskKeyed, AskResume, AskSnapshot, AskStart, Attachment, Cancelled,
        CommandError, Effect, From, Interrupted, KeyedMessage, Reply, Resumed, Shed, Started,
    },
    document::Snapshot,
    parking::Parked,
};
use crate::error::EngineError;

impl Conversation {
    /// Refuses what nobody may do now.
    fn admit<T>(&self, reply: Reply<T>) -> Option<Reply<T>> {
        match self.stage {
            Stage::Open => Some(reply),
            Stage::Draining => {
                let error = EngineError::ShuttingDown {
                    retry_after: self.shared.retry_after(),
                };
                answer(reply, Err(error.into()));
                None
            }
            Stage::Retired(_) => {
                answer(reply, Err(CommandError::Retired));
                None
            }
        }
    }
}

/// Hands a command over with a reply to await; an actor that dies drops the reply.
macro_rules! handle {
    ($ask:ty, $answer:ty, |$act:ident, $msg:ident, $reply:ident, $ctx:ident| $body:expr) => {
        impl Handler<$ask> for Conversation {
            type Result = Response<Answer<$answer>>;

            fn handle(&mut self, $msg: $ask, $ctx: &mut Self::Context) -> Self::Result {
                self.touch();
                let ($reply, answer) = oneshot::channel();
                let $act = self;
                $body;
                Response::fut(async move {
                    answer
                        .await
                        .unwrap_or(Err(CommandError::Engine(EngineError::Restarted)))
                })
            }
        }
    };
}

handle!(AskBegin, bool, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Begin(msg.command, reply), ctx);
    }
});
handle!(AskStart, Started, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Start(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskAttach, Attachment, |act, msg, reply, ctx| {
    // A session that had stalled is told its turn to the end while the server drains.
    let goes_on = matches!(msg.command.from, From::TurnAt(_));
    let reply = match act.stage {
        Stage::Draining if goes_on => Some(reply),
        _ => act.admit(reply),
    };
    if let Some(reply) = reply {
        act.carry_out(Parked::Attach(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskResume, Resumed, |act, msg, reply, ctx| {
    // A session that had listened goes on while the server drains: the handle turns others away.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Resume(msg.command, msg.listener, reply), ctx);
    }
});
handle!(AskSnapshot, Option<Snapshot>, |act, msg, reply, ctx| {
    // Reading goes on while the server drains.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Snapshot(msg.caller, reply), ctx);
    }
});
handle!(AskCancel, Cancelled, |act, msg, reply, ctx| {
    // Stopping goes on while the server drains, as reading does.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Cancel(msg.command, reply), ctx);
    }
});
handle!(AskInterrupt, Interrupted, |act, msg, reply, ctx| {
    // As stopping does.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        let command = Parked::Interrupt(msg.command, Effect::Nothing, reply);
        act.carry_out(command, ctx);
    }
});
handle!(AskKeyed, Option<KeyedMessage>, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Keyed(msg.caller, msg.key, reply), ctx);
    }
});
handle!(AskAttend, (), |act, msg, reply, _ctx| {
    act.attend(msg.turn, msg.voice);
    answer(reply, Ok(()));
});
handle!(AskCount, (), |act, msg, reply, ctx| {
    // What was used while the server drains was used, too.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Count(msg.usage, reply), ctx);
    }
});
handle!(AskDelete, (), |act, msg, reply, ctx| {
    // What somebody wants gone must not stay because the server is about to stop.
    if let Stage::Retired(_) = act.stage {
        answer(reply, Err(CommandError::Retired));
    } else {
        act.carry_out(Parked::Delete(msg.command, reply), ctx);
    }
});
handle!(AskAdopt, Adopting, |act, msg, reply, ctx| {
    if let Some(reply) = act.admit(reply) {
        act.carry_out(Parked::Adopt(msg.document, reply), ctx);
    }
});
handle!(AskDrain, (), |act, msg, reply, ctx| {
    act.drained.push(reply);
    act.drain(msg.grace, ctx);
});

impl Handler<Shed> for Conversation {
    type Result = ();

    fn handle(&mut self, _: Shed, ctx: &mut Self::Context) {
        if self.owes() || self.stage != Stage::Open {
            return;
        }
        if self.subscribers.is_empty() {
            self.retire(ctx);
        } else if self.document().is_some() {
            let needed = self.subscribers.oldest_needed(self.streams.end());
            self.streams.clear_ended(needed);
            self.history = History::Absent;
            self.account();
        }
    }
}

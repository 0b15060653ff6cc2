//! An interruption on its way: the voice silenced, and the reply cut to what was heard of it.
//!
//! An actor of its own: what its client said is carried out also if the client leaves with it, or if
//! its session waits for something else.

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, WrapFuture, dev::Request,
};
use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use idol_actors::{
    caller::Caller,
    conversation::command::{CancelTurn, Interrupt},
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    speaker::{Silence, Silenced, Speaker},
};
use tokio::sync::oneshot;

/// An interruption that is being carried out; it ends, however it went.
pub(in crate::session::websocket) type Interrupting = Shared<oneshot::Receiver<()>>;

/// What is to be carried out.
pub(super) struct Interruption {
    pub(super) speaker: Addr<Speaker>,
    pub(super) conversation: ConversationHandle,
    pub(super) caller: Caller,
    pub(super) turn: TurnId,
    pub(super) truth: Truth,
}

/// What becomes of a reply whose client did not say what it played of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It was read.
    Read,
    /// Nothing was heard, as the client would have said.
    Unheard,
    /// Whatever was played: it had been told before, and stays as it is.
    Repeated,
}

impl Interruption {
    /// Begins.
    pub(super) fn begin(self) -> Interrupting {
        let (done, wait) = oneshot::channel();
        let turn = self.turn;
        // Asked at once: a speaker without its session ends.
        let silenced = self.speaker.send(Silence);
        let carrying_out = CarryingOut {
            turn,
            work: Some(self.carry_out(silenced).boxed_local()),
            done: Some(done),
        };
        carrying_out.start();
        wait.shared()
    }

    async fn carry_out(self, silenced: Request<Speaker, Silence>) -> Result<(), EngineError> {
        let Self {
            conversation,
            caller,
            turn,
            truth,
            ..
        } = self;
        let silenced = silenced.await;
        let Silenced { heard, .. } = silenced.map_err(|_gone| EngineError::Restarted)?;
        let heard = match truth {
            Truth::Read => heard,
            Truth::Unheard => heard.or(Some(0)),
            Truth::Repeated => return Ok(()),
        };
        match heard {
            Some(heard) => {
                let interrupt = Interrupt {
                    caller,
                    turn,
                    heard,
                };
                conversation.interrupt(interrupt).await.map(|_| ())
            }
            None => {
                let turn = Some(turn);
                let cancel = CancelTurn { caller, turn };
                conversation.cancel(cancel).await.map(|_| ())
            }
        }
    }
}

struct CarryingOut {
    turn: TurnId,
    work: Option<LocalBoxFuture<'static, Result<(), EngineError>>>,
    done: Option<oneshot::Sender<()>>,
}

impl Actor for CarryingOut {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(work) = self.work.take() else {
            return;
        };
        ctx.spawn(work.into_actor(self).map(|carried_out, act, ctx| {
            if let Err(error) = carried_out {
                let turn = act.turn;
                // The reply stays as it is, which is whole; what was said next is answered.
                tracing::warn!(%error, %turn, "a spoken reply is not cut to what was heard");
            }
            // Who has left does not wait.
            drop(act.done.take());
            ctx.stop();
        }));
    }
}

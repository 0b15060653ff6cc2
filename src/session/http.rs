//! Waits for the end of one turn.

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use idol_actors::{
    conversation::{
        command::{Attachment, Deliver, Listener, StartTurn, Started, Want},
        event::{EventBody, Outcome},
    },
    error::EngineError,
    handle::ConversationHandle,
    limits,
};
use std::sync::Arc;
use tokio::sync::oneshot;

use super::Broken;

/// The session of `POST /chat`: hears only how its turn ends.
#[derive(Debug)]
struct HttpSession {
    answer: Option<oneshot::Sender<Result<Arc<Outcome>, EngineError>>>,
    attachment: Option<Attachment>,
}

/// Starts a turn and waits for its end. Dropped before it, the turn goes on without a listener.
pub async fn complete(
    conversation: &ConversationHandle,
    command: StartTurn,
) -> Result<(Started, Arc<Outcome>), EngineError> {
    let (answer, answered) = oneshot::channel();
    let session = HttpSession {
        answer: Some(answer),
        attachment: None,
    }
    .start();
    let listener = Listener {
        attachment: 0,
        sink: session.clone().recipient(),
        want: Want::Outcome,
        credit: 1,
    };
    let mut started = conversation.start_turn(command, Some(listener)).await?;
    if let Some(attachment) = started.attachment.take() {
        // A session that has heard its outcome already is over, and needs no lifeline.
        drop(session.try_send(Adopt(attachment)));
    }
    drop(session);
    let outcome = answered.await.unwrap_or(Err(EngineError::Restarted))?;
    match &outcome.error {
        Some(error) => Err(error.clone()),
        None => Ok((started, outcome)),
    }
}

/// The session's attachment, which the start of the turn brought.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
struct Adopt(Attachment);

impl Actor for HttpSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::SESSION_MAILBOX);
    }
}

impl HttpSession {
    fn answer(&mut self, result: Result<Arc<Outcome>, EngineError>, ctx: &mut Context<Self>) {
        if let Some(answer) = self.answer.take() {
            // The request may be gone; the turn is in the log all the same.
            drop(answer.send(result));
        }
        self.attachment = None;
        ctx.stop();
    }
}

impl Handler<Adopt> for HttpSession {
    type Result = ();

    fn handle(&mut self, Adopt(mut attachment): Adopt, ctx: &mut Self::Context) {
        let lifeline = attachment.lifeline();
        self.attachment = Some(attachment);
        ctx.spawn(lifeline.into_actor(self).map(|why, _, ctx| {
            ctx.notify(Broken { attachment: 0, why });
        }));
    }
}

impl Handler<Deliver> for HttpSession {
    type Result = ();

    fn handle(&mut self, msg: Deliver, ctx: &mut Self::Context) {
        if let EventBody::Ended(outcome) = &msg.event.body {
            self.answer(Ok(outcome.clone()), ctx);
        }
    }
}

impl Handler<Broken> for HttpSession {
    type Result = ();

    fn handle(&mut self, msg: Broken, ctx: &mut Self::Context) {
        self.answer(Err(msg.error()), ctx);
    }
}

//! What a client had said to its end before it left: it is written down and answered all the same.

use std::collections::VecDeque;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_web::web;
use idol_actors::{caller::Caller, error::EngineError, id::TurnId, voice::usage::VoiceUsage};

use super::{Spoken, WrittenDown};
use crate::{
    server::Server,
    session::websocket::{saying::Saying, speaking::Interrupting},
};

/// Answers what is still being written down, in the order in which it was said. It ends in time, as
/// each transcription and each turn does.
pub(in crate::session::websocket) struct LeftBehind {
    pub(in crate::session::websocket) server: web::Data<Server>,
    pub(in crate::session::websocket) caller: Caller,
    /// What is to be cut before: no prompt holds what was not heard.
    pub(in crate::session::websocket) interrupting: Vec<Interrupting>,
    /// Each utterance, and the message that it becomes but for its text.
    pub(in crate::session::websocket) said: VecDeque<(Spoken, Saying)>,
}

impl Actor for LeftBehind {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (server, caller) = (self.server.clone(), self.caller.clone());
        let said = std::mem::take(&mut self.said);
        let interrupting = std::mem::take(&mut self.interrupting);
        let answered = async move {
            for interruption in interrupting {
                let _over = interruption.await;
            }
            for (spoken, saying) in said {
                let conversation = saying.named.id.clone();
                if let Err(error) = answer(&server, &caller, spoken.await, saying).await {
                    tracing::info!(%error, %conversation, "what was said by one who left is not kept");
                }
            }
        };
        ctx.spawn(answered.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

async fn answer(
    server: &Server,
    caller: &Caller,
    written: WrittenDown,
    saying: Saying,
) -> Result<(), EngineError> {
    let transcript = written?;
    let conversation = server.conversation(&saying.named);
    let account = server.voice_account(Some(conversation.clone()));
    let seconds = transcript.seconds.unwrap_or_default();
    account.count(VoiceUsage::heard(seconds)).await;
    if transcript.text.is_empty() {
        return Ok(());
    }
    let saying = Saying {
        text: Some(transcript.text),
        ..saying
    };
    let command = saying.command(server, caller, TurnId::now());
    conversation.start_turn(command, None).await.map(|_| ())
}

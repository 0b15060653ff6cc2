//! Commands that a conversation takes, given as a session gives them.

use actix::prelude::*;
use idol_actors::{
    caller::Caller,
    conversation::{
        command::{Deliver, Listener, StartTurn, Started, Want},
        event::{Event, EventBody},
    },
    handle::ConversationHandle,
    id::{ConversationId, TurnId},
    json_text::JsonText,
    log::entry::Owed,
};
use idol_router::wire::chat::{ChatRequest, Defaults, Dialect, PromptChoice};
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::helpers::{TestApp, within};

mod interrupting;
mod unanswered;

/// The conversation of these tests.
const ID: &str = "c1";

fn conversation(app: &TestApp) -> ConversationHandle {
    let id = ConversationId::parse(ID).unwrap();
    app.engine.conversation(id, None)
}

/// The command of a session that says something.
fn saying(text: &str) -> StartTurn {
    let defaults = Defaults {
        model: "sim/tokens=5".into(),
        fallbacks: Vec::new(),
        system_prompt: JsonText::escape("You are a companion."),
        dialect: Dialect::OpenRouter,
    };
    ChatRequest::of_text(text, PromptChoice::default(), &defaults)
        .into_command(Caller::Anonymous, TurnId::now())
}

/// The same, of one that wants no reply.
fn keeping(text: &str) -> StartTurn {
    StartTurn {
        owed: Owed::Nothing,
        ..saying(text)
    }
}

/// A session that takes all events there are.
struct Ear(mpsc::UnboundedSender<Arc<Event>>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Deliver> for Ear {
    type Result = ();

    fn handle(&mut self, msg: Deliver, _: &mut Self::Context) {
        self.0.send(msg.event).unwrap_or_default();
    }
}

/// What a session is told of a turn.
struct Heard {
    started: Started,
    events: mpsc::UnboundedReceiver<Arc<Event>>,
}

impl Heard {
    async fn next(&mut self) -> Arc<Event> {
        within("the next event", self.events.recv()).await.unwrap()
    }

    /// Reads until so much of the reply's text has come.
    async fn until_text(&mut self, text: &str) {
        let mut bytes = 0;
        while bytes < text.len() {
            if let EventBody::Text { text, .. } = &self.next().await.body {
                bytes += text.decoded_len();
            }
        }
    }

    /// The kinds of the events up to the end, which tells its finish reason.
    async fn until_the_end(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        loop {
            let event = self.next().await;
            kinds.push(match &event.body {
                EventBody::Received(_) => "received".to_owned(),
                EventBody::Started { .. } => "started".to_owned(),
                EventBody::Text { .. } => "text".to_owned(),
                EventBody::Ended(outcome) => outcome.finish_reason.clone(),
                _ => "other".to_owned(),
            });
            if event.is_last() {
                return kinds;
            }
        }
    }
}

/// Starts a turn and listens to it.
async fn start(app: &TestApp, command: StartTurn) -> Heard {
    let (sender, events) = mpsc::unbounded_channel();
    let listener = Listener {
        attachment: 0,
        sink: Ear(sender).start().recipient(),
        want: Want::Everything,
        credit: 1_000,
    };
    let conversation = conversation(app);
    let started = conversation.start_turn(command, Some(listener));
    let started = within("a turn's start", started).await.unwrap();
    Heard { started, events }
}

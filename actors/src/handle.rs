//! All that the server sees of a conversation: one async method per command.

use std::sync::Arc;

use actix::{Addr, Handler, MailboxError, Message, Recipient, dev::ToEnvelope};
use tokio::time::timeout;

use crate::{
    caller::Caller,
    conversation::{
        Conversation,
        command::{
            Adopting, Answer, AskAdopt, AskAttach, AskAttend, AskBegin, AskCancel, AskCount,
            AskDelete, AskInterrupt, AskKeyed, AskResume, AskSnapshot, AskStart, Attach,
            Attachment, Begin, CancelTurn, Cancelled, CommandError, Delete, Hush, Interrupt,
            Interrupted, KeyedMessage, Listener, Resume, Resumed, StartTurn, Started,
        },
        document::Snapshot,
    },
    engine::Engine,
    error::EngineError,
    id::{ConversationId, Origin, TurnId},
    limits::COMMAND_DEADLINE,
    mirror::imported::ImportedDocument,
    shared::Home,
    supervisor::Find,
    voice::usage::VoiceUsage,
};

/// A conversation, by its id. Finds the actor for each command, starting it if need be.
#[derive(Debug, Clone)]
pub struct ConversationHandle {
    id: ConversationId,
    origin: Origin,
    engine: Engine,
    home: Option<Arc<Home>>,
}

/// How often a command is sent to an actor that turns out to be on its way out.
const ATTEMPTS_MAX: usize = 4;

impl ConversationHandle {
    pub(crate) fn new(id: ConversationId, engine: Engine, home: Option<Arc<Home>>) -> Self {
        Self {
            id,
            origin: Origin::Client,
            engine,
            home,
        }
    }

    /// The same, for an id that this server has just made: nothing can be stored of it anywhere.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ConversationId {
        &self.id
    }

    /// Begins the conversation if it has not begun; true if this began it. Durable when it returns.
    pub async fn begin(&self, command: Begin) -> Result<bool, EngineError> {
        self.engine.open()?;
        self.ask(|| AskBegin {
            command: command.clone(),
        })
        .await
    }

    /// Starts a turn. When it returns, the turn's messages are in the log, synced.
    pub async fn start_turn(
        &self,
        command: StartTurn,
        listener: Option<Listener>,
    ) -> Result<Started, EngineError> {
        self.engine.open()?;
        self.ask(|| AskStart {
            command: Box::new(command.clone()),
            listener: listener.clone(),
        })
        .await
    }

    /// Deletes the conversation. When it returns, the log holds nothing of it, synced; the mirrors
    /// follow.
    pub async fn delete(&self, command: Delete) -> Result<(), EngineError> {
        self.ask(|| AskDelete {
            command: command.clone(),
        })
        .await
    }

    /// Offers a copy of the conversation that may hold what the log does not.
    pub(crate) async fn adopt(&self, document: ImportedDocument) -> Result<Adopting, EngineError> {
        self.ask(|| AskAdopt {
            document: Box::new(document.clone()),
        })
        .await
    }

    /// Stops turns. An empty answer: they were over already.
    pub async fn cancel(&self, command: CancelTurn) -> Result<Cancelled, EngineError> {
        self.ask(|| AskCancel {
            command: command.clone(),
        })
        .await
    }

    /// Stops a turn whose reply was heard in part. When it returns, what the reply is now is in the
    /// log, synced; the upstream call is closed before that. No turn that is started after this call
    /// has what was not heard in its prompt. To be repeated after an error.
    pub async fn interrupt(&self, command: Interrupt) -> Result<Interrupted, EngineError> {
        self.ask(|| AskInterrupt {
            command: command.clone(),
        })
        .await
    }

    /// The message that was kept with an idempotency key, as far as it is synced: a request that has to
    /// be worked out before it can be sent need not be when it comes again.
    pub async fn keyed(
        &self,
        caller: Caller,
        key: &str,
    ) -> Result<Option<KeyedMessage>, EngineError> {
        self.ask(|| AskKeyed {
            caller: caller.clone(),
            key: key.to_owned(),
        })
        .await
    }

    /// Says who speaks the reply of a turn. Whoever cancels the turn, or all, silences it, also if its
    /// text is written to its end. One voice speaks one turn: the last that it was said of.
    pub async fn attend(&self, turn: TurnId, voice: Recipient<Hush>) -> Result<(), EngineError> {
        self.ask(|| AskAttend {
            turn,
            voice: voice.clone(),
        })
        .await
    }

    /// Counts what was spoken and heard in the conversation. Durable when it returns, unless it has
    /// not begun: then with its first message. Not to be repeated: after an error it may be counted.
    pub async fn count(&self, usage: VoiceUsage) -> Result<(), EngineError> {
        if usage.is_nothing() {
            return Ok(());
        }
        self.ask(|| AskCount { usage }).await
    }

    /// Listens to the conversation.
    pub async fn attach(
        &self,
        command: Attach,
        listener: Listener,
    ) -> Result<Attachment, EngineError> {
        self.ask(|| AskAttach {
            command: command.clone(),
            listener: listener.clone(),
        })
        .await
    }

    /// Listens to the conversation again, from where somebody had come.
    pub async fn resume(
        &self,
        command: Resume,
        listener: Listener,
    ) -> Result<Resumed, EngineError> {
        self.engine.open()?;
        self.go_on(command, listener).await
    }

    /// The same for a session whose attachment has ended: also while the server drains, when the
    /// turn that it was being told is told to its end.
    pub async fn go_on(&self, command: Resume, listener: Listener) -> Result<Resumed, EngineError> {
        self.ask(|| AskResume {
            command: command.clone(),
            listener: listener.clone(),
        })
        .await
    }

    /// The document, as far as it is synced; `None` if there is no such conversation.
    pub async fn snapshot(&self, caller: Caller) -> Result<Option<Snapshot>, EngineError> {
        self.ask(|| AskSnapshot {
            caller: caller.clone(),
        })
        .await
    }

    async fn ask<M, T>(&self, command: impl Fn() -> M) -> Result<T, EngineError>
    where
        M: Message<Result = Answer<T>> + Send + 'static,
        T: Send + 'static,
        Conversation: Handler<M>,
        <Conversation as actix::Actor>::Context: ToEnvelope<Conversation, M>,
    {
        for _ in 0..ATTEMPTS_MAX {
            let conversation = self.find().await?;
            match timeout(COMMAND_DEADLINE, conversation.send(command())).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(CommandError::Engine(error)))) => return Err(error),
                // It had left the directory, or died before it took the command: ask the next.
                // A turn that it did take is known by its id.
                Ok(Ok(Err(CommandError::Retired)) | Err(MailboxError::Closed)) => {}
                Ok(Err(MailboxError::Timeout)) | Err(_) => return Err(EngineError::Overloaded),
            }
        }
        Err(EngineError::Restarted)
    }

    async fn find(&self) -> Result<Addr<Conversation>, EngineError> {
        if let Some(living) = self.engine.shared().directory.get(&self.id) {
            return Ok(living);
        }
        let find = Find {
            id: self.id.clone(),
            origin: self.origin,
            home: self.home.clone(),
        };
        match timeout(COMMAND_DEADLINE, self.engine.supervisor().send(find)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(EngineError::Overloaded),
        }
    }
}

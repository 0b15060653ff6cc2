//! What a conversation is told and asked.
//!
//! Commands are plain data. The actix messages around them add where the answer goes, and stay
//! inside the engine.

use std::{fmt, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    document::Snapshot,
    event::{Cursor, Event},
    message::{Draft, StoredMessage},
    prompt::Parameters,
    stream::Passing,
    subscribers::SubscriberKey,
};
use crate::{
    caller::Caller,
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::JsonText,
    log::entry::Owed,
    mirror::imported::ImportedDocument,
    voice::usage::VoiceUsage,
};

/// Begins a conversation if it has not begun.
#[derive(Debug, Clone, Serialize)]
pub struct Begin {
    /// Who asks.
    pub caller: Caller,
    /// Owner, as the app names it.
    pub user_id: Option<String>,
    /// Companion, as the app names it.
    pub character_id: Option<String>,
}

/// Adds messages and, unless they are to be kept without one, asks for a reply.
#[derive(Debug, Clone, Serialize)]
pub struct StartTurn {
    /// Who asks.
    pub caller: Caller,
    /// Minted by the session: the same command may be sent again.
    pub turn: TurnId,
    /// Where in the history.
    pub at: At,
    /// User, assistant and tool messages, in order; a repeated history is recognized, unless no
    /// reply is owed.
    pub messages: Vec<Draft>,
    /// Nothing: the messages are kept, in their place in the order of turns, and the turn is over;
    /// no provider is needed. Only behind the history, as what replaces does so with its reply.
    pub owed: Owed,
    /// How the reply is asked for.
    pub parameters: Parameters,
    /// Owner, if the conversation has none yet.
    pub user_id: Option<String>,
    /// Companion, if the conversation has none yet.
    pub character_id: Option<String>,
    /// What a repeat of this request is recognized by.
    pub key: Option<RequestKey>,
    /// What a repeat has seen of the turn: it is told what follows.
    pub seen: Option<Cursor>,
}

/// Where in the history a turn begins. One that replaces does so once it has a reply, and needs a
/// conversation that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum At {
    /// Behind it.
    #[default]
    End,
    /// At the reply of this id, or to the user's message of this id; none: the newest one. What it
    /// answered is answered again; the command has no messages.
    Reply(Option<MessageId>),
    /// At the user's message of this id, which the command's message replaces.
    Message(MessageId),
}

/// An idempotency key, and what it was sent with. Counts within the conversation and the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestKey {
    /// As the client sent it.
    pub key: String,
    /// Digest of the request: the same key with another one is refused.
    pub request: Uuid,
}

impl RequestKey {
    /// A key, and the bytes of the request that it came with.
    #[must_use]
    pub fn new(key: String, request: &[u8]) -> Self {
        Self {
            key,
            request: Uuid::new_v5(&Uuid::NAMESPACE_OID, request),
        }
    }
}

/// Deletes a conversation: its log, its documents, everything.
#[derive(Debug, Clone, Serialize)]
pub struct Delete {
    /// Who asks.
    pub caller: Caller,
}

/// Stops a turn.
#[derive(Debug, Clone, Serialize)]
pub struct CancelTurn {
    /// Who asks.
    pub caller: Caller,
    /// Which; none: the running one and all that wait.
    pub turn: Option<TurnId>,
}

/// Stops a turn whose reply was being listened to: what was heard of it is the reply, the rest is
/// kept apart, and no prompt holds it.
#[derive(Debug, Clone, Serialize)]
pub struct Interrupt {
    /// Who asks.
    pub caller: Caller,
    /// Which.
    pub turn: TurnId,
    /// UTF-8 bytes of the reply's text that were heard. More than there are: all of it. Less than
    /// were heard by an earlier command: so little; more: as little as by that.
    pub heard: usize,
}

/// Listens to a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct Attach {
    /// Who asks.
    pub caller: Caller,
    /// From where.
    pub from: From,
}

/// Where an attachment begins.
#[derive(Debug, Clone, Serialize)]
pub enum From {
    /// With the turn under way, from its beginning; else with the next one.
    Now,
    /// All events of one turn, after a cursor: a session that lost its attachment.
    TurnAt(Cursor),
}

/// Listens to a conversation again, from where somebody had come.
#[derive(Debug, Clone, Serialize)]
pub struct Resume {
    /// Who asks.
    pub caller: Caller,
    /// The last message that is known whole.
    pub after: Said<MessageId>,
    /// The last event that was seen.
    pub cursor: Said<Cursor>,
    /// How what was missed is told.
    pub manner: Manner,
    /// What the text of the turn under way may be joined across.
    pub passing: Passing,
}

/// What a client says of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Said<T> {
    /// Nothing.
    Nothing,
    /// This.
    This(T),
    /// Something that no place is called.
    Nonsense,
}

/// How what was missed is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Manner {
    /// As messages, and the text of the turn under way.
    CaughtUp,
    /// As the events that they were, where the cursor leads somewhere; else as messages.
    Events,
}

/// Listening goes on.
#[derive(Debug)]
pub struct Resumed {
    /// Brings what follows.
    pub attachment: Attachment,
    /// Set if the place could not be gone on from.
    pub reset: Option<Reset>,
    /// What was missed; none where it comes as events.
    pub caught_up: Option<CaughtUp>,
    /// The turns that run or wait.
    pub open: Vec<TurnId>,
}

/// What is known holds no more, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
    /// The turn that the cursor was in, and how many UTF-8 bytes of its text hold.
    pub turn: Option<(TurnId, u64)>,
}

/// Why a place could not be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// It is no cursor.
    NotACursor,
    /// The cursor's turn is none of the conversation's.
    UnknownTurn,
    /// The message is none of the conversation's.
    UnknownMessage,
    /// Less text survived than was seen.
    BeyondText,
    /// What was seen is not told in the same pieces any more.
    Retold,
    /// What was seen last has been replaced by another reply or message.
    Replaced,
    /// More was missed than is told at once.
    TooFarBehind,
}

/// A conversation as it stands, from a place on.
#[derive(Debug)]
pub struct CaughtUp {
    /// The messages, in order.
    pub messages: Vec<StoredMessage>,
    /// Whether others come before them.
    pub earlier: Earlier,
    /// The end of the turn that was seen last, if it was missed; to be told without its place,
    /// as the messages may be of turns behind it.
    pub end: Option<Arc<Event>>,
    /// The turn that runs.
    pub turn: Option<UnderWay>,
    /// The place after all this.
    pub cursor: Cursor,
}

/// Whether messages come before those that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// None do.
    No,
    /// Some do.
    Yes,
}

/// The reply that is being made.
#[derive(Debug)]
pub struct UnderWay {
    /// Its turn.
    pub turn: TurnId,
    /// Id that it will have.
    pub reply: MessageId,
    /// Its text from `offset` on, as far as it is told by this.
    pub text: JsonText,
    /// UTF-8 bytes of text before it.
    pub offset: u64,
    /// The place after the text.
    pub cursor: Cursor,
}

/// The turn is in the log.
#[derive(Debug)]
pub struct Started {
    /// The turn.
    pub turn: TurnId,
    /// Id that the reply will have.
    pub reply: MessageId,
    /// Id of the last message it added; none if it added none.
    pub message: Option<MessageId>,
    /// The attachment, if a listener came with the command.
    pub attachment: Option<Attachment>,
    /// Whether the request was carried out before.
    pub took: Took,
}

/// Whether a request began its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// It did.
    New,
    /// An earlier one with the same key, or the same one sent again, did: the turn is that one's.
    Repeat,
}

/// A message that was kept with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedMessage {
    /// The turn that it began.
    pub turn: TurnId,
    /// Its id.
    pub message: Option<MessageId>,
    /// Digest of the request that it came with.
    pub request: Uuid,
    /// Its text; empty if it is more than that.
    pub text: String,
}

/// What a cancellation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cancelled {
    /// Turns that were stopped.
    pub turns: Vec<TurnId>,
}

/// Somebody cancelled this turn: its voice is to be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Hush(pub TurnId);

/// What an interruption did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// What became of the turn.
    pub effect: Effect,
    /// UTF-8 bytes of text that the reply has now.
    pub heard: usize,
}

/// What became of a turn that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it was over, and its reply that short; it has none, or was replaced; there is no
    /// such turn.
    Nothing,
    /// It ran or waited, and was stopped.
    Stopped,
    /// It was over, and its reply was cut.
    Cut,
}

/// An event for a session.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Deliver {
    /// Which of the session's attachments it is for, as the session numbered it.
    pub attachment: u64,
    /// The event.
    pub event: Arc<Event>,
}

/// A session that wants events.
pub struct Listener {
    /// The session's number for the attachment.
    pub attachment: u64,
    /// Where events go.
    pub sink: Recipient<Deliver>,
    /// What it wants of a turn that it begins.
    pub want: Want,
    /// Events it takes before it gives credit; 0: none until it does.
    pub credit: u32,
}

/// What a session wants of its own turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Every event.
    Everything,
    /// Only the end.
    Outcome,
}

impl Clone for Listener {
    fn clone(&self) -> Self {
        Self {
            attachment: self.attachment,
            sink: self.sink.clone(),
            want: self.want,
            credit: self.credit,
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("attachment", &self.attachment)
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}

/// A session's end of its connection to a conversation. Dropping it detaches.
pub struct Attachment {
    pub(crate) key: SubscriberKey,
    pub(crate) control: Recipient<Control>,
    lifeline: Option<oneshot::Receiver<Detached>>,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Why an attachment ended before its session wanted it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// It had nothing but unread events for too long.
    Stalled,
    /// The conversation's actor is gone.
    Lost,
    /// The conversation was deleted.
    Deleted,
}

impl Attachment {
    pub(crate) fn new(
        key: SubscriberKey,
        control: Recipient<Control>,
        lifeline: oneshot::Receiver<Detached>,
    ) -> Self {
        Self {
            key,
            control,
            lifeline: Some(lifeline),
        }
    }

    /// Gives credit for more events. False if the conversation's mailbox has no room: try later.
    #[must_use]
    pub fn credit(&self, events: u32) -> bool {
        let control = Control {
            key: self.key,
            what: ControlKind::Credit(events),
        };
        !matches!(
            self.control.try_send(control),
            Err(actix::prelude::SendError::Full(_))
        )
    }

    /// Resolves when the attachment breaks; also once a turn's last event was sent. Taken once.
    pub fn lifeline(&mut self) -> impl Future<Output = Detached> + use<> {
        let lifeline = self.lifeline.take();
        async move {
            match lifeline {
                Some(lifeline) => lifeline.await.unwrap_or(Detached::Lost),
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let detach = Control {
            key: self.key,
            what: ControlKind::Detach,
        };
        // Without room it is found at the next event or idle check: the session's address is gone.
        if let Err(error) = self.control.try_send(detach) {
            tracing::trace!(%error, "detaching later");
        }
    }
}

/// Credit and detachment.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Control {
    pub(crate) key: SubscriberKey,
    pub(crate) what: ControlKind,
}

#[derive(Debug)]
pub(crate) enum ControlKind {
    Credit(u32),
    Detach,
}

/// What became of a copy that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adopting {
    /// The log has all of it.
    Nothing,
    /// So many messages are in the log now that were not.
    Messages(usize),
    /// It is not a continuation of what the log has.
    Parted,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// This actor is on its way out and has written nothing: ask the next one.
    Retired,
    /// The answer.
    Engine(EngineError),
}

impl<E: Into<EngineError>> std::convert::From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

/// The answer to a command.
pub(crate) type Answer<T> = Result<T, CommandError>;

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Answer<T>>;

macro_rules! ask {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),* } -> $answer:ty) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name { $(pub(crate) $field: $kind),* }

        impl Message for $name {
            type Result = Answer<$answer>;
        }
    };
}

ask! {
    /// [`Begin`].
    AskBegin { command: Begin } -> bool
}
ask! {
    /// [`StartTurn`].
    AskStart { command: Box<StartTurn>, listener: Option<Listener> } -> Started
}
ask! {
    /// [`CancelTurn`].
    AskCancel { command: CancelTurn } -> Cancelled
}
ask! {
    /// [`Interrupt`].
    AskInterrupt { command: Interrupt } -> Interrupted
}
ask! {
    /// What was kept with an idempotency key.
    AskKeyed { caller: Caller, key: String } -> Option<KeyedMessage>
}
ask! {
    /// Who speaks the reply of a turn.
    AskAttend { turn: TurnId, voice: Recipient<Hush> } -> ()
}
ask! {
    /// What was spoken and heard.
    AskCount { usage: VoiceUsage } -> ()
}
ask! {
    /// [`Delete`].
    AskDelete { command: Delete } -> ()
}
ask! {
    /// A copy that may hold what the log does not.
    AskAdopt { document: Box<ImportedDocument> } -> Adopting
}
ask! {
    /// [`Attach`].
    AskAttach { command: Attach, listener: Listener } -> Attachment
}
ask! {
    /// [`Resume`].
    AskResume { command: Resume, listener: Listener } -> Resumed
}
ask! {
    /// The document, if there is one.
    AskSnapshot { caller: Caller } -> Option<Snapshot>
}
ask! {
    /// No new turns; answered when none is open. What runs longer than `grace` is cut.
    AskDrain { grace: Duration } -> ()
}

/// Memory is short: drop the history, or retire.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Shed;

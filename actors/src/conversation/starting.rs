//! Taking commands that change the conversation: begin, start a turn.

use std::{sync::atomic::Ordering, time::Instant};

use actix::Context;

use super::{
    Begun, Conversation, Pending, Stage, Then, Waiting, answer,
    command::{At, Begin, Listener, Reply, StartTurn, Started, Want},
    document::{Document, Kind, TurnRecord},
    elsewhere::Elsewhere,
    event::Received,
    message::{Draft, Stamp, StoredMessage},
    message_id,
    prompt::{self, Parameters},
    repeating::{Claim, Known},
    stream::{Position, TurnStream},
    subscribers::Interest,
};
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    limits,
    log::entry::{self, EntryHead, IdempotencyKey, Owed, TurnAccepted, TurnReopened},
    time::Timestamp,
};

impl Conversation {
    pub(super) fn begin(&mut self, command: Begin, reply: Reply<bool>, ctx: &mut Context<Self>) {
        if let Some(document) = self.document() {
            let allowed = command.caller.may_use(document.user_id());
            answer(
                reply,
                allowed
                    .then_some(false)
                    .ok_or_else(|| EngineError::NotFound.into()),
            );
            return;
        }
        if self.begun == Begun::Yes {
            // Its first entry is on the way already.
            self.beginners.push(reply);
            return;
        }
        if let Err(refusal) = self.open() {
            answer(reply, Err(refusal.into()));
            return;
        }
        self.beginners.push(reply);
        self.push_begun(command.user_id, command.character_id);
        self.flush(ctx);
    }

    fn push_begun(&mut self, user_id: Option<String>, character_id: Option<String>) {
        self.begun = Begun::Yes;
        self.pending.push(Pending {
            head: EntryHead::Begun(entry::Begun {
                at: Timestamp::now(),
                incarnation: fastrand::u64(..),
                user_id,
                character_id,
                imported_updated_at: None,
                voice_usage: None,
                // An id that was deleted has nothing stored that it could want back.
                unverified: self.seq() == 0
                    && matches!(self.elsewhere, Elsewhere::Late | Elsewhere::Unknown),
            }),
            messages: Vec::new(),
            then: Then::Begun,
        });
    }

    pub(super) fn start_turn(
        &mut self,
        command: StartTurn,
        listener: Option<Listener>,
        reply: Reply<Started>,
        ctx: &mut Context<Self>,
    ) {
        let again = match self.known(command.turn, &command.caller, command.key.as_ref()) {
            Known::No => None,
            Known::Turn(ordinal) => {
                self.follow(ordinal, command.seen, listener, reply, ctx);
                return;
            }
            Known::Told(stream) => {
                self.tell_again(*stream, command.seen, listener, reply, ctx);
                return;
            }
            Known::Again { turn, attempt } => Some((turn, attempt)),
            Known::Refused(refusal) => {
                answer(reply, Err(refusal.into()));
                return;
            }
        };
        let may_start = self.may_start(&command);
        let replaces = match may_start.and_then(|()| self.replaces(command.at)) {
            Ok(replaces) => replaces,
            Err(refusal) => {
                answer(reply, Err(refusal.into()));
                return;
            }
        };
        if let Some((turn, attempt)) = again {
            self.reopen(turn, attempt, command.parameters, listener, reply, ctx);
            return;
        }
        let drafts = match (replaces, command.owed) {
            (None, Owed::Reply) => self.without_repetition(command.messages),
            // A message that is kept may say the same as the one before it.
            (None, Owed::Nothing) | (Some(_), _) => command.messages,
        };
        let empty = self.document().is_none_or(Document::is_empty);
        if drafts.is_empty() && empty {
            let refusal = EngineError::Invalid {
                field: "messages",
                message: "must hold at least one message: the conversation is empty".into(),
            };
            answer(reply, Err(refusal.into()));
            return;
        }
        if self.begun == Begun::No {
            self.push_begun(command.user_id.clone(), command.character_id.clone());
        }
        let reply_id = MessageId::now();
        let messages = self.stamp(command.turn, &drafts);
        let ordinal = self.streams.push(TurnStream::new(command.turn, reply_id));
        let new = messages.clone();
        let key = command.key.map(|key| IdempotencyKey {
            scope: command.caller.scope(),
            key: key.key,
            request: key.request,
        });
        if let Some(key) = key.clone() {
            self.claims.push(Claim { ordinal, key });
            self.shared.key_ages.accepted(command.turn, Instant::now());
        }
        self.pending.push(Pending {
            head: EntryHead::TurnAccepted(TurnAccepted {
                // Not before its messages, whatever the clock does.
                at: Timestamp::now().max(self.last_stamp),
                turn: command.turn,
                reply: reply_id,
                user_id: command.user_id,
                character_id: command.character_id,
                model: command.parameters.model.clone(),
                key,
                replaces,
                owed: command.owed,
            }),
            messages,
            then: Then::Accepted {
                ordinal,
                listener,
                reply,
            },
        });
        self.waiting.push_back(Waiting {
            ordinal,
            turn: command.turn,
            attempt: 1,
            replaces,
            owed: command.owed,
            parameters: command.parameters,
            messages: new,
            accepted_at: Instant::now(),
        });
        match command.owed {
            Owed::Reply => {
                self.flush(ctx);
                // The upstream is asked while the message is being synced; nothing is shown before.
                self.run_next(ctx);
            }
            Owed::Nothing => {
                // If its turn has come, its end is synced with the message.
                self.run_next(ctx);
                self.flush(ctx);
            }
        }
    }

    /// Runs a turn once more whose messages are in the log.
    fn reopen(
        &mut self,
        turn: TurnId,
        attempt: u32,
        parameters: Parameters,
        listener: Option<Listener>,
        reply: Reply<Started>,
        ctx: &mut Context<Self>,
    ) {
        let record = self.document().and_then(|document| document.turn(turn));
        let Some(reply_id) = record.and_then(|record| record.reply_id) else {
            answer(reply, Err(EngineError::Restarted.into()));
            return;
        };
        let key = record
            .and_then(|record| record.key.as_ref())
            .map(|key| key.0.clone());
        let branch = record.and_then(|record| record.branch.as_deref());
        let replaces = branch.map(|branch| branch.at);
        let ordinal = self
            .streams
            .push(TurnStream::new(turn, reply_id).run(attempt));
        if key.is_some() {
            self.shared.key_ages.accepted(turn, Instant::now());
        }
        self.claims.extend(key.map(|key| Claim { ordinal, key }));
        self.pending.push(Pending {
            head: EntryHead::TurnReopened(TurnReopened {
                at: Timestamp::now(),
                turn,
                attempt,
                model: parameters.model.clone(),
            }),
            messages: Vec::new(),
            then: Then::Accepted {
                ordinal,
                listener,
                reply,
            },
        });
        self.waiting.push_back(Waiting {
            ordinal,
            turn,
            attempt,
            replaces,
            owed: Owed::Reply,
            parameters,
            messages: Vec::new(),
            accepted_at: Instant::now(),
        });
        self.flush(ctx);
        self.run_next(ctx);
    }

    fn may_start(&self, command: &StartTurn) -> Result<(), EngineError> {
        self.open()?;
        if command.at != At::End && self.document().is_none() {
            return Err(EngineError::NotFound);
        }
        let owner = self.document().and_then(Document::user_id);
        if !command.caller.may_use(owner) {
            return Err(EngineError::NotFound);
        }
        if self.waiting.len() >= limits::TURN_QUEUE_MAX {
            return Err(EngineError::Busy);
        }
        match (command.owed, command.at) {
            (Owed::Reply, _) => self.home.may_generate(),
            (Owed::Nothing, At::End) => Ok(()),
            (Owed::Nothing, At::Reply(_) | At::Message(_)) => Err(EngineError::Invalid {
                field: "message_id",
                message: "should not be given: what replaces a message is answered".into(),
            }),
        }
    }

    /// The message in whose place a turn is to stand. All that is accepted is in the document: a
    /// command that replaces waits for that.
    fn replaces(&self, at: At) -> Result<Option<MessageId>, EngineError> {
        let (at, kind) = match at {
            At::End => return Ok(None),
            At::Reply(at) => (at, Kind::Reply),
            At::Message(at) => (Some(at), Kind::Message),
        };
        let document = self.document().ok_or(EngineError::NotFound)?;
        let at = document.replaceable(at, kind);
        at.map(Some).map_err(|error| EngineError::Invalid {
            field: "message_id",
            message: error.to_string(),
        })
    }

    fn open(&self) -> Result<(), EngineError> {
        let space = self.shared.config.space.as_ref();
        if space.is_some_and(|space| space.is_low()) {
            return Err(EngineError::StorageUnavailable);
        }
        let draining = self.shared.draining.load(Ordering::Acquire);
        match self.stage {
            Stage::Open if !draining => Ok(()),
            // One that the drain did not find, as it was not there yet, takes nothing either.
            Stage::Open | Stage::Draining | Stage::Retired(_) => Err(EngineError::ShuttingDown {
                retry_after: self.shared.retry_after(),
            }),
        }
    }

    /// The drafts without those at the start that repeat the end of the history.
    fn without_repetition(&self, mut drafts: Vec<Draft>) -> Vec<Draft> {
        if let Some(document) = self.document() {
            let turns = document.turns();
            let owed = turns.iter().rev().take_while(|it| self.owes_reply(it));
            let settled = &turns[..turns.len() - owed.count()];
            let repeated = prompt::repeated(settled, &drafts);
            drafts.drain(..repeated);
        }
        drafts
    }

    /// Whether a turn is to be answered yet; one that an actor before this one left open is not.
    fn owes_reply(&self, record: &TurnRecord) -> bool {
        let ours = |turn| self.streams.find(turn).is_some();
        record.is_open() && record.turn.is_some_and(ours)
    }

    fn stamp(&mut self, turn: TurnId, drafts: &[Draft]) -> Vec<StoredMessage> {
        drafts
            .iter()
            .map(|draft| {
                self.last_stamp = Timestamp::now().max(self.last_stamp.next());
                StoredMessage::new(
                    draft,
                    &Stamp {
                        timestamp: self.last_stamp,
                        id: MessageId::now(),
                        turn: Some(turn),
                        model: None,
                        models: &[],
                        finish_reason: None,
                    },
                )
            })
            .collect()
    }

    /// Attaches the listener of a command to its turn.
    pub(super) fn listen_to(
        &mut self,
        ordinal: u64,
        from: Position,
        mut started: Started,
        listener: Option<Listener>,
        ctx: &mut Context<Self>,
    ) -> Result<Started, EngineError> {
        if let Some(listener) = listener {
            let interest = match listener.want {
                Want::Everything => Interest::Turn(ordinal),
                Want::Outcome => Interest::Outcome(ordinal),
            };
            started.attachment = Some(self.subscribe(listener, interest, (from, None), ctx)?);
        }
        Ok(started)
    }

    /// What a turn received, as the document has it. Of one that runs again, whoever watches was
    /// shown the messages when they came.
    pub(super) fn received(&self, turn: TurnId) -> Received {
        let found = self.document().and_then(|it| Some((it, it.turn(turn)?)));
        let messages = found.map(|(document, record)| document.received(record).to_vec());
        let mut messages = messages.unwrap_or_default();
        let replacing = found.and_then(|(document, record)| document.replacing(record));
        let answers = replacing.and_then(|replacing| replacing.answers);
        let key = found.and_then(|(_, record)| record.key.as_ref());
        let message = message_id(&messages).or(answers);
        if found.is_some_and(|(_, record)| record.ran_again()) {
            messages.clear();
        }
        Received {
            message,
            before: Vec::new(),
            messages,
            key: key.map(|known| known.0.key.clone()),
            replacing,
            told: 0,
        }
    }
}

//! Listening again from where somebody had come: to the byte, across restarts.
//!
//! A cursor is looked for among the turns that are kept for showing, then in the history. What
//! cannot be gone on from is said so, and the conversation is told as it stands.

use std::{collections::VecDeque, slice};

use actix::Context;

use super::{
    Conversation,
    backlog::Backlog,
    command::{
        CaughtUp, Earlier, Listener, Manner, Reset, ResetReason, Resume, Resumed, Said, UnderWay,
    },
    document::{Document, TurnRecord},
    event::Cursor,
    message::StoredMessage,
    stream::{Misplaced, Passing, Position, TurnStream},
    subscribers::Interest,
};
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    limits,
};

/// Where a cursor leads.
enum Lead {
    /// There is none, or it tells nothing of what is under way.
    Nowhere,
    /// Before every turn.
    Start,
    /// Into a turn that is kept for showing.
    Kept(Position),
    /// Into a turn of the history.
    History(Box<TurnStream>, Position),
    /// It cannot be gone on from.
    Lost(Reset),
}

/// From which message on somebody is told.
#[derive(Clone, Copy)]
enum Since {
    Message(MessageId),
    /// From the reply of this turn on.
    Reply(TurnId),
    /// Behind this turn.
    Turn(TurnId),
    Beginning,
    /// Nothing is known: the newest ones.
    Newest,
}

/// Whether somebody has a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Seen,
    Missed,
}

/// Events to be told, and what of the history comes before them.
type Events = (Position, Option<Box<Backlog>>);

impl Conversation {
    pub(super) fn resume(
        &mut self,
        command: &Resume,
        listener: Listener,
        ctx: &mut Context<Self>,
    ) -> Result<Resumed, EngineError> {
        let document = self.document().ok_or(EngineError::NotFound)?;
        if !command.caller.may_use(document.user_id()) {
            return Err(EngineError::NotFound);
        }
        let mut lead = self.lead(command.cursor);
        if command.manner == Manner::Events {
            lead = match self.events_from(lead) {
                Ok(events) => {
                    let attachment = self.subscribe(listener, Interest::All, events, ctx)?;
                    return Ok(Resumed {
                        attachment,
                        reset: None,
                        caught_up: None,
                        open: self.open_turns(),
                    });
                }
                Err(lead) => lead,
            };
        }
        let (position, turn) = self.under_way(&lead, command.passing);
        let (messages, earlier, lost) = self.messages_since(self.since(&lead, command.after));
        let cursor = match &turn {
            Some(turn) => turn.cursor,
            None => self.end_of_last_turn(),
        };
        let reset = match (lead, command.after) {
            (Lead::Lost(reset), _) => Some(reset),
            (_, Said::Nonsense) => Some(Reset::new(ResetReason::UnknownMessage)),
            _ => lost.map(Reset::new),
        };
        let attachment = self.subscribe(listener, Interest::All, (position, None), ctx)?;
        Ok(Resumed {
            attachment,
            reset,
            caught_up: Some(CaughtUp {
                messages,
                earlier,
                turn,
                cursor,
            }),
            open: self.open_turns(),
        })
    }

    fn lead(&self, cursor: Said<Cursor>) -> Lead {
        let cursor = match cursor {
            Said::Nothing => return Lead::Nowhere,
            Said::Nonsense => return Lead::Lost(Reset::new(ResetReason::NotACursor)),
            Said::This(cursor) if cursor.turn == Cursor::START.turn => return Lead::Start,
            Said::This(cursor) => cursor,
        };
        let misplaced = match self.streams.locate(cursor) {
            Some(Ok(position)) => {
                // One whose turn waits tells nothing of the turn that runs.
                let waits = position.ordinal > self.first_untold();
                return match waits {
                    true => Lead::Nowhere,
                    false => Lead::Kept(position),
                };
            }
            Some(Err(misplaced)) => misplaced,
            None => {
                let replaced = |it: &Document| it.was_replaced(cursor.turn);
                if self.document().is_some_and(replaced) {
                    return Lead::Lost(Reset::new(ResetReason::Replaced));
                }
                let record = self.document().and_then(|it| it.turn(cursor.turn));
                let Some(stream) = record.and_then(TurnStream::retold) else {
                    return Lead::Lost(Reset::new(ResetReason::UnknownTurn));
                };
                match stream.place(0, cursor) {
                    Ok(at) => return Lead::History(Box::new(stream), at),
                    Err(misplaced) => misplaced,
                }
            }
        };
        let (reason, kept) = match misplaced {
            Misplaced::Beyond { kept } => (ResetReason::BeyondText, kept),
            Misplaced::Untellable => (ResetReason::Retold, 0),
        };
        Lead::Lost(Reset {
            reason,
            turn: Some((cursor.turn, kept)),
        })
    }

    /// The turn that runs; none does: the next one.
    fn first_untold(&self) -> u64 {
        let running = self.running.as_ref().map(|running| running.ordinal);
        running.unwrap_or_else(|| self.streams.end())
    }

    /// Every event behind a place; the place back if they cannot be told.
    fn events_from(&self, lead: Lead) -> Result<Events, Lead> {
        let (first, at) = match lead {
            Lead::Kept(position) => return Ok((position, None)),
            Lead::History(stream, at) => (Some(*stream), at),
            Lead::Start => (None, Position::default()),
            Lead::Nowhere | Lead::Lost(_) => return Err(lead),
        };
        let turns = self.document().map(Document::turns).unwrap_or_default();
        let since = match &first {
            Some(stream) => self.began(stream.turn()),
            None => Some(0),
        };
        let kept = |record: &TurnRecord| {
            let turn = record.turn;
            turn.is_some_and(|turn| self.streams.find(turn).is_some())
        };
        let mut behind: Vec<_> = turns
            .iter()
            .filter_map(|record| match kept(record) {
                false if Some(record.since) > since => {
                    Some((record.since, TurnStream::retold(record)?))
                }
                // One that runs again does not tell its messages again.
                true if record.since > record.accepted && Some(record.accepted) > since => {
                    Some((record.accepted, TurnStream::of_messages(record)?))
                }
                true | false => None,
            })
            .collect();
        behind.sort_by_key(|(began, _)| *began);
        let told: VecDeque<_> = first
            .into_iter()
            .chain(behind.into_iter().map(|(_, stream)| stream))
            .take(limits::RESUME_TURNS_MAX + 1)
            .collect();
        if told.len() > limits::RESUME_TURNS_MAX {
            return Err(Lead::Lost(Reset::new(ResetReason::TooFarBehind)));
        }
        let position = Position {
            ordinal: self.streams.ordinals().start,
            ..Position::default()
        };
        Ok((position, Backlog::new(told, at)))
    }

    /// The text of the turn that runs, from a place on, and where its events go on.
    fn under_way(&self, lead: &Lead, passing: Passing) -> (Position, Option<UnderWay>) {
        let ordinal = self.first_untold();
        let next = Position {
            ordinal,
            ..Position::default()
        };
        // Before its acceptance is synced nothing of it is shown; it will be, as events.
        let stream = self.streams.get(ordinal);
        let Some(stream) = stream.filter(|stream| stream.received().is_some()) else {
            return (next, None);
        };
        let start = Position {
            ordinal,
            ..stream.start_of_reply()
        };
        let seen = match lead {
            Lead::Kept(position) if position.ordinal == ordinal => Some(*position),
            _ => None,
        };
        let replaces = stream.received().is_some_and(|it| it.replacing.is_some());
        if replaces && seen.is_none_or(|seen| seen.item < start.item) {
            // What it replaces is told by its own events.
            return (seen.unwrap_or(next), None);
        }
        let from = match lead {
            Lead::Kept(position) if position.ordinal == ordinal && position.item >= start.item => {
                *position
            }
            // As much of it holds as was said.
            Lead::Lost(Reset {
                turn: Some((turn, kept)),
                ..
            }) if *turn == stream.turn() => match stream.text_place(*kept) {
                Ok(place) => Position { ordinal, ..place },
                Err(_shorter) => start,
            },
            _ => start,
        };
        let bytes_max = match self.is_paused() {
            true => 0,
            false => limits::RESUME_TEXT_BYTES_MAX,
        };
        let (text, position, cursor) = stream.text_run(from, passing, bytes_max);
        let turn = UnderWay {
            turn: stream.turn(),
            reply: stream.reply(),
            text,
            offset: from.offset,
            cursor,
        };
        (position, Some(turn))
    }

    fn since(&self, lead: &Lead, after: Said<MessageId>) -> Since {
        match (after, lead) {
            (Said::This(message), _) => Since::Message(message),
            (Said::Nonsense, _) | (Said::Nothing, Lead::Nowhere) => Since::Newest,
            (Said::Nothing, Lead::Start) => Since::Beginning,
            (Said::Nothing, Lead::Kept(position)) => match self.streams.get(position.ordinal) {
                Some(stream) if stream.ended() && !stream.is_told(*position) => {
                    Since::Reply(stream.turn())
                }
                Some(stream) => Since::Turn(stream.turn()),
                None => Since::Newest,
            },
            (Said::Nothing, Lead::History(stream, at)) => match stream.is_told(*at) {
                true => Since::Turn(stream.turn()),
                false => Since::Reply(stream.turn()),
            },
            (Said::Nothing, Lead::Lost(reset)) => reset
                .turn
                .map_or(Since::Newest, |(turn, _kept)| Since::Reply(turn)),
        }
    }

    /// Messages of turns that are over, and of the one that runs; what waits comes as events.
    ///
    /// Where that is too much, or what it is to begin behind is not there: the newest ones, and why.
    fn messages_since(&self, since: Since) -> (Vec<StoredMessage>, Earlier, Option<ResetReason>) {
        let runs = self.first_untold();
        let shown = |record: &&TurnRecord| {
            let ordinal = record.turn.and_then(|turn| self.streams.find(turn));
            !record.is_open() || ordinal.is_some_and(|ordinal| ordinal <= runs)
        };
        let turns = self.document().map(Document::turns).unwrap_or_default();
        let turns: Vec<&TurnRecord> = turns.iter().filter(shown).collect();
        let messages = || turns.iter().flat_map(|record| &record.messages);
        let total = messages().count();
        let behind = |wanted: TurnId, reply: Reply| {
            let began = self.began(wanted).ok_or(Some(ResetReason::Replaced))?;
            Ok(turns.iter().flat_map(move |record| {
                let missed = match record.turn == Some(wanted) {
                    false if record.since > began => &record.messages[..],
                    true if reply == Reply::Missed => {
                        record.reply().map_or(&[][..], slice::from_ref)
                    }
                    true | false => &[],
                };
                missed.iter().cloned()
            }))
        };
        let missed = match since {
            Since::Beginning => Ok(messages().cloned().collect()),
            Since::Newest => Err(None),
            Since::Message(id) => messages()
                .position(|message| message.id() == Some(id))
                .map(|index| messages().skip(index + 1).cloned().collect())
                .ok_or_else(|| Some(self.why_missing(id))),
            Since::Turn(turn) => behind(turn, Reply::Seen).map(Iterator::collect),
            Since::Reply(turn) => behind(turn, Reply::Missed).map(Iterator::collect),
        };
        let lost = match missed {
            Ok(missed) => {
                let missed: Vec<StoredMessage> = missed;
                let bytes: usize = missed.iter().map(StoredMessage::bytes).sum();
                if missed.len() <= limits::RESUME_MESSAGES_MAX && bytes <= limits::RESUME_BYTES_MAX
                {
                    let earlier = match missed.len() < total {
                        true => Earlier::Yes,
                        false => Earlier::No,
                    };
                    return (missed, earlier, None);
                }
                Some(ResetReason::TooFarBehind)
            }
            Err(lost) => lost,
        };
        let mut room = limits::RESUME_BYTES_MAX;
        let mut newest: Vec<StoredMessage> = turns
            .iter()
            .rev()
            .flat_map(|record| record.messages.iter().rev())
            .take(limits::RESUME_NEWEST)
            .take_while(|message| {
                let fits = message.bytes() <= room;
                room = room.saturating_sub(message.bytes());
                fits
            })
            .cloned()
            .collect();
        newest.reverse();
        let earlier = match newest.len() < total {
            true => Earlier::Yes,
            false => Earlier::No,
        };
        (newest, earlier, lost)
    }

    /// When a turn of the document began; none if it has left it.
    fn began(&self, turn: TurnId) -> Option<u64> {
        let turns = self.document()?.turns();
        let record = turns.iter().rev().find(|it| it.turn == Some(turn));
        record.map(|record| record.since)
    }

    fn why_missing(&self, id: MessageId) -> ResetReason {
        let was = |it: &Document| it.replaced().any(|message| message.id() == Some(id));
        match self.document().is_some_and(was) {
            true => ResetReason::Replaced,
            false => ResetReason::UnknownMessage,
        }
    }

    fn end_of_last_turn(&self) -> Cursor {
        let runs = self.first_untold();
        let kept = (self.streams.ordinals().start..runs)
            .rev()
            .filter_map(|ordinal| self.streams.get(ordinal))
            .find(|stream| stream.outcome().is_some())
            .map(TurnStream::turn);
        let turns = self.document().map(Document::turns).unwrap_or_default();
        let ended = || {
            let mut ended = turns.iter().rev().filter(|record| !record.is_open());
            ended.find_map(|record| record.turn)
        };
        kept.or_else(ended).map_or(Cursor::START, Cursor::end_of)
    }

    /// The turns that run or wait.
    fn open_turns(&self) -> Vec<TurnId> {
        let running = self.running.iter().map(|running| running.turn);
        let waiting = self.waiting.iter().map(|waiting| waiting.turn);
        running.chain(waiting).collect()
    }
}

impl Reset {
    fn new(reason: ResetReason) -> Self {
        Self { reason, turn: None }
    }
}

//! Listening again from where somebody had come: to the byte, across restarts.
//!
//! A cursor is looked for among the turns that are kept for showing, then in the history. What
//! cannot be gone on from is said so, and the conversation is told as it stands.

use std::sync::Arc;

use actix::Context;

use super::{
    Conversation,
    backlog::{Backlog, Retold, Telling},
    command::{
        CaughtUp, Earlier, Listener, Manner, Reset, ResetReason, Resume, Resumed, Said, UnderWay,
    },
    document::{Document, TurnRecord},
    event::{Cursor, Event, Seen},
    message::StoredMessage,
    stream::{Misplaced, Passing, Position, TurnStream, run_of},
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
    /// Behind everything that began with an entry up to this one; of this turn an earlier run was
    /// seen last.
    Behind(u64, Option<TurnId>),
    /// Into a turn that is kept for showing.
    Kept(Position),
    /// Into a turn of the history.
    History(Arc<TurnStream>, Position),
    /// It cannot be gone on from; what is known all the same.
    Lost(Reset, Option<Has>),
}

/// From which message on somebody is told.
#[derive(Clone, Copy)]
enum Since {
    Message(MessageId),
    Known(Has),
    /// Nothing is known: the newest ones.
    Newest,
}

/// What somebody has: everything that began with an entry up to this one.
#[derive(Clone, Copy)]
struct Has {
    seq: u64,
    /// The turn that was seen last, if it may have been seen in part.
    last: Option<Part>,
}

/// What somebody has of a turn.
#[derive(Clone, Copy)]
struct Part {
    turn: TurnId,
    /// So many of its messages.
    received: usize,
    reply: Reply,
}

/// Whether somebody has a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Seen,
    Missed,
}

/// Events to be told, and what of the history comes before them.
type Events = (Position, Option<Box<Backlog>>);

/// What a client is told of the turn that runs.
struct Running {
    /// Where its events go on.
    position: Position,
    /// Its text up to there.
    text: Option<UnderWay>,
    /// The place there, if it is within the turn.
    cursor: Option<Cursor>,
}

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
        let running = self.under_way(&lead, command.passing);
        let (messages, earlier, lost) = self.messages_since(self.since(&lead, command.after));
        let end = self.missed_end(&lead);
        let cursor = running.cursor.unwrap_or_else(|| self.before_untold());
        let reset = match (lead, command.after) {
            (Lead::Lost(reset, _), _) => Some(reset),
            (_, Said::Nonsense) => Some(Reset::new(ResetReason::UnknownMessage)),
            _ => lost.map(Reset::new),
        };
        let events = (running.position, None);
        let attachment = self.subscribe(listener, Interest::All, events, ctx)?;
        Ok(Resumed {
            attachment,
            reset,
            caught_up: Some(CaughtUp {
                messages,
                earlier,
                end,
                turn: running.text,
                cursor,
            }),
            open: self.open_turns(),
        })
    }

    fn lead(&self, cursor: Said<Cursor>) -> Lead {
        let cursor = match cursor {
            Said::Nothing => return Lead::Nowhere,
            Said::Nonsense => return Lead::Lost(Reset::new(ResetReason::NotACursor), None),
            Said::This(cursor) => cursor,
        };
        if cursor.is_between_turns() {
            let entry = |it: &Document| {
                cursor
                    .entry(it.incarnation())
                    .filter(|seq| *seq <= it.seq())
            };
            return match self.document().and_then(entry) {
                Some(seq) => Lead::Behind(seq, None),
                None => Lead::Lost(Reset::new(ResetReason::UnknownTurn), None),
            };
        }
        let (turn, run) = (cursor.turn, run_of(cursor.epoch) as usize);
        let record = self.document().and_then(|it| it.turn(turn));
        let kept = self.streams.find_telling(cursor).or_else(|| match run {
            0 => self.streams.find(turn),
            run => self.streams.find_run(turn, run),
        });
        let misplaced = match kept.and_then(|ordinal| Some((ordinal, self.streams.get(ordinal)?))) {
            Some((ordinal, stream)) => match stream.place(ordinal, cursor) {
                // One whose turn waits tells nothing of the turn that runs.
                Ok(_) if ordinal > self.first_untold() => return Lead::Nowhere,
                Ok(position) => return Lead::Kept(position),
                Err(misplaced) => misplaced,
            },
            None if self.document().is_some_and(|it| it.was_replaced(turn)) => {
                return Lead::Lost(Reset::new(ResetReason::Replaced), None);
            }
            None => {
                if let Some(began) = record.and_then(|it| it.earlier_run(run)) {
                    return earlier_run(cursor, began);
                }
                let told = record.and_then(|record| self.retold().tell(record, Telling::Whole));
                let Some(stream) = told else {
                    return Lead::Lost(Reset::new(ResetReason::UnknownTurn), None);
                };
                match stream.place(0, cursor) {
                    Ok(at) => return Lead::History(stream, at),
                    Err(misplaced) => misplaced,
                }
            }
        };
        let (reason, bytes) = match misplaced {
            Misplaced::Beyond { kept } => (ResetReason::BeyondText, kept),
            Misplaced::Untellable => (ResetReason::Retold, 0),
        };
        let reset = Reset {
            reason,
            turn: Some((turn, bytes)),
        };
        let has = record.map(|record| Has {
            seq: record.since(),
            last: Some(Part {
                turn,
                received: usize::MAX,
                reply: Reply::Missed,
            }),
        });
        Lead::Lost(reset, has)
    }

    /// The turn that runs; none does: one that was stopped while it waited, and whose end is on its
    /// way to the log; there is none: the next one.
    pub(super) fn first_untold(&self) -> u64 {
        self.streams.first_open()
    }

    /// The entry with which the run of a turn that is kept for showing began; none if it is not
    /// synced.
    fn began(&self, stream: &TurnStream) -> Option<u64> {
        let record = self.document()?.turn(stream.turn())?;
        let run = (stream.attempt() as usize).checked_sub(1)?;
        record.runs.get(run).copied()
    }

    /// Every event behind a place; the place back if they cannot be told.
    fn events_from(&self, lead: Lead) -> Result<Events, Lead> {
        let (first, at, seq) = match &lead {
            Lead::Kept(position) => return Ok((*position, None)),
            Lead::History(stream, at) => match self.began(stream) {
                Some(seq) => (Some(stream.clone()), *at, seq),
                None => return Err(lead),
            },
            Lead::Behind(seq, _) => (None, Position::default(), *seq),
            Lead::Nowhere | Lead::Lost(..) => return Err(lead),
        };
        let turns = self.document().map(Document::turns).unwrap_or_default();
        // Messages without a turn have no events.
        if turns.iter().any(|it| it.turn.is_none() && it.since() > seq) {
            return Err(lead);
        }
        let mut behind: Vec<(u64, &TurnRecord, Telling)> = Vec::new();
        for record in turns {
            let Some(turn) = record.turn else { continue };
            let kept = |run| self.streams.find_run(turn, run).is_some();
            let again = record.ran_again();
            // Its live events do not tell what it took over of a turn that it replaced, and that
            // one may be kept no more.
            let took_over = !record.is_open() && !record.stayed().is_empty();
            if took_over && record.accepted() > seq && kept(record.runs.len()) {
                return Err(lead);
            }
            if again && record.accepted() > seq && !kept(1) {
                behind.push((record.accepted(), record, Telling::Messages));
            }
            if record.since() > seq && !record.is_open() && !kept(record.runs.len()) {
                let telling = match again {
                    true => Telling::LastRun,
                    false => Telling::Whole,
                };
                behind.push((record.since(), record, telling));
            }
        }
        if behind.len() + usize::from(first.is_some()) > limits::RESUME_TURNS_MAX {
            return Err(Lead::Lost(Reset::new(ResetReason::TooFarBehind), None));
        }
        behind.sort_by_key(|(began, _, _)| *began);
        let behind = behind
            .into_iter()
            .filter_map(|(_, record, telling)| self.retold().tell(record, telling));
        let told = first.into_iter().chain(behind).collect();
        // What is kept and began before was seen.
        let seen = |ordinal: &u64| {
            let began = self.streams.get(*ordinal).and_then(|it| self.began(it));
            began.is_some_and(|began| began <= seq)
        };
        let kept = self.streams.ordinals();
        let ordinal = kept.clone().rfind(seen).map_or(kept.start, |last| last + 1);
        let position = Position {
            ordinal,
            ..Position::default()
        };
        Ok((position, Backlog::new(told, at)))
    }

    /// The text of the turn that runs, from a place on, and where its events go on.
    fn under_way(&self, lead: &Lead, passing: Passing) -> Running {
        let ordinal = self.first_untold();
        let next = Running {
            position: Position {
                ordinal,
                ..Position::default()
            },
            text: None,
            cursor: None,
        };
        // Before its acceptance is synced nothing of it is shown; it will be, as events.
        let stream = self.streams.get(ordinal);
        let Some(stream) = stream.filter(|stream| stream.received().is_some()) else {
            return next;
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
            return seen.map_or(next, |position| Running {
                position,
                text: None,
                cursor: Some(stream.cursor(position)),
            });
        }
        let from = match (seen, lead) {
            (Some(seen), _) if seen.item >= start.item => seen,
            // As much of it holds as was said.
            (
                _,
                Lead::Lost(
                    Reset {
                        turn: Some((turn, kept)),
                        ..
                    },
                    _,
                ),
            ) if *turn == stream.turn() => match stream.text_place(*kept) {
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
        Running {
            position,
            text: Some(turn),
            cursor: Some(cursor),
        }
    }

    fn since(&self, lead: &Lead, after: Said<MessageId>) -> Since {
        if let Said::This(message) = after {
            return Since::Message(message);
        }
        let has = match lead {
            _ if after == Said::Nonsense => None,
            Lead::Nowhere => None,
            Lead::Behind(seq, _) => Some(Has {
                seq: *seq,
                last: None,
            }),
            Lead::Kept(position) => {
                let stream = self.streams.get(position.ordinal);
                stream.and_then(|stream| self.has(stream, *position))
            }
            Lead::History(stream, at) => self.has(stream, *at),
            Lead::Lost(_, has) => *has,
        };
        has.map_or(Since::Newest, Since::Known)
    }

    /// What somebody has who has come to a place in a turn.
    fn has(&self, stream: &TurnStream, at: Position) -> Option<Has> {
        let record = self.document()?.turn(stream.turn())?;
        let seen = match stream.received() {
            Some(received) if at.item == 0 => {
                let rest = received.behind(at.byte);
                let rest = rest.before.len() + rest.messages.len();
                record.received().len().saturating_sub(rest)
            }
            Some(_) | None => usize::MAX,
        };
        let reply = match stream.ended() && !stream.is_told(at) {
            true => Reply::Missed,
            false => Reply::Seen,
        };
        // If it ran again, that run has a reply of its own.
        let last = (stream.attempt() as usize == record.runs.len()).then_some(Part {
            turn: stream.turn(),
            received: seen,
            reply,
        });
        let seq = self.began(stream)?;
        Some(Has { seq, last })
    }

    /// The end of the turn that was seen last, if it was missed: what is told as messages has none.
    fn missed_end(&self, lead: &Lead) -> Option<Arc<Event>> {
        let turn = match lead {
            Lead::Kept(position) => {
                let stream = self.streams.get(position.ordinal)?;
                let missed = stream.ended() && !stream.is_told(*position);
                return missed.then(|| stream.last_event()).flatten();
            }
            Lead::History(stream, at) if !stream.is_told(*at) => return stream.last_event(),
            Lead::Behind(_, Some(turn))
            | Lead::Lost(
                Reset {
                    turn: Some((turn, _)),
                    ..
                },
                _,
            ) => *turn,
            Lead::Nowhere | Lead::Behind(..) | Lead::History(..) | Lead::Lost(..) => return None,
        };
        let record = self.document()?.turn(turn)?;
        self.retold().tell(record, Telling::LastRun)?.last_event()
    }

    /// Messages of turns that are over, and of the one that runs; what waits comes as events.
    ///
    /// Where that is too much, or what it is to begin behind is not there: the newest ones, and why.
    fn messages_since(&self, since: Since) -> (Vec<StoredMessage>, Earlier, Option<ResetReason>) {
        let runs = self.first_untold();
        // The messages of one that waits to run again were told with its first run.
        let waits = |record: &TurnRecord| {
            let kept = record.turn.and_then(|turn| self.streams.find_run(turn, 1));
            !record.ran_again() && kept.is_some_and(|ordinal| ordinal > runs)
        };
        let turns = self.document().map(Document::turns).unwrap_or_default();
        let shown = || turns.iter().filter(|record| !waits(record));
        let total: usize = shown().map(|record| record.messages.len()).sum();
        let missed: Result<Vec<StoredMessage>, Option<ResetReason>> = match since {
            Since::Newest => Err(None),
            Since::Message(id) => self.behind_message(id, waits),
            Since::Known(has) => Ok(shown().flat_map(|record| has.missed(record)).collect()),
        };
        let earlier = |told: &[StoredMessage]| match told.len() < total {
            true => Earlier::Yes,
            false => Earlier::No,
        };
        let lost = match missed {
            Ok(missed) => {
                let bytes: usize = missed.iter().map(StoredMessage::bytes).sum();
                if missed.len() <= limits::RESUME_MESSAGES_MAX && bytes <= limits::RESUME_BYTES_MAX
                {
                    let earlier = earlier(&missed);
                    return (missed, earlier, None);
                }
                Some(ResetReason::TooFarBehind)
            }
            Err(lost) => lost,
        };
        let mut room = limits::RESUME_BYTES_MAX;
        let mut newest: Vec<StoredMessage> = shown()
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
        let earlier = earlier(&newest);
        (newest, earlier, lost)
    }

    /// The messages behind one, without those of turns that wait. It may be of such a turn itself.
    fn behind_message(
        &self,
        id: MessageId,
        waits: impl Fn(&TurnRecord) -> bool,
    ) -> Result<Vec<StoredMessage>, Option<ResetReason>> {
        let turns = self.document().map(Document::turns).unwrap_or_default();
        let messages = turns.iter().flat_map(|record| {
            let shown = !waits(record);
            record.messages.iter().map(move |message| (shown, message))
        });
        let mut behind = messages.skip_while(|(_, message)| message.id() != Some(id));
        if behind.next().is_none() {
            return Err(Some(self.why_missing(id)));
        }
        let shown = behind.filter(|(shown, _)| *shown);
        Ok(shown.map(|(_, message)| message.clone()).collect())
    }

    fn why_missing(&self, id: MessageId) -> ResetReason {
        let was = |it: &Document| it.replaced().any(|message| message.id() == Some(id));
        match self.document().is_some_and(was) {
            true => ResetReason::Replaced,
            false => ResetReason::UnknownMessage,
        }
    }

    /// The place behind everything that is over.
    fn before_untold(&self) -> Cursor {
        let Some(document) = self.document() else {
            return Cursor::START;
        };
        let untold = (self.first_untold()..self.streams.end())
            .filter_map(|ordinal| self.streams.get(ordinal))
            .filter_map(|stream| self.began(stream))
            .min();
        let seq = untold.map_or(document.seq(), |began| began.saturating_sub(1));
        Cursor::behind_entry(document.incarnation(), seq)
    }

    /// The turns that are told again; few conversations ever have any.
    fn retold(&self) -> &Retold {
        self.retold.get_or_init(Box::default)
    }

    /// The turns that run or wait.
    fn open_turns(&self) -> Vec<TurnId> {
        let running = self.running.iter().map(|running| running.turn);
        let waiting = self.waiting.iter().map(|waiting| waiting.turn);
        running.chain(waiting).collect()
    }
}

impl Has {
    /// The messages of a turn that somebody lacks who has this.
    fn missed(self, record: &TurnRecord) -> impl Iterator<Item = StoredMessage> {
        let received = record.received();
        let part = self.last.filter(|part| Some(part.turn) == record.turn);
        let (seen, reply) = match part {
            Some(part) => (part.received.min(received.len()), part.reply),
            None => {
                let seen = match record.accepted() > self.seq {
                    true => 0,
                    false => received.len(),
                };
                let reply = match record.since() > self.seq {
                    true => Reply::Missed,
                    false => Reply::Seen,
                };
                (seen, reply)
            }
        };
        let reply = record.reply().filter(|_| reply == Reply::Missed);
        received[seen..].iter().chain(reply).cloned()
    }
}

/// Where a cursor leads that is of an earlier run of its turn, which began with this entry.
fn earlier_run(cursor: Cursor, began: u64) -> Lead {
    if cursor.offset > 0 {
        // It had text, which is in no log, so it ran again.
        let reset = Reset {
            reason: ResetReason::BeyondText,
            turn: Some((cursor.turn, 0)),
        };
        let has = Has {
            seq: began,
            last: None,
        };
        return Lead::Lost(reset, Some(has));
    }
    match cursor.seen {
        // Not all of its messages.
        Seen::Nothing => Lead::Behind(began.saturating_sub(1), None),
        _ => Lead::Behind(began, Some(cursor.turn)),
    }
}

impl Reset {
    fn new(reason: ResetReason) -> Self {
        Self { reason, turn: None }
    }
}

//! The turns under way as lists of items, for showing. Pure.
//!
//! Attaching late, attaching again and resuming are one operation: reading on from a
//! [`Position`]. Items of the running and the last finished turn are kept, older ones only while
//! a session still reads them.

use std::{collections::VecDeque, ops::Range, sync::Arc};

pub use places::{Misplaced, Passing};

use super::{
    document::{TurnRecord, TurnState},
    event::{Cursor, Event, EventBody, Outcome, Received, Seen},
    message::StoredMessage,
    tool_calls,
};
use crate::{
    error::EngineError,
    id::{MessageId, TurnId},
    json_text::{JsonText, cut_at_or_below, decoded_len},
    log::entry::{ABANDONED, CANCELLED, INTERRUPTED, UNANSWERED},
    provider::{RawJson, ReplyHead},
};

mod places;

/// A place to read on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Which turn, counted since the actor began.
    pub ordinal: u64,
    /// Which item of it.
    pub item: u32,
    /// Byte within the item, escaped.
    pub byte: u32,
    /// UTF-8 bytes of reply text before it.
    pub offset: u64,
}

/// A piece of a turn.
#[derive(Debug)]
enum Item {
    Text(Span),
    Reasoning(Span),
    Whole(EventBody),
}

/// Escaped text: growing while the reply runs, then a part of the stored message.
#[derive(Debug)]
enum Span {
    Growing(String),
    Stored(Arc<str>, Range<usize>),
}

impl Span {
    fn as_str(&self) -> &str {
        match self {
            Self::Growing(text) => text,
            Self::Stored(fragment, range) => &fragment[range.clone()],
        }
    }
}

/// Growth of a reply's buffer is bounded, so that a long reply is not held twice.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// One turn, as its watchers see it.
#[derive(Debug)]
pub struct TurnStream {
    turn: TurnId,
    reply: MessageId,
    /// Tells this text from the same turn's told at another time.
    epoch: u32,
    head: Arc<ReplyHead>,
    replaces: Option<MessageId>,
    items: Vec<Item>,
    /// The first item that passes members of a delta through.
    first_delta: Option<usize>,
    shown: Shown,
}

/// Set in the epochs of live text, which hold the run of the turn, and are random otherwise. Text
/// told from the log has the run as its epoch: the same entries are told in the same items.
const LIVE: u32 = 1 << 31;
const RUN_SHIFT: u32 = 24;
const RUN_MAX: u32 = 0x7f;

/// Which run of a turn an epoch is of.
pub fn run_of(epoch: u32) -> u32 {
    match epoch & LIVE {
        0 => epoch.min(RUN_MAX),
        _ => epoch >> RUN_SHIFT & RUN_MAX,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Not before its acceptance is synced.
    No,
    Yes,
    /// Its last item is there.
    Whole,
}

impl TurnStream {
    /// A turn whose acceptance is on its way to the log.
    #[must_use]
    pub fn new(turn: TurnId, reply: MessageId) -> Self {
        Self {
            turn,
            reply,
            epoch: 1,
            head: Arc::default(),
            replaces: None,
            items: Vec::new(),
            first_delta: None,
            shown: Shown::No,
        }
    }

    /// The same, for a turn that runs once more: its text is another one.
    #[must_use]
    pub fn run(mut self, attempt: u32) -> Self {
        self.epoch = attempt;
        self
    }

    /// The turn.
    #[must_use]
    pub fn turn(&self) -> TurnId {
        self.turn
    }

    /// Which run of the turn it is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        run_of(self.epoch)
    }

    /// Id that the reply has.
    #[must_use]
    pub fn reply(&self) -> MessageId {
        self.reply
    }

    /// Who answers.
    #[must_use]
    pub fn head(&self) -> &Arc<ReplyHead> {
        &self.head
    }

    /// Sets who answers.
    pub fn set_head(&mut self, head: Arc<ReplyHead>) {
        self.head = head;
    }

    /// The acceptance is synced: from now on the turn may be shown.
    pub fn show(&mut self, received: Received) {
        self.replace(&received);
        self.items
            .insert(0, Item::Whole(EventBody::Received(received)));
        self.first_delta = self.first_delta.map(|index| index + 1);
        self.shown = Shown::Yes;
    }

    /// A turn that has ended, from the history; one that failed fails again.
    #[must_use]
    pub fn from_record(record: &TurnRecord) -> Option<Self> {
        let TurnState::Ended(ended) = &record.state else {
            return None;
        };
        let error = ended.error.as_ref().map(|_code| EngineError::Restarted);
        Self::ended_as(record, error)
    }

    /// A turn that has ended, from the history; whatever there is of its reply is its reply, and
    /// the finish reason tells whether that is all.
    #[must_use]
    pub fn retold(record: &TurnRecord) -> Option<Self> {
        Self::ended_as(record, None)
    }

    /// The messages of a turn alone, from the history: its first run.
    #[must_use]
    pub fn of_messages(record: &TurnRecord) -> Option<Self> {
        let mut stream = Self::new(record.turn?, record.reply_id?);
        stream.show(Self::received_by(record));
        Some(stream)
    }

    /// The last run of a turn that has ended, from the history, without the messages: they were
    /// told with the first one.
    #[must_use]
    pub fn ran_again(record: &TurnRecord) -> Option<Self> {
        let mut stream = Self::retold(record)?;
        if let Some(Item::Whole(EventBody::Received(received))) = stream.items.first_mut() {
            received.before.clear();
            received.messages.clear();
        }
        Some(stream)
    }

    fn received_by(record: &TurnRecord) -> Received {
        let (received, before) = (record.received(), record.stayed());
        Received {
            message: received.last().and_then(StoredMessage::id),
            before: before.to_vec(),
            messages: received[before.len()..].to_vec(),
            key: record.key.as_ref().map(|known| known.0.key.clone()),
            replacing: record.branch.as_ref().map(|branch| branch.told()),
            told: 0,
        }
    }

    fn ended_as(record: &TurnRecord, error: Option<EngineError>) -> Option<Self> {
        let TurnState::Ended(ended) = &record.state else {
            return None;
        };
        let reply = record.reply();
        let timestamp = reply.map_or(ended.at, StoredMessage::timestamp);
        let turn = record.turn?;
        let mut stream = Self::new(turn, record.reply_id?);
        stream.epoch = ended.attempt;
        // The upstream's own id is not stored: the turn's stands for it.
        stream.set_head(Arc::new(ReplyHead {
            id: turn.to_string(),
            model: reply.and_then(StoredMessage::model).unwrap_or_default(),
            provider: None,
            created: timestamp.micros() / 1_000_000,
        }));
        stream.show(Self::received_by(record));
        let cut = ended.error.is_some()
            || [ABANDONED, CANCELLED, INTERRUPTED, UNANSWERED]
                .contains(&ended.finish_reason.as_str());
        // One that was stopped while it waited, or owed no reply, had no start.
        if reply.is_some() || !cut {
            stream.start(stream.head.model.as_str().into());
        }
        if let Some(reply) = reply {
            let range = reply.text_range();
            if !range.is_empty() {
                let text = Span::Stored(reply.fragment().clone(), range);
                stream.items.push(Item::Text(text));
            }
            if let Some(members) = reply.tool_calls().and_then(tool_calls::as_delta) {
                stream.push_delta(members);
            }
        }
        if !cut {
            stream.push_finish(ended.finish_reason.clone(), None);
        }
        if let Some(usage) = &ended.usage {
            stream.push_usage(usage.clone());
        }
        stream.end(Arc::new(Outcome {
            finish_reason: ended.finish_reason.clone(),
            native_finish_reason: None,
            reply: reply.cloned(),
            reasoning: None,
            usage: ended.usage.clone(),
            head: stream.head.clone(),
            timestamp,
            error,
        }));
        Some(stream)
    }

    /// What was received; none before it is synced.
    #[must_use]
    pub fn received(&self) -> Option<&Received> {
        match self.items.first() {
            Some(Item::Whole(EventBody::Received(received))) => Some(received),
            Some(_) | None => None,
        }
    }

    /// Replaces what was received: a message that waits may be given a later time.
    pub fn receive_again(&mut self, received: Received) {
        self.replace(&received);
        if let Some(Item::Whole(EventBody::Received(old))) = self.items.first_mut() {
            *old = received;
        }
    }

    /// Notes what the turn replaces; it may have been started before that could be told.
    fn replace(&mut self, received: &Received) {
        self.replaces = received.replacing.and_then(|it| it.message);
        for item in &mut self.items {
            if let Item::Whole(EventBody::Started { replaces, .. }) = item {
                *replaces = self.replaces;
            }
        }
    }

    /// The upstream is asked.
    pub fn start(&mut self, model: Arc<str>) {
        let replaces = self.replaces;
        self.items
            .push(Item::Whole(EventBody::Started { model, replaces }));
    }

    /// Appends reply text, joined to text right before it.
    pub fn push_text(&mut self, text: JsonText) {
        match self.items.last_mut() {
            Some(Item::Text(Span::Growing(growing))) => append(growing, &text),
            Some(_) | None => self
                .items
                .push(Item::Text(Span::Growing(text.into_escaped()))),
        }
    }

    /// Appends reasoning text, joined to reasoning right before it.
    pub fn push_reasoning(&mut self, text: JsonText) {
        match self.items.last_mut() {
            Some(Item::Reasoning(Span::Growing(growing))) => append(growing, &text),
            Some(_) | None => self
                .items
                .push(Item::Reasoning(Span::Growing(text.into_escaped()))),
        }
    }

    /// Appends members of a delta that are passed through.
    pub fn push_delta(&mut self, members: RawJson) {
        let head = self.head.clone();
        self.first_delta.get_or_insert(self.items.len());
        self.items
            .push(Item::Whole(EventBody::Delta { members, head }));
    }

    /// Appends the finish reason.
    pub fn push_finish(&mut self, reason: String, native: Option<String>) {
        let head = self.head.clone();
        self.items.push(Item::Whole(EventBody::Finish {
            reason,
            native,
            head,
        }));
    }

    /// Appends the usage.
    pub fn push_usage(&mut self, usage: RawJson) {
        let head = self.head.clone();
        self.items
            .push(Item::Whole(EventBody::Usage { usage, head }));
    }

    /// Marks where another request goes on with the reply.
    pub fn push_seam(&mut self, model: Arc<str>) {
        let offset = self
            .text_spans()
            .map(|span| decoded_len(span.as_str()) as u64);
        let offset = offset.sum();
        self.items
            .push(Item::Whole(EventBody::Seam { offset, model }));
    }

    /// The end is in the log: nothing follows.
    pub fn end(&mut self, outcome: Arc<Outcome>) {
        self.items.push(Item::Whole(EventBody::Ended(outcome)));
        self.shown = Shown::Whole;
    }

    /// The text is whole and stands in the message that is about to be stored: the items point
    /// there from now on, so that it is held once.
    pub fn settle(&mut self, reply: &StoredMessage) {
        let mut start = reply.text_range().start;
        for item in &mut self.items {
            if let Item::Text(span) = item {
                let range = start..start + span.as_str().len();
                start = range.end;
                if reply.fragment().get(range.clone()) == Some(span.as_str()) {
                    *span = Span::Stored(reply.fragment().clone(), range);
                }
            }
        }
    }

    /// No more of the reply was heard than this one says: whoever has not been told more of it is
    /// told that. The places of all items stay, for those who read them.
    pub fn cut(&mut self, reply: &StoredMessage) {
        let Range { mut start, end } = reply.text_range();
        let nothing = || Item::Text(Span::Stored(reply.fragment().clone(), end..end));
        for item in &mut self.items {
            match item {
                Item::Text(span) => {
                    let range = start..end.min(start + span.as_str().len());
                    start = range.end;
                    *span = Span::Stored(reply.fragment().clone(), range);
                }
                Item::Whole(EventBody::Seam { offset, .. })
                    if *offset > reply.text_len() as u64 =>
                {
                    *item = nothing();
                }
                // A turn that was stopped has none.
                Item::Whole(EventBody::Finish { .. }) => *item = nothing(),
                Item::Whole(EventBody::Ended(outcome)) => {
                    *outcome = Arc::new(Outcome {
                        finish_reason: CANCELLED.to_owned(),
                        native_finish_reason: None,
                        reply: Some(reply.clone()),
                        error: None,
                        ..Outcome::clone(outcome)
                    });
                }
                Item::Reasoning(_) | Item::Whole(_) => {}
            }
        }
    }

    /// Escaped bytes of all reply text so far.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text_spans().map(|span| span.as_str().len()).sum()
    }

    /// The reply text from a byte on, escaped.
    #[must_use]
    pub fn text_from(&self, from: usize) -> String {
        let mut text = String::new();
        let mut skip = from;
        for span in self.text_spans() {
            let span = span.as_str();
            text.push_str(span.get(skip..).unwrap_or_default());
            skip = skip.saturating_sub(span.len());
        }
        text
    }

    fn text_spans(&self) -> impl Iterator<Item = &Span> {
        self.items.iter().filter_map(|item| match item {
            Item::Text(span) => Some(span),
            Item::Reasoning(_) | Item::Whole(_) => None,
        })
    }

    /// All reply text so far.
    #[must_use]
    pub fn text(&self) -> JsonText {
        self.joined(|item| match item {
            Item::Text(span) => Some(span),
            Item::Reasoning(_) | Item::Whole(_) => None,
        })
    }

    /// All reasoning so far.
    #[must_use]
    pub fn reasoning(&self) -> JsonText {
        self.joined(|item| match item {
            Item::Reasoning(span) => Some(span),
            Item::Text(_) | Item::Whole(_) => None,
        })
    }

    fn joined(&self, pick: impl Fn(&Item) -> Option<&Span>) -> JsonText {
        let bytes = self
            .items
            .iter()
            .filter_map(&pick)
            .map(|span| span.as_str().len())
            .sum();
        let mut text = JsonText::with_capacity(bytes);
        for span in self.items.iter().filter_map(&pick) {
            text.push_escaped(span.as_str());
        }
        text
    }

    /// Whether its last item is there.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.shown == Shown::Whole
    }

    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Option<&Arc<Outcome>> {
        match self.items.last() {
            Some(Item::Whole(EventBody::Ended(outcome))) => Some(outcome),
            Some(_) | None => None,
        }
    }

    /// The event of its end, once it has ended.
    #[must_use]
    pub fn last_event(&self) -> Option<Arc<Event>> {
        let (event, _) = self.read(self.last(0)?, 0)?;
        Some(Arc::new(event))
    }

    /// The next event at a position, of at most `bytes_max` bytes of text, and the position after it.
    #[must_use]
    pub fn read(&self, at: Position, bytes_max: usize) -> Option<(Event, Position)> {
        if self.shown == Shown::No {
            return None;
        }
        let mut at = at;
        let (body, after) = loop {
            let item = self.items.get(at.item as usize)?;
            let next_item = Position {
                item: at.item + 1,
                byte: 0,
                ..at
            };
            match item {
                Item::Whole(EventBody::Received(received)) if at.byte > 0 => {
                    break (EventBody::Received(received.behind(at.byte)), next_item);
                }
                Item::Whole(body) => break (body.clone(), next_item),
                Item::Text(span) | Item::Reasoning(span) => {
                    let escaped = span.as_str();
                    let from = at.byte as usize;
                    if from >= escaped.len() {
                        // Read to its end; it may still grow while it is the last.
                        self.items.get(next_item.item as usize)?;
                        at = next_item;
                        continue;
                    }
                    let cut = cut_at_or_below(escaped, from, from + bytes_max);
                    let slice = &escaped[from..cut];
                    let mut text = JsonText::with_capacity(slice.len());
                    text.push_escaped(slice);
                    let head = self.head.clone();
                    let mut after = at;
                    after.byte = u32::try_from(cut).unwrap_or(u32::MAX);
                    let body = if matches!(item, Item::Text(_)) {
                        after.offset += decoded_len(slice) as u64;
                        EventBody::Text {
                            offset: at.offset,
                            text,
                            head,
                        }
                    } else {
                        EventBody::Reasoning { text, head }
                    };
                    break (body, after);
                }
            }
        };
        let cursor = self.cursor(after);
        Some((Event::new(self.turn, self.reply, cursor, body), after))
    }
}

fn append(growing: &mut String, text: &JsonText) {
    let more = text.as_escaped();
    if growing.capacity() - growing.len() < more.len() {
        let room = growing
            .len()
            .clamp(more.len(), GROWTH_BYTES_MAX.max(more.len()));
        growing.reserve_exact(room);
    }
    growing.push_str(more);
}

/// The streams of a conversation, oldest first.
#[derive(Debug)]
pub struct Streams {
    epoch: u32,
    first: u64,
    turns: VecDeque<TurnStream>,
    /// The event read last: watchers at the same place share it.
    last: Option<(Position, usize, Arc<Event>, Position)>,
}

impl Streams {
    /// No turns yet.
    #[must_use]
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            first: 0,
            turns: VecDeque::new(),
            last: None,
        }
    }

    /// Adds a turn and tells its ordinal.
    pub fn push(&mut self, mut stream: TurnStream) -> u64 {
        let ordinal = self.end();
        // Two runs of a turn are two texts.
        let low = u32::try_from(ordinal % u64::from(LIVE)).unwrap_or_default();
        let random = self.epoch.wrapping_add(low) & ((1 << RUN_SHIFT) - 1);
        stream.epoch = LIVE | run_of(stream.epoch) << RUN_SHIFT | random;
        self.turns.push_back(stream);
        ordinal
    }

    /// Takes back a turn that was never shown. Only the newest ones are.
    pub fn remove(&mut self, ordinal: u64) -> Option<TurnStream> {
        let index = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        let stream = self.turns.get_mut(index)?;
        // Its place stays, so that the ordinals after it hold; nobody finds it or is ever shown it.
        let mut gone = TurnStream::new(TurnId(uuid::Uuid::nil()), stream.reply);
        gone.shown = Shown::Whole;
        Some(std::mem::replace(stream, gone))
    }

    /// The ordinal that the next turn will have.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.turns.len() as u64
    }

    /// The ordinal of the first turn that has not ended; all have: that of the next one.
    #[must_use]
    pub fn first_open(&self) -> u64 {
        let open = self.turns.iter().position(|stream| !stream.ended());
        self.first + open.unwrap_or(self.turns.len()) as u64
    }

    /// A turn by its ordinal.
    #[must_use]
    pub fn get(&self, ordinal: u64) -> Option<&TurnStream> {
        let index = ordinal.checked_sub(self.first)?;
        self.turns.get(usize::try_from(index).ok()?)
    }

    /// A turn by its ordinal.
    pub fn get_mut(&mut self, ordinal: u64) -> Option<&mut TurnStream> {
        let index = ordinal.checked_sub(self.first)?;
        // Whoever changes a stream makes the shared event stale only where it ends: text grows.
        self.last = None;
        self.turns.get_mut(usize::try_from(index).ok()?)
    }

    /// The ordinal of a turn.
    #[must_use]
    pub fn find(&self, turn: TurnId) -> Option<u64> {
        let index = self.turns.iter().rposition(|stream| stream.turn == turn)?;
        Some(self.first + index as u64)
    }

    /// Where a cursor points, if its turn is here: in the telling that it is of, else in the last.
    pub fn locate(&self, cursor: Cursor) -> Option<Result<Position, Misplaced>> {
        let telling = self.find_telling(cursor);
        let ordinal = telling.or_else(|| self.find(cursor.turn))?;
        Some(self.get(ordinal)?.place(ordinal, cursor))
    }

    /// The ordinal of the very telling that a cursor is of.
    #[must_use]
    pub fn find_telling(&self, cursor: Cursor) -> Option<u64> {
        let same = |it: &TurnStream| it.turn == cursor.turn && it.epoch == cursor.epoch;
        let index = self.turns.iter().rposition(same)?;
        Some(self.first + index as u64)
    }

    /// The ordinal of a run of a turn.
    #[must_use]
    pub fn find_run(&self, turn: TurnId, run: usize) -> Option<u64> {
        let same = |it: &TurnStream| it.turn == turn && it.attempt() as usize == run;
        let index = self.turns.iter().rposition(same)?;
        Some(self.first + index as u64)
    }

    /// The next event from a position on, across turns, and the position after it.
    pub fn read(&mut self, at: Position, bytes_max: usize) -> Option<(Arc<Event>, Position)> {
        if let Some((from, bytes, event, after)) = &self.last
            && *from == at
            && *bytes == bytes_max
        {
            return Some((event.clone(), *after));
        }
        let mut here = at;
        let (event, after) = loop {
            let stream = self.get(here.ordinal)?;
            match stream.read(here, bytes_max) {
                Some(found) => break found,
                None if stream.ended() => {
                    here = Position {
                        ordinal: here.ordinal + 1,
                        ..Position::default()
                    };
                }
                None => return None,
            }
        };
        let event = Arc::new(event);
        self.last = Some((at, bytes_max, event.clone(), after));
        Some((event, after))
    }

    /// The position of a turn's last event, once it has ended.
    #[must_use]
    pub fn last_of(&self, ordinal: u64) -> Option<Position> {
        self.get(ordinal)?.last(ordinal)
    }

    /// Forgets turns before `needed` that have ended, but keeps the last one that has.
    pub fn trim(&mut self, needed: u64) {
        while self.first < needed
            && self.turns.len() > 1
            && self.turns[0].ended()
            && self.turns[1].ended()
        {
            self.turns.pop_front();
            self.first += 1;
        }
    }

    /// The ordinals of the turns that are here.
    #[must_use]
    pub fn ordinals(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// Forgets everything before `needed` that has ended.
    pub fn clear_ended(&mut self, needed: u64) {
        while self.first < needed && self.turns.front().is_some_and(TurnStream::ended) {
            self.turns.pop_front();
            self.first += 1;
        }
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        conversation::message::{Draft, Role, Stamp},
        time::Timestamp,
    };

    fn outcome(text: &JsonText) -> Arc<Outcome> {
        let stamp = Stamp {
            timestamp: Timestamp::from_micros(1),
            id: MessageId::now(),
            turn: None,
            model: None,
            models: &[],
            finish_reason: Some("stop"),
        };
        Arc::new(Outcome {
            finish_reason: "stop".into(),
            native_finish_reason: None,
            reply: Some(StoredMessage::new(
                &Draft::text(Role::Assistant, text.clone()),
                &stamp,
            )),
            reasoning: None,
            usage: None,
            head: Arc::default(),
            timestamp: Timestamp::from_micros(1),
            error: None,
        })
    }

    fn received() -> Received {
        Received {
            before: Vec::new(),
            messages: Vec::new(),
            message: None,
            key: None,
            replacing: None,
            told: 0,
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Text(String),
        Reasoning(String),
        Read(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            "[a\"é\n🚀]{1,9}".prop_map(Step::Text),
            "[b\\\\]{1,9}".prop_map(Step::Reasoning),
            (6usize..30).prop_map(Step::Read),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn reading_in_any_steps_gives_the_whole_text_once(steps in steps()) {
            let mut streams = Streams::new(7);
            let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
            streams.get_mut(ordinal).unwrap().show(received());
            let mut at = Position { ordinal, ..Position::default() };
            let (mut text, mut reasoning) = (String::new(), String::new());
            let (mut seen_text, mut seen_reasoning) = (String::new(), String::new());
            let mut ended = false;
            let mut take = |event: &Event, ended: &mut bool| match &event.body {
                EventBody::Text { offset, text, .. } => {
                    assert_eq!(*offset as usize, seen_text.len());
                    seen_text.push_str(&crate::json_text::unescape(text.as_escaped()));
                }
                EventBody::Reasoning { text, .. } => {
                    seen_reasoning.push_str(&crate::json_text::unescape(text.as_escaped()));
                }
                EventBody::Ended(_) => *ended = true,
                EventBody::Received(_) | EventBody::Started { .. } | EventBody::Delta { .. }
                | EventBody::Finish { .. } | EventBody::Usage { .. } | EventBody::Seam { .. } | EventBody::Cut { .. } => {}
            };
            for step in steps {
                let stream = streams.get_mut(ordinal).unwrap();
                match step {
                    Step::Text(more) => {
                        text.push_str(&more);
                        stream.push_text(JsonText::escape(&more));
                    }
                    Step::Reasoning(more) => {
                        reasoning.push_str(&more);
                        stream.push_reasoning(JsonText::escape(&more));
                    }
                    Step::Read(bytes_max) => {
                        if let Some((event, after)) = streams.read(at, bytes_max) {
                            take(&event, &mut ended);
                            // A cursor leads back to the very position it was given at.
                            prop_assert_eq!(streams.locate(event.cursor), Some(Ok(after)));
                            at = after;
                        }
                    }
                }
            }
            let outcome = outcome(&streams.get(ordinal).unwrap().text());
            let stream = streams.get_mut(ordinal).unwrap();
            stream.settle(outcome.reply.as_ref().unwrap());
            stream.end(outcome);
            while let Some((event, after)) = streams.read(at, 16) {
                take(&event, &mut ended);
                at = after;
            }
            prop_assert!(ended);
            prop_assert_eq!(seen_text, text);
            prop_assert_eq!(seen_reasoning, reasoning);
        }
    }

    #[test]
    fn nothing_is_shown_before_the_acceptance_is_synced() {
        let mut streams = Streams::new(1);
        let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
        streams
            .get_mut(ordinal)
            .unwrap()
            .push_text(JsonText::escape("early"));
        assert!(streams.read(Position::default(), 100).is_none());
        streams.get_mut(ordinal).unwrap().show(received());
        assert!(streams.read(Position::default(), 100).is_some());
    }

    #[test]
    fn the_last_ended_turn_stays_readable() {
        let mut streams = Streams::new(1);
        for _ in 0..3 {
            let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
            let stream = streams.get_mut(ordinal).unwrap();
            stream.show(received());
            stream.end(outcome(&JsonText::escape("x")));
        }
        streams.trim(streams.end());
        assert!(streams.get(1).is_none());
        assert!(streams.get(2).is_some());
    }
}

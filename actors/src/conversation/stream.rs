//! A turn as a list of items, for showing. Pure.
//!
//! Attaching late, attaching again and resuming are one operation: reading on from a
//! [`Position`].

use std::{ops::Range, sync::Arc};

pub use places::{Misplaced, Passing};

use super::{
    event::{Cursor, Event, EventBody, Outcome, Received, Seen},
    message::StoredMessage,
};
use crate::{
    id::{MessageId, TurnId},
    json_text::{JsonText, cut_at_or_below, decoded_len},
    log::entry::CANCELLED,
    provider::{RawJson, ReplyHead},
};

mod places;
mod recorded;

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

    /// What stands in the place of a turn that was never shown: nothing, and whole.
    pub(super) fn gone(reply: MessageId) -> Self {
        Self {
            shown: Shown::Whole,
            ..Self::new(TurnId(uuid::Uuid::nil()), reply)
        }
    }

    /// From now on it is told as it happens; `number` tells this telling from others.
    pub(super) fn go_live(&mut self, number: u32) {
        let low = number & ((1 << RUN_SHIFT) - 1);
        self.epoch = LIVE | run_of(self.epoch) << RUN_SHIFT | low;
    }

    /// Whether a cursor was given out by this very telling.
    pub(super) fn is_telling_of(&self, cursor: Cursor) -> bool {
        self.turn == cursor.turn && self.epoch == cursor.epoch
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

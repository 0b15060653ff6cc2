//! Places in a turn: the cursor of a position, the position of a cursor, and the text between.

use serde::Serialize;

use super::{Cursor, EventBody, Item, Position, Seen, TurnStream, run_of};
use crate::json_text::{JsonText, cut_at_or_below, decoded_len, escaped_at, is_boundary};

/// Why a cursor leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// It lies beyond the text, of which so many UTF-8 bytes are here.
    Beyond {
        /// UTF-8 bytes of reply text.
        kept: u64,
    },
    /// What was seen is told in other pieces here.
    Untellable,
}

/// What a reader of text alone may pass over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Passing {
    /// Everything that has no event on its transport, and reasoning.
    Reasoning,
    /// Everything that has no event on its transport.
    Silence,
}

impl TurnStream {
    /// The cursor of a position, which comes after an event.
    #[must_use]
    pub fn cursor(&self, at: Position) -> Cursor {
        Cursor {
            turn: self.turn,
            epoch: self.epoch,
            item: at.item,
            byte: at.byte,
            offset: at.offset,
            seen: self.seen(at),
        }
    }

    fn seen(&self, at: Position) -> Seen {
        // Text is read from within its item, everything else from behind it.
        let last = match at.byte {
            0 => (at.item as usize).checked_sub(1),
            _ => Some(at.item as usize),
        };
        let Some(item) = last.and_then(|last| self.items.get(last)) else {
            return Seen::Nothing;
        };
        let delta = self
            .first_delta
            .filter(|first| Some(*first) <= last)
            .map_or(Seen::Started, |_| Seen::Delta);
        match item {
            Item::Whole(EventBody::Received(_)) => Seen::Received,
            Item::Whole(EventBody::Finish { .. }) => Seen::Finish,
            Item::Whole(EventBody::Usage { .. }) => Seen::Usage,
            Item::Whole(EventBody::Ended(_)) => Seen::Ended,
            Item::Text(_) | Item::Reasoning(_) | Item::Whole(_) => delta,
        }
    }

    /// The position of a cursor of this turn.
    pub fn place(&self, ordinal: u64, cursor: Cursor) -> Result<Position, Misplaced> {
        let place = match cursor.epoch == self.epoch {
            true => self.exact(cursor),
            false => self.approach(cursor),
        };
        place.map(|place| Position { ordinal, ..place })
    }

    /// Where the cursor was given out.
    fn exact(&self, cursor: Cursor) -> Result<Position, Misplaced> {
        let beyond = Misplaced::Beyond {
            kept: self.text_len(),
        };
        let (item, byte) = (cursor.item as usize, cursor.byte as usize);
        let within = match self.items.get(item) {
            Some(Item::Text(span) | Item::Reasoning(span)) => is_boundary(span.as_str(), byte),
            Some(Item::Whole(EventBody::Received(received))) => byte < received.parts().max(1),
            Some(Item::Whole(_)) => byte == 0,
            None => item == self.items.len() && byte == 0,
        };
        if !within {
            return Err(beyond);
        }
        let before = self.items[..item].iter().map(|item| match item {
            Item::Text(span) => decoded_len(span.as_str()) as u64,
            Item::Reasoning(_) | Item::Whole(_) => 0,
        });
        let here = match self.items.get(item) {
            Some(Item::Text(span)) => decoded_len(&span.as_str()[..byte]) as u64,
            Some(Item::Reasoning(_) | Item::Whole(_)) | None => 0,
        };
        let offset = before.sum::<u64>() + here;
        if cursor.offset > offset {
            // There was more text when it was given out: the reply was heard in part.
            return Err(beyond);
        }
        Ok(Position {
            item: cursor.item,
            byte: cursor.byte,
            offset,
            ordinal: 0,
        })
    }

    /// The same place in a text of the same turn that was told at another time.
    fn approach(&self, cursor: Cursor) -> Result<Position, Misplaced> {
        let kept = self.text_len();
        if cursor.offset > kept {
            return Err(Misplaced::Beyond { kept });
        }
        // Another run is another text, of which nothing was seen.
        let (before, run) = (run_of(cursor.epoch), run_of(self.epoch));
        let other = before != 0 && before != run;
        if cursor.offset > 0 && other {
            return Err(Misplaced::Beyond { kept: 0 });
        }
        if self.received().is_none() {
            return Ok(Position::default());
        }
        if other && cursor.seen != Seen::Nothing {
            return Ok(self.behind(1));
        }
        let after = |wanted: Seen| self.whole(wanted).map(|index| self.behind(index + 1));
        match cursor.seen {
            Seen::Nothing => Ok(self.within_received(cursor)),
            Seen::Received => Ok(self.behind(1)),
            Seen::Delta if self.first_delta.is_some() => Err(Misplaced::Untellable),
            Seen::Started | Seen::Delta => self.text_place(cursor.offset),
            // Where there is none, it was lost with the end that it announced.
            Seen::Finish | Seen::Usage => after(cursor.seen)
                .or_else(|| self.whole(Seen::Usage).map(|index| self.behind(index)))
                .or_else(|| self.whole(Seen::Ended).map(|index| self.behind(index)))
                .map_or_else(|| self.text_place(cursor.offset), Ok),
            // A turn that runs again is told again.
            Seen::Ended => Ok(after(Seen::Ended).unwrap_or_else(|| self.behind(1))),
        }
    }

    /// Behind some of the messages, where they are told in the same parts.
    fn within_received(&self, cursor: Cursor) -> Position {
        let same = self.received().is_some_and(|received| {
            received.before.is_empty() && (cursor.byte as usize) < received.parts()
        });
        Position {
            byte: if same && cursor.item == 0 {
                cursor.byte
            } else {
                0
            },
            ..Position::default()
        }
    }

    fn whole(&self, wanted: Seen) -> Option<usize> {
        self.items.iter().position(|item| {
            matches!(
                (item, wanted),
                (Item::Whole(EventBody::Started { .. }), Seen::Started)
                    | (Item::Whole(EventBody::Finish { .. }), Seen::Finish)
                    | (Item::Whole(EventBody::Usage { .. }), Seen::Usage)
                    | (Item::Whole(EventBody::Ended(_)), Seen::Ended)
            )
        })
    }

    /// Before the item of this index.
    fn behind(&self, index: usize) -> Position {
        let before = self.items.iter().take(index).map(|item| match item {
            Item::Text(span) => decoded_len(span.as_str()) as u64,
            Item::Reasoning(_) | Item::Whole(_) => 0,
        });
        Position {
            item: u32::try_from(index).unwrap_or(u32::MAX),
            offset: before.sum(),
            ..Position::default()
        }
    }

    /// Behind so many UTF-8 bytes of the reply's text.
    pub fn text_place(&self, offset: u64) -> Result<Position, Misplaced> {
        let beyond = Misplaced::Beyond {
            kept: self.text_len(),
        };
        if offset == 0 {
            return Ok(self.start_of_reply());
        }
        let mut left = usize::try_from(offset).map_err(|_beyond_memory| beyond)?;
        for (index, item) in self.items.iter().enumerate() {
            let Item::Text(span) = item else { continue };
            let length = decoded_len(span.as_str());
            if left > length {
                left -= length;
                continue;
            }
            let byte = escaped_at(span.as_str(), left).ok_or(beyond)?;
            return Ok(Position {
                item: u32::try_from(index).unwrap_or(u32::MAX),
                byte: u32::try_from(byte).unwrap_or(u32::MAX),
                offset,
                ordinal: 0,
            });
        }
        Err(beyond)
    }

    /// Behind the start of the reply; behind what was received where it has none.
    #[must_use]
    pub fn start_of_reply(&self) -> Position {
        self.behind(self.whole(Seen::Started).map_or(1, |index| index + 1))
    }

    /// Whether nothing is left behind a position.
    #[must_use]
    pub fn is_told(&self, at: Position) -> bool {
        at.item as usize >= self.items.len()
    }

    /// UTF-8 bytes of the reply's text.
    #[must_use]
    pub fn text_len(&self) -> u64 {
        self.text_spans()
            .map(|span| decoded_len(span.as_str()) as u64)
            .sum()
    }

    /// The position of its last event, once it has ended.
    #[must_use]
    pub fn last(&self, ordinal: u64) -> Option<Position> {
        self.outcome()?;
        Some(Position {
            ordinal,
            ..self.behind(self.items.len().checked_sub(1)?)
        })
    }

    /// The text from a position on, of at most `bytes_max` escaped bytes, up to the first event that
    /// must be told by itself; and the position and cursor after it.
    #[must_use]
    pub fn text_run(
        &self,
        from: Position,
        passing: Passing,
        bytes_max: usize,
    ) -> (JsonText, Position, Cursor) {
        let mut text = JsonText::default();
        let mut at = from;
        while let Some(item) = self.items.get(at.item as usize) {
            match item {
                Item::Text(span) => {
                    let (escaped, from) = (span.as_str(), at.byte as usize);
                    let room = bytes_max.saturating_sub(text.as_escaped().len());
                    let cut = cut_at_or_below(escaped, from, from + room);
                    text.push_escaped(&escaped[from..cut]);
                    at.offset += decoded_len(&escaped[from..cut]) as u64;
                    at.byte = u32::try_from(cut).unwrap_or(u32::MAX);
                    let grows = self.items.len() == at.item as usize + 1;
                    if cut < escaped.len() || grows {
                        break;
                    }
                }
                Item::Reasoning(_) if passing == Passing::Silence => break,
                Item::Whole(EventBody::Seam { .. } | EventBody::Ended(_)) => break,
                Item::Reasoning(span) if self.items.len() == at.item as usize + 1 => {
                    // It may still grow.
                    at.byte = u32::try_from(span.as_str().len()).unwrap_or(u32::MAX);
                    break;
                }
                Item::Reasoning(_) | Item::Whole(_) => {}
            }
            at.item += 1;
            at.byte = 0;
        }
        (text, at, self.cursor(at))
    }
}

#[cfg(test)]
mod tests;

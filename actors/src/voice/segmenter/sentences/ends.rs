//! What ends a sentence.

use std::time::Duration;

use super::Sentences;
use crate::voice::segmenter::{
    abbreviations,
    chars::{
        is_clause_end, is_closer, is_ellipsis, is_strong_end, is_wide_clause_end, is_wide_end,
    },
};

/// What may end a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Period,
    Ellipsis,
    /// `!` and `?`.
    Strong,
    /// A full stop with no space behind it.
    Wide,
    /// What is not spoken: an emoji, a stage direction.
    Gesture,
}

/// The text ends with what may end a sentence; the next word tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) mark: Mark,
    /// Where in the text the mark stands.
    pub(super) at: usize,
    /// A quote or bracket is closed behind it.
    pub(super) closed: bool,
    /// Since when there is a space behind it.
    pub(super) spaced: Option<Duration>,
}

impl Sentences {
    /// What the text ends with once `c` is behind it.
    pub(super) fn end_with(&self, c: char) -> Option<End> {
        let unspaced = self
            .end
            .filter(|end| end.spaced.is_none() && end.mark != Mark::Gesture);
        let mark = match (unspaced.map(|end| end.mark), c) {
            (Some(Mark::Period | Mark::Ellipsis), '.') => Mark::Ellipsis,
            (Some(Mark::Strong), '.') => Mark::Strong,
            (_, '.') => Mark::Period,
            _ if is_ellipsis(c) => Mark::Ellipsis,
            _ if is_strong_end(c) => Mark::Strong,
            _ if is_wide_end(c) => Mark::Wide,
            _ if is_closer(c) => {
                return unspaced.map(|end| End {
                    closed: true,
                    ..end
                });
            }
            _ => return None,
        };
        Some(End {
            mark,
            at: self.text.len(),
            closed: false,
            spaced: None,
        })
    }

    /// Whether `end` is the end of a sentence, given that `c` follows.
    pub(super) fn ends_sentence(&self, end: &End, c: char) -> bool {
        let is_spaced = end.spaced.is_some();
        let goes_on = is_clause_end(c)
            || is_strong_end(c)
            || is_ellipsis(c)
            || matches!(c, '.' | ')' | ']' | '}');
        if goes_on
            || is_wide_end(c)
            || is_wide_clause_end(c)
            || !(is_spaced || end.mark == Mark::Wide)
        {
            return false;
        }
        match end.mark {
            Mark::Wide => true,
            Mark::Strong => !(c.is_lowercase() && end.closed),
            Mark::Ellipsis => !c.is_lowercase(),
            Mark::Gesture => c.is_alphabetic() && !c.is_lowercase(),
            Mark::Period => {
                let sentence = &self.text[self.sentence.start.min(end.at)..end.at];
                let number = sentence.trim_start();
                let is_list_number =
                    number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit());
                // Who writes without capitals begins sentences without them, too.
                let may_begin = !c.is_lowercase() || self.sentence.lower == Some(true);
                may_begin && !is_list_number && !abbreviations::keeps_going(sentence, c)
            }
        }
    }
}

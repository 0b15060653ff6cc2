//! Cuts what is spoken into phrases and sentences.

mod ends;
mod tail;

use std::{ops::Range, time::Duration};

use self::{
    ends::{End, Mark},
    tail::Tail,
};
use super::{
    SegmenterOptions,
    chars::{is_clause_end, is_closer, is_unspaced, is_wide_clause_end, weight},
    markup::{Event, Voice},
};
use crate::voice::segment::{Segment, Spans};

/// Least bound of a segment's length.
const LONGEST_MIN: usize = 40;

/// A place to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// In the text to be spoken: what is before it goes.
    text: usize,
    /// In the reply.
    source: usize,
}

/// The sentence that the text ends with.
#[derive(Debug, Clone, Copy, Default)]
struct Sentence {
    /// Where in the text it begins.
    start: usize,
    /// Whether its first letter is a small one, once there is a letter.
    lower: Option<bool>,
}

pub(super) struct Sentences {
    options: SegmenterOptions,
    sequence: u32,
    ready: Vec<Segment>,
    /// Where in the reply the next segment begins.
    start: usize,
    text: String,
    spans: Spans,
    weight: usize,
    /// There is a letter or a digit in the text.
    speakable: bool,
    /// The space behind the text, and where its last byte stands in the reply.
    space: Option<(char, usize)>,
    /// Where behind that space markup begins: it belongs to the word to come.
    opening: Option<usize>,
    end: Option<End>,
    /// The text ends with a comma or the like.
    clause_ends: bool,
    sentence: Sentence,
    /// The last places to cut at.
    word: Option<Cut>,
    clause: Option<Cut>,
    /// Behind a short sentence, complete since then.
    held: Option<(Cut, Duration)>,
    /// Behind all of the text, which looks like a whole sentence since then: no space need follow.
    wide: Option<(Cut, Duration)>,
    /// When the first phrase began.
    began: Option<Duration>,
    /// The end of the reply so far.
    tail: Tail,
}

impl Sentences {
    pub(super) fn new(options: SegmenterOptions) -> Self {
        let longest = options.longest.max(LONGEST_MIN);
        Self {
            options: SegmenterOptions { longest, ..options },
            sequence: 0,
            ready: Vec::new(),
            start: 0,
            text: String::new(),
            spans: Spans::default(),
            weight: 0,
            speakable: false,
            space: None,
            opening: None,
            end: None,
            clause_ends: false,
            sentence: Sentence::default(),
            word: None,
            clause: None,
            held: None,
            wide: None,
            began: None,
            tail: Tail::default(),
        }
    }

    /// What is complete.
    pub(super) fn ready(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.ready)
    }

    pub(super) fn take(&mut self, event: Event, now: Duration) {
        match event {
            Event::Opening { at } => self.word_begins(at, '*', now),
            Event::Block { at } => {
                if self.speakable {
                    self.emit(self.cut(at));
                }
            }
            Event::Char { at, c, voice } => {
                match voice {
                    Voice::Spoken => self.spoken(at, c, now),
                    Voice::Cell => {
                        self.space = None;
                        if !self.text.is_empty() {
                            self.spoken(at, ',', now);
                        }
                    }
                    Voice::Space => self.space(at, c, now),
                    Voice::Newline => self.newline(at, c, now),
                    Voice::Gesture => self.gesture(now),
                    Voice::Silent => self.silent(at, c),
                }
                self.tail.push(c);
            }
        }
    }

    /// Sends what is held for too long.
    pub(super) fn poll(&mut self, now: Duration) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            match self.best_cut() {
                Some(cut) => self.emit(cut),
                None => break,
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let begun = self
            .began
            .filter(|_| self.sequence == 0 && self.word.is_some());
        let held = self.held.map(|(_, since)| since);
        let wide = self.wide.map(|(_, since)| since);
        let since = [begun, held, wide, self.paused()];
        let since = since.into_iter().flatten().min()?;
        Some(since + self.options.patience)
    }

    /// The reply, of so many bytes, is over; returns what of it is behind the last segment.
    pub(super) fn finish(&mut self, source: usize) -> Range<usize> {
        if self.speakable {
            self.emit(self.cut(source));
        }
        self.start..source
    }

    /// Since when the text looks like a whole sentence.
    fn paused(&self) -> Option<Duration> {
        let end = self
            .end
            .filter(|end| matches!(end.mark, Mark::Period | Mark::Strong))?;
        let since = end.spaced?;
        self.word?;
        (self.speakable && self.ends_sentence(&end, 'A')).then_some(since)
    }

    /// Where to cut when there is no time for what comes.
    fn best_cut(&self) -> Option<Cut> {
        if self.paused().is_some() {
            return self.word;
        }
        if let Some((cut, _)) = self.held.or(self.wide) {
            return Some(cut);
        }
        let word = self.word?;
        Some(
            self.clause
                .filter(|clause| clause.text * 2 >= word.text)
                .unwrap_or(word),
        )
    }

    fn spoken(&mut self, at: usize, c: char, now: Duration) {
        self.word_begins(at, c, now);
        let space = self.space.map_or(0, |_| 1);
        while self.weight + space + weight(c) > self.options.longest {
            let far = |clause: &Cut| clause.text * 3 >= self.text.len();
            let here = self.tail.ends_grapheme(at, c).then(|| self.cut(at));
            match self
                .clause
                .filter(far)
                .or(self.word)
                .or(here.filter(|_| self.speakable))
            {
                Some(cut) => self.emit(cut),
                // Nobody can say it; so it is not kept.
                None if self.weight > 2 * self.options.longest => return,
                None => break,
            }
        }
        if let Some((space, last)) = self.space.take()
            && !self.text.is_empty()
        {
            self.spans.push(self.text.len(), last, 1);
            self.text.push(space);
            self.weight += 1;
        }
        self.opening = None;
        self.end = self.end_with(c);
        self.clause_ends =
            is_clause_end(c) || is_wide_clause_end(c) || (self.clause_ends && is_closer(c));
        self.spans.push(self.text.len(), at, c.len_utf8());
        self.text.push(c);
        self.weight += weight(c);
        let since = self.wide.map_or(now, |(_, since)| since);
        self.wide =
            (self.speakable && self.ends_wide()).then(|| (self.cut(at + c.len_utf8()), since));
        if c.is_alphanumeric() {
            self.speakable = true;
            self.began.get_or_insert(now);
            if c.is_alphabetic() {
                self.sentence.lower.get_or_insert(c.is_lowercase());
            }
        }
    }

    fn space(&mut self, at: usize, c: char, now: Duration) {
        self.opening = None;
        if self.text.is_empty() || self.space.is_some() {
            return;
        }
        self.space = Some((' ', at + c.len_utf8() - 1));
        if let Some(end) = &mut self.end {
            end.spaced.get_or_insert(now);
        }
        if self.speakable && self.tail.ends_grapheme(at, c) {
            self.word = Some(self.cut(at));
            if self.clause_ends {
                self.clause = self.word;
            }
        }
    }

    fn newline(&mut self, at: usize, c: char, now: Duration) {
        self.opening = None;
        let behind = self.cut(at + c.len_utf8());
        let is_blank = matches!(self.space, Some(('\n', _)));
        if !self.speakable {
            // A line without a word is not spoken.
            self.text.clear();
            self.spans.clear();
            self.weight = 0;
            self.space = None;
            self.end = None;
            self.sentence = Sentence::default();
        } else if is_blank {
            self.emit(behind);
        } else {
            self.complete(behind, now);
            if !self.text.is_empty() {
                self.space = Some(('\n', behind.source - 1));
                self.word = Some(behind);
            }
        }
    }

    fn silent(&mut self, at: usize, c: char) {
        if self.space.is_some() && self.opening.is_none() && self.tail.ends_grapheme(at, c) {
            self.opening = Some(at);
        }
    }

    fn gesture(&mut self, now: Duration) {
        self.opening = None;
        if self.end.is_none() && !self.text.is_empty() {
            self.end = Some(End {
                mark: Mark::Gesture,
                at: self.text.len(),
                closed: false,
                spaced: self.space.map(|_| now),
            });
        }
    }

    /// `c` begins a word or goes on with one: cuts before it if it tells that something is over.
    fn word_begins(&mut self, at: usize, c: char, now: Duration) {
        let is_parted = self.space.is_some();
        let is_wide = !is_parted && !is_closer(c) && (self.ends_wide() || self.clause_ends);
        // A first phrase that comes slowly is cut amid what no space parts, if it must be.
        let is_amid = self.sequence == 0
            && self.weight >= self.options.short
            && is_unspaced(c)
            && self.text.ends_with(is_unspaced);
        let is_boundary = self.opening.is_some() || self.tail.ends_grapheme(at, c);
        if !self.speakable || !(is_parted || is_wide || is_amid) || !is_boundary {
            return;
        }
        let cut = self.cut(self.opening.unwrap_or(at));
        if let Some(end) = self.end
            && self.ends_sentence(&end, c)
        {
            self.complete(cut, now);
            if let (Mark::Gesture, Some((space, _))) = (end.mark, &mut self.space) {
                // A pause where no mark is spoken.
                *space = '\n';
            }
        } else if self.clause_ends
            && (is_parted || self.text.ends_with(is_wide_clause_end))
            && !is_clause_end(c)
        {
            self.clause = Some(cut);
            self.word = Some(cut);
            if self.sequence == 0 && self.weight >= self.options.first_phrase {
                self.emit(cut);
            }
        } else if is_parted || is_amid {
            self.word = Some(cut);
        }
    }

    fn ends_wide(&self) -> bool {
        self.end.is_some_and(|end| end.mark == Mark::Wide)
    }

    /// A sentence is over.
    fn complete(&mut self, cut: Cut, now: Duration) {
        if self.weight >= self.options.short {
            self.emit(cut);
            return;
        }
        self.held = Some((cut, now));
        self.word = Some(cut);
        self.clause = Some(cut);
        self.end = None;
        self.clause_ends = false;
        self.sentence = Sentence {
            start: cut.text,
            lower: None,
        };
    }

    /// A cut behind all of the text.
    fn cut(&self, source: usize) -> Cut {
        Cut {
            text: self.text.len(),
            source,
        }
    }

    fn emit(&mut self, cut: Cut) {
        let spoken = self.text[..cut.text].trim_end().len();
        let behind = &self.text[cut.text..];
        let rest = self.text.len() - behind.trim_start().len();
        let spans = self.spans.split(spoken, rest);
        let behind = self.text.split_off(rest);
        self.text.truncate(spoken);
        self.text.shrink_to_fit();
        self.ready.push(Segment {
            sequence: self.sequence,
            source: self.start..cut.source,
            text: std::mem::replace(&mut self.text, behind),
            spans: std::mem::replace(&mut self.spans, spans),
        });
        self.sequence = self.sequence.saturating_add(1);
        self.start = cut.source;
        self.weight = self.text.chars().map(weight).sum();
        self.speakable = self.text.contains(char::is_alphanumeric);
        let text = &self.text;
        let moved = |place: Cut| {
            let end = place.text.checked_sub(rest)?;
            let is_speakable = text[..end].contains(char::is_alphanumeric);
            is_speakable.then_some(Cut { text: end, ..place })
        };
        self.word = self.word.and_then(moved);
        self.clause = self.clause.and_then(moved);
        self.held = self
            .held
            .and_then(|(cut, since)| Some((moved(cut)?, since)));
        self.wide = self
            .wide
            .and_then(|(cut, since)| Some((moved(cut)?, since)));
        if self.text.is_empty() {
            self.space = None;
            self.opening = None;
            self.end = None;
            self.clause_ends = false;
            self.sentence = Sentence::default();
        }
        self.sentence.start = self.sentence.start.saturating_sub(rest);
        if let Some(end) = &mut self.end {
            end.at = end.at.saturating_sub(rest);
        }
    }
}

//! Cuts a reply into what is spoken in one go, while the reply comes in.
//!
//! A voice sounds right when it is given whole sentences, and starts soon when it is given little.
//! So the first phrase goes out early, and what follows sentence by sentence. Which text is spoken
//! is settled first (`markup`), character by character; then where to cut it (`sentences`).
//! Neither looks at how the text was cut on its way here: while no time passes, the segments are
//! those of the whole text.
//!
//! Crates that split text into sentences want the whole of it, and cannot tell whether what they
//! call a sentence would still be one with more text; so the rules are here, and only Unicode's
//! tables are not.

mod abbreviations;
mod actions;
mod chars;
mod markup;
mod sentences;
mod url;

use std::{ops::Range, time::Duration};

use self::{markup::Markup, sentences::Sentences};
use super::segment::Segment;

/// What becomes of stage directions, such as `*smiles softly*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Directions {
    /// They are not spoken.
    #[default]
    Skip,
    /// They are spoken like the rest.
    Read,
}

/// How a reply is cut. Lengths are in Latin letters; an ideograph counts as three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmenterOptions {
    /// Stage directions are not spoken by default.
    pub directions: Directions,
    /// How long text is held for what it might be joined with: the first phrase ends with a word
    /// after it, and a short sentence goes alone. 250 ms by default, which a listener hardly
    /// notices.
    pub patience: Duration,
    /// Least length of a first phrase that ends with a clause, 20 by default.
    pub first_phrase: usize,
    /// A sentence shorter than this is joined with the next, 16 by default.
    pub short: usize,
    /// Longest segment; 250 by default, some 15 seconds of speech. At least 40.
    pub longest: usize,
}

impl Default for SegmenterOptions {
    fn default() -> Self {
        Self {
            directions: Directions::Skip,
            patience: Duration::from_millis(250),
            first_phrase: 20,
            short: 16,
            longest: 250,
        }
    }
}

/// What is left at the end of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The last segments.
    pub segments: Vec<Segment>,
    /// Bytes of the reply behind the last of all segments: what is not spoken and came after that
    /// one was out. Empty for most replies, all of one that has nothing to be spoken.
    pub unspoken: Range<usize>,
}

/// What is spoken of a reply that is there as a whole: without markdown and stage directions. Empty
/// if that is all it has.
#[must_use]
pub fn spoken(reply: &str) -> String {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let mut segments = segmenter.push(reply, Duration::ZERO);
    segments.extend(segmenter.finish().segments);
    let mut spoken = String::with_capacity(reply.len());
    for Segment { text, source, .. } in segments {
        spoken.push_str(&text);
        let behind = reply.get(source).unwrap_or_default();
        // A new line is a longer pause.
        spoken.push(if behind.ends_with('\n') { '\n' } else { ' ' });
    }
    spoken.truncate(spoken.trim_end().len());
    spoken
}

/// Cuts one reply into segments.
///
/// `now` is any clock that does not go back, the same for all calls. Memory is bounded, and the
/// time it takes grows with the text alone.
pub struct Segmenter {
    markup: Markup,
    sentences: Sentences,
}

impl Segmenter {
    /// Begins a reply.
    #[must_use]
    pub fn new(options: SegmenterOptions) -> Self {
        Self {
            markup: Markup::new(options.directions),
            sentences: Sentences::new(options),
        }
    }

    /// Takes more of the reply, and returns what is complete now.
    pub fn push(&mut self, text: &str, now: Duration) -> Vec<Segment> {
        let Self { markup, sentences } = self;
        sentences.poll(now);
        markup.push(text, &mut |event| sentences.take(event, now));
        sentences.poll(now);
        sentences.ready()
    }

    /// When to call [`poll`](Self::poll) if no text comes until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.sentences.deadline()
    }

    /// Returns what was held long enough.
    pub fn poll(&mut self, now: Duration) -> Vec<Segment> {
        self.sentences.poll(now);
        self.sentences.ready()
    }

    /// The reply is over: returns what is left of it.
    #[must_use]
    pub fn finish(self) -> Ending {
        let Self {
            mut markup,
            mut sentences,
        } = self;
        // What is decided only now is complete now: time plays no part.
        let now = Duration::ZERO;
        markup.finish(&mut |event| sentences.take(event, now));
        let unspoken = sentences.finish(markup.source_len());
        Ending {
            segments: sentences.ready(),
            unspoken,
        }
    }

    /// Bytes of the reply so far.
    #[must_use]
    pub fn source_len(&self) -> usize {
        self.markup.source_len()
    }
}

#[cfg(test)]
mod tests;

//! How much of a reply somebody has heard.
//!
//! A client tells how much of which segment it has played. With an alignment that is told to the
//! word; without one, a segment was heard when all of it was played.

use unicode_segmentation::UnicodeSegmentation;

use super::{alignment::Alignment, segment::Segment};

/// A word counts as heard once this much of it was played, of four.
const QUARTERS_HEARD: u32 = 3;

/// Follows what a client plays of one reply.
#[derive(Debug, Default)]
pub struct Heard {
    segments: Vec<Spoken>,
    /// Bytes of the whole reply, once it is over.
    ended: Option<usize>,
    /// The furthest that was reported: a segment, and milliseconds of it.
    played: Option<(usize, u32)>,
}

#[derive(Debug)]
struct Spoken {
    segment: Segment,
    words: Vec<Word>,
    /// Milliseconds of all its audio, once that is known.
    total_ms: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    /// Where it ends in the reply, with the punctuation behind it.
    source_end: usize,
    /// Letters and digits of it.
    letters: usize,
    /// How much of the segment is played when it counts as heard, once that is known.
    heard_ms: Option<u32>,
}

impl Heard {
    /// Takes the next segment that is synthesised. They must come in order: another is left out.
    pub fn add(&mut self, segment: Segment) {
        if usize::try_from(segment.sequence) == Ok(self.segments.len()) {
            self.segments.push(Spoken {
                words: words(&segment),
                segment,
                total_ms: None,
            });
        }
    }

    /// Notes when the characters of a segment sound, as far as that is known; replaces what was.
    pub fn align(&mut self, sequence: u32, alignment: &Alignment) {
        if let Some(spoken) = self.get_mut(sequence) {
            spoken.align(alignment);
        }
    }

    /// Notes that all of a segment's audio is so long.
    pub fn set_total(&mut self, sequence: u32, ms: u32) {
        if let Some(spoken) = self.get_mut(sequence) {
            spoken.total_ms = Some(ms);
        }
    }

    /// Notes that the reply is over and so many bytes long. What is behind the last segment is not
    /// spoken, and counts as heard with it.
    pub fn set_ended(&mut self, source_len: usize) {
        self.ended = Some(source_len);
    }

    /// Notes a client's report: it has played all before this segment, and so much of this one.
    /// The furthest report counts. One for a segment that is not there yet is for all that is.
    pub fn report(&mut self, sequence: u32, ms: u32) {
        let Some(last) = self.segments.len().checked_sub(1) else {
            return;
        };
        let report = match usize::try_from(sequence) {
            Ok(number) if number <= last => (number, ms),
            _ => (last, u32::MAX),
        };
        self.played = self.played.max(Some(report));
    }

    /// Bytes of the reply that were heard: up to the end of a word, or of a segment.
    #[must_use]
    pub fn source_offset(&self) -> usize {
        let Some((number, ms)) = self.played else {
            return 0;
        };
        let Some(spoken) = self.segments.get(number) else {
            return 0;
        };
        let end = spoken.heard(ms);
        match self.ended {
            Some(all) if end == spoken.segment.source.end && number + 1 == self.segments.len() => {
                all.max(end)
            }
            _ => end,
        }
    }

    fn get_mut(&mut self, sequence: u32) -> Option<&mut Spoken> {
        self.segments.get_mut(usize::try_from(sequence).ok()?)
    }
}

impl Spoken {
    fn heard(&self, ms: u32) -> usize {
        let source = &self.segment.source;
        if self.total_ms.is_some_and(|total| ms >= total) {
            return source.end;
        }
        let is_heard = |word: &&Word| word.heard_ms.is_some_and(|heard| heard <= ms);
        match self.words.iter().take_while(is_heard).enumerate().last() {
            Some((number, _)) if number + 1 == self.words.len() => source.end,
            Some((_, word)) => word.source_end,
            None => source.start,
        }
    }

    fn align(&mut self, alignment: &Alignment) {
        // Providers add spaces and change quotes; letters are what both texts have in common.
        let mut timed = alignment
            .chars()
            .iter()
            .filter(|timed| timed.c.is_alphanumeric());
        let mut letters = self.segment.text.chars().filter(|c| c.is_alphanumeric());
        let mut before = 0;
        let mut is_known = true;
        for word in &mut self.words {
            let mut span: Option<(u32, u32)> = None;
            for letter in letters.by_ref().take(word.letters) {
                let Some(timed) = timed.next().filter(|timed| is_known && timed.c == letter) else {
                    is_known = false;
                    continue;
                };
                let (start, end) = span.unwrap_or((timed.start_ms, 0));
                span = Some((start, end.max(timed.end_ms())));
            }
            word.heard_ms = span.filter(|_| is_known).map(|(start, end)| {
                let length = end.saturating_sub(start);
                // Words are heard in their order, whatever the times say.
                before = before.max(start.saturating_add(length / 4 * QUARTERS_HEARD));
                before
            });
        }
    }
}

/// The words of a segment; what is between them belongs to the one before.
fn words(segment: &Segment) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_behind_word = false;
    for (at, piece) in segment.text.split_word_bound_indices() {
        let letters = piece.chars().filter(|c| c.is_alphanumeric()).count();
        let Some(source_end) = segment.spans.source_end(at + piece.len()) else {
            continue;
        };
        if letters > 0 {
            words.push(Word {
                source_end,
                letters,
                heard_ms: None,
            });
            is_behind_word = true;
        } else if piece.contains(char::is_whitespace) {
            is_behind_word = false;
        } else if let Some(word) = words.last_mut().filter(|_| is_behind_word) {
            word.source_end = source_end;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::voice::segmenter::{Segmenter, SegmenterOptions};

    const REPLY: &str =
        "*smiles* It is **so good** to see you! [Sit](http://a.b) down here, dear. *waves*";

    /// 100 ms for each character.
    fn alignment(text: &str) -> Alignment {
        let mut alignment = Alignment::default();
        for (number, c) in (0..).zip(text.chars()) {
            alignment.push(c.encode_utf8(&mut [0; 4]), number * 100, 100);
        }
        alignment
    }

    fn segments(reply: &str) -> Vec<Segment> {
        let mut segmenter = Segmenter::new(SegmenterOptions::default());
        let mut segments = segmenter.push(reply, Duration::ZERO);
        segments.extend(segmenter.finish().segments);
        segments
    }

    fn heard(reply: &str) -> Heard {
        let mut heard = Heard::default();
        for segment in segments(reply) {
            heard.add(segment);
        }
        heard.set_ended(reply.len());
        heard
    }

    fn aligned(reply: &str) -> Heard {
        let mut heard = heard(reply);
        for segment in segments(reply) {
            heard.align(segment.sequence, &alignment(&segment.text));
            let count = u32::try_from(segment.text.chars().count()).unwrap();
            heard.set_total(segment.sequence, count * 100);
        }
        heard
    }

    #[test]
    fn words_are_heard_one_by_one() {
        let heard_at = |sequence, ms| {
            let mut heard = aligned(REPLY);
            heard.report(sequence, ms);
            &REPLY[..heard.source_offset()]
        };
        assert_eq!(heard_at(0, 0), "");
        assert_eq!(heard_at(0, 149), "");
        assert_eq!(heard_at(0, 150), "*smiles* It");
        assert_eq!(heard_at(0, 1_200), "*smiles* It is **so good");
        assert_eq!(
            heard_at(0, 2_325),
            "*smiles* It is **so good** to see you! "
        );
        assert_eq!(heard_at(1, 0), "*smiles* It is **so good** to see you! ");
        assert_eq!(
            heard_at(1, 300),
            "*smiles* It is **so good** to see you! [Sit"
        );
        assert_eq!(
            heard_at(1, 1_200),
            "*smiles* It is **so good** to see you! [Sit](http://a.b) down here,"
        );
        assert_eq!(heard_at(1, 9_000), REPLY);
    }

    #[test]
    fn without_an_alignment_a_segment_is_heard_as_a_whole() {
        let mut heard = heard(REPLY);
        assert_eq!(heard.source_offset(), 0);
        heard.report(0, 5_000);
        assert_eq!(heard.source_offset(), 0);
        heard.set_total(0, 5_001);
        assert_eq!(heard.source_offset(), 0);
        heard.report(0, 5_001);
        assert_eq!(&REPLY[heard.source_offset()..][..5], "[Sit]");
        heard.report(1, 0);
        assert_eq!(&REPLY[heard.source_offset()..][..5], "[Sit]");
    }

    #[test]
    fn the_furthest_report_counts() {
        let mut heard = aligned(REPLY);
        heard.report(1, 0);
        let offset = heard.source_offset();
        heard.report(0, 300);
        assert_eq!(heard.source_offset(), offset);
        heard.report(u32::MAX, 0);
        assert_eq!(heard.source_offset(), REPLY.len());
    }

    #[test]
    fn what_another_text_was_aligned_for_is_not_told_to_the_word() {
        let mut heard = heard("I paid 5 dollars for it.");
        heard.align(0, &alignment(" I  paid five dollars for it."));
        heard.report(0, 60_000);
        assert_eq!(heard.source_offset(), "I paid".len());
        heard.set_total(0, 3_000);
        assert_eq!(heard.source_offset(), "I paid 5 dollars for it.".len());
    }

    #[test]
    fn nothing_is_heard_of_nothing() {
        let mut heard = Heard::default();
        heard.report(3, 3);
        heard.align(0, &alignment("a"));
        heard.set_ended(10);
        assert_eq!(heard.source_offset(), 0);
    }

    proptest! {
        #[test]
        fn more_played_is_more_heard(
            reply in "([a-zé你 ]{1,9}[,.!*_😊\n。-]{0,2} ?){0,20}",
            times in prop::collection::vec((0_u32..9_000, 0_u32..900), 0..200),
            totals in prop::collection::vec(prop::option::of(0_u32..9_000), 0..4),
            reports in prop::collection::vec((0_u32..5, 0_u32..10_000), 1..8),
        ) {
            let segments = segments(&reply);
            let build = || {
                let mut heard = heard(&reply);
                for segment in &segments {
                    let mut alignment = Alignment::default();
                    for (c, (start, length)) in segment.text.chars().zip(&times) {
                        alignment.push(c.encode_utf8(&mut [0; 4]), *start, *length);
                    }
                    heard.align(segment.sequence, &alignment);
                }
                for (sequence, total) in (0..).zip(&totals) {
                    if let Some(total) = total {
                        heard.set_total(sequence, *total);
                    }
                }
                heard
            };
            let mut sorted = reports.clone();
            sorted.sort_unstable();
            let mut before = 0;
            for (sequence, ms) in sorted {
                let mut heard = build();
                heard.report(sequence, ms);
                let offset = heard.source_offset();
                prop_assert!(offset >= before && reply.is_char_boundary(offset));
                before = offset;
            }
            let mut all = build();
            for (sequence, ms) in reports {
                all.report(sequence, ms);
            }
            prop_assert_eq!(all.source_offset(), before);
        }
    }
}

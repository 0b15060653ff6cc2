//! A part of a reply that is spoken in one go, and where its words stand in the reply.

use std::ops::Range;

/// A part of a reply, to be synthesised as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Counts from 0 within the reply.
    pub sequence: u32,
    /// Bytes of the reply that it stands for, with what is not spoken of them. The segments of a
    /// reply follow one another without a gap.
    pub source: Range<usize>,
    /// What is to be spoken: there is a letter or a digit in it, and no space around it.
    pub text: String,
    /// Where `text` was taken from.
    pub spans: Spans,
}

/// Maps bytes of a spoken text to those of the reply that it was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans {
    /// Ordered and without a gap in `spoken`; a gap in `source` is what is not spoken.
    runs: Vec<Run>,
}

/// Bytes that are the same in both texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    spoken: usize,
    source: usize,
    bytes: usize,
}

impl Spans {
    /// Where in the reply what ends before the byte `spoken` of the text ends. `None` at 0.
    #[must_use]
    pub fn source_end(&self, spoken: usize) -> Option<usize> {
        let behind = self.runs.partition_point(|run| run.spoken < spoken);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        Some(run.source + run.bytes.min(spoken - run.spoken))
    }

    /// Notes that `bytes` more of the text were taken from `source`.
    pub(crate) fn push(&mut self, spoken: usize, source: usize, bytes: usize) {
        match self.runs.last_mut() {
            Some(last) if last.source + last.bytes == source => last.bytes += bytes,
            _ => self.runs.push(Run {
                spoken,
                source,
                bytes,
            }),
        }
    }

    /// Keeps what stands before the byte `spoken`, and returns what comes from `rest` on.
    pub(crate) fn split(&mut self, spoken: usize, rest: usize) -> Self {
        let mut behind = Self::default();
        for run in &self.runs {
            let from = rest.max(run.spoken);
            let end = run.spoken + run.bytes;
            if from < end {
                behind.push(from - rest, run.source + (from - run.spoken), end - from);
            }
        }
        self.runs.retain(|run| run.spoken < spoken);
        if let Some(last) = self.runs.last_mut() {
            last.bytes = last.bytes.min(spoken - last.spoken);
        }
        behind
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `**Hi** you` spoken as `Hi you`.
    fn spans() -> Spans {
        let mut spans = Spans::default();
        spans.push(0, 2, 1);
        spans.push(1, 3, 1);
        spans.push(2, 6, 4);
        spans
    }

    #[test]
    fn an_end_lies_before_what_is_not_spoken() {
        let spans = spans();
        let ends: Vec<_> = (0..=7).map(|at| spans.source_end(at)).collect();
        let some = |at| Some(at);
        assert_eq!(
            ends,
            [
                None,
                some(3),
                some(4),
                some(7),
                some(8),
                some(9),
                some(10),
                some(10)
            ]
        );
    }

    #[test]
    fn a_split_keeps_both_sides() {
        let mut before = spans();
        let behind = before.split(2, 3);
        assert_eq!(before.source_end(9), Some(4));
        assert_eq!(behind.source_end(1), Some(8));
        assert_eq!(behind.source_end(3), Some(10));
    }
}

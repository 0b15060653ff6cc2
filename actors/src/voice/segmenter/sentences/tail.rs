//! The end of the reply so far, to tell where a grapheme ends.

use unicode_segmentation::GraphemeCursor;

/// Bytes kept: more than any grapheme that somebody means.
const KEPT_BYTES: usize = 256;

#[derive(Default)]
pub(super) struct Tail(String);

impl Tail {
    /// Whether a grapheme ends before `c`, which comes next, at this byte of the reply. "No" where
    /// too little is known.
    pub(super) fn ends_grapheme(&self, at: usize, c: char) -> bool {
        let Some(previous) = self.0.chars().next_back() else {
            return true;
        };
        if previous.is_ascii() && c.is_ascii() {
            return (previous, c) != ('\r', '\n');
        }
        let mut near = self.0.clone();
        near.push(c);
        GraphemeCursor::new(at, at + c.len_utf8(), true)
            .is_boundary(&near, at - self.0.len())
            .unwrap_or(false)
    }

    pub(super) fn push(&mut self, c: char) {
        self.0.push(c);
        if self.0.len() > 2 * KEPT_BYTES {
            let from = self.0.floor_char_boundary(self.0.len() - KEPT_BYTES);
            self.0.drain(..from);
        }
    }
}

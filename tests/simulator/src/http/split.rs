//! Where the bytes of a body are cut into writes.

/// How a body is cut into separate writes.
///
/// With chunked framing each piece is a chunk of its own, so that an HTTP client which hands out
/// chunks one by one shows its reader exactly these pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Split {
    /// Nothing is cut: a write ends where the pace ends it.
    #[default]
    Whole,
    /// A cut after every so many bytes; 1 sends one byte at a time.
    Every(usize),
    /// A cut inside every character of more than one byte, before each of its later bytes.
    Utf8,
    /// Cuts inside every frame: within the word `data` and after each CR and each LF.
    Frame,
    /// Cuts at these offsets in the body.
    At(Vec<usize>),
    /// Pieces of 1 to 64 bytes, drawn from this seed.
    Random(u64),
}

impl Split {
    /// Returns where to cut `bytes`, which begin at `offset` in the body: ascending, inside them.
    pub(crate) fn cuts(&self, bytes: &[u8], offset: usize) -> Vec<usize> {
        match self {
            Self::Whole => Vec::new(),
            Self::Every(size) => {
                let size = (*size).max(1);
                let first = size - offset % size;
                (first..bytes.len()).step_by(size).collect()
            }
            Self::Utf8 => (1..bytes.len())
                .filter(|at| bytes[*at] & 0xC0 == 0x80)
                .collect(),
            Self::Frame => (1..bytes.len())
                .filter(|at| inside_frame(bytes, *at))
                .collect(),
            Self::At(offsets) => {
                let mut cuts: Vec<usize> = offsets
                    .iter()
                    .filter_map(|at| at.checked_sub(offset))
                    .filter(|at| (1..bytes.len()).contains(at))
                    .collect();
                cuts.sort_unstable();
                cuts.dedup();
                cuts
            }
            Self::Random(seed) => random_cuts(*seed, offset, bytes.len()),
        }
    }
}

fn inside_frame(bytes: &[u8], at: usize) -> bool {
    let after_line_end = matches!(bytes[at - 1], b'\n' | b'\r');
    let line_start = at == 2 || (at > 2 && matches!(bytes[at - 3], b'\n' | b'\r'));
    after_line_end || (line_start && bytes[at - 2..].starts_with(b"data:"))
}

/// Draws piece lengths; the offset is part of the seed, so each flush is cut its own way.
fn random_cuts(seed: u64, offset: usize, len: usize) -> Vec<usize> {
    let mut state =
        (seed ^ (offset as u64).rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut cuts = Vec::new();
    let mut at = 0;
    loop {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        at += 1 + (state % 64) as usize;
        if at >= len {
            return cuts;
        }
        cuts.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keeps_its_rhythm_over_flushes() {
        assert_eq!(Split::Every(4).cuts(b"0123456789", 0), [4, 8]);
        assert_eq!(Split::Every(4).cuts(b"0123456789", 3), [1, 5, 9]);
        assert_eq!(Split::Every(1).cuts(b"abc", 7), [1, 2]);
    }

    #[test]
    fn utf8_cuts_inside_characters() {
        assert_eq!(Split::Utf8.cuts("aé東".as_bytes(), 0), [2, 4, 5]);
    }

    #[test]
    fn frame_cuts_the_word_and_the_line_ends() {
        assert_eq!(
            Split::Frame.cuts(b"data: x\r\n\r\ndata: y\n\n", 0),
            [2, 8, 9, 10, 11, 13, 19]
        );
    }

    #[test]
    fn offsets_are_of_the_whole_body() {
        assert_eq!(Split::At(vec![12, 3, 12, 99]).cuts(b"0123456789", 10), [2]);
    }

    #[test]
    fn random_is_the_same_for_the_same_seed() {
        let cuts = Split::Random(7).cuts(&[0; 500], 0);
        assert_eq!(cuts, Split::Random(7).cuts(&[0; 500], 0));
        assert_ne!(cuts, Split::Random(8).cuts(&[0; 500], 0));
        assert!(
            cuts.windows(2)
                .all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= 64)
        );
    }
}

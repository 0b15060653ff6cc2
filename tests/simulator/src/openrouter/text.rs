//! Reply text that both ends can compute.

use std::sync::LazyLock;

/// What generated tokens are drawn from: plain words, several scripts, and all that JSON escapes.
const WORDS: [&str; 40] = [
    " lantern",
    " river",
    " the",
    " a",
    " of",
    " quiet",
    " morning",
    " walks",
    " under",
    " stars",
    " I",
    " remember",
    " you",
    " said",
    " and",
    " then",
    " we",
    " laughed",
    " until",
    " dawn",
    ",",
    ".",
    "!",
    " —",
    " \"yes\"",
    "\n",
    "\n\n",
    " back\\slash",
    " tab\there",
    " Grüße",
    " naïve",
    " Привет",
    " 東京",
    " 안녕",
    " مرحبا",
    " 🚀",
    " 👩‍👩‍👧",
    " ½",
    " <b>&amp;</b>",
    " e\u{301}",
];

static QUOTED: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| WORDS.iter().map(|word| quoted(word)).collect());

/// The alphabet that tokens of a given size repeat.
static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| b"abcdefghijklmnopqrstuvwxyz012345".repeat(128));

/// What tells the reasoning of a seed from its reply.
const REASONING_SALT: u64 = 0x5EED_0F7E_A50D;

/// Returns the text of a generated reply.
///
/// The text of fewer tokens is always a prefix of the text of more, so a reply that was cut can be
/// checked as well.
pub fn reply_text(seed: u64, tokens: usize) -> String {
    Text::Words {
        seed,
        count: tokens,
    }
    .joined()
}

/// Returns the text of a generated reply whose tokens are of `size` bytes each.
pub fn sized_reply_text(seed: u64, tokens: usize, size: usize) -> String {
    Text::Sized {
        seed,
        count: tokens,
        size,
    }
    .joined()
}

/// Returns the text of the generated reasoning that precedes a reply of this seed.
pub fn reasoning_text(seed: u64, tokens: usize) -> String {
    Text::reasoning(seed, tokens).joined()
}

/// A text as a row of tokens, made one at a time.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Words {
        seed: u64,
        count: usize,
    },
    Sized {
        seed: u64,
        count: usize,
        size: usize,
    },
    Pieces(Vec<String>),
}

impl Text {
    pub(crate) fn reasoning(seed: u64, count: usize) -> Self {
        Self::Words {
            seed: seed ^ REASONING_SALT,
            count,
        }
    }

    /// Cuts a text into words, each with the space before it.
    pub(crate) fn of_words(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, _) in text.match_indices(' ').filter(|(at, _)| *at > 0) {
            pieces.push(text[start..at].to_owned());
            start = at;
        }
        pieces.push(text[start..].to_owned());
        Self::Pieces(pieces)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Words { count, .. } | Self::Sized { count, .. } => *count,
            Self::Pieces(pieces) => pieces.len(),
        }
    }

    /// Appends a token as a JSON string.
    pub(crate) fn push_quoted(&self, index: usize, out: &mut Vec<u8>) {
        match self {
            Self::Words { seed, .. } => out.extend_from_slice(&QUOTED[pick(*seed, index)]),
            Self::Sized { seed, size, .. } => {
                out.push(b'"');
                push_pattern(pick(*seed, index), *size, out);
                out.push(b'"');
            }
            Self::Pieces(pieces) => out.extend_from_slice(&quoted(&pieces[index])),
        }
    }

    /// Returns the whole text.
    pub(crate) fn joined(&self) -> String {
        match self {
            Self::Words { seed, count } => {
                (0..*count).map(|index| WORDS[pick(*seed, index)]).collect()
            }
            Self::Sized { seed, count, size } => {
                let mut bytes = Vec::with_capacity(count * size);
                (0..*count).for_each(|index| push_pattern(pick(*seed, index), *size, &mut bytes));
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Self::Pieces(pieces) => pieces.concat(),
        }
    }
}

/// Renders a JSON string.
pub(crate) fn quoted(text: &str) -> Vec<u8> {
    // A string is always representable.
    serde_json::to_vec(text).unwrap_or_default()
}

/// Draws a word's index: splitmix64 of the seed and the place.
fn pick(seed: u64, index: usize) -> usize {
    let mut state = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((state ^ (state >> 31)) % WORDS.len() as u64) as usize
}

fn push_pattern(start: usize, size: usize, out: &mut Vec<u8>) {
    let mut rest = size;
    let mut from = start;
    while rest > 0 {
        let take = rest.min(PATTERN.len() - from);
        out.extend_from_slice(&PATTERN[from..from + take]);
        rest -= take;
        from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_text() {
        assert_eq!(reply_text(3, 50), reply_text(3, 50));
        assert_ne!(reply_text(3, 50), reply_text(4, 50));
        assert_ne!(reply_text(3, 50), reasoning_text(3, 50));
    }

    #[test]
    fn fewer_tokens_are_a_prefix() {
        assert!(reply_text(9, 40).starts_with(&reply_text(9, 17)));
        assert!(sized_reply_text(9, 4, 9000).starts_with(&sized_reply_text(9, 3, 9000)));
    }

    #[test]
    fn a_size_is_exact() {
        assert_eq!(sized_reply_text(1, 3, 10_000).len(), 30_000);
    }

    #[test]
    fn a_long_text_uses_every_word() {
        let text = reply_text(0, 4000);
        assert!(WORDS.iter().all(|word| text.contains(word)));
    }

    #[test]
    fn quoted_tokens_are_json() {
        let text = Text::Words {
            seed: 5,
            count: 200,
        };
        let read: String = (0..200)
            .map(|index| {
                let mut out = Vec::new();
                text.push_quoted(index, &mut out);
                serde_json::from_slice::<String>(&out).unwrap()
            })
            .collect();
        assert_eq!(read, text.joined());
    }

    #[test]
    fn words_join_to_the_text_they_came_from() {
        for text in ["", " ", "one", "one two  three ", " é\n🚀 x"] {
            assert_eq!(Text::of_words(text).joined(), text);
        }
    }
}

//! Chunks that differ from the one before them in their text alone, as nearly all of a reply do.
//!
//! Such a chunk need not be parsed: what stands before and behind its text is known, byte for byte,
//! from a chunk that was. If the text in between is the inside of a JSON string and nothing else, the
//! whole is the JSON that was parsed, with another string in that place.

use serde_json::value::RawValue;

/// What stands around the text of the chunk that was parsed last.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// Up to the quote before the text; empty if that chunk had more than text to it.
    before: Vec<u8>,
    /// From the quote behind the text on.
    behind: Vec<u8>,
}

impl Alike {
    /// The text of a payload that is like the last one, as it is spelled.
    pub(super) fn text<'p>(&self, payload: &'p [u8]) -> Option<&'p str> {
        if self.before.is_empty() {
            return None;
        }
        let text = payload
            .strip_prefix(self.before.as_slice())?
            .strip_suffix(self.behind.as_slice())?;
        let text = str::from_utf8(text).ok()?;
        is_inside(text.as_bytes()).then_some(text)
    }

    /// Takes a payload that was parsed: `text` is its text, a string with its quotes borrowed from
    /// it, if it had nothing but that to tell.
    pub(super) fn learn(&mut self, payload: &str, text: Option<&RawValue>) {
        self.before.clear();
        self.behind.clear();
        let Some(text) = text.map(RawValue::get) else {
            return;
        };
        let start = text.as_ptr().addr().checked_sub(payload.as_ptr().addr());
        let around = start.and_then(|start| {
            let end = start + text.len();
            Some((payload.get(..=start)?, payload.get(end - 1..)?))
        });
        if let Some((before, behind)) = around {
            self.before.extend_from_slice(before.as_bytes());
            self.behind.extend_from_slice(behind.as_bytes());
        }
    }

    /// Knows of no payload any more.
    pub(super) fn forget(&mut self) {
        self.learn("", None);
    }
}

/// Whether this may stand between the quotes of a JSON string (RFC 8259, section 7).
fn is_inside(mut text: &[u8]) -> bool {
    while let Some((byte, rest)) = text.split_first() {
        text = match (byte, rest) {
            (..0x20 | b'"', _) => return false,
            (b'\\', [b'u', digits @ ..]) => match digits.split_first_chunk::<4>() {
                Some((digits, rest)) if digits.iter().all(u8::is_ascii_hexdigit) => rest,
                Some(_) | None => return false,
            },
            (
                b'\\',
                [
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                    rest @ ..,
                ],
            ) => rest,
            (b'\\', _) => return false,
            _ => rest,
        };
    }
    true
}

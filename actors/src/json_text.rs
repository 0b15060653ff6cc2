//! Text kept in the form in which it is sent and stored: the inside of a JSON string.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Text as the inside of a JSON string, without its quotes, in one canonical escaping
/// (the shortest: what `serde_json` writes).
///
/// A reply is escaped once, when it arrives; history, log and wire copy these bytes. Lengths on
/// the wire count decoded UTF-8 bytes, hence [`JsonText::decoded_len`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JsonText(String);

/// Shows the size alone: what people say stays out of log lines.
impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}

impl JsonText {
    /// Escapes plain text.
    #[must_use]
    pub fn escape(plain: &str) -> Self {
        let mut text = Self::default();
        text.push_plain(plain);
        text
    }

    /// No text, with room for so many escaped bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Appends plain text, escaping it.
    pub fn push_plain(&mut self, plain: &str) {
        let mut rest = plain;
        // Runs without anything to escape are copied whole.
        while let Some(at) = rest.bytes().position(needs_escape) {
            let (clean, tail) = rest.split_at(at);
            self.0.push_str(clean);
            self.push_escaped_byte(tail.as_bytes()[0]);
            rest = &tail[1..];
        }
        self.0.push_str(rest);
    }

    fn push_escaped_byte(&mut self, byte: u8) {
        match byte {
            b'"' => self.0.push_str("\\\""),
            b'\\' => self.0.push_str("\\\\"),
            b'\n' => self.0.push_str("\\n"),
            b'\r' => self.0.push_str("\\r"),
            b'\t' => self.0.push_str("\\t"),
            0x08 => self.0.push_str("\\b"),
            0x0c => self.0.push_str("\\f"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                self.0.push_str("\\u00");
                self.0.push(char::from(HEX[usize::from(other >> 4)]));
                self.0.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }

    /// Appends text that is already canonical.
    pub fn push(&mut self, other: &JsonText) {
        self.0.push_str(&other.0);
    }

    /// Appends a slice of canonical text; the caller cuts at escape boundaries only.
    pub fn push_escaped(&mut self, escaped: &str) {
        self.0.push_str(escaped);
    }

    /// The escaped form.
    #[must_use]
    pub fn as_escaped(&self) -> &str {
        &self.0
    }

    /// The escaped form, by value.
    #[must_use]
    pub fn into_escaped(self) -> String {
        self.0
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the text once decoded to UTF-8.
    #[must_use]
    pub fn decoded_len(&self) -> usize {
        decoded_len(&self.0)
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&unescape(&self.0))
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|plain| Self::escape(&plain))
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Decoded UTF-8 length of a slice of canonical escaped text.
#[must_use]
pub fn decoded_len(escaped: &str) -> usize {
    let bytes = escaped.as_bytes();
    let mut length = bytes.len();
    let mut at = 0;
    // In canonical form an escape always stands for one byte: `\n` is two bytes, `\u00XX` six.
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        let escape = at + found;
        let width = if bytes.get(escape + 1) == Some(&b'u') {
            6
        } else {
            2
        };
        length -= width - 1;
        at = escape + width;
    }
    length
}

/// The largest cut at or below `at` that splits neither a character nor an escape of canonical text.
///
/// `from` must itself be such a boundary.
#[must_use]
pub fn cut_at_or_below(escaped: &str, from: usize, at: usize) -> usize {
    if at >= escaped.len() {
        return escaped.len();
    }
    let bytes = escaped.as_bytes();
    let mut cut = at;
    while !escaped.is_char_boundary(cut) {
        cut -= 1;
    }
    // An escape is at most six bytes long, so only a backslash in the five before can reach past.
    let mut scan = from.max(cut.saturating_sub(5));
    while scan < cut {
        // Skip to a place that is certainly outside an escape: count the backslashes before it.
        if bytes[scan] == b'\\' && preceding_backslashes(bytes, from, scan).is_multiple_of(2) {
            let width = if bytes.get(scan + 1) == Some(&b'u') {
                6
            } else {
                2
            };
            if scan + width > cut {
                return scan;
            }
            scan += width;
        } else {
            scan += 1;
        }
    }
    cut
}

/// Whether a slice of canonical text may be cut here: within neither a character nor an escape.
#[must_use]
pub fn is_boundary(escaped: &str, at: usize) -> bool {
    at <= escaped.len() && cut_at_or_below(escaped, 0, at) == at
}

/// Where in canonical escaped text so many decoded UTF-8 bytes end; none beyond its end, and none
/// within a character.
#[must_use]
pub fn escaped_at(escaped: &str, decoded: usize) -> Option<usize> {
    let bytes = escaped.as_bytes();
    let (mut at, mut left) = (0, decoded);
    while left > 0 {
        let clean = memchr::memchr(b'\\', bytes.get(at..)?).unwrap_or(bytes.len() - at);
        if clean >= left {
            at += left;
            break;
        }
        let escape = at + clean;
        at = match bytes.get(escape + 1)? {
            b'u' => escape + 6,
            _ => escape + 2,
        };
        left -= clean + 1;
    }
    escaped.is_char_boundary(at).then_some(at)
}

/// Where in canonical escaped text at most so many decoded UTF-8 bytes end, not within a character.
#[must_use]
pub fn escaped_at_or_below(escaped: &str, decoded: usize) -> usize {
    // A character is four bytes long at most.
    let decoded = decoded.min(decoded_len(escaped));
    let mut places = (decoded.saturating_sub(3)..=decoded).rev();
    let place = places.find_map(|decoded| escaped_at(escaped, decoded));
    place.unwrap_or_default()
}

fn preceding_backslashes(bytes: &[u8], from: usize, at: usize) -> usize {
    bytes[from..at]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
}

/// Decodes canonical escaped text.
#[must_use]
pub fn unescape(escaped: &str) -> String {
    if memchr::memchr(b'\\', escaped.as_bytes()).is_none() {
        return escaped.to_owned();
    }
    let mut plain = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let code = characters
                    .by_ref()
                    .take(4)
                    .fold(0, |code, digit| code * 16 + digit.to_digit(16).unwrap_or(0));
                plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaping_is_what_serde_writes(plain in "(\\PC|[\\x00-\\x1f\"\\\\])*") {
            let text = JsonText::escape(&plain);
            prop_assert_eq!(format!("\"{}\"", text.as_escaped()), serde_json::to_string(&plain).unwrap());
            prop_assert_eq!(text.decoded_len(), plain.len());
            prop_assert_eq!(unescape(text.as_escaped()), plain);
        }

        #[test]
        fn a_place_in_the_text_is_the_same_place_in_its_escaped_form(plain in "([é\"\\\\\n\u{1}a-c🚀])*") {
            let text = JsonText::escape(&plain);
            let escaped = text.as_escaped();
            let mut places = Vec::new();
            for decoded in 0..=plain.len() {
                let place = escaped_at(escaped, decoded);
                prop_assert_eq!(place.is_some(), plain.is_char_boundary(decoded));
                if let Some(at) = place {
                    prop_assert_eq!(unescape(&escaped[..at]), &plain[..decoded]);
                    places.push(at);
                }
            }
            prop_assert_eq!(escaped_at(escaped, plain.len() + 1), None);
            for decoded in 0..plain.len() + 5 {
                let below = (0..=decoded.min(plain.len())).rfind(|it| plain.is_char_boundary(*it));
                let place = escaped_at_or_below(escaped, decoded);
                prop_assert_eq!(Some(place), below.and_then(|it| escaped_at(escaped, it)));
            }
            let boundaries: Vec<_> = (0..=escaped.len()).filter(|at| is_boundary(escaped, *at)).collect();
            prop_assert_eq!(boundaries, places);
        }

        #[test]
        fn cutting_anywhere_loses_nothing(plain in "([é\"\\\\\n\u{1}a-c🚀])*", sizes in prop::collection::vec(6usize..20, 1..40)) {
            let text = JsonText::escape(&plain);
            let escaped = text.as_escaped();
            let mut from = 0;
            let mut joined = String::new();
            let mut sizes = sizes.into_iter().cycle();
            while from < escaped.len() {
                let cut = cut_at_or_below(escaped, from, from + sizes.next().unwrap());
                prop_assert!(cut > from);
                joined.push_str(&serde_json::from_str::<String>(&format!("\"{}\"", &escaped[from..cut])).unwrap());
                from = cut;
            }
            prop_assert_eq!(joined, plain);
        }
    }
}

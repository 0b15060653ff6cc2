//! The key of the project, and how it is kept out of what people read.

use secrecy::{ExposeSecret, SecretString};

/// So many first characters of a key are no secret: they are the same in most keys.
const PART_MIN: usize = 12;

/// Stands where the key stood.
const REDACTED: &str = "(key)";

/// A `service_role` JWT or an `sb_secret_…` key; shown nowhere.
#[derive(Debug, Clone)]
pub(super) struct Key(SecretString);

impl Key {
    pub(super) fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Takes the key, and what is left of it where a server cut it, out of a server's words.
    pub(super) fn redact(&self, words: &str) -> String {
        let key = self.expose();
        // A short key counts only as a whole.
        let head = key.get(..PART_MIN).unwrap_or(key);
        if head.is_empty() {
            return words.to_owned();
        }
        let mut clean = String::with_capacity(words.len());
        let mut rest = words;
        while let Some((before, after)) = rest.split_once(head) {
            clean.push_str(before);
            clean.push_str(REDACTED);
            let tail = key.chars().skip(head.chars().count());
            let same = after.chars().zip(tail).take_while(|(a, b)| a == b);
            let same: usize = same.map(|(a, _)| a.len_utf8()).sum();
            rest = &after[same..];
        }
        clean.push_str(rest);
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_key_nor_a_long_part_of_it_is_left() {
        let key = Key::new(SecretString::from("sb_secret_0123456789"));
        for (words, clean) in [
            ("bad sb_secret_0123456789!", "bad (key)!"),
            ("sb_secret_0123456789sb_secret_0123456789", "(key)(key)"),
            ("bad sb_secret_01234…", "bad (key)…"),
            ("cut sb_secret_01", "cut (key)"),
            ("what is sb_secret_?", "what is sb_secret_?"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(key.redact(words), clean);
        }
        assert!(!format!("{key:?}").contains("0123"));
        let short = Key::new(SecretString::from("hush"));
        assert_eq!(short.redact("no hush, hus"), "no (key), hus");
    }
}

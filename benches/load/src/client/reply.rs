//! Checks a reply while it comes.

use std::{borrow::Cow, time::Instant};

use crate::error::LoadError;

/// What is known of a reply beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    /// Every byte of it.
    Text(&'a str),
    /// Nothing: somebody else's upstream made it.
    Nothing,
}

/// A reply as far as it came.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    known: Known<'a>,
    bytes: usize,
    pub(super) deltas: u64,
    pub(super) first: Option<Instant>,
}

impl<'a> Reply<'a> {
    pub(super) fn new(known: Known<'a>) -> Self {
        Self {
            known,
            bytes: 0,
            deltas: 0,
            first: None,
        }
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, text: &Cow<'_, str>) -> Result<(), LoadError> {
        if text.is_empty() {
            return Ok(());
        }
        if let Known::Text(whole) = self.known {
            let left = whole.as_bytes().get(self.bytes..).unwrap_or_default();
            if !left.starts_with(text.as_bytes()) {
                return Err(LoadError::WrongReply(format!(
                    "at byte {} came {text:?}",
                    self.bytes
                )));
            }
        }
        self.first.get_or_insert_with(Instant::now);
        self.bytes += text.len();
        self.deltas += 1;
        Ok(())
    }

    /// The peer says that this was all.
    pub(super) fn end(&self) -> Result<(), LoadError> {
        match self.known {
            Known::Text(whole) if whole.len() != self.bytes => Err(LoadError::WrongReply(format!(
                "{} bytes of {} are reported as all",
                self.bytes,
                whole.len()
            ))),
            Known::Text(_) | Known::Nothing => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_a_reply() {
        let mut reply = Reply::new(Known::Text("one two"));
        for piece in ["one", "", " ", "two"] {
            reply.take(&piece.into()).unwrap();
        }
        reply.end().unwrap();
        assert_eq!(reply.deltas, 3);
    }

    #[test]
    fn another_byte_or_an_early_end_is_wrong() {
        let mut reply = Reply::new(Known::Text("one two"));
        reply.take(&"one".into()).unwrap();
        assert!(reply.end().unwrap_err().is_wrong_reply());
        assert!(reply.take(&"two".into()).unwrap_err().is_wrong_reply());
        let mut more = Reply::new(Known::Text("one"));
        assert!(more.take(&"one two".into()).unwrap_err().is_wrong_reply());
    }
}

//! Checks a reply while it comes.

use std::time::Instant;

use super::stamps::{Seen, Stamps};
use crate::{
    clock,
    error::LoadError,
    model::{Model, Words},
};

/// What is known of a reply beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    /// Every byte of it.
    Text(&'a str),
    /// How many tokens there are, and that each says when it was sent.
    Stamps(u32),
    /// Nothing: somebody else's upstream made it.
    Nothing,
}

impl<'a> Known<'a> {
    /// What a model's name says, whose text is given.
    pub(super) fn of(model: &Model, text: &'a str) -> Self {
        match model.words {
            Words::Fixed => Self::Text(text),
            Words::Stamps => Self::Stamps(model.tokens),
        }
    }
}

/// A reply as far as it came.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    known: Known<'a>,
    bytes: usize,
    stamps: Stamps,
    pub(super) deltas: u64,
    pub(super) first: Option<Instant>,
}

impl<'a> Reply<'a> {
    pub(super) fn new(known: Known<'a>) -> Self {
        Self {
            known,
            bytes: 0,
            stamps: Stamps::default(),
            deltas: 0,
            first: None,
        }
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, text: &str) -> Result<(), LoadError> {
        if text.is_empty() {
            return Ok(());
        }
        match self.known {
            Known::Text(whole) => {
                let left = whole.as_bytes().get(self.bytes..).unwrap_or_default();
                if !left.starts_with(text.as_bytes()) {
                    let at = self.bytes;
                    return Err(LoadError::WrongReply(format!("at byte {at} came {text:?}")));
                }
            }
            Known::Stamps(_) => self.stamps.take(text, clock::nanos())?,
            Known::Nothing => {}
        }
        self.first.get_or_insert_with(Instant::now);
        self.bytes += text.len();
        self.deltas += 1;
        Ok(())
    }

    /// The peer says that this was all. Gives what its tokens said.
    pub(super) fn end(&mut self) -> Result<Vec<Seen>, LoadError> {
        match self.known {
            Known::Text(whole) if whole.len() != self.bytes => Err(LoadError::WrongReply(format!(
                "{} bytes of {} are reported as all",
                self.bytes,
                whole.len()
            ))),
            Known::Stamps(tokens) => self.stamps.end(tokens),
            Known::Text(_) | Known::Nothing => Ok(Vec::new()),
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
            reply.take(piece).unwrap();
        }
        reply.end().unwrap();
        assert_eq!(reply.deltas, 3);
    }

    #[test]
    fn another_byte_or_an_early_end_is_wrong() {
        let mut reply = Reply::new(Known::Text("one two"));
        reply.take("one").unwrap();
        assert!(reply.end().unwrap_err().is_wrong_reply());
        assert!(reply.take("two").unwrap_err().is_wrong_reply());
        let mut more = Reply::new(Known::Text("one"));
        assert!(more.take("one two").unwrap_err().is_wrong_reply());
    }
}

//! Puts fragmented messages together, within a limit.

use actix_http::ws::Item;

/// The message under way, if it came in pieces.
#[derive(Debug)]
pub(super) struct Assembler {
    bytes_max: usize,
    kind: Kind,
    gathered: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// What a piece completes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Assembled {
    /// More pieces are to come.
    More,
    /// A text message.
    Text(String),
    /// A binary message.
    Binary,
    /// The pieces are larger than a message may be.
    TooLarge,
    /// The pieces are no UTF-8 text.
    NotUtf8,
}

impl Assembler {
    /// For messages of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kind: Kind::Text,
            gathered: Vec::new(),
        }
    }

    /// Takes a piece. The codec has checked that pieces come in order.
    pub(super) fn take(&mut self, piece: Item) -> Assembled {
        let (bytes, last) = match piece {
            Item::FirstText(bytes) => {
                self.kind = Kind::Text;
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.kind = Kind::Binary;
                (bytes, false)
            }
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        if self.gathered.len() + bytes.len() > self.bytes_max {
            self.gathered = Vec::new();
            return Assembled::TooLarge;
        }
        self.gathered.extend_from_slice(&bytes);
        if !last {
            return Assembled::More;
        }
        let gathered = std::mem::take(&mut self.gathered);
        match self.kind {
            Kind::Binary => Assembled::Binary,
            Kind::Text => String::from_utf8(gathered).map_or(Assembled::NotUtf8, Assembled::Text),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn pieces_split_inside_a_character_are_joined() {
        let text = "é🚀".as_bytes();
        let mut assembler = Assembler::new(64);
        let piece = |range: std::ops::Range<usize>| Bytes::copy_from_slice(&text[range]);
        assert_eq!(
            assembler.take(Item::FirstText(piece(0..1))),
            Assembled::More
        );
        assert_eq!(assembler.take(Item::Continue(piece(1..4))), Assembled::More);
        assert_eq!(
            assembler.take(Item::Last(piece(4..6))),
            Assembled::Text("é🚀".into())
        );
    }

    #[test]
    fn a_message_in_pieces_has_the_same_limit() {
        let mut assembler = Assembler::new(3);
        let four = Bytes::from_static(b"xxxx");
        assert_eq!(assembler.take(Item::FirstText(four)), Assembled::TooLarge);
    }
}

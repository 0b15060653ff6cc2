//! Tells, character by character, what of a reply's markdown is spoken.
//!
//! A construct is decided as soon as the text so far allows it and not before, so that what comes
//! out does not depend on how the text was cut into pieces. How far it looks ahead is bounded.

mod blocks;
mod inline;

use super::{
    Directions,
    actions::Place,
    chars::{is_closer, is_dash, is_ellipsis, is_newline, is_strong_end, is_wide_end},
    url,
};

/// Longest run of one mark that is seen as one.
const RUN_CHARS_MAX: usize = 80;

/// What becomes of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Spoken,
    /// Parts words.
    Space,
    /// Ends a line.
    Newline,
    /// Not spoken, and parts nothing.
    Silent,
    /// Not spoken; a sentence may end there.
    Gesture,
    /// Spoken as a comma.
    Cell,
}

/// What the text turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Char {
        at: usize,
        c: char,
        voice: Voice,
    },
    /// At this byte a stage direction or an emphasised word begins.
    Opening {
        at: usize,
    },
    /// A block begins that is spoken with nothing before it.
    Block {
        at: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    /// The line says nothing more.
    Tail,
    /// Between fences of this character.
    Code {
        fence: char,
        place: CodePlace,
    },
    Url(url::Part),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodePlace {
    /// Behind the fence that opens.
    Info,
    LineStart,
    Line,
}

/// So many bytes are next, and this is what becomes of each character.
#[derive(Debug, Clone, Copy)]
struct Token {
    bytes: usize,
    voice: Voice,
}

/// Closes what was opened before.
#[derive(Debug, Clone, Copy)]
struct Closing {
    /// In the reply.
    at: usize,
    token: Token,
}

pub(super) struct Markup {
    directions: Directions,
    /// Not yet decided on.
    buffer: String,
    /// Where the buffer begins in the reply.
    base: usize,
    state: State,
    /// The character before the buffer.
    previous: char,
    place: Place,
    /// Bytes of the buffer known not to close what begins it.
    seen: usize,
    announced: Option<usize>,
    escaped: bool,
    table: bool,
    emphasis: bool,
    /// Where in the reply what was opened is closed.
    emphasis_end: Option<Closing>,
    link_end: Option<Closing>,
}

impl Markup {
    pub(super) fn new(directions: Directions) -> Self {
        Self {
            directions,
            buffer: String::new(),
            base: 0,
            state: State::LineStart,
            previous: '\n',
            place: Place::Fresh,
            seen: 0,
            announced: None,
            escaped: false,
            table: false,
            emphasis: false,
            emphasis_end: None,
            link_end: None,
        }
    }

    /// Bytes of the reply so far.
    pub(super) fn source_len(&self) -> usize {
        self.base + self.buffer.len()
    }

    pub(super) fn push(&mut self, text: &str, sink: &mut impl FnMut(Event)) {
        self.buffer.push_str(text);
        self.decide_all(false, sink);
    }

    /// Decides on what is left.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        self.decide_all(true, sink);
    }

    fn decide_all(&mut self, at_end: bool, sink: &mut impl FnMut(Event)) {
        let buffer = std::mem::take(&mut self.buffer);
        let base = self.base;
        let mut rest = buffer.as_str();
        while let Some(c) = rest.chars().next() {
            let Some(token) = self.next(rest, c, at_end, sink) else {
                break;
            };
            let (now, later) = rest.split_at(token.bytes);
            for (offset, c) in now.char_indices() {
                let at = self.base + offset;
                sink(Event::Char {
                    at,
                    c,
                    voice: token.voice,
                });
                self.passed(c, token.voice);
            }
            self.base += token.bytes;
            self.seen = 0;
            rest = later;
        }
        self.buffer = buffer;
        self.buffer.drain(..self.base - base);
    }

    fn passed(&mut self, c: char, voice: Voice) {
        self.previous = c;
        self.place = match voice {
            Voice::Silent | Voice::Space => self.place,
            Voice::Gesture | Voice::Newline | Voice::Cell => Place::Fresh,
            Voice::Spoken if is_closer(c) => self.place,
            Voice::Spoken => {
                let is_end = is_strong_end(c) || is_wide_end(c) || is_ellipsis(c) || is_dash(c);
                if is_end || matches!(c, '.' | ',' | ';' | ':') {
                    Place::Fresh
                } else {
                    Place::Within
                }
            }
        };
    }

    /// Decides on what `rest`, whose first character is `c`, begins with; `None`: not yet.
    fn next(
        &mut self,
        rest: &str,
        c: char,
        at_end: bool,
        sink: &mut impl FnMut(Event),
    ) -> Option<Token> {
        loop {
            match self.state {
                State::LineStart => {
                    if let Some(token) = self.line_start(rest, c, at_end, sink)? {
                        return Some(token);
                    }
                }
                State::Text => return self.text(rest, c, at_end, sink),
                State::Tail if is_newline(c) => self.state = State::Text,
                State::Tail => return Some(one(c, Voice::Silent)),
                State::Code { fence, place } => return self.code(rest, c, at_end, (fence, place)),
                State::Url(part) => match url::step(rest, part, at_end)? {
                    url::Step::Done => self.state = State::Text,
                    url::Step::Take {
                        bytes,
                        spoken,
                        then,
                    } => {
                        self.state = State::Url(then);
                        let voice = if spoken { Voice::Spoken } else { Voice::Silent };
                        return Some(Token { bytes, voice });
                    }
                },
            }
        }
    }
}

const fn one(c: char, voice: Voice) -> Token {
    Token {
        bytes: c.len_utf8(),
        voice,
    }
}

/// The character behind `c`, with which `rest` begins; the outer `None`: not known yet.
fn next_char(rest: &str, c: char, at_end: bool) -> Option<Option<char>> {
    let next = rest[c.len_utf8()..].chars().next();
    (next.is_some() || at_end).then_some(next)
}

/// How often `c`, which is ASCII, stands at the beginning, and what follows.
fn run_of(rest: &str, c: char, at_end: bool) -> Option<(usize, Option<char>)> {
    let run = rest
        .chars()
        .take(RUN_CHARS_MAX)
        .take_while(|next| *next == c);
    let count = run.count();
    let next = rest[count..].chars().next();
    (next.is_some() || at_end).then_some((count, next))
}

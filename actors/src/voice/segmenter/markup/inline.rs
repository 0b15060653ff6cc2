//! What stands within a line: emphasis, stage directions, links and tags.

use super::{Closing, Event, Markup, State, Token, Voice, next_char, one, run_of};
use crate::voice::segmenter::{
    Directions,
    actions::{self, Found, Place},
    chars::{is_emoji, is_invisible, is_newline},
    url,
};

/// Longest text of a link, in characters.
const LINK_TEXT_CHARS_MAX: usize = 200;
/// Longest target of a link.
const LINK_TARGET_CHARS_MAX: usize = 2_048;
/// Longest tag.
const TAG_CHARS_MAX: usize = 100;
/// Spaces looked past to tell whether a cell is the last one of its row.
const CELL_SPACES_MAX: usize = 100;

impl Markup {
    pub(super) fn text(
        &mut self,
        rest: &str,
        c: char,
        at_end: bool,
        sink: &mut impl FnMut(Event),
    ) -> Option<Token> {
        if std::mem::take(&mut self.escaped) {
            return Some(one(c, Voice::Spoken));
        }
        let base = self.base;
        let is_here = |closing: &mut Closing| closing.at == base;
        if let Some(closing) = self.emphasis_end.take_if(is_here) {
            self.emphasis = false;
            return Some(closing.token);
        }
        if let Some(closing) = self.link_end.take_if(is_here) {
            return Some(closing.token);
        }
        let spoken_if = |condition: bool| {
            let voice = if condition {
                Voice::Spoken
            } else {
                Voice::Silent
            };
            Some(one(c, voice))
        };
        let previous = self.previous;
        match c {
            'a'..='g' | 'i'..='v' | 'x'..='z' => Some(one(c, Voice::Spoken)),
            ' ' => Some(one(c, Voice::Space)),
            _ if is_newline(c) => {
                self.state = State::LineStart;
                self.table = false;
                self.emphasis = false;
                Some(one(c, Voice::Newline))
            }
            '\\' => {
                let next = next_char(rest, c, at_end)?;
                self.escaped = next.is_some_and(|c| c.is_ascii_punctuation());
                spoken_if(!self.escaped)
            }
            '`' => Some(one(c, Voice::Silent)),
            '*' => self.asterisk(rest, at_end, sink),
            '_' => {
                let next = next_char(rest, c, at_end)?;
                let is_within =
                    previous.is_alphanumeric() && next.is_some_and(char::is_alphanumeric);
                spoken_if(is_within)
            }
            '~' => {
                let is_about = next_char(rest, c, at_end)?.is_some_and(|c| c.is_ascii_digit());
                spoken_if(is_about)
            }
            '[' => {
                let link = link_end(rest, at_end)?;
                self.link_end = link.map(|(start, end)| Closing {
                    at: base + start,
                    token: Token {
                        bytes: end - start,
                        voice: Voice::Silent,
                    },
                });
                spoken_if(link.is_none())
            }
            '!' => match next_char(rest, c, at_end)? {
                Some('[') => {
                    let is_image = link_end(&rest[1..], at_end)?.is_some();
                    spoken_if(!is_image)
                }
                _ => Some(one(c, Voice::Spoken)),
            },
            '<' => self.angle(rest, at_end),
            '|' if self.table => {
                let mut behind = rest[1..].chars().take(CELL_SPACES_MAX);
                let voice = match behind.find(|c| !matches!(c, ' ' | '\t' | '\r')) {
                    None if !at_end && rest.len() <= CELL_SPACES_MAX => return None,
                    Some(next) if !is_newline(next) => Voice::Cell,
                    _ => Voice::Silent,
                };
                Some(one(c, voice))
            }
            '(' if self.place == Place::Fresh && self.directions == Directions::Skip => {
                match actions::parenthesised(rest, at_end) {
                    Found::Undecided => {
                        self.announce(sink);
                        None
                    }
                    Found::Direction(end) => {
                        self.announce(sink);
                        Some(Token {
                            bytes: end + 1,
                            voice: Voice::Gesture,
                        })
                    }
                    _ => Some(one(c, Voice::Spoken)),
                }
            }
            'h' | 'H' | 'w' | 'W' if !previous.is_alphanumeric() => {
                match url::prefix(rest, at_end)? {
                    0 => Some(one(c, Voice::Spoken)),
                    bytes => {
                        self.state = State::Url(url::Part::Start);
                        Some(Token {
                            bytes,
                            voice: Voice::Silent,
                        })
                    }
                }
            }
            _ if c.is_whitespace() => Some(one(c, Voice::Space)),
            _ if is_emoji(c) => Some(one(c, Voice::Gesture)),
            _ if is_invisible(c) || c.is_control() => Some(one(c, Voice::Silent)),
            _ => Some(one(c, Voice::Spoken)),
        }
    }

    /// What is opened here begins a sentence, if the one before may have ended.
    fn announce(&mut self, sink: &mut impl FnMut(Event)) {
        if self.announced != Some(self.base) {
            self.announced = Some(self.base);
            sink(Event::Opening { at: self.base });
        }
    }

    fn asterisk(
        &mut self,
        rest: &str,
        at_end: bool,
        sink: &mut impl FnMut(Event),
    ) -> Option<Token> {
        let (count, next) = run_of(rest, '*', at_end)?;
        let is_behind_space = self.previous.is_whitespace();
        let is_before_space = next.is_none_or(char::is_whitespace);
        let is_word_before = self.previous.is_alphanumeric();
        let all = |voice| {
            Some(Token {
                bytes: count,
                voice,
            })
        };
        if is_behind_space && is_before_space {
            return all(Voice::Spoken);
        }
        if count > 1 || is_before_space {
            return all(Voice::Silent);
        }
        if is_word_before {
            let is_within = next.is_some_and(char::is_alphanumeric);
            return all(if is_within {
                Voice::Spoken
            } else {
                Voice::Silent
            });
        }
        if self.emphasis && !is_behind_space {
            return all(Voice::Silent);
        }
        self.announce(sink);
        match actions::starred(rest, at_end, self.place, &mut self.seen) {
            Found::Undecided => None,
            Found::Nothing => all(Voice::Silent),
            Found::Direction(end) if self.directions == Directions::Skip => Some(Token {
                bytes: end + 1,
                voice: Voice::Gesture,
            }),
            Found::Direction(end) => {
                self.emphasise(end, Voice::Gesture);
                all(Voice::Silent)
            }
            Found::Emphasis(end) => {
                self.emphasise(end, Voice::Silent);
                all(Voice::Silent)
            }
        }
    }

    /// The `*` so many bytes from here closes what is opened here.
    fn emphasise(&mut self, offset: usize, voice: Voice) {
        self.emphasis = true;
        self.emphasis_end = Some(Closing {
            at: self.base + offset,
            token: one('*', voice),
        });
    }

    fn angle(&mut self, rest: &str, at_end: bool) -> Option<Token> {
        match next_char(rest, '<', at_end)? {
            Some('3') => {
                return Some(Token {
                    bytes: 2,
                    voice: Voice::Gesture,
                });
            }
            Some('a'..='z' | 'A'..='Z' | '/' | '!') => {}
            _ => return Some(one('<', Voice::Spoken)),
        }
        for (at, c) in rest.char_indices().skip(1).take(TAG_CHARS_MAX) {
            match c {
                '>' if url::prefix(&rest[1..], true)? > 0 => {
                    self.link_end = Some(Closing {
                        at: self.base + at,
                        token: one('>', Voice::Silent),
                    });
                    return Some(one('<', Voice::Silent));
                }
                '>' => {
                    return Some(Token {
                        bytes: at + 1,
                        voice: Voice::Silent,
                    });
                }
                '<' | '\n' => return Some(one('<', Voice::Spoken)),
                _ => {}
            }
        }
        let is_decided = at_end || rest.chars().nth(TAG_CHARS_MAX).is_some();
        is_decided.then_some(one('<', Voice::Spoken))
    }
}

/// Where `](target)` begins and ends, if the `[` that `rest` begins with opens a link.
fn link_end(rest: &str, at_end: bool) -> Option<Option<(usize, usize)>> {
    let mut text_end = None;
    let mut depth = 0_usize;
    for (count, (at, c)) in rest.char_indices().enumerate().skip(1) {
        match (text_end, c) {
            (None, ']') => text_end = Some(at),
            (_, '[') => return Some(None),
            (None, _) if count > LINK_TEXT_CHARS_MAX => return Some(None),
            (Some(end), _) if at == end + 1 && c != '(' => return Some(None),
            (Some(_), '(') => depth += 1,
            (Some(_), ')') if depth > 1 => depth -= 1,
            (Some(end), ')') => return Some(Some((end, at + 1))),
            _ => {}
        }
        if is_newline(c) || count > LINK_TEXT_CHARS_MAX + LINK_TARGET_CHARS_MAX {
            return Some(None);
        }
    }
    at_end.then_some(None)
}

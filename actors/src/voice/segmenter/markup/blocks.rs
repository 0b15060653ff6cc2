//! What only the beginning of a line can be: headings, items, rules, tables and code.

use super::{CodePlace, Event, Markup, State, Token, Voice, next_char, one, run_of};
use crate::voice::segmenter::chars::is_newline;

/// Longest horizontal rule, or row between a table's head and its body.
const RULE_CHARS_MAX: usize = 500;

impl Markup {
    /// `Some(None)`: ordinary text from here on.
    pub(super) fn line_start(
        &mut self,
        rest: &str,
        c: char,
        at_end: bool,
        sink: &mut impl FnMut(Event),
    ) -> Option<Option<Token>> {
        match c {
            ' ' | '\t' | '\r' => return Some(Some(one(c, Voice::Space))),
            _ if is_newline(c) => return Some(Some(one(c, Voice::Newline))),
            '>' => return Some(Some(one(c, Voice::Silent))),
            _ => {}
        }
        if matches!(c, '-' | '*' | '_' | '=' | '|') {
            match rule(rest, c, at_end)? {
                Rule::Line(bytes) => {
                    return Some(Some(Token {
                        bytes,
                        voice: Voice::Silent,
                    }));
                }
                Rule::Other => {}
            }
        }
        let token = match c {
            '#' => {
                let (count, next) = run_of(rest, c, at_end)?;
                let is_heading = count <= 6 && next.is_none_or(char::is_whitespace);
                is_heading.then_some(Token {
                    bytes: count,
                    voice: Voice::Silent,
                })
            }
            '`' | '~' => match run_of(rest, c, at_end)? {
                (0..3, _) => None,
                (count, _) => {
                    sink(Event::Block { at: self.base });
                    self.state = State::Code {
                        fence: c,
                        place: CodePlace::Info,
                    };
                    return Some(Some(Token {
                        bytes: count,
                        voice: Voice::Silent,
                    }));
                }
            },
            '-' | '*' | '+' | '•' | '◦' | '▪' | '–' => {
                let next = next_char(rest, c, at_end)?;
                next.is_none_or(char::is_whitespace)
                    .then_some(one(c, Voice::Silent))
            }
            '|' => {
                self.table = true;
                Some(one(c, Voice::Silent))
            }
            _ => None,
        };
        self.state = State::Text;
        Some(token)
    }

    pub(super) fn code(
        &mut self,
        rest: &str,
        c: char,
        at_end: bool,
        at: (char, CodePlace),
    ) -> Option<Token> {
        let (fence, place) = at;
        let within = |place| State::Code { fence, place };
        if is_newline(c) {
            self.state = within(CodePlace::LineStart);
            return Some(one(c, Voice::Silent));
        }
        if c == fence && place != CodePlace::Line {
            let (count, _) = run_of(rest, c, at_end)?;
            if count >= 3 {
                self.state = if place == CodePlace::Info {
                    State::Text
                } else {
                    State::Tail
                };
            } else if place == CodePlace::LineStart {
                self.state = within(CodePlace::Line);
            }
            return Some(Token {
                bytes: count,
                voice: Voice::Silent,
            });
        }
        if place == CodePlace::LineStart && !c.is_whitespace() {
            self.state = within(CodePlace::Line);
        }
        Some(one(c, Voice::Silent))
    }
}

enum Rule {
    /// The line is nothing else; its bytes.
    Line(usize),
    Other,
}

/// Whether the line is a horizontal rule, an underline or the row below a table's head.
fn rule(rest: &str, first: char, at_end: bool) -> Option<Rule> {
    let mut marks = 0;
    for (count, (at, c)) in rest.char_indices().enumerate() {
        match c {
            '-' | ':' | '|' if first == '|' => marks += 1,
            _ if c == first => marks += 1,
            ' ' | '\t' | '\r' => {}
            _ if is_newline(c) && marks >= 3 => return Some(Rule::Line(at)),
            _ => return Some(Rule::Other),
        }
        if count > RULE_CHARS_MAX {
            return Some(Rule::Other);
        }
    }
    match (at_end, marks) {
        (true, 3..) => Some(Rule::Line(rest.len())),
        (true, _) => Some(Rule::Other),
        (false, _) => None,
    }
}

//! Stage directions: what a companion does rather than says.
//!
//! `*smiles softly*` and `*really*` are written alike. What stands alone is a direction; within a
//! sentence it is one if it begins with what somebody does, and else emphasis.

use super::chars::is_newline;

/// Longest stage direction in characters; what is not closed by then is read.
pub(super) const DIRECTION_CHARS_MAX: usize = 300;
/// Longest one in parentheses.
const ASIDE_CHARS_MAX: usize = 80;
/// Spaces behind one that are looked past for what follows.
const SPACES_MAX: usize = 16;

/// What companions do, without the `e` that an ending takes away. Inflected ("smiles", "leaning")
/// they make a direction even within a sentence.
const VERBS: &[&str] = &[
    "bit", "blink", "blush", "bounc", "brush", "chuckl", "clap", "clear", "cough", "cri", "cuddl",
    "gasp", "gaz", "giggl", "glanc", "grin", "groan", "hug", "hum", "jump", "kiss", "laugh",
    "lean", "look", "mov", "murmur", "nod", "nuzzl", "paus", "play", "pok", "pout", "pull", "purr",
    "rais", "reach", "roll", "rub", "shak", "shrug", "sigh", "smil", "smirk", "sniff", "snuggl",
    "spin", "squeez", "star", "step", "stretch", "tak", "tilt", "touch", "trac", "tuck", "turn",
    "twirl", "wav", "whisper", "wink", "wrap", "yawn",
];
/// The longest of the endings: "hugging".
const ENDING_BYTES_MAX: usize = 4;

/// End like a verb and are none.
const NO_VERBS: &[&str] = &[
    "this",
    "yes",
    "always",
    "was",
    "is",
    "has",
    "his",
    "us",
    "as",
    "does",
    "thus",
    "perhaps",
    "theirs",
    "ours",
    "yours",
    "hers",
    "its",
    "sometimes",
    "besides",
    "across",
    "unless",
    "something",
    "nothing",
    "anything",
    "everything",
    "during",
    "being",
    "thing",
    "things",
    "stars",
    "king",
];

/// What a scan for the end of a construct came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It depends on text to come.
    Undecided,
    /// It is none.
    Nothing,
    /// It is closed by what begins at this byte.
    Emphasis(usize),
    /// The same, and is not said.
    Direction(usize),
}

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A sentence might begin there.
    Fresh,
    /// Within a sentence.
    Within,
}

/// Looks for the end of what the `*` that `rest` begins with opens. `seen` bytes of `rest` are
/// known to close nothing; it is moved on.
pub(super) fn starred(rest: &str, at_end: bool, place: Place, seen: &mut usize) -> Found {
    let mut chars = rest[*seen..].char_indices().peekable();
    let mut before = rest[..*seen].chars().next_back().unwrap_or(' ');
    let mut count = rest[..*seen].chars().count();
    while let Some((offset, c)) = chars.next() {
        let at = *seen + offset;
        if is_newline(c) || count > DIRECTION_CHARS_MAX {
            return Found::Nothing;
        }
        count += 1;
        if c == '*' && at > 0 {
            let Some(&(_, after)) = chars.peek() else {
                *seen = at;
                return match (at_end, before.is_whitespace()) {
                    (false, _) => Found::Undecided,
                    (true, true) => Found::Nothing,
                    (true, false) => classify(&rest[1..at], None, place, at),
                };
            };
            if after == '*' {
                // Bold within: both its marks are passed over.
                while chars.next_if(|(_, next)| *next == '*').is_some() {
                    count += 1;
                }
                if chars.peek().is_none() && !at_end && count <= DIRECTION_CHARS_MAX {
                    *seen = at;
                    return Found::Undecided;
                }
            } else if !(before.is_whitespace()
                || before.is_alphanumeric() && after.is_alphanumeric())
            {
                return match following(&rest[at + 1..], at_end) {
                    Following::Unknown => {
                        *seen = at;
                        Found::Undecided
                    }
                    Following::End => classify(&rest[1..at], None, place, at),
                    Following::Char(next) => classify(&rest[1..at], Some(next), place, at),
                };
            } else if before.is_whitespace() && !after.is_whitespace() {
                // Another one opens: this one was none.
                return Found::Nothing;
            }
        }
        before = c;
    }
    *seen = rest.len();
    if at_end || count > DIRECTION_CHARS_MAX {
        Found::Nothing
    } else {
        Found::Undecided
    }
}

/// Whether the `(` that `rest` begins with opens a direction that stands alone.
pub(super) fn parenthesised(rest: &str, at_end: bool) -> Found {
    for (count, (at, c)) in rest.char_indices().enumerate().skip(1) {
        let is_first_wrong = count == 1 && !c.is_alphabetic();
        if is_first_wrong
            || count > ASIDE_CHARS_MAX
            || matches!(c, '(' | '.' | '!' | '?' | '*')
            || is_newline(c)
        {
            return Found::Nothing;
        }
        if c == ')' {
            return match rest[at + 1..].chars().next() {
                None if !at_end => Found::Undecided,
                Some(next) if !next.is_whitespace() => Found::Nothing,
                _ if is_known_action(&rest[1..at]) => Found::Direction(at),
                _ => Found::Nothing,
            };
        }
    }
    if at_end {
        Found::Nothing
    } else {
        Found::Undecided
    }
}

enum Following {
    Unknown,
    /// Of the line, or more spaces than anybody writes.
    End,
    Char(char),
}

fn following(rest: &str, at_end: bool) -> Following {
    for (count, c) in rest.chars().enumerate() {
        if is_newline(c) || count > SPACES_MAX {
            return Following::End;
        }
        if !c.is_whitespace() {
            return Following::Char(c);
        }
    }
    if at_end {
        Following::End
    } else {
        Following::Unknown
    }
}

fn classify(content: &str, next: Option<char>, place: Place, at: usize) -> Found {
    let goes_on =
        next.is_some_and(|c| c.is_lowercase() || matches!(c, ',' | '.' | '!' | '?' | ';' | ':'));
    let is_single = content.split_whitespace().nth(1).is_none();
    let is_said = content.ends_with(['.', '!', '?']);
    let is_direction = match place {
        Place::Within => is_known_action(content),
        Place::Fresh if !is_single => true,
        Place::Fresh if goes_on => is_action(content),
        Place::Fresh => !is_said || is_action(content),
    };
    if is_direction {
        Found::Direction(at)
    } else {
        Found::Emphasis(at)
    }
}

fn first_word(content: &str) -> String {
    let first = content.split_whitespace().next().unwrap_or_default();
    first
        .trim_matches(|c: char| !c.is_alphanumeric())
        .to_lowercase()
}

/// Whether it begins with what looks like a verb: "twirls", "giggling".
fn is_action(content: &str) -> bool {
    let word = first_word(content);
    let is_verb = word.ends_with("ing") || (word.ends_with('s') && !word.ends_with("ss"));
    is_verb && !NO_VERBS.contains(&word.as_str())
}

/// Whether it begins with what is a verb for sure, or with how somebody does something.
fn is_known_action(content: &str) -> bool {
    let word = first_word(content);
    let inflects = |verb: &&str| {
        word.strip_prefix(*verb)
            .is_some_and(|ending| !ending.is_empty() && ending.len() <= ENDING_BYTES_MAX)
    };
    (is_action(content) && VERBS.iter().any(inflects))
        || matches!(word.as_str(), "softly" | "gently" | "quietly" | "nervously")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str, place: Place) -> char {
        match starred(text, true, place, &mut 0) {
            Found::Undecided => '?',
            Found::Nothing => '-',
            Found::Emphasis(_) => 'e',
            Found::Direction(_) => 'd',
        }
    }

    #[test]
    fn what_stands_alone_is_a_direction() {
        for text in [
            "*smiles*",
            "*smiles softly* Hi",
            "*hug*\n",
            "*she **really** smiles* hey",
            "*twirls* hey",
        ] {
            assert_eq!(kind(text, Place::Fresh), 'd', "{text}");
        }
    }

    #[test]
    fn within_a_sentence_it_takes_a_verb() {
        for text in ["*laughs* that is", "*looks away* wanted", "*giggling* um"] {
            assert_eq!(kind(text, Place::Within), 'd', "{text}");
        }
        for text in [
            "*really* mean",
            "*cats* a lot",
            "*The Great Gatsby* is",
            "*stars* above",
        ] {
            assert_eq!(kind(text, Place::Within), 'e', "{text}");
        }
        assert_eq!(kind("*You* are", Place::Fresh), 'e');
    }

    #[test]
    fn what_is_not_closed_is_nothing() {
        let long = format!("*{}*", "la ".repeat(DIRECTION_CHARS_MAX));
        for text in ["*smiles", "*smiles\n*", "*a *b*", "*a *", &long] {
            assert_eq!(kind(text, Place::Fresh), '-', "{text}");
        }
    }

    #[test]
    fn what_was_seen_is_not_looked_at_again() {
        let mut seen = 0;
        assert_eq!(
            starred("*smiles", false, Place::Fresh, &mut seen),
            Found::Undecided
        );
        assert_eq!(seen, 7);
        assert_eq!(
            starred("*smiles*", false, Place::Fresh, &mut seen),
            Found::Undecided
        );
        assert_eq!(
            starred("*smiles* ", false, Place::Fresh, &mut seen),
            Found::Undecided
        );
        assert_eq!(
            starred("*smiles* H", false, Place::Fresh, &mut seen),
            Found::Direction(7)
        );
    }
}

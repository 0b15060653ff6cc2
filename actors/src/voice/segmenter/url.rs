//! Bare URLs: of `https://www.example.com/a?b=c` a voice says `example.com`.

/// Punctuation at the end of a URL that is looked past for whether the URL goes on.
const PUNCTUATION_MAX: usize = 32;

/// Where in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Behind the scheme.
    Start,
    Host,
    /// Behind the host, within so many parentheses.
    Path(u8),
}

pub(super) enum Step {
    /// The URL is over.
    Done,
    Take {
        bytes: usize,
        spoken: bool,
        then: Part,
    },
}

/// Bytes of the scheme that `rest` begins with, 0: with none; `None`: not known yet.
pub(super) fn prefix(rest: &str, at_end: bool) -> Option<usize> {
    let begins = |prefix: &str| {
        let known = rest.len().min(prefix.len());
        let same = rest.as_bytes()[..known].eq_ignore_ascii_case(&prefix.as_bytes()[..known]);
        (same, same && known == prefix.len())
    };
    let mut is_open = false;
    for candidate in ["https://", "http://", "www."] {
        match begins(candidate) {
            (_, true) => return Some(candidate.len()),
            (same, false) => is_open |= same,
        }
    }
    (!is_open || at_end).then_some(0)
}

/// Decides on what comes next of a URL; `None`: not yet.
pub(super) fn step(rest: &str, part: Part, at_end: bool) -> Option<Step> {
    let c = rest.chars().next()?;
    let take = |bytes, spoken, then| {
        Some(Step::Take {
            bytes,
            spoken,
            then,
        })
    };
    match part {
        Part::Start => match prefix(rest, at_end)? {
            4 => take(4, false, Part::Host),
            _ => step(rest, Part::Host, at_end),
        },
        Part::Host if c.is_ascii_alphanumeric() => take(1, true, Part::Host),
        Part::Host | Part::Path(_) if c.is_whitespace() => Some(Step::Done),
        Part::Host => match c {
            '.' | '-' => match (rest[1..].chars().next(), at_end) {
                (None, false) => None,
                (Some(next), _) if next.is_ascii_alphanumeric() => take(1, true, Part::Host),
                _ => Some(Step::Done),
            },
            ':' | '?' | '/' | '#' => step(rest, Part::Path(0), at_end),
            _ => Some(Step::Done),
        },
        Part::Path(depth) => match c {
            '(' => take(1, false, Part::Path(depth.saturating_add(1))),
            ')' if depth > 0 => take(1, false, Part::Path(depth - 1)),
            ')' | ']' | '<' | '>' | '"' | '”' | '»' | '|' | '`' => Some(Step::Done),
            _ if !c.is_ascii() && !c.is_alphabetic() => Some(Step::Done),
            _ if is_final(c) => {
                let behind = rest.trim_start_matches(is_final);
                let bytes = rest.len() - behind.len();
                match behind.chars().next() {
                    None if !at_end && bytes <= PUNCTUATION_MAX => None,
                    Some(next) if next.is_ascii_alphanumeric() || "/#&=%(-+@$".contains(next) => {
                        take(bytes, false, part)
                    }
                    _ => Some(Step::Done),
                }
            }
            _ => take(c.len_utf8(), false, part),
        },
    }
}

/// Ends the sentence around a URL more often than it is part of one that ends.
const fn is_final(c: char) -> bool {
    matches!(
        c,
        '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '_' | '~'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(url: &str) -> (String, &str) {
        let bytes = prefix(url, true).unwrap();
        let (mut rest, mut part, mut spoken) = (&url[bytes..], Part::Start, String::new());
        while let Some(Step::Take {
            bytes,
            spoken: is_spoken,
            then,
        }) = step(rest, part, true)
        {
            if is_spoken {
                spoken.push_str(&rest[..bytes]);
            }
            (rest, part) = (&rest[bytes..], then);
        }
        (spoken, rest)
    }

    #[test]
    fn the_host_is_said() {
        for (url, host, rest) in [
            (
                "https://www.example.com/a?b=c#d next",
                "example.com",
                " next",
            ),
            ("http://example.com. Then", "example.com", ". Then"),
            ("www.a-b.org/x, y", "a-b.org", ", y"),
            ("https://e.org:80/w_(x)).", "e.org", ")."),
            ("https://e.org?q=1!", "e.org", "!"),
            ("HTTPS://", "", ""),
        ] {
            assert_eq!(spoken(url), (host.to_owned(), rest), "{url}");
        }
    }

    #[test]
    fn a_word_is_none() {
        assert_eq!(prefix("hello", false), Some(0));
        assert_eq!(prefix("http", false), None);
        assert_eq!(prefix("http", true), Some(0));
        assert_eq!(prefix("wwé", false), Some(0));
    }
}

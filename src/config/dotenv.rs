//! The `.env` file: `NAME=value` lines.
//!
//! Read the way the ancestor read it, so that its files keep working: an unquoted value may hold
//! spaces, and a `$` in a key is a `$`. An error names the line and never shows it, since it may
//! hold a secret. No library's parser does all three.

/// A line that is neither blank, a comment, nor `NAME=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct MalformedLine {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Reads all assignments, in order; the last of a name counts.
///
/// `export` is skipped, `#` starts a comment at the start of a line or after a space. In single
/// quotes all is literal but `\\` and `\'`; in double quotes `\n \r \t \" \\ \$` are escapes.
/// A quoted value may go on over several lines.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, MalformedLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut assignments = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let (assignment, after) =
            assignment(rest).map_err(|problem| MalformedLine { line, problem })?;
        assignments.extend(assignment);
        rest = after;
    }
    Ok(assignments)
}

/// What was read, and what comes behind it.
type Parsed<'a, T> = Result<(T, &'a str), &'static str>;

fn assignment(text: &str) -> Parsed<'_, Option<(String, String)>> {
    let (line, after) = split_line(text);
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok((None, after));
    }
    let (name, _) = line.split_once('=').ok_or("expected NAME=value")?;
    // The value is cut from the whole text: in quotes it may end lines later.
    let value = text[name.len() + 1..].trim_start_matches([' ', '\t']);
    let name = name.trim();
    let name = name
        .strip_prefix("export ")
        .map_or(name, str::trim_start)
        .to_owned();
    if !is_name(&name) {
        return Err("what stands before the = is not a variable's name");
    }
    let (value, after) = match value.as_bytes().first() {
        Some(b'\'') => quoted(&value[1..], Quote::Single)?,
        Some(b'"') => quoted(&value[1..], Quote::Double)?,
        _ => bare(value),
    };
    Ok((Some((name, value)), after))
}

fn split_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
}

fn bare(text: &str) -> (String, &str) {
    let (line, after) = split_line(text);
    let end = line
        .char_indices()
        .find(|&(at, character)| {
            character == '#' && (at == 0 || line[..at].ends_with(char::is_whitespace))
        })
        .map_or(line.len(), |(at, _)| at);
    (line[..end].trim().to_owned(), after)
}

#[derive(Clone, Copy)]
enum Quote {
    Single,
    Double,
}

/// Reads up to the closing quote; only a comment may follow on its line.
fn quoted(text: &str, quote: Quote) -> Parsed<'_, String> {
    let closing = match quote {
        Quote::Single => '\'',
        Quote::Double => '"',
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == closing {
            let (tail, after) = split_line(&text[at + 1..]);
            let tail = tail.trim();
            if tail.is_empty() || tail.starts_with('#') {
                return Ok((value, after));
            }
            return Err("something follows the closing quote");
        }
        if character != '\\' {
            value.push(character);
            continue;
        }
        let Some((_, escaped)) = characters.next() else {
            break;
        };
        match (quote, escaped) {
            (_, '\\') => value.push('\\'),
            (_, escaped) if escaped == closing => value.push(closing),
            (Quote::Double, 'n') => value.push('\n'),
            (Quote::Double, 'r') => value.push('\r'),
            (Quote::Double, 't') => value.push('\t'),
            (Quote::Double, '$') => value.push('$'),
            // An unknown escape stands for itself, backslash included.
            (_, other) => value.extend(['\\', other]),
        }
    }
    Err("a quoted value is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        let assignments = parse(text).unwrap();
        assert_eq!(assignments.len(), 1, "{text:?}");
        assignments[0].1.clone()
    }

    #[test]
    fn the_ancestors_files_are_read_as_it_read_them() {
        assert_eq!(
            one("A=You are Luna, it's fun # a note\n"),
            "You are Luna, it's fun"
        );
        assert_eq!(one("export A = sk-or$1#2  \r\n"), "sk-or$1#2");
        assert_eq!(one("A=\"two\\nlines\" # note"), "two\nlines");
        assert_eq!(one("A='one\ntwo \\n \\'x\\''\n"), "one\ntwo \\n 'x'");
        assert_eq!(one("\u{feff}# head\n\n  A=\n"), "");
        assert_eq!(one("A=#only a note"), "");
        assert_eq!(one("A=\"\""), "");
        assert_eq!(one("A=b=c"), "b=c");
    }

    #[test]
    fn the_lines_after_a_quoted_value_are_read_on() {
        let assignments = parse("A='x\ny'\nB=\"2\"\n\nC=3").unwrap();
        let names: Vec<_> = assignments.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C"]);
    }

    #[test]
    fn a_malformed_line_is_named_and_not_shown() {
        for (text, line) in [
            ("A=1\nsecret\n", 2),
            ("A=1\n\n# x\nB='secret\n\n", 4),
            ("A='x\ny'\n=secret", 3),
            ("A=\"x\" secret", 1),
            ("my secret=1", 1),
            ("A=\"secret\\", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

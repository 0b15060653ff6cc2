//! Finds a text member in JSON without parsing the rest.
//!
//! Within a JSON text every quote has a backslash before it, so `"name":"` can only be a member.
//! What is in objects of objects is found, too: the first of that name counts.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

use crate::error::LoadError;

/// Finds the member of one name.
pub(super) struct Field {
    finder: memmem::Finder<'static>,
    length: usize,
}

impl Field {
    pub(super) fn new(name: &str) -> Self {
        let pattern = format!("\"{name}\":\"");
        Self {
            finder: memmem::Finder::new(&pattern).into_owned(),
            length: pattern.len(),
        }
    }

    /// Its text; none: there is no such text member.
    pub(super) fn get<'a>(&self, json: &'a [u8]) -> Result<Option<Cow<'a, str>>, LoadError> {
        let Some(at) = self.finder.find(json) else {
            return Ok(None);
        };
        let start = at + self.length;
        let broken = || LoadError::Protocol(format!("no JSON: {}", String::from_utf8_lossy(json)));
        let mut end = start;
        let mut escaped = Escapes::None;
        loop {
            let rest = json.get(end..).ok_or_else(broken)?;
            let found = memchr2(b'"', b'\\', rest).ok_or_else(broken)?;
            end += found;
            if json.get(end) == Some(&b'"') {
                break;
            }
            escaped = Escapes::Some;
            end += 2;
        }
        let text = match escaped {
            Escapes::None => std::str::from_utf8(&json[start..end])
                .map_err(|_| broken())?
                .into(),
            Escapes::Some => serde_json::from_slice::<String>(&json[start - 1..=end])?.into(),
        };
        Ok(Some(text))
    }
}

enum Escapes {
    None,
    Some,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(json: &str) -> Option<String> {
        let found = Field::new("content").get(json.as_bytes()).unwrap();
        found.map(Cow::into_owned)
    }

    #[test]
    fn plain_and_escaped_texts_are_read() {
        assert_eq!(
            content(r#"{"a":1,"content":"x y"}"#).as_deref(),
            Some("x y")
        );
        assert_eq!(
            content(r#"{"content":"\"q\"\n\\","b":""}"#).as_deref(),
            Some("\"q\"\n\\")
        );
        assert_eq!(content(r#"{"content":""}"#).as_deref(), Some(""));
    }

    #[test]
    fn a_name_within_a_text_is_none() {
        assert_eq!(content(r#"{"text":"\"content\":\"x\""}"#), None);
        assert_eq!(content(r#"{"content":null}"#), None);
    }

    #[test]
    fn what_is_cut_is_an_error() {
        assert!(Field::new("content").get(br#"{"content":"x\"#).is_err());
    }
}

//! What an error body says, whichever of the servers in a project wrote it.

use serde_json::Value;

/// Longest quotation of a server, in characters.
const QUOTE_CHARS_MAX: usize = 300;

/// The facts of an error body: Storage's `{statusCode, error, message, code}`, PostgREST's
/// `{code, message, details, hint}`, a gateway's `{message, …}`, a web page, nothing at all.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The error's name: Storage's word, a SQLSTATE, `PGRSTnnn`.
    pub(super) code: Option<String>,
    /// The status that Storage means, whatever HTTP's says.
    pub(super) status: Option<u16>,
    /// The sentence.
    pub(super) message: String,
}

impl Report {
    /// Reads a body; anything goes, an empty one too.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            let message = if text.starts_with('<') { "" } else { text };
            return Self {
                message: message.to_owned(),
                ..Self::default()
            };
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let status = match body.get("statusCode") {
            Some(Value::String(status)) => status.parse().ok(),
            Some(Value::Number(status)) => status.as_u64().and_then(|n| u16::try_from(n).ok()),
            _ => None,
        };
        let sentence = text("message").or_else(|| text("msg"));
        Self {
            code: text("code").map(ToOwned::to_owned),
            status,
            message: sentence
                .or_else(|| text("error"))
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// Whether a service of the project wrote it, and not something in between.
    pub(super) fn is_from_service(&self) -> bool {
        self.code.is_some() || self.status.is_some()
    }

    /// Whether the sentence holds one of these words, in whatever case.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        words.iter().any(|word| message.contains(word))
    }
}

/// Makes a server's words fit for a log line: one line, not too long.
pub(super) fn quote(words: &str) -> String {
    let mut clean: String = words
        .chars()
        .take(QUOTE_CHARS_MAX)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    if words.chars().nth(QUOTE_CHARS_MAX).is_some() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_body_is_read() {
        for (body, code, status, message) in [
            ("", None, None, ""),
            ("<html>502</html>", None, None, ""),
            (" upstream gone ", None, None, "upstream gone"),
            ("[1]", None, None, "[1]"),
            (r#"{"statusCode":"404","error":"x"}"#, None, Some(404), "x"),
            (r#"{"statusCode":404,"message":"m"}"#, None, Some(404), "m"),
            (r#"{"statusCode":-1,"code":7,"msg":"m"}"#, None, None, "m"),
            (
                r#"{"code":"23503","message":"m","details":null}"#,
                Some("23503"),
                None,
                "m",
            ),
        ] {
            let report = Report::read(body.as_bytes());
            let found = (report.code.as_deref(), report.status, &*report.message);
            assert_eq!(found, (code, status, message), "{body}");
        }
    }

    #[test]
    fn quotations_are_one_short_line() {
        assert_eq!(quote("a\r\nb\0c"), "a  b c");
        let long = quote(&"é".repeat(QUOTE_CHARS_MAX + 1));
        assert_eq!(long.chars().count(), QUOTE_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }
}

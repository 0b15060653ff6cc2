//! Brings JSON spelled by others into the canonical escaping of [`JsonText`].

use memchr::memchr;

use crate::json_text::JsonText;

/// Appends the inside of a JSON string, or a whole JSON text, with every escape in canonical form.
///
/// Backslashes stand only inside strings, so that one pass serves both. A lone surrogate
/// (`\ud83d` without its partner, as JavaScript cuts text) becomes U+FFFD: no Rust string, and
/// no strict client, could hold it. What is no JSON at all comes out as some text, never a panic.
pub(super) fn push_canonical(text: &mut JsonText, spelled: &str) {
    let mut rest = spelled;
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        let (clean, escape) = rest.split_at(at);
        text.push_escaped(clean);
        let (plain, width) = match escape.as_bytes().get(1) {
            Some(b'/') => ('/', 2),
            Some(b'u') => unicode_escape(escape),
            // The short escapes are the canonical ones.
            _ => {
                let width = escape
                    .char_indices()
                    .nth(2)
                    .map_or(escape.len(), |(at, _)| at);
                text.push_escaped(&escape[..width]);
                rest = &escape[width..];
                continue;
            }
        };
        text.push_plain(plain.encode_utf8(&mut [0; 4]));
        rest = &escape[width..];
    }
    text.push_escaped(rest);
}

/// The canonical spelling of a whole JSON text, on one line.
pub(super) fn canonical_json(spelled: &str) -> String {
    let mut text = JsonText::default();
    push_canonical(&mut text, spelled);
    let mut json = text.into_escaped();
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        // Strings hold no raw line ends, so these stand between tokens, where a space does.
        json = json.replace(['\n', '\r'], " ");
    }
    json
}

/// Decodes `\uXXXX`, or a pair of them, at the start of `escape`; gives its width in bytes too.
fn unicode_escape(escape: &str) -> (char, usize) {
    const WIDTH: usize = 6;
    let Some(first) = code_unit(escape) else {
        return (char::REPLACEMENT_CHARACTER, 2);
    };
    let units = [Some(first), escape.get(WIDTH..).and_then(code_unit)];
    let mut decoded = char::decode_utf16(units.into_iter().flatten());
    match decoded.next() {
        Some(Ok(character)) => (character, WIDTH * character.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, WIDTH),
    }
}

fn code_unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(inside: &str) -> String {
        let mut text = JsonText::default();
        push_canonical(&mut text, inside);
        text.into_escaped()
    }

    #[test]
    fn escapes_take_their_shortest_form() {
        for (spelled, expected) in [
            ("plain é 🚀", "plain é 🚀"),
            (r"a\/b", "a/b"),
            (r#"\"\\\n\r\t\b\f"#, r#"\"\\\n\r\t\b\f"#),
            (r"\u0041\u00e9\u6771", "Aé東"),
            (r"\u000a\u0022\u005C\u001F", r#"\n\"\\\u001f"#),
            (r"\ud83d\ude80!", "🚀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ud83dx\ude80", "\u{fffd}x\u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ud83d\ud83d\ude80", "\u{fffd}🚀"),
        ] {
            assert_eq!(canonical(spelled), expected, "{spelled}");
        }
    }

    #[test]
    fn a_whole_text_keeps_its_meaning_on_one_line() {
        let json = canonical_json("{\"a\":\n[\"x\\u0022\\ud83d\\/\"]\r\n}");
        assert!(!json.contains(['\n', '\r']));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, serde_json::json!({"a": ["x\"\u{fffd}/"]}));
    }

    proptest! {
        #[test]
        fn any_spelling_of_a_text_becomes_the_canonical_one(plain in any::<String>()) {
            let spelled: String = plain
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04X}"))
                .collect();
            prop_assert_eq!(canonical(&spelled), JsonText::escape(&plain).into_escaped());
        }

        #[test]
        fn nonsense_does_not_panic(text in "([\\\\u0-9a-f\"é🚀])*") {
            canonical_json(&text);
        }
    }
}

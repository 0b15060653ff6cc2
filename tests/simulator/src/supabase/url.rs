//! Percent-decoding, and the parameters of a query.

/// Decodes a percent-encoded text once; `None` when it is malformed or not UTF-8.
///
/// A plus stays a plus: this is a path.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Returns the decoded parameters of a target's query, in their order; a plus is a space.
pub(crate) fn query(target: &str) -> Vec<(String, String)> {
    let Some((_, query)) = target.split_once('?') else {
        return Vec::new();
    };
    let text = |part: &str| decode(&part.replace('+', " ")).unwrap_or_default();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(decode("a%252eb+c").as_deref(), Some("a%2eb+c"));
        assert_eq!(decode("na%C3%AFve").as_deref(), Some("naïve"));
        for malformed in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn parameters_keep_their_order() {
        let parameters = query("/t?id=in.%28a%2Cb%29&select=a,b&x");
        let expected = [("id", "in.(a,b)"), ("select", "a,b"), ("x", "")];
        assert_eq!(
            parameters,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}

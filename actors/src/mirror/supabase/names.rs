//! Object keys and filter values as parts of a URL.

use super::error::{SupabaseError, SupabaseErrorKind};

/// Encodes one segment of a path, or a value of a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Encodes an object's key, segment by segment.
///
/// # Errors
///
/// The key would end up elsewhere: without a segment it names the bucket, and URLs fold dots.
pub(super) fn encode_key(key: &str) -> Result<String, SupabaseError> {
    let mut encoded = String::with_capacity(key.len());
    for (index, segment) in key.split('/').enumerate() {
        if matches!(segment, "" | "." | "..") {
            return Err(SupabaseError {
                kind: SupabaseErrorKind::RejectedName,
                message: format!("{key:?} is no key of an object"),
                retry_after: None,
            });
        }
        if index > 0 {
            encoded.push('/');
        }
        encoded.push_str(&encode(segment));
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    #[test]
    fn keys_are_encoded_by_segment() {
        for (key, encoded) in [
            ("a_B-9.json", "a_B-9.json"),
            ("sub/a b+c.json", "sub/a%20b%2Bc.json"),
            ("50%?#.json", "50%25%3F%23.json"),
            ("naïve", "na%C3%AFve"),
        ] {
            assert_eq!(encode_key(key).unwrap(), encoded);
        }
        for key in ["", "/", "a//b", "/a", "a/", ".", "a/../b", ".."] {
            let error = encode_key(key).unwrap_err();
            assert_eq!(error.kind, SupabaseErrorKind::RejectedName, "{key}");
        }
    }

    proptest! {
        #[test]
        fn no_key_leaves_its_place_in_the_url(key in "[ -~é/.%]{1,20}") {
            if let Ok(encoded) = encode_key(&key) {
                let url = Url::parse(&format!("http://host/object/bucket/{encoded}")).unwrap();
                prop_assert_eq!(url.path(), format!("/object/bucket/{encoded}"));
                prop_assert_eq!(url.query(), None);
                prop_assert_eq!(url.path().split('/').count(), key.split('/').count() + 3);
            }
        }
    }
}

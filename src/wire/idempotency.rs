//! Keys by which a client's repeat of a request is recognized.

use actix_web::http::header::HeaderMap;
use idol_actors::{
    caller::Caller,
    conversation::command::{At, RequestKey},
    id::{ConversationId, Origin},
};
use uuid::{Uuid, uuid};

use super::{
    chat::Named,
    fields::{FieldError, Step},
};

/// The header's name.
pub const HEADER: &str = "Idempotency-Key";

/// Longest key in a header, in characters.
const CHARACTERS_MAX: usize = 255;

/// Shortest key that names a conversation, or that comes from somebody unknown: all of them share
/// one scope, and a key that another could hit upon would open that one's conversation.
pub const CHARACTERS_MIN: usize = 16;

/// Conversations that are named by a key.
const NAMESPACE: Uuid = uuid!("9d2a1f6e-5c0b-4f53-8a77-6b1d3e94c208");

/// The key of a request, from its headers.
pub fn key_of(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, FieldError> {
    let mut values = headers.get_all(HEADER);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(wrong("Header should come once"));
    }
    let visible = |byte: &u8| byte.is_ascii_graphic();
    let bytes = value.as_bytes();
    if bytes.len() > CHARACTERS_MAX || !bytes.iter().all(visible) {
        return Err(wrong(format!(
            "Header should have at most {CHARACTERS_MAX} characters, of visible ASCII"
        )));
    }
    let characters_min = match caller {
        Caller::Anonymous => CHARACTERS_MIN,
        Caller::Service { .. } | Caller::User { .. } => 1,
    };
    if bytes.len() < characters_min {
        return Err(wrong(format!(
            "Header should have at least {characters_min} characters"
        )));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// Something is wrong with the header.
fn wrong(msg: impl Into<String>) -> FieldError {
    FieldError {
        kind: "value_error",
        loc: place(),
        msg: msg.into(),
        input: None,
    }
}

/// Where the key stands in a request.
#[must_use]
pub fn place() -> Vec<Step> {
    vec![Step::Name("header".into()), Step::Name(HEADER.into())]
}

/// The conversation of a request that names none but has a key: its repeat names the same one.
#[must_use]
pub fn conversation(caller: &Caller, key: &str) -> Named {
    let name = format!("{}\n{key}", caller.scope());
    let spelled = Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string();
    // A UUID is an id.
    match ConversationId::parse(&spelled) {
        // A repeat names it after a restart as well: it may be stored somewhere.
        Ok(id) => Named {
            id,
            spelled,
            origin: Origin::Client,
        },
        Err(_never) => Named::random(),
    }
}

/// The key of a message on a socket, with what it says.
#[must_use]
pub fn of_message(
    key: String,
    at: At,
    text: Option<&str>,
    model: Option<&str>,
    system_prompt: Option<&str>,
) -> RequestKey {
    // As JSON: where one part ends and the next begins is certain.
    let request = serde_json::json!([text, model, system_prompt]).to_string();
    match at {
        At::End => RequestKey::new(key, request.as_bytes()),
        At::Reply(_) | At::Message(_) => of_branch(key, at, request.as_bytes()),
    }
}

/// The key of a request that replaces something; what it says comes as bytes.
#[must_use]
pub fn of_branch(key: String, at: At, request: &[u8]) -> RequestKey {
    // Told from a message that says the same.
    let mut whole = serde_json::json!(at).to_string().into_bytes();
    whole.extend_from_slice(request);
    RequestKey::new(key, &whole)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, FieldError> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static("idempotency-key"), value);
        }
        key_of(&headers, &Caller::Anonymous)
    }

    #[test]
    fn a_key_has_sixteen_to_255_visible_characters_and_comes_once() {
        assert_eq!(key(&[]).unwrap(), None);
        for good in [[b'~'; 16].as_slice(), &[b'!'; 255]] {
            let text = str::from_utf8(good).unwrap().to_owned();
            assert_eq!(key(&[good]).unwrap(), Some(text));
        }
        let bad: [&[&[u8]]; 6] = [
            &[b""],
            &[&[b'x'; 15]],
            &[&[b'x'; 256]],
            &[b"sixteen and a blank"],
            &["sixteen-and-more-é".as_bytes()],
            &[&[b'x'; 16], &[b'x'; 16]],
        ];
        for values in bad {
            let error = key(values).unwrap_err();
            assert_eq!(error.loc, place(), "{values:?}");
        }
    }

    #[test]
    fn a_key_names_one_conversation_of_its_scope() {
        let of = |caller: &Caller, key| conversation(caller, key).id;
        let user = Caller::User { sub: "u".into() };
        assert_eq!(of(&user, "k"), of(&user, "k"));
        assert_ne!(of(&user, "k"), of(&user, "l"));
        assert_ne!(of(&user, "k"), of(&Caller::Anonymous, "k"));
    }

    #[test]
    fn a_message_that_says_something_else_is_another_request() {
        let of = |text: &str, model, system| {
            of_message("k".into(), At::End, Some(text), model, system).request
        };
        let same = of("a", Some("b"), None);
        assert_eq!(same, of("a", Some("b"), None));
        for other in [
            of("a", None, Some("b")),
            of("a", None, None),
            of("ab", None, None),
        ] {
            assert_ne!(same, other);
        }
    }
}

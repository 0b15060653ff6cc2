//! What the upstream and a conversation tell each other of its context. Pure.

use uuid::Uuid;

use super::prompt::Parameters;
use crate::{id::ConversationId, shared::Sessions};

/// Namespace of the ids that upstreams know conversations by.
const SESSIONS: Uuid = Uuid::from_u128(0x5d0c_6b52_3f0e_4b7a_9a53_0e2f_7c41_86d9);

/// Names the conversation to an upstream that keeps one on the host which has its prompt cached.
pub fn name_session(id: &ConversationId, sessions: Sessions, parameters: &mut Parameters) {
    match sessions {
        Sessions::Unnamed => {}
        Sessions::Named => {
            let member = format!("\"session_id\":\"{}\"", session_id(id));
            if !parameters.members.is_empty() {
                parameters.members.push(',');
            }
            parameters.members.push_str(&member);
        }
    }
}

/// The same for every turn of a conversation, and no way back to its id, which is a secret.
fn session_id(id: &ConversationId) -> Uuid {
    Uuid::new_v5(&SESSIONS, id.as_str().as_bytes())
}

/// How upstreams introduce the length of a context, in lower case.
const INTRODUCTIONS: [&str; 3] = ["maximum context length", "context size", "context window"];

/// Most bytes between the introduction and the number.
const GAP_MAX: usize = 24;

/// The length of the model's context, in tokens, that a refusal states.
#[must_use]
pub fn stated_length(message: &str) -> Option<u32> {
    let message = message.to_ascii_lowercase();
    INTRODUCTIONS.iter().find_map(|introduction| {
        let (_, rest) = message.split_once(introduction)?;
        let at = rest.find(|it: char| it.is_ascii_digit())?;
        if at > GAP_MAX {
            return None;
        }
        let digits = rest[at..].chars();
        let digits = digits.take_while(|it| it.is_ascii_digit() || *it == ',');
        let digits: String = digits.filter(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|length| *length > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_found_in_the_words_of_upstreams() {
        for (message, length) in [
            (
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
                Some(8_192),
            ),
            (
                "This endpoint's maximum context length is 131,072 tokens. However, you requested about 140000 tokens",
                Some(131_072),
            ),
            (
                "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
                Some(4_096),
            ),
            ("Context is longer than the model allows", None),
            (
                "the context window was exceeded by far, as it has been 2 times",
                None,
            ),
            ("maximum context length: 99999999999999", None),
            ("", None),
        ] {
            assert_eq!(stated_length(message), length, "{message}");
        }
    }

    #[test]
    fn an_upstream_knows_a_conversation_by_a_name_that_does_not_tell_its_id() {
        let id = |text| ConversationId::parse(text).unwrap();
        let (one, other) = (session_id(&id("c1")), session_id(&id("c2")));
        assert_eq!(one, session_id(&id("c1")));
        assert_ne!(one, other);
        assert_eq!(one.get_version_num(), 5);
    }
}

//! Identifiers, with checked constructors: a value of these types is always valid.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest conversation id in bytes.
pub const CONVERSATION_ID_BYTES_MAX: usize = 128;

/// Names one conversation: a UUID, or 1 to 128 characters of `[A-Za-z0-9_-]`.
///
/// Holds the canonical spelling: a UUID is in lower case, so that two spellings of it are one
/// conversation. What the client wrote is kept by the session, which echoes it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ConversationId(Arc<str>);

/// Where an id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A client named it: it may have been used before, somewhere else.
    #[default]
    Client,
    /// Made by this server a moment ago: nobody can know it.
    Minted,
}

/// The text is no conversation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID or 1 to {CONVERSATION_ID_BYTES_MAX} characters of A-Z a-z 0-9 _ -")]
pub struct InvalidId;

impl ConversationId {
    /// Checks and canonicalizes a client's spelling.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > CONVERSATION_ID_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(InvalidId);
        }
        if Uuid::try_parse(text).is_ok() {
            return Ok(Self(text.to_ascii_lowercase().into()));
        }
        Ok(Self(text.into()))
    }

    /// Makes a new random one (UUIDv4: it may be the only secret that guards a conversation).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// The canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a new, time-ordered one (UUIDv7).
            #[must_use]
            pub fn now() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id! {
    /// Names one turn. Minted by the session, so that a command can be sent again.
    TurnId
}
uuid_id! {
    /// Names one stored message.
    MessageId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_uuid_are_one_conversation() {
        let upper = ConversationId::parse("71D20E34-C2AE-48E1-812B-18CFE7E3C401").unwrap();
        let lower = ConversationId::parse("71d20e34-c2ae-48e1-812b-18cfe7e3c401").unwrap();
        assert_eq!(upper, lower);
    }

    #[test]
    fn other_ids_keep_their_case() {
        assert_ne!(
            ConversationId::parse("Room_1").unwrap(),
            ConversationId::parse("room_1").unwrap()
        );
    }

    #[test]
    fn ids_that_could_leave_the_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "é",
            "a\0",
            "{71d20e34-c2ae-48e1-812b-18cfe7e3c401}",
        ] {
            assert_eq!(ConversationId::parse(bad), Err(InvalidId), "{bad:?}");
        }
        assert!(ConversationId::parse(&"x".repeat(128)).is_ok());
        assert!(ConversationId::parse(&"x".repeat(129)).is_err());
    }
}

//! Who gives a command.

use serde::Serialize;

/// Who gives a command. Carried by every one, checked by the conversation alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// Nobody in particular: authentication is off, the conversation id is the secret.
    Anonymous,
    /// A service with a key of its own.
    Service {
        /// Name of the key.
        name: String,
        /// The user it acts for.
        on_behalf_of: Option<String>,
    },
    /// An end user.
    User {
        /// Subject of the token.
        sub: String,
    },
}

impl Caller {
    /// Whose idempotency keys these are: callers of one scope share them.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::Service {
                name,
                on_behalf_of: None,
            } => format!("service:{name}"),
            Self::Service {
                name,
                on_behalf_of: Some(user),
            } => format!("service:{name}:{user}"),
            Self::User { sub } => format!("user:{sub}"),
        }
    }

    /// Whether this caller may use a conversation of this owner.
    #[must_use]
    pub fn may_use(&self, owner: Option<&str>) -> bool {
        match self {
            Self::Anonymous
            | Self::Service {
                on_behalf_of: None, ..
            } => true,
            Self::Service {
                on_behalf_of: Some(user),
                ..
            }
            | Self::User { sub: user } => owner.is_none_or(|owner| owner == user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_uses_only_what_is_theirs_or_nobodys() {
        let alice = Caller::User {
            sub: "alice".into(),
        };
        assert!(alice.may_use(Some("alice")));
        assert!(alice.may_use(None));
        assert!(!alice.may_use(Some("bob")));
        assert!(Caller::Anonymous.may_use(Some("bob")));
    }
}

//! Parts of a conversation's messages: those after one of them, at most so many.

use idol_actors::{
    conversation::{document::Snapshot, message::StoredMessage},
    id::MessageId,
};
use uuid::Uuid;

/// Most messages in a page.
pub const MESSAGES_MAX: usize = 1_000;

/// Which part of the messages is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Those after the message of this id; none: from the first on.
    pub after: Option<String>,
    /// At most so many; none: all.
    pub limit: Option<usize>,
}

/// A part of the messages.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// In order.
    pub messages: &'a [StoredMessage],
    /// Whether others follow.
    pub more: More,
}

/// Whether messages follow those of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// None do.
    No,
    /// Some do.
    Yes,
}

impl More {
    /// As JSON.
    #[must_use]
    pub fn as_json(self) -> &'static str {
        match self {
            Self::No => "false",
            Self::Yes => "true",
        }
    }
}

/// The message after which a page is to begin is none of the conversation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Input should be the id of a message of this conversation")]
pub struct NoSuchMessage;

impl PageRequest {
    /// Whether a part is wanted, and not the whole document.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.after.is_some() || self.limit.is_some()
    }

    /// Tells this request from others, within one version of a document.
    #[must_use]
    pub fn hash(&self) -> String {
        let after = self.after.as_deref().unwrap_or_default();
        let after = after.to_ascii_lowercase();
        let limit = self.limit.map(|limit| limit.to_string());
        let text = format!("{after} {}", limit.unwrap_or_default());
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
        hash.simple().to_string()
    }

    /// The part of these messages that is wanted.
    pub fn of<'a>(&self, snapshot: &'a Snapshot) -> Result<Page<'a>, NoSuchMessage> {
        let rest = match &self.after {
            None => &snapshot.messages[..],
            Some(after) => {
                let id = Uuid::try_parse(after).map_err(|_no_id| NoSuchMessage)?;
                let from = snapshot.after(MessageId(id)).ok_or(NoSuchMessage)?;
                &snapshot.messages[from..]
            }
        };
        let page = Page {
            messages: rest,
            more: More::No,
        };
        Ok(page.first(self.limit.unwrap_or(rest.len())))
    }
}

impl<'a> Page<'a> {
    /// Its first messages, at most so many.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        match self.messages.get(..count) {
            Some(messages) if count < self.messages.len() => Self {
                messages,
                more: More::Yes,
            },
            Some(_) | None => self,
        }
    }

    /// Its first messages, as many as take at most so many bytes, and at least one: a message that
    /// is larger on its own must not keep a reader from those behind it.
    #[must_use]
    pub fn within(self, bytes_max: usize) -> Self {
        let mut bytes = 0;
        let fit = self.messages.iter().take_while(|message| {
            bytes += message.shown_bytes() + 1;
            bytes <= bytes_max
        });
        let count = fit.count().max(1);
        self.first(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use idol_actors::{
        conversation::message::{Draft, Role, Stamp},
        json_text::JsonText,
        time::Timestamp,
        voice::usage::VoiceUsage,
    };
    use proptest::prelude::*;

    use super::*;

    fn message(bytes: usize) -> StoredMessage {
        let stamp = Stamp {
            timestamp: Timestamp::from_micros(1),
            id: MessageId::now(),
            turn: None,
            model: None,
            models: &[],
            finish_reason: None,
        };
        let text = JsonText::escape(&"x".repeat(bytes));
        StoredMessage::new(&Draft::text(Role::User, text), &stamp)
    }

    fn snapshot(messages: Vec<StoredMessage>) -> Snapshot {
        Snapshot {
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(1),
            user_id: None,
            character_id: None,
            incarnation: 1,
            seq: 1,
            messages,
            voice_usage: VoiceUsage::default(),
            heirs: Arc::default(),
        }
    }

    proptest! {
        #[test]
        fn a_walk_with_any_limits_and_sizes_gives_every_message_once_and_in_order(
            sizes in prop::collection::vec(0usize..600, 0..40),
            limits in prop::collection::vec(prop::option::of(1usize..9), 1..6),
            bytes_max in 1usize..2_000,
        ) {
            let all = snapshot(sizes.into_iter().map(message).collect());
            let (mut seen, mut after) = (Vec::new(), None);
            for limit in limits.iter().cycle() {
                let request = PageRequest { after, limit: *limit };
                let page = request.of(&all).unwrap().within(bytes_max);
                prop_assert!(limit.is_none_or(|limit| page.messages.len() <= limit));
                let bytes: usize = page.messages.iter().map(StoredMessage::bytes).sum();
                prop_assert!(bytes <= bytes_max || page.messages.len() == 1);
                seen.extend(page.messages.iter().map(StoredMessage::id));
                prop_assert_eq!(page.more == More::Yes, seen.len() < all.messages.len());
                let Some(last) = page.messages.last().filter(|_| page.more == More::Yes) else {
                    break;
                };
                after = last.id().map(|id| id.to_string());
            }
            let ids: Vec<_> = all.messages.iter().map(StoredMessage::id).collect();
            prop_assert_eq!(seen, ids);
        }
    }

    #[test]
    fn after_a_message_that_is_not_there_is_no_page() {
        let all = snapshot(vec![message(1)]);
        for after in ["x".to_owned(), MessageId::now().to_string()] {
            let request = PageRequest {
                after: Some(after),
                limit: None,
            };
            assert_eq!(request.of(&all).unwrap_err(), NoSuchMessage);
        }
    }

    #[test]
    fn requests_for_other_parts_have_other_hashes() {
        let request = |after: Option<&str>, limit| PageRequest {
            after: after.map(str::to_owned),
            limit,
        };
        let hashes = [
            request(None, Some(1)).hash(),
            request(None, Some(11)).hash(),
            request(Some("1"), Some(1)).hash(),
            request(Some("1"), None).hash(),
            request(Some("11"), None).hash(),
        ];
        let different: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(different.len(), hashes.len());
    }
}

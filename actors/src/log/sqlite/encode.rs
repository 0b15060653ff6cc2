//! An entry as a row, and back.
//!
//! The head is JSON; the messages' text follows as one blob. Encoding happens on the caller's
//! thread, so that the writer thread only binds.

use std::sync::Arc;

use crate::log::entry::{Entry, EntryHead};

/// Version of the rows that this code writes. A reader that meets a later one stops; each is a
/// superset of the one before it.
pub(super) const VERSION: i64 = 5;

/// Most bytes of message text in one entry: half of what the storage engine takes in a blob.
const BODY_BYTES_MAX: usize = 512 << 20;

/// The `kind` column: what the unique index tells acceptances from ends by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Kind {
    Begun = 1,
    TurnAccepted = 2,
    TurnEnded = 3,
    TurnReopened = 4,
    Appended = 5,
    Prepended = 6,
    Deleted = 7,
    Heard = 8,
    VoiceUsed = 9,
}

impl Kind {
    pub(super) fn of(head: &EntryHead) -> Self {
        match head {
            EntryHead::Begun(_) => Self::Begun,
            EntryHead::TurnAccepted(_) => Self::TurnAccepted,
            EntryHead::TurnEnded(_) => Self::TurnEnded,
            EntryHead::TurnReopened(_) => Self::TurnReopened,
            EntryHead::Appended(_) => Self::Appended,
            EntryHead::Prepended(_) => Self::Prepended,
            EntryHead::Deleted(_) => Self::Deleted,
            EntryHead::Heard(_) => Self::Heard,
            EntryHead::VoiceUsed(_) => Self::VoiceUsed,
        }
    }

    pub(super) fn column(self) -> i64 {
        self as i64
    }
}

/// An entry ready to be bound.
#[derive(Debug)]
pub(super) struct Encoded {
    /// As it came: the catalogue is kept from it.
    pub(super) head: EntryHead,
    head_json: Vec<u8>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// The usual case: the text shared with the history is bound as it is.
    One(Arc<str>),
    Many {
        lengths: Vec<u8>,
        joined: Vec<u8>,
    },
}

/// The entry cannot be stored at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("the entry's head cannot be written as JSON: {0}")]
    Head(#[from] serde_json::Error),
    #[error("the entry holds {bytes} bytes of messages, more than the log takes")]
    TooLarge { bytes: usize },
}

impl Encoded {
    pub(super) fn new(entry: Entry) -> Result<Self, EncodeError> {
        let bytes = entry.messages.iter().map(|message| message.len()).sum();
        if bytes > BODY_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes });
        }
        let head_json = serde_json::to_vec(&entry.head)?;
        let body = match <[Arc<str>; 1]>::try_from(entry.messages) {
            Ok([message]) => Body::One(message),
            Err(messages) => {
                let mut lengths = Vec::with_capacity(messages.len() * 4);
                let mut joined = Vec::with_capacity(bytes);
                for message in &messages {
                    let length = u32::try_from(message.len())
                        .map_err(|_| EncodeError::TooLarge { bytes })?;
                    lengths.extend_from_slice(&length.to_le_bytes());
                    joined.extend_from_slice(message.as_bytes());
                }
                Body::Many { lengths, joined }
            }
        };
        Ok(Self {
            head: entry.head,
            head_json,
            body,
        })
    }

    pub(super) fn head_json(&self) -> &[u8] {
        &self.head_json
    }

    pub(super) fn lengths(&self) -> Option<&[u8]> {
        match &self.body {
            Body::One(_) => None,
            Body::Many { lengths, .. } => Some(lengths),
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        match &self.body {
            Body::One(message) => message.as_bytes(),
            Body::Many { joined, .. } => joined,
        }
    }

    /// Bytes that it takes in the queue and, about, in the database.
    pub(super) fn bytes(&self) -> usize {
        self.head_json.len() + self.body().len()
    }
}

/// The columns of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) version: i64,
    pub(super) kind: i64,
    pub(super) head: &'a [u8],
    pub(super) lengths: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it has version {0}, which this release does not know")]
    Version(i64),
    #[error("it has kind {0}, which is not what its head says")]
    Kind(i64),
    #[error("its head does not parse: {0}")]
    Head(#[from] serde_json::Error),
    #[error("its messages are not valid UTF-8")]
    Text(#[from] std::str::Utf8Error),
    #[error("the lengths of its messages do not add up")]
    Lengths,
}

pub(super) fn decode(row: Row<'_>) -> Result<Entry, DecodeError> {
    if !(1..=VERSION).contains(&row.version) {
        return Err(DecodeError::Version(row.version));
    }
    let head: EntryHead = serde_json::from_slice(row.head)?;
    if Kind::of(&head).column() != row.kind {
        return Err(DecodeError::Kind(row.kind));
    }
    let messages = match row.lengths {
        None => vec![Arc::from(str::from_utf8(row.body)?)],
        Some(lengths) => split(lengths, row.body)?,
    };
    Ok(Entry { head, messages })
}

fn split(lengths: &[u8], mut body: &[u8]) -> Result<Vec<Arc<str>>, DecodeError> {
    let (lengths, []) = lengths.as_chunks::<4>() else {
        return Err(DecodeError::Lengths);
    };
    let mut messages = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length =
            usize::try_from(u32::from_le_bytes(*length)).map_err(|_| DecodeError::Lengths)?;
        let (message, rest) = body.split_at_checked(length).ok_or(DecodeError::Lengths)?;
        messages.push(Arc::from(str::from_utf8(message)?));
        body = rest;
    }
    if body.is_empty() {
        Ok(messages)
    } else {
        Err(DecodeError::Lengths)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::{
        id::{MessageId, TurnId},
        log::entry::{
            Added, Begun, Deleted, Heard, IdempotencyKey, Owed, Prepended, TurnAccepted, TurnEnded,
            TurnReopened, VoiceUsed,
        },
        provider::RawJson,
        time::Timestamp,
        voice::usage::VoiceUsage,
    };

    fn row(encoded: &Encoded) -> Row<'_> {
        Row {
            version: VERSION,
            kind: Kind::of(&encoded.head).column(),
            head: encoded.head_json(),
            lengths: encoded.lengths(),
            body: encoded.body(),
        }
    }

    fn text() -> impl Strategy<Value = String> {
        "(\\PC|[\\x00-\\x1f\"\\\\]){0,20}"
    }

    fn at() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_micros)
    }

    fn usage() -> impl Strategy<Value = RawJson> {
        (any::<u64>(), text()).prop_map(|(tokens, text)| {
            let json = format!(
                "{{ \"tokens\" :{tokens}, \"x\":[1e3,null,{}]}}",
                serde_json::Value::from(text)
            );
            RawJson(RawValue::from_string(json).unwrap())
        })
    }

    fn key() -> impl Strategy<Value = IdempotencyKey> {
        (text(), text(), any::<u128>()).prop_map(|(scope, key, request)| IdempotencyKey {
            scope,
            key,
            request: Uuid::from_u128(request),
        })
    }

    fn used() -> impl Strategy<Value = VoiceUsage> {
        (any::<u64>(), 0u64..1 << 40).prop_map(|(characters, heard_ms)| VoiceUsage {
            characters,
            heard_ms,
        })
    }

    fn replaced() -> impl Strategy<Value = Option<MessageId>> {
        prop::option::of(any::<u128>().prop_map(|id| MessageId(Uuid::from_u128(id))))
    }

    fn head() -> impl Strategy<Value = EntryHead> {
        let name = || prop::option::of(text());
        prop_oneof![
            (
                at(),
                any::<u64>(),
                name(),
                name(),
                prop::option::of(at()),
                prop::option::of(used()),
                any::<bool>()
            )
                .prop_map(
                    |(
                        at,
                        incarnation,
                        user_id,
                        character_id,
                        imported_updated_at,
                        voice_usage,
                        unverified,
                    )| {
                        EntryHead::Begun(Begun {
                            at,
                            incarnation,
                            user_id,
                            character_id,
                            imported_updated_at,
                            voice_usage,
                            unverified,
                        })
                    }
                ),
            (
                at(),
                any::<u128>(),
                any::<u128>(),
                name(),
                name(),
                text(),
                prop::option::of(key()),
                replaced(),
                prop_oneof![Just(Owed::Reply), Just(Owed::Nothing)]
            )
                .prop_map(
                    |(at, turn, reply, user_id, character_id, model, key, replaces, owed)| {
                        EntryHead::TurnAccepted(TurnAccepted {
                            at,
                            turn: TurnId(Uuid::from_u128(turn)),
                            reply: MessageId(Uuid::from_u128(reply)),
                            user_id,
                            character_id,
                            model,
                            key,
                            replaces,
                            owed,
                        })
                    }
                ),
            (
                at(),
                any::<u128>(),
                any::<u32>(),
                text(),
                prop::option::of(usage()),
                name()
            )
                .prop_map(|(at, turn, attempt, finish_reason, usage, error)| {
                    EntryHead::TurnEnded(TurnEnded {
                        at,
                        turn: TurnId(Uuid::from_u128(turn)),
                        attempt,
                        finish_reason,
                        usage,
                        error,
                    })
                }),
            (at(), any::<u128>(), any::<u32>(), text()).prop_map(|(at, turn, attempt, model)| {
                EntryHead::TurnReopened(TurnReopened {
                    at,
                    turn: TurnId(Uuid::from_u128(turn)),
                    attempt,
                    model,
                })
            }),
            (at(), replaced())
                .prop_map(|(at, replaces)| EntryHead::Appended(Added { at, replaces })),
            (at(), at(), name(), name()).prop_map(|(at, created_at, user_id, character_id)| {
                EntryHead::Prepended(Prepended {
                    at,
                    created_at,
                    user_id,
                    character_id,
                })
            }),
            (at(), any::<u128>(), any::<u128>(), any::<usize>()).prop_map(
                |(at, turn, reply, bytes)| EntryHead::Heard(Heard {
                    at,
                    turn: TurnId(Uuid::from_u128(turn)),
                    reply: MessageId(Uuid::from_u128(reply)),
                    bytes,
                })
            ),
            (at(), used()).prop_map(|(at, usage)| EntryHead::VoiceUsed(VoiceUsed { at, usage })),
            (at(), any::<u64>())
                .prop_map(|(at, incarnation)| EntryHead::Deleted(Deleted { at, incarnation })),
        ]
    }

    proptest! {
        #[test]
        fn any_entry_comes_back_as_it_was(
            head in head(),
            messages in prop::collection::vec(text().prop_map(Arc::from), 0..4),
        ) {
            let entry = Entry { head, messages };
            let encoded = Encoded::new(entry.clone()).unwrap();
            prop_assert_eq!(decode(row(&encoded)).unwrap(), entry);
        }

        #[test]
        fn any_bytes_are_an_error_or_an_entry(
            kind in 0i64..10,
            head in prop::collection::vec(any::<u8>(), 0..40),
            lengths in prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
            body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let row = Row { version: VERSION, kind, head: &head, lengths: lengths.as_deref(), body: &body };
            // Must not panic; whether it parses is chance.
            drop(decode(row));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let entry = Entry {
            head: EntryHead::Begun(Begun {
                at: Timestamp::from_micros(1),
                incarnation: u64::MAX,
                user_id: None,
                character_id: None,
                imported_updated_at: None,
                voice_usage: None,
                unverified: false,
            }),
            messages: vec![],
        };
        let encoded = Encoded::new(entry).unwrap();
        let good = row(&encoded);
        assert!(decode(good).is_ok());
        assert!(matches!(
            decode(Row {
                version: VERSION + 1,
                ..good
            }),
            Err(DecodeError::Version(6))
        ));
        for version in 1..VERSION {
            assert!(
                decode(Row { version, ..good }).is_ok(),
                "what an earlier release wrote is read"
            );
        }
        assert!(matches!(
            decode(Row { kind: 3, ..good }),
            Err(DecodeError::Kind(3))
        ));
        assert!(matches!(
            decode(Row { body: b"x", ..good }),
            Err(DecodeError::Lengths)
        ));
        assert!(matches!(
            decode(Row {
                lengths: None,
                body: &[0xff],
                ..good
            }),
            Err(DecodeError::Text(_))
        ));
    }
}

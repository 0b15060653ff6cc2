//! What an uploaded document says about where it comes from.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Which state of which log an object shows. Stored beside it (`x-metadata`), read back by
/// [`info`](super::SupabaseClient::info).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The log that the document was made from.
    pub log: Uuid,
    /// The life of the conversation's id.
    pub incarnation: u64,
    /// Entries that the document shows.
    pub seq: u64,
    /// Hash of the document, or of the chain of its entries, as the writer computes it.
    pub hash: String,
}

/// Numbers are text: the server reads them as JavaScript does, and would round an incarnation,
/// which has all of 64 bits.
#[derive(Deserialize)]
struct Spelled {
    log: Uuid,
    incarnation: String,
    seq: String,
    hash: String,
}

impl Metadata {
    /// The value of `x-metadata`: a JSON object in base64.
    pub(super) fn to_header(&self) -> String {
        let json = json!({
            "log": self.log,
            "incarnation": self.incarnation.to_string(),
            "seq": self.seq.to_string(),
            "hash": self.hash,
        });
        STANDARD.encode(json.to_string())
    }

    /// `None` if another program wrote it, or none at all.
    pub(super) fn read(stored: Value) -> Option<Self> {
        let spelled: Spelled = serde_json::from_value(stored).ok()?;
        Some(Self {
            log: spelled.log,
            incarnation: spelled.incarnation.parse().ok()?,
            seq: spelled.seq.parse().ok()?,
            hash: spelled.hash,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_understood_when_it_comes_back() {
        let metadata = Metadata {
            log: Uuid::from_u128(7),
            incarnation: u64::MAX,
            seq: 12,
            hash: "00ff".to_owned(),
        };
        let json = STANDARD.decode(metadata.to_header()).unwrap();
        let stored: Value = serde_json::from_slice(&json).unwrap();
        // As a server that knows only doubles keeps it.
        assert!(stored["incarnation"].is_string());
        assert_eq!(Metadata::read(stored), Some(metadata));
    }

    #[test]
    fn what_others_wrote_is_not_ours() {
        for stored in [
            Value::Null,
            json!({}),
            json!({"gen": 3, "sha256": "abc"}),
            json!({"log": Uuid::nil(), "incarnation": "-1", "seq": "1", "hash": ""}),
            json!({"log": Uuid::nil(), "incarnation": 1, "seq": "1", "hash": ""}),
        ] {
            assert_eq!(Metadata::read(stored), None);
        }
    }
}

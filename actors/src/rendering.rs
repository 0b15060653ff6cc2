//! Makes the document that a mirror writes.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    conversation::{
        document::{Document, Folded},
        message::StoredMessage,
    },
    id::ConversationId,
    json_text::JsonText,
    log::Loaded,
    mirror::{REVISION_MEMBER, Render, RenderError, Rendered, Revision, digest_of},
    voice::usage,
};

/// Renders the document as `GET /conversation/{id}` shows it: the stored messages, copied; and
/// behind them, what of which log it is.
#[derive(Debug, Clone, Copy)]
pub struct DocumentRenderer {
    /// The log that it is made from.
    pub log: Uuid,
}

impl Render for DocumentRenderer {
    fn render(&self, id: &ConversationId, loaded: Loaded) -> Result<Rendered, RenderError> {
        let folded = Document::fold(loaded.first_seq, &loaded.entries)
            .map_err(|error| RenderError(error.to_string()))?;
        let Folded::Here(document) = folded else {
            return Err(RenderError("there are no entries".into()));
        };
        let snapshot = document.snapshot();
        let mut head = format!(
            "{{\"id\":\"{id}\",\"created_at\":\"{}\",\"updated_at\":\"{}\"",
            snapshot.created_at, snapshot.updated_at
        );
        for (member, value) in [
            ("user_id", &snapshot.user_id),
            ("character_id", &snapshot.character_id),
        ] {
            if let Some(value) = value {
                head.push_str(",\"");
                head.push_str(member);
                head.push_str("\":\"");
                head.push_str(JsonText::escape(value).as_escaped());
                head.push('"');
            }
        }
        if !snapshot.voice_usage.is_nothing() {
            head.push_str(&format!(",\"{}\":{}", usage::MEMBER, snapshot.voice_usage));
        }
        head.push_str(",\"messages\":[");
        let mut json: Vec<Arc<str>> = Vec::with_capacity(snapshot.messages.len() * 2 + 2);
        json.push(head.into());
        let separator: Arc<str> = ",\n".into();
        for (index, message) in snapshot.messages.iter().enumerate() {
            if index > 0 {
                json.push(separator.clone());
            }
            json.push(StoredMessage::whole(message));
        }
        json.push("]".into());
        let revision = Revision {
            log: self.log,
            incarnation: snapshot.incarnation,
            seq: snapshot.seq,
            sha256: digest_of(json.iter().map(|piece| &**piece)),
        };
        let revision =
            serde_json::to_string(&revision).map_err(|error| RenderError(error.to_string()))?;
        json.push(format!("{REVISION_MEMBER}{revision}}}\n").into());
        Ok(Rendered {
            incarnation: snapshot.incarnation,
            seq: snapshot.seq,
            json,
        })
    }
}

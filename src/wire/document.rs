//! The conversation document, assembled from stored messages by copying bytes.

use idol_actors::{
    conversation::{document::Snapshot, message::StoredMessage},
    time::Timestamp,
    voice::usage,
};

use super::{
    json::Object,
    page::{Page, PageRequest},
};
use crate::config::Timestamps;

/// An instant as an operator wants it written.
#[must_use]
pub fn instant(timestamp: Timestamp, form: Timestamps) -> String {
    let mut text = timestamp.to_string();
    if form == Timestamps::Naive {
        text.pop();
        // Python leaves out a fraction of zero.
        if let Some(whole) = text.strip_suffix(".000000") {
            text.truncate(whole.len());
        }
    }
    text
}

/// The document of `GET /conversation/{id}`.
#[must_use]
pub fn document(spelled: &str, snapshot: &Snapshot, form: Timestamps) -> String {
    let object = head(spelled, snapshot, &snapshot.messages, form);
    messages(object, &snapshot.messages, form).end()
}

/// The document with a part of its messages.
#[must_use]
pub fn page(spelled: &str, snapshot: &Snapshot, page: Page<'_>, form: Timestamps) -> String {
    let object = head(spelled, snapshot, page.messages, form);
    messages(object, page.messages, form)
        .raw("has_more", page.more.as_json())
        .end()
}

fn head(
    spelled: &str,
    snapshot: &Snapshot,
    messages: &[StoredMessage],
    form: Timestamps,
) -> Object {
    let used = Some(snapshot.voice_usage).filter(|it| !it.is_nothing());
    Object::with_capacity(bytes_of(messages) + 512)
        .string("id", spelled)
        .shown("created_at", instant(snapshot.created_at, form))
        .shown("updated_at", instant(snapshot.updated_at, form))
        .maybe(snapshot.user_id.as_deref(), |it, id| {
            it.string("user_id", id)
        })
        .maybe(snapshot.character_id.as_deref(), |it, id| {
            it.string("character_id", id)
        })
        .maybe(used, |it, used| it.raw(usage::MEMBER, &used.to_string()))
}

/// Room that messages take.
#[must_use]
pub fn bytes_of(messages: &[StoredMessage]) -> usize {
    let bytes = |message: &StoredMessage| message.shown_bytes() + 1;
    messages.iter().map(bytes).sum()
}

/// Adds the member `messages`.
#[must_use]
pub fn messages(object: Object, messages: &[StoredMessage], form: Timestamps) -> Object {
    object.list("messages", messages, |json, message| {
        message.push_whole(json, &|json, message| push_message(json, message, form));
    })
}

fn push_message(json: &mut String, message: &StoredMessage, form: Timestamps) {
    let fragment = message.fragment();
    match form {
        Timestamps::Utc => json.push_str(fragment),
        Timestamps::Naive => {
            let start = message.timestamp_start();
            json.push_str(&fragment[..start]);
            json.push_str(&instant(message.timestamp(), form));
            json.push_str(&fragment[start + Timestamp::TEXT_BYTES..]);
        }
    }
}

/// The strong entity tag of a document.
#[must_use]
pub fn etag(snapshot: &Snapshot) -> String {
    format!("\"{:016x}-{}\"", snapshot.incarnation, snapshot.seq)
}

/// The strong entity tag of a part of a document.
#[must_use]
pub fn page_etag(snapshot: &Snapshot, request: &PageRequest) -> String {
    let hash = request.hash();
    format!("\"{:016x}-{}-{hash}\"", snapshot.incarnation, snapshot.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naive_instants_are_pythons() {
        let whole = Timestamp::from_micros(1_800_000_000_000_000);
        let fraction = Timestamp::from_micros(1_800_000_000_000_001);
        assert_eq!(instant(whole, Timestamps::Naive), "2027-01-15T08:00:00");
        assert_eq!(
            instant(fraction, Timestamps::Naive),
            "2027-01-15T08:00:00.000001"
        );
        assert_eq!(
            instant(whole, Timestamps::Utc),
            "2027-01-15T08:00:00.000000Z"
        );
    }
}

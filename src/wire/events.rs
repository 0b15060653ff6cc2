//! What a socket is told, as Server-Sent Events with ids.

use std::{fmt::Write, ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use idol_actors::conversation::event::Cursor;

/// Wait in milliseconds before a browser connects again: spread, so that they don't all come at once.
pub const RETRY_MS: RangeInclusive<u64> = 1_000..=3_000;

/// An event behind which nothing is to be gone on from: it keeps the id of the one before it.
#[must_use]
pub fn unplaced(json: &str) -> Bytes {
    let mut text = String::with_capacity(json.len() + 8);
    push_data(&mut text, json);
    text.into()
}

/// An event, and the place after it.
#[must_use]
pub fn placed(cursor: Cursor, json: impl AsRef<[u8]>) -> Bytes {
    let json = String::from_utf8_lossy(json.as_ref());
    let mut text = String::with_capacity(json.len() + 80);
    push_id(&mut text, cursor);
    push_data(&mut text, &json);
    text.into()
}

/// Several, each with the place after it; none if there are none.
#[must_use]
pub fn all(told: &[(Cursor, String)]) -> Option<Bytes> {
    let mut text = String::new();
    for (cursor, json) in told {
        push_id(&mut text, *cursor);
        push_data(&mut text, json);
    }
    (!text.is_empty()).then(|| text.into())
}

/// How long a client waits before it connects again.
#[must_use]
pub fn retry(wait: Duration) -> Bytes {
    format!("retry: {}\n\n", wait.as_millis()).into()
}

fn push_id(text: &mut String, cursor: Cursor) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(text, "id: {cursor}");
}

fn push_data(text: &mut String, json: &str) {
    text.push_str("data: ");
    text.push_str(json);
    text.push_str("\n\n");
}

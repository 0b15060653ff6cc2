//! Turns chat-completions chunks into deltas.
//!
//! Pure: one `data` payload in, deltas appended to a list. Also reads a whole `chat.completion`
//! answer, which some servers send although a stream was asked.

use std::{borrow::Cow, sync::Arc};

use memchr::memchr;
use serde_json::value::RawValue;

use self::alike::Alike;
use super::{
    failure,
    raw::{object, parse_raw, raw_json, seconds, string},
    shape::{self, Chunk, ContentPart},
};
use crate::{
    json_text::{JsonText, cut_at_or_below},
    provider::{Delta, RawJson, ReplyHead, UpstreamError, text::push_canonical},
};

mod alike;

/// Reads the chunks of one reply, in order.
#[derive(Debug)]
pub struct ChunkReader {
    head: Head,
    alike: Alike,
    usage: Option<RawJson>,
    is_finished: bool,
    /// Bytes that the reply may still grow by.
    left: usize,
    is_full: bool,
}

/// Members of the head as last seen, in the upstream's own spelling, so that an unchanged head
/// costs a comparison and nothing is decoded.
#[derive(Debug, Default)]
struct Head {
    is_sent: bool,
    id: Box<str>,
    model: Box<str>,
    provider: Box<str>,
}

impl ChunkReader {
    /// Reads a reply of at most `reply_bytes_max` bytes: text, reasoning, tool calls and other
    /// members together, as escaped JSON. What goes beyond is cut off.
    #[must_use]
    pub fn new(reply_bytes_max: usize) -> Self {
        Self {
            head: Head::default(),
            alike: Alike::default(),
            usage: None,
            is_finished: false,
            left: reply_bytes_max,
            is_full: false,
        }
    }

    /// Appends the deltas of one payload; adjacent text, and adjacent reasoning, become one delta.
    ///
    /// Usage is kept back until [`ChunkReader::take_usage`]: some upstreams send it with every
    /// chunk, and it would stand between two pieces of text.
    ///
    /// # Errors
    ///
    /// The upstream's own error, after the deltas that came with it; or
    /// [`UpstreamErrorKind::Failed`](crate::provider::UpstreamErrorKind::Failed) for a payload that
    /// is no chunk at all: to skip it would leave a hole in the reply that nobody sees.
    pub fn read(&mut self, payload: &[u8], deltas: &mut Vec<Delta>) -> Result<(), UpstreamError> {
        if let Some(text) = self.alike.text(payload) {
            self.push_text(Kind::Text, text, deltas);
            return Ok(());
        }
        self.alike.forget();
        // Checked at once where it is well-formed, which is always.
        let payload = match str::from_utf8(payload) {
            Ok(text) => Cow::Borrowed(text),
            Err(_broken) => String::from_utf8_lossy(payload),
        };
        if payload.bytes().all(|byte| byte.is_ascii_whitespace()) {
            return Ok(());
        }
        let chunk: Chunk<'_> = serde_json::from_str(&payload)
            .map_err(|_| failure::failed("sent a malformed chunk of the reply"))?;
        self.alike.learn(&payload, chunk.lone_text());
        let Chunk { error, usage, .. } = chunk;
        let has_choices = chunk.choices.is_some();
        if has_choices || (error.is_none() && chunk.message.is_none() && chunk.detail.is_none()) {
            self.read_head(&chunk, deltas);
        }
        let choice_error = match chunk.choices.and_then(|choices| choices.0) {
            Some(choice) => self.read_choice(choice, deltas),
            None => Ok(()),
        };
        if let Some(usage) = usage {
            self.usage = Some(raw_json(usage)?);
        }
        if let Some(error) = error.filter(|error| !matches!(error.get(), "false" | "\"\"")) {
            return Err(failure::of_payload(error.get().as_bytes()));
        }
        choice_error?;
        if !has_choices && usage.is_none() && (chunk.message.is_some() || chunk.detail.is_some()) {
            return Err(failure::of_payload(payload.as_bytes()));
        }
        Ok(())
    }

    /// Whether a finish reason was seen.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Whether the reply reached its largest size and was cut.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Ends the reply with this finish reason, unless it has one.
    pub fn finish(&mut self, reason: &str, deltas: &mut Vec<Delta>) {
        self.push_finish(reason.to_owned(), None, deltas);
    }

    /// Appends the last usage seen since the last call.
    pub fn take_usage(&mut self, deltas: &mut Vec<Delta>) {
        deltas.extend(self.usage.take().map(Delta::Usage));
    }

    fn read_head(&mut self, chunk: &Chunk<'_>, deltas: &mut Vec<Delta>) {
        let seen = &mut self.head;
        let mut changed = !seen.is_sent;
        for (seen, now) in [
            (&mut seen.id, chunk.id),
            (&mut seen.model, chunk.model),
            (&mut seen.provider, chunk.provider),
        ] {
            // A chunk without the member says nothing about it.
            if let Some(now) = now.map(RawValue::get).filter(|now| *now != &**seen) {
                *seen = now.into();
                changed = true;
            }
        }
        if !changed {
            return;
        }
        seen.is_sent = true;
        let head = ReplyHead {
            id: string(&seen.id).unwrap_or_default(),
            model: string(&seen.model).unwrap_or_default(),
            provider: string(&seen.provider),
            created: chunk.created.map_or(0, |created| seconds(created.get())),
        };
        deltas.push(Delta::Head(Arc::new(head)));
    }

    fn read_choice(
        &mut self,
        choice: shape::Choice<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), UpstreamError> {
        if let Some(delta) = choice.delta.or(choice.message) {
            self.read_delta(delta, deltas)?;
        }
        if let Some(error) = choice.error {
            return Err(failure::of_payload(error.get().as_bytes()));
        }
        let reason = choice.finish_reason.and_then(|raw| string(raw.get()));
        match reason.filter(|reason| !reason.is_empty()) {
            Some(reason) if reason == "error" => {
                Err(failure::failed("ended the reply with an error"))
            }
            Some(reason) => {
                let native = choice.native_finish_reason;
                self.push_finish(reason, native.and_then(|raw| string(raw.get())), deltas);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn read_delta(
        &mut self,
        delta: shape::Delta<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), UpstreamError> {
        // A gateway between two names of the field may send the same text under both.
        let is_text = |raw: &&RawValue| raw.get().starts_with('"') && raw.get() != "\"\"";
        let reasoning = delta.reasoning.filter(is_text);
        if let Some(raw) = reasoning.or(delta.reasoning_content.filter(is_text)) {
            self.push_text(Kind::Reasoning, inside(raw), deltas);
        }
        match delta.content {
            Some(raw) if raw.get().starts_with('[') => self.push_parts(raw.get(), deltas),
            Some(raw) if is_text(&raw) => self.push_text(Kind::Text, inside(raw), deltas),
            _ => {}
        }
        if let Some(raw) = delta.tool_calls
            && self.take_room(raw.get().len())
        {
            deltas.push(Delta::ToolCalls(raw_json(raw)?));
        }
        if !delta.other.is_empty() {
            let other = object(&delta.other);
            if self.take_room(other.len()) {
                deltas.push(Delta::Other(parse_raw(other)?));
            }
        }
        Ok(())
    }

    /// Content as a list of parts: their text is the reply's.
    fn push_parts(&mut self, raw: &str, deltas: &mut Vec<Delta>) {
        let parts: Vec<ContentPart<'_>> = serde_json::from_str(raw).unwrap_or_default();
        for text in parts.iter().filter_map(|part| part.text) {
            if text.get().starts_with('"') {
                self.push_text(Kind::Text, inside(text), deltas);
            }
        }
    }

    fn push_text(&mut self, kind: Kind, inside: &str, deltas: &mut Vec<Delta>) {
        let mut respelled = JsonText::default();
        let escaped = if memchr(b'\\', inside.as_bytes()).is_none() {
            // Without a backslash any spelling is the canonical one.
            inside
        } else {
            push_canonical(&mut respelled, inside);
            respelled.as_escaped()
        };
        let cut = cut_at_or_below(escaped, 0, self.left);
        self.take_room(escaped.len());
        let mut added = JsonText::default();
        let text = match (kind, deltas.last_mut()) {
            (Kind::Text, Some(Delta::Text(text))) => text,
            (Kind::Reasoning, Some(Delta::Reasoning(text))) => text,
            _ => &mut added,
        };
        text.push_escaped(&escaped[..cut]);
        if !added.is_empty() {
            deltas.push(match kind {
                Kind::Text => Delta::Text(added),
                Kind::Reasoning => Delta::Reasoning(added),
            });
        }
    }

    /// Takes that many bytes of the room that is left; if they do not fit, the reply is full.
    fn take_room(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) if !self.is_full => {
                self.left = left;
                true
            }
            _ => {
                self.is_full = true;
                self.left = 0;
                false
            }
        }
    }

    fn push_finish(&mut self, reason: String, native: Option<String>, deltas: &mut Vec<Delta>) {
        // Some upstreams repeat the reason on the usage chunk.
        if !self.is_finished {
            self.is_finished = true;
            deltas.push(Delta::Finish { reason, native });
        }
    }
}

/// What stands between the quotes of a string.
fn inside(string: &RawValue) -> &str {
    let quoted = string.get();
    quoted
        .get(1..quoted.len().saturating_sub(1))
        .unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Reasoning,
}

#[cfg(test)]
mod tests;

//! Reads one streamed reply from its first byte to its end.
//!
//! Pure: joins the event reader and the chunk reader, and knows when a reply is over and whether
//! it is whole.

use super::{chunk::ChunkReader, failure};
use crate::{
    codec::sse::{SseEvent, SseReader},
    provider::{Delta, UpstreamError},
};

/// How a reply ended.
pub type End = Result<(), UpstreamError>;

/// How far a reply has come; each phase has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the reply itself was seen; comments, heads and empty deltas are not it.
    Waiting,
    /// Text, reasoning or tool calls have come.
    Flowing,
    /// The finish reason was seen: the reply is whole, usage may follow.
    Finished,
}

/// Reads one reply.
#[derive(Debug)]
pub struct ReplyReader {
    events: SseReader,
    chunks: ChunkReader,
    phase: Phase,
    events_seen: u64,
}

impl ReplyReader {
    /// Reads a reply of at most `reply_bytes_max` bytes, as [`ChunkReader::new`] counts them.
    #[must_use]
    pub fn new(reply_bytes_max: usize) -> Self {
        Self {
            events: SseReader::default(),
            chunks: ChunkReader::new(reply_bytes_max),
            phase: Phase::Waiting,
            events_seen: 0,
        }
    }

    /// Appends the deltas of one network read. `Some` means that the reply is over: what comes
    /// after is of no interest.
    pub fn read(&mut self, bytes: &[u8], deltas: &mut Vec<Delta>) -> Option<End> {
        let from = deltas.len();
        let end = self.read_events(bytes, deltas);
        self.close_read(from, deltas);
        end
    }

    /// Ends the reply where the stream ended or was cut; `reason` says how.
    ///
    /// A reply that has its finish reason, or its `[DONE]`, is whole however the stream ends.
    pub fn close(&mut self, reason: &str, deltas: &mut Vec<Delta>) -> End {
        let from = deltas.len();
        let last = match self.events.finish() {
            // The last event may lack its blank line. If it is no complete JSON it was cut.
            Ok(Some(SseEvent::Data(data))) if is_whole(data) => {
                read_event(&mut self.chunks, SseEvent::Data(data), deltas)
            }
            Ok(Some(event @ SseEvent::Error(_))) => read_event(&mut self.chunks, event, deltas),
            Ok(_) | Err(_) => None,
        };
        self.close_read(from, deltas);
        match last {
            Some(end) => end,
            // What comes behind the finish reason is no part of the reply.
            None if self.chunks.is_finished() => Ok(()),
            None => Err(failure::failed(format!("broke off the reply: {reason}"))),
        }
    }

    /// Reads an answer that was not streamed, although a stream was asked.
    pub fn read_whole(&mut self, body: &[u8], deltas: &mut Vec<Delta>) -> End {
        let from = deltas.len();
        let read = self.chunks.read(body, deltas);
        self.close_read(from, deltas);
        read?;
        if self.phase == Phase::Waiting {
            return Err(failure::failed("sent an answer without a reply in it"));
        }
        self.chunks.finish(UNKNOWN, deltas);
        Ok(())
    }

    /// How far the reply has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the reply was cut at its largest size; its upstream may still have much to say.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.chunks.is_full()
    }

    /// Events with data seen so far; comments are none.
    #[must_use]
    pub fn events_seen(&self) -> u64 {
        self.events_seen
    }

    fn read_events(&mut self, mut bytes: &[u8], deltas: &mut Vec<Delta>) -> Option<End> {
        loop {
            match self.events.read(&mut bytes) {
                Ok(Some(event)) => {
                    self.events_seen += 1;
                    if let Some(end) = read_event(&mut self.chunks, event, deltas) {
                        return Some(end);
                    }
                }
                Ok(None) => return None,
                Err(_) if self.chunks.is_finished() => return Some(Ok(())),
                Err(error) => {
                    return Some(Err(failure::failed(format!(
                        "cannot be understood: {error}"
                    ))));
                }
            }
        }
    }

    fn close_read(&mut self, from: usize, deltas: &mut Vec<Delta>) {
        self.chunks.take_usage(deltas);
        let is_reply = |delta: &Delta| match delta {
            Delta::Text(_) | Delta::Reasoning(_) | Delta::ToolCalls(_) => true,
            Delta::Head(_)
            | Delta::Other(_)
            | Delta::Finish { .. }
            | Delta::Usage(_)
            | Delta::Seam { .. } => false,
        };
        if self.chunks.is_finished() {
            self.phase = Phase::Finished;
        } else if self.phase == Phase::Waiting && deltas[from..].iter().any(is_reply) {
            self.phase = Phase::Flowing;
        }
    }
}

/// The finish reason of a reply that its upstream ended well, but without naming one.
const UNKNOWN: &str = "unknown";

fn read_event(
    chunks: &mut ChunkReader,
    event: SseEvent<'_>,
    deltas: &mut Vec<Delta>,
) -> Option<End> {
    let was_finished = chunks.is_finished();
    let data = match event {
        SseEvent::Data(data) => data,
        // The reply is whole: what its upstream fails at behind it is not the reply.
        SseEvent::Error(_) if was_finished => return Some(Ok(())),
        SseEvent::Error(data) => return Some(Err(failure::of_payload(data))),
    };
    if data.trim_ascii_start().starts_with(b"[DONE]") {
        chunks.finish(UNKNOWN, deltas);
        return Some(Ok(()));
    }
    if let Err(error) = chunks.read(data, deltas) {
        return Some(if was_finished { Ok(()) } else { Err(error) });
    }
    if chunks.is_full() {
        chunks.finish("length", deltas);
        return Some(Ok(()));
    }
    None
}

fn is_whole(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"[DONE]")
        || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
}

#[cfg(test)]
mod tests;

//! Reads server-sent events as language-model servers really send them.
//!
//! Incremental and pure: the caller hands in what each network read brought, split anywhere, and
//! takes events out. An event that lies within one read is borrowed from it; only what a read
//! leaves unfinished is copied.

use std::mem;

use memchr::{memchr, memchr2};

/// Longest line, and longest event, in bytes.
///
/// The largest event an upstream sends in earnest is a picture as base64 inside one delta, about
/// 4 MiB; twice that is room, and still a bound on what a broken upstream can make us hold.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A carried buffer above this many bytes is given back after use: a call lives for minutes, and
/// one large event should not cost its size all that time.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// One event that carries data; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SseEvent<'a> {
    /// Its `data` lines, joined by LF.
    Data(&'a [u8]),
    /// The same of an event the upstream calls an error: named `event: error`, or sent as the
    /// field `error: {…}` as llama.cpp did until September 2025.
    Error(&'a [u8]),
}

/// Why a stream cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line, or the data of one event, is longer than allowed.
    #[error("a server-sent event is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Reads one stream.
///
/// ```
/// use idol_actors::codec::sse::{SseEvent, SseReader};
///
/// let mut reader = SseReader::default();
/// let mut seen = Vec::new();
/// for read in [&b": ping\n\ndata: {\"a\""[..], b":1}\r\n\r\n"] {
///     let mut rest = read;
///     while let Some(event) = reader.read(&mut rest)? {
///         if let SseEvent::Data(data) = event {
///             seen.push(data.to_vec());
///         }
///     }
/// }
/// assert_eq!(seen, [b"{\"a\":1}"]);
/// # Ok::<(), idol_actors::codec::sse::SseError>(())
/// ```
#[derive(Debug)]
pub struct SseReader {
    limit: usize,
    /// Bytes of a byte order mark seen so far; past its end: no longer at the start.
    mark: usize,
    /// The last read ended in CR, so an LF at the start of the next belongs to it.
    after_cr: bool,
    /// Beginning of the line that the last read left unfinished.
    line: Vec<u8>,
    event: EventUnderWay,
}

/// What is known of the event whose blank line has not come yet.
#[derive(Debug, Default)]
struct EventUnderWay {
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    /// The event was handed out and is to be forgotten at the next call.
    is_spent: bool,
}

impl Default for SseReader {
    /// Takes events up to [`EVENT_BYTES_MAX`].
    fn default() -> Self {
        Self::new(EVENT_BYTES_MAX)
    }
}

impl SseReader {
    /// Takes lines and events up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            mark: 0,
            after_cr: false,
            line: Vec::new(),
            event: EventUnderWay::default(),
        }
    }

    /// Takes the next event out of what one network read brought, and moves `input` past it.
    ///
    /// `None` means that `input` is used up. After an error the reader is of no further use.
    pub fn read<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<SseEvent<'a>>, SseError> {
        self.event.forget_spent();
        self.skip_byte_order_mark(input);
        // The only data line of the event so far, if it lies within this read: not copied.
        let mut borrowed: Option<&'i [u8]> = None;
        while let Some(part) = self.next_line(input) {
            self.check(self.line.len() + part.len())?;
            if !self.line.is_empty() {
                self.end_carried_line(part)?;
                continue;
            }
            match Field::of(part) {
                Field::Blank => {
                    if let Some(data) = borrowed.take().filter(|data| !data.is_empty()) {
                        let is_error = mem::take(&mut self.event.is_error);
                        return Ok(Some(SseEvent::new(data, is_error)));
                    }
                    if self.event.data.is_empty() {
                        self.event.forget();
                    } else {
                        return Ok(Some(self.event.hand_out()));
                    }
                }
                Field::Data(value) if borrowed.is_none() && !self.event.has_data => {
                    borrowed = Some(value);
                }
                field => {
                    if let (Some(first), true) = (borrowed, field.has_data()) {
                        self.event.push(first, self.limit)?;
                        borrowed = None;
                    }
                    self.event.take_in(field, self.limit)?;
                }
            }
        }
        if let Some(data) = borrowed {
            self.event.push(data, self.limit)?;
        }
        self.check(self.line.len() + input.len())?;
        self.line.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    /// Gives the last event of a stream that ended without its blank line.
    ///
    /// The caller decides whether it is whole (complete JSON) or was cut.
    pub fn finish(&mut self) -> Result<Option<SseEvent<'_>>, SseError> {
        self.event.forget_spent();
        if !self.line.is_empty() {
            self.end_carried_line(&[])?;
        }
        if self.event.data.is_empty() {
            self.event.forget();
            return Ok(None);
        }
        Ok(Some(self.event.hand_out()))
    }

    /// Takes what is left of the current line, if its end is in `input`.
    fn next_line<'i>(&mut self, input: &mut &'i [u8]) -> Option<&'i [u8]> {
        if mem::take(&mut self.after_cr) {
            match input.first() {
                Some(b'\n') => *input = &input[1..],
                Some(_) => {}
                None => self.after_cr = true,
            }
        }
        let end = memchr2(b'\n', b'\r', input)?;
        let part = &input[..end];
        let is_cr = input[end] == b'\r';
        *input = &input[end + 1..];
        // CR ends the line at once; whether LF follows is looked at with the next byte.
        self.after_cr = is_cr;
        Some(part)
    }

    fn end_carried_line(&mut self, tail: &[u8]) -> Result<(), SseError> {
        let mut line = mem::take(&mut self.line);
        line.extend_from_slice(tail);
        let taken = self.event.take_in(Field::of(&line), self.limit);
        line.clear();
        line.shrink_to(BUFFER_BYTES_KEPT);
        self.line = line;
        taken
    }

    fn skip_byte_order_mark(&mut self, input: &mut &[u8]) {
        while let (Some(expected), Some(byte)) = (BYTE_ORDER_MARK.get(self.mark), input.first()) {
            if byte == expected {
                self.mark += 1;
                *input = &input[1..];
            } else {
                // Not a mark after all: what looked like one begins the first line.
                self.line.extend_from_slice(&BYTE_ORDER_MARK[..self.mark]);
                self.mark = BYTE_ORDER_MARK.len();
            }
        }
    }

    fn check(&self, bytes: usize) -> Result<(), SseError> {
        check(bytes, self.limit)
    }
}

fn check(bytes: usize, limit: usize) -> Result<(), SseError> {
    if bytes > limit {
        return Err(SseError::TooLong { limit });
    }
    Ok(())
}

impl EventUnderWay {
    fn take_in(&mut self, field: Field<'_>, limit: usize) -> Result<(), SseError> {
        match field {
            Field::Data(value) => self.push(value, limit),
            Field::Error(value) => {
                self.is_error = true;
                self.push(value, limit)
            }
            Field::Name(name) => {
                self.is_error = name == b"error";
                Ok(())
            }
            Field::Blank | Field::Ignored => Ok(()),
        }
    }

    fn push(&mut self, value: &[u8], limit: usize) -> Result<(), SseError> {
        check(self.data.len() + value.len(), limit)?;
        if mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn hand_out(&mut self) -> SseEvent<'_> {
        self.is_spent = true;
        SseEvent::new(&self.data, self.is_error)
    }

    fn forget_spent(&mut self) {
        if self.is_spent {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.data.clear();
        self.data.shrink_to(BUFFER_BYTES_KEPT);
        self.has_data = false;
        self.is_error = false;
        self.is_spent = false;
    }
}

impl<'a> SseEvent<'a> {
    fn new(data: &'a [u8], is_error: bool) -> Self {
        if is_error {
            Self::Error(data)
        } else {
            Self::Data(data)
        }
    }
}

/// What one line says.
enum Field<'a> {
    Blank,
    Data(&'a [u8]),
    Error(&'a [u8]),
    Name(&'a [u8]),
    /// Comments, `id`, `retry`, unknown fields.
    Ignored,
}

impl<'a> Field<'a> {
    fn of(line: &'a [u8]) -> Self {
        if let Some(value) = line.strip_prefix(b"data:") {
            return Self::Data(without_space(value));
        }
        if line.is_empty() {
            return Self::Blank;
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], without_space(&line[colon + 1..])),
            None => (line, &[][..]),
        };
        match name {
            b"data" => Self::Data(value),
            b"event" => Self::Name(value),
            b"error" => Self::Error(value),
            _ => Self::Ignored,
        }
    }

    fn has_data(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Error(_))
    }
}

fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests;

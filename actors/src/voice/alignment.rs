//! When each character of a spoken text sounds.

/// A character, and when it sounds in the audio of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedChar {
    /// As it was sent to be spoken.
    pub c: char,
    /// Milliseconds from the beginning of the segment's audio.
    pub start_ms: u32,
    /// Milliseconds.
    pub duration_ms: u32,
}

/// The characters of a segment in the order they are spoken in, as far as audio has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alignment {
    chars: Vec<TimedChar>,
}

impl Alignment {
    /// Adds what sounds next, mostly one character. Times count from the beginning of the
    /// segment's audio: where a provider counts from that of a frame, add what came before it.
    pub fn push(&mut self, text: &str, start_ms: u32, duration_ms: u32) {
        let count = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        for (number, c) in (0..count).zip(text.chars()) {
            self.chars.push(TimedChar {
                c,
                start_ms: start_ms.saturating_add(duration_ms / count * number),
                duration_ms: duration_ms / count,
            });
        }
    }

    /// All of them so far.
    #[must_use]
    pub fn chars(&self) -> &[TimedChar] {
        &self.chars
    }

    /// When the last of them has sounded, in milliseconds; 0 without any.
    #[must_use]
    pub fn end_ms(&self) -> u32 {
        let ends = self.chars.iter().map(TimedChar::end_ms);
        ends.max().unwrap_or_default()
    }
}

impl TimedChar {
    /// When it has sounded, in milliseconds.
    #[must_use]
    pub const fn end_ms(&self) -> u32 {
        self.start_ms.saturating_add(self.duration_ms)
    }
}

//! Reads an answer with timestamps: lines of JSON, each with audio and the times of its characters.
//!
//! Pure. Names and units as recorded: `audio_base64`, and an `alignment` of `characters`,
//! `character_start_times_seconds` and `character_end_times_seconds`, counted from the beginning.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use memchr::memchr;
use serde::Deserialize;

use crate::voice::alignment::TimedChar;

/// Longest line: some seconds of the largest format.
const LINE_BYTES_MAX: usize = 8 << 20;

/// What a part of the answer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) audio: BytesMut,
    pub(super) chars: Vec<TimedChar>,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TimingError {
    #[error("sent a line that is no audio")]
    Malformed,
    #[error("sent a line of audio without an end")]
    TooLong,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    audio_base64: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    alignment: Option<Alignment<'a>>,
}

#[derive(Deserialize)]
struct Alignment<'a> {
    #[serde(borrow)]
    characters: Vec<std::borrow::Cow<'a, str>>,
    character_start_times_seconds: Vec<f64>,
    character_end_times_seconds: Vec<f64>,
}

/// Reads lines out of bytes that come in any pieces.
#[derive(Debug, Default)]
pub(super) struct TimingReader {
    /// A line that is not whole yet.
    rest: BytesMut,
}

impl TimingReader {
    /// Takes what was read.
    pub(super) fn read(&mut self, bytes: &Bytes) -> Result<Timed, TimingError> {
        self.rest.extend_from_slice(bytes);
        let mut timed = Timed::default();
        while let Some(end) = memchr(b'\n', &self.rest) {
            let line = self.rest.split_to(end + 1);
            take(&line, &mut timed)?;
        }
        if self.rest.len() > LINE_BYTES_MAX {
            return Err(TimingError::TooLong);
        }
        Ok(timed)
    }

    /// Takes the last line, which may have no end.
    pub(super) fn close(&mut self) -> Result<Timed, TimingError> {
        let mut timed = Timed::default();
        let line = std::mem::take(&mut self.rest);
        take(&line, &mut timed)?;
        Ok(timed)
    }
}

fn take(line: &[u8], timed: &mut Timed) -> Result<(), TimingError> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| TimingError::Malformed)?;
    if let Some(audio) = line.audio_base64 {
        let audio = STANDARD.decode(audio.as_bytes());
        timed
            .audio
            .extend_from_slice(&audio.map_err(|_| TimingError::Malformed)?);
    }
    let Some(alignment) = line.alignment else {
        return Ok(());
    };
    let times = alignment
        .character_start_times_seconds
        .iter()
        .zip(&alignment.character_end_times_seconds);
    for (characters, (start, end)) in alignment.characters.iter().zip(times) {
        let (start_ms, end_ms) = (milliseconds(*start), milliseconds(*end));
        // One each, as a rule; a cluster is heard as a whole.
        timed
            .chars
            .extend(characters.chars().map(|character| TimedChar {
                c: character,
                start_ms,
                duration_ms: end_ms.saturating_sub(start_ms),
            }));
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
fn milliseconds(seconds: f64) -> u32 {
    (seconds * 1_000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = concat!(
        r#"{"audio_base64":"AAEC","alignment":{"characters":["H","i"],"character_start_times_seconds":[0.0,0.1],"character_end_times_seconds":[0.1,0.25]},"normalized_alignment":null}"#,
        "\n\n",
        r#"{"audio_base64":"AwQ=","alignment":null}"#,
        "\r\n",
        r#"{"audio_base64":null,"alignment":{"characters":["é"],"character_start_times_seconds":[0.25],"character_end_times_seconds":[0.3]}}"#,
    );

    proptest! {
        #[test]
        fn any_cut_of_an_answer_gives_the_same(mut cuts in prop::collection::vec(0..ANSWER.len(), 0..9)) {
            cuts.extend([0, ANSWER.len()]);
            cuts.sort_unstable();
            let mut reader = TimingReader::default();
            let mut all = Timed::default();
            let mut add = |timed: Timed| {
                all.audio.extend_from_slice(&timed.audio);
                all.chars.extend(timed.chars);
            };
            for cut in cuts.windows(2) {
                let bytes = Bytes::from_static(&ANSWER.as_bytes()[cut[0]..cut[1]]);
                add(reader.read(&bytes).unwrap());
            }
            add(reader.close().unwrap());
            let timed = |c, start_ms, duration_ms| TimedChar { c, start_ms, duration_ms };
            prop_assert_eq!(&all.audio[..], &[0, 1, 2, 3, 4]);
            prop_assert_eq!(all.chars, [timed('H', 0, 100), timed('i', 100, 150), timed('é', 250, 50)]);
        }
    }

    #[test]
    fn what_is_no_audio_is_an_error() {
        for line in ["<html>\n", "{\"audio_base64\":\"*\"}\n"] {
            let mut reader = TimingReader::default();
            let read = reader.read(&Bytes::from_static(line.as_bytes()));
            assert_eq!(read, Err(TimingError::Malformed), "{line}");
        }
    }
}

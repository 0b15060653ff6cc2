//! Audio that both ends can compute: so many milliseconds for every character.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::format::{AudioFormat, Codec};
use super::mp3::Frames;
use super::pcm;

/// How long each character of a text is spoken, in milliseconds.
///
/// A character is a Unicode scalar value; white space takes its time too.
pub const CHARACTER_MS: u64 = 60;

/// When each character of a text is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// The characters.
    pub characters: Vec<char>,
    /// When each begins, in milliseconds.
    pub starts_ms: Vec<u64>,
    /// When each ends, in milliseconds.
    pub ends_ms: Vec<u64>,
}

/// Returns the audio of a text; the same text and format give the same bytes, in every answer.
///
/// PCM, WAV, µ-law and A-law are exactly [`CHARACTER_MS`] for each character. MP3 is made of
/// whole frames that reach this time.
pub fn voice_audio(text: &str, format: AudioFormat) -> Vec<u8> {
    Voice::new(text, format).audio()
}

/// Returns how much of [`voice_audio`] speaks the first so many characters, in bytes.
///
/// This much has been sent when an answer is held, or goes wrong, after so many characters.
pub fn audio_until(text: &str, format: AudioFormat, characters: usize) -> usize {
    let voice = Voice::new(text, format);
    let mut audio = voice.header();
    let end = characters.min(voice.len());
    voice.push(0..end, &mut audio);
    audio.len()
}

/// Returns when each character of a text is spoken.
pub fn alignment(text: &str) -> Alignment {
    Alignment::of(&text.chars().collect::<Vec<_>>(), 0)
}

impl Alignment {
    /// Aligns characters that begin so long after the time that is told as zero.
    pub(crate) fn of(characters: &[char], offset_ms: u64) -> Self {
        let starts = (0_u64..).map(|index| offset_ms + index * CHARACTER_MS);
        let starts_ms: Vec<u64> = starts.take(characters.len()).collect();
        Self {
            characters: characters.to_vec(),
            ends_ms: starts_ms.iter().map(|start| start + CHARACTER_MS).collect(),
            starts_ms,
        }
    }

    /// Renders what answers to requests tell, in seconds.
    pub(crate) fn in_seconds(&self) -> Value {
        let seconds = |ms: &[u64]| -> Vec<f64> { ms.iter().map(|ms| *ms as f64 / 1e3).collect() };
        json!({
            "characters": self.characters,
            "character_start_times_seconds": seconds(&self.starts_ms),
            "character_end_times_seconds": seconds(&self.ends_ms),
        })
    }
}

/// A text being spoken in a format.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    characters: Vec<char>,
    format: AudioFormat,
}

impl Voice {
    pub(crate) fn new(text: &str, format: AudioFormat) -> Self {
        Self {
            characters: text.chars().collect(),
            format,
        }
    }

    /// Adds what is to be spoken next.
    pub(crate) fn extend(&mut self, text: &str) {
        self.characters.extend(text.chars());
    }

    /// Returns the number of characters.
    pub(crate) fn len(&self) -> usize {
        self.characters.len()
    }

    pub(crate) fn characters(&self, range: Range<usize>) -> &[char] {
        &self.characters[range]
    }

    /// Returns what precedes the first character.
    pub(crate) fn header(&self) -> Vec<u8> {
        match self.format.codec {
            Codec::Wav => {
                let samples = self.len() * self.samples() as usize;
                pcm::wav_header(self.format.rate, samples as u32 * 2)
            }
            _ => Vec::new(),
        }
    }

    /// Returns the whole audio.
    pub(crate) fn audio(&self) -> Vec<u8> {
        let mut audio = self.header();
        self.push(0..self.len(), &mut audio);
        audio
    }

    /// Appends what these characters add to the audio of those before them.
    pub(crate) fn push(&self, range: Range<usize>, out: &mut Vec<u8>) {
        for index in range {
            self.push_character(index, out);
        }
    }

    /// Renders what answers with timestamps tell of these characters.
    pub(crate) fn timed(&self, range: Range<usize>) -> Value {
        let mut audio = if range.start == 0 {
            self.header()
        } else {
            Vec::new()
        };
        self.push(range.clone(), &mut audio);
        let offset_ms = range.start as u64 * CHARACTER_MS;
        let alignment = Alignment::of(self.characters(range), offset_ms).in_seconds();
        json!({
            "audio_base64": STANDARD.encode(audio),
            "alignment": alignment,
            "normalized_alignment": alignment,
        })
    }

    fn push_character(&self, index: usize, out: &mut Vec<u8>) {
        let character = self.characters[index];
        let rate = self.format.rate;
        if let Codec::Mp3(bitrate) = self.format.codec {
            let frames = Frames::new(rate, bitrate);
            let until = |index: usize| frames.until(index as u64 * CHARACTER_MS);
            let speech = format!("{:06x}", character as u32);
            (until(index)..until(index + 1)).for_each(|number| frames.push(number, &speech, out));
            return;
        }
        let mut samples = Vec::new();
        pcm::push_tone(character, rate, self.samples(), &mut samples);
        match self.format.codec {
            Codec::Ulaw => out.extend(samples.into_iter().map(pcm::ulaw)),
            Codec::Alaw => out.extend(samples.into_iter().map(pcm::alaw)),
            Codec::Pcm | Codec::Wav | Codec::Mp3(_) => {
                out.extend(samples.into_iter().flat_map(i16::to_le_bytes));
            }
        }
    }

    /// The samples of a character; every rate makes them a whole number.
    fn samples(&self) -> u32 {
        self.format.rate / 1000 * CHARACTER_MS as u32
            + self.format.rate % 1000 * CHARACTER_MS as u32 / 1000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [&str; 8] = [
        "mp3_44100_128",
        "mp3_44100_32",
        "mp3_22050_32",
        "mp3_24000_48",
        "pcm_22050",
        "wav_44100",
        "ulaw_8000",
        "alaw_8000",
    ];

    proptest! {
        #[test]
        fn audio_is_the_same_wherever_it_is_cut(
            text in "[a-z 東é🚀]{0,40}",
            cut in 0_usize..41,
            format in prop::sample::select(&FORMATS[..]),
        ) {
            let format = AudioFormat::named(format).unwrap();
            let whole = voice_audio(&text, format);
            let voice = Voice::new(&text, format);
            let cut = cut.min(voice.len());
            let mut audio = voice.header();
            voice.push(0..cut, &mut audio);
            prop_assert_eq!(audio.len(), audio_until(&text, format, cut));
            voice.push(cut..voice.len(), &mut audio);
            prop_assert_eq!(audio, whole);
        }
    }

    #[test]
    fn other_words_are_other_bytes() {
        for name in FORMATS {
            let format = AudioFormat::named(name).unwrap();
            assert_ne!(
                voice_audio("ab", format),
                voice_audio("ba", format),
                "{name}"
            );
        }
    }

    #[test]
    fn characters_follow_one_another_without_a_gap() {
        let alignment = alignment("Hé!");
        assert_eq!(alignment.characters, ['H', 'é', '!']);
        assert_eq!(alignment.starts_ms, [0, 60, 120]);
        assert_eq!(alignment.ends_ms, [60, 120, 180]);
    }
}

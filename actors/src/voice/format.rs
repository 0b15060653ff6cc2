//! How synthesised speech is coded: the formats of ElevenLabs' `output_format`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The container and code of the samples; all of it is mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// MPEG layer III frames of a constant bitrate.
    Mp3,
    /// Signed 16-bit little-endian samples without a header.
    Pcm,
    /// The same samples behind a RIFF header.
    Wav,
    /// ITU-T G.711 µ-law without a header.
    Ulaw,
    /// ITU-T G.711 A-law without a header.
    Alaw,
    /// Opus packets in an Ogg container.
    Opus,
}

/// Bytes of the header of a WAV file that holds nothing but samples.
pub const WAV_HEADER_BYTES: usize = 44;

/// One of the formats a voice can be asked for, by default `mp3_44100_128`.
///
/// Names and list: `TextToSpeechConvertRequestOutputFormat` of ElevenLabs' Python SDK.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioFormat {
    name: &'static str,
    mime: &'static str,
    coding: Coding,
    sample_rate: u32,
    /// Of all bytes but the header.
    bytes_per_second: u32,
}

/// The text names no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no audio format; known are mp3_44100_128, pcm_16000, wav_24000, ulaw_8000, opus_48000_64 and the like"
)]
pub struct UnknownFormat;

macro_rules! formats {
    ($($constant:ident = $coding:ident($rate:literal, $per_second:expr, $name:literal, $mime:expr);)*) => {
        impl AudioFormat {
            $(
                #[doc = concat!("`", $name, "`")]
                pub const $constant: Self = Self {
                    name: $name,
                    mime: $mime,
                    coding: Coding::$coding,
                    sample_rate: $rate,
                    bytes_per_second: $per_second,
                };
            )*

            /// Every format there is.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

formats! {
    MP3_22050_32 = Mp3(22_050, 32_000 / 8, "mp3_22050_32", "audio/mpeg");
    MP3_24000_48 = Mp3(24_000, 48_000 / 8, "mp3_24000_48", "audio/mpeg");
    MP3_44100_32 = Mp3(44_100, 32_000 / 8, "mp3_44100_32", "audio/mpeg");
    MP3_44100_64 = Mp3(44_100, 64_000 / 8, "mp3_44100_64", "audio/mpeg");
    MP3_44100_96 = Mp3(44_100, 96_000 / 8, "mp3_44100_96", "audio/mpeg");
    MP3_44100_128 = Mp3(44_100, 128_000 / 8, "mp3_44100_128", "audio/mpeg");
    MP3_44100_192 = Mp3(44_100, 192_000 / 8, "mp3_44100_192", "audio/mpeg");
    PCM_8000 = Pcm(8_000, 2 * 8_000, "pcm_8000", "audio/pcm;rate=8000");
    PCM_16000 = Pcm(16_000, 2 * 16_000, "pcm_16000", "audio/pcm;rate=16000");
    PCM_22050 = Pcm(22_050, 2 * 22_050, "pcm_22050", "audio/pcm;rate=22050");
    PCM_24000 = Pcm(24_000, 2 * 24_000, "pcm_24000", "audio/pcm;rate=24000");
    PCM_32000 = Pcm(32_000, 2 * 32_000, "pcm_32000", "audio/pcm;rate=32000");
    PCM_44100 = Pcm(44_100, 2 * 44_100, "pcm_44100", "audio/pcm;rate=44100");
    PCM_48000 = Pcm(48_000, 2 * 48_000, "pcm_48000", "audio/pcm;rate=48000");
    WAV_8000 = Wav(8_000, 2 * 8_000, "wav_8000", "audio/wav");
    WAV_16000 = Wav(16_000, 2 * 16_000, "wav_16000", "audio/wav");
    WAV_22050 = Wav(22_050, 2 * 22_050, "wav_22050", "audio/wav");
    WAV_24000 = Wav(24_000, 2 * 24_000, "wav_24000", "audio/wav");
    WAV_32000 = Wav(32_000, 2 * 32_000, "wav_32000", "audio/wav");
    WAV_44100 = Wav(44_100, 2 * 44_100, "wav_44100", "audio/wav");
    WAV_48000 = Wav(48_000, 2 * 48_000, "wav_48000", "audio/wav");
    // Headerless µ-law at 8 kHz is what RFC 2046 calls audio/basic; A-law's name is of RFC 4856.
    ULAW_8000 = Ulaw(8_000, 8_000, "ulaw_8000", "audio/basic");
    ALAW_8000 = Alaw(8_000, 8_000, "alaw_8000", "audio/PCMA");
    OPUS_48000_32 = Opus(48_000, 32_000 / 8, "opus_48000_32", "audio/ogg;codecs=opus");
    OPUS_48000_64 = Opus(48_000, 64_000 / 8, "opus_48000_64", "audio/ogg;codecs=opus");
    OPUS_48000_96 = Opus(48_000, 96_000 / 8, "opus_48000_96", "audio/ogg;codecs=opus");
    OPUS_48000_128 = Opus(48_000, 128_000 / 8, "opus_48000_128", "audio/ogg;codecs=opus");
    OPUS_48000_192 = Opus(48_000, 192_000 / 8, "opus_48000_192", "audio/ogg;codecs=opus");
}

impl AudioFormat {
    /// Finds a format by its name.
    pub fn parse(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.iter().find(|format| format.name == name);
        found.copied().ok_or(UnknownFormat)
    }

    /// Its name, as `output_format` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// The value of a `Content-Type` header. What has no header of its own tells its rate here.
    #[must_use]
    pub const fn mime(self) -> &'static str {
        self.mime
    }

    /// How a file of it ends, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self.coding {
            Coding::Mp3 => "mp3",
            Coding::Pcm => "pcm",
            Coding::Wav => "wav",
            Coding::Ulaw => "ulaw",
            Coding::Alaw => "alaw",
            Coding::Opus => "opus",
        }
    }

    /// The container and code.
    #[must_use]
    pub const fn coding(self) -> Coding {
        self.coding
    }

    /// Samples per second.
    #[must_use]
    pub const fn sample_rate(self) -> u32 {
        self.sample_rate
    }

    /// Bytes of a second of audio, without a header; Opus's is what it was asked to come to.
    #[must_use]
    pub const fn bytes_per_second(self) -> u32 {
        self.bytes_per_second
    }

    /// Bytes that stand before the first sample.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self.coding {
            Coding::Wav => WAV_HEADER_BYTES,
            _ => 0,
        }
    }

    /// Bytes that must stay together: a sample, or 1 where the container finds its own frames.
    #[must_use]
    pub const fn sample_bytes(self) -> usize {
        match self.coding {
            Coding::Pcm | Coding::Wav => 2,
            _ => 1,
        }
    }

    /// How long so many bytes play; to the frame for MP3, an estimate for Opus, else exact.
    #[must_use]
    pub fn duration_of(self, bytes: usize) -> Duration {
        let audio = bytes.saturating_sub(self.header_bytes()) as u64;
        let rate = u64::from(self.bytes_per_second);
        Duration::from_secs(audio / rate)
            + Duration::from_nanos(audio % rate * 1_000_000_000 / rate)
    }

    /// Whether a WebSocket of ElevenLabs speaks it too, not only the REST calls.
    #[must_use]
    pub fn is_for_sockets(self) -> bool {
        let lacking = [Self::MP3_24000_48, Self::PCM_32000, Self::PCM_48000];
        self.is_for_streams() && !lacking.contains(&self)
    }

    /// Whether it can be sent while it is made: a WAV file's header tells its length.
    #[must_use]
    pub fn is_for_streams(self) -> bool {
        self.coding != Coding::Wav
    }
}

impl Default for AudioFormat {
    fn default() -> Self {
        Self::MP3_44100_128
    }
}

impl FromStr for AudioFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::parse(name)
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for AudioFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for AudioFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_again_and_no_other() {
        for format in AudioFormat::ALL {
            assert_eq!(AudioFormat::parse(format.as_str()), Ok(*format));
            let json = serde_json::to_string(format).unwrap();
            assert_eq!(serde_json::from_str::<AudioFormat>(&json).unwrap(), *format);
        }
        for bad in ["", "mp3", "mp3_44100_129", "MP3_44100_128", "pcm_8000 "] {
            assert_eq!(AudioFormat::parse(bad), Err(UnknownFormat), "{bad:?}");
        }
    }

    #[test]
    fn a_name_tells_rate_and_bitrate() {
        for format in AudioFormat::ALL {
            let parts: Vec<&str> = format.as_str().split('_').collect();
            let rate: u32 = parts[1].parse().unwrap();
            assert_eq!(format.sample_rate(), rate, "{format}");
            let per_second = match (parts[0], parts.get(2)) {
                (_, Some(kbps)) => kbps.parse::<u32>().unwrap() * 125,
                ("pcm" | "wav", None) => rate * 2,
                (_, None) => rate,
            };
            assert_eq!(format.bytes_per_second(), per_second, "{format}");
            assert_eq!(format.extension(), parts[0]);
        }
    }

    #[test]
    fn bytes_tell_a_duration() {
        let second = Duration::from_secs(1);
        assert_eq!(AudioFormat::PCM_22050.duration_of(44_100), second);
        assert_eq!(AudioFormat::WAV_22050.duration_of(44_144), second);
        assert_eq!(AudioFormat::WAV_8000.duration_of(10), Duration::ZERO);
        assert_eq!(AudioFormat::ULAW_8000.duration_of(4_000), second / 2);
        assert_eq!(AudioFormat::MP3_44100_128.duration_of(16_000), second);
    }

    #[test]
    fn sockets_lack_some() {
        let sockets = AudioFormat::ALL.iter().filter(|f| f.is_for_sockets());
        assert_eq!(sockets.count(), AudioFormat::ALL.len() - 3 - 7);
    }
}

//! The formats of audio that a client may ask for.

/// The sampling rates of PCM and WAV, in Hz.
const RATES: [u32; 7] = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// The sampling rates of MP3 in Hz, each with its bit rates in kbit/s.
const MP3: [(u32, &[u32]); 3] = [
    (22_050, &[32]),
    (24_000, &[48]),
    (44_100, &[32, 64, 96, 128, 192]),
];
/// What a socket does not offer beside WAV.
const NOT_ON_SOCKETS: [&str; 3] = ["mp3_24000_48", "pcm_32000", "pcm_48000"];

/// A format of audio, by the name that `output_format` has for it.
///
/// All of them are mono. Opus is not simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioFormat {
    pub(crate) codec: Codec,
    /// Samples a second.
    pub(crate) rate: u32,
}

/// How samples become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    /// Layer III at this many kbit/s.
    Mp3(u32),
    /// Signed 16-bit samples, little endian.
    Pcm,
    /// The same after a header.
    Wav,
    Ulaw,
    Alaw,
}

/// Where audio goes, which decides what formats there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Streamed,
    Socket,
}

impl AudioFormat {
    /// What is made when the client asks for nothing: `mp3_44100_128`.
    pub const DEFAULT: Self = Self {
        codec: Codec::Mp3(128),
        rate: 44_100,
    };

    /// Returns the format of this name, such as `pcm_24000`.
    pub fn named(name: &str) -> Option<Self> {
        let (codec, rest) = name.split_once('_')?;
        let (rate, bitrate) = match rest.split_once('_') {
            Some((rate, bitrate)) => (rate.parse().ok()?, Some(bitrate.parse().ok()?)),
            None => (rest.parse().ok()?, None),
        };
        let codec = match (codec, bitrate) {
            ("mp3", Some(bitrate)) => {
                let (_, bitrates) = MP3.iter().find(|(known, _)| *known == rate)?;
                bitrates.contains(&bitrate).then_some(Codec::Mp3(bitrate))?
            }
            ("pcm", None) if RATES.contains(&rate) => Codec::Pcm,
            ("wav", None) if RATES.contains(&rate) => Codec::Wav,
            ("ulaw", None) if rate == 8_000 => Codec::Ulaw,
            ("alaw", None) if rate == 8_000 => Codec::Alaw,
            _ => return None,
        };
        Some(Self { codec, rate })
    }

    /// Returns the media type of an answer in this format.
    pub fn media_type(self) -> &'static str {
        match self.codec {
            Codec::Mp3(_) => "audio/mpeg",
            Codec::Pcm => "audio/pcm",
            Codec::Wav => "audio/wav",
            Codec::Ulaw => "audio/basic",
            Codec::Alaw => "audio/x-alaw-basic",
        }
    }

    /// Returns the format of this name where this way of delivery has it.
    pub(crate) fn offered(name: &str, delivery: Delivery) -> Option<Self> {
        let format = Self::named(name)?;
        let offered = match delivery {
            Delivery::Whole => true,
            Delivery::Streamed => format.codec != Codec::Wav,
            Delivery::Socket => format.codec != Codec::Wav && !NOT_ON_SOCKETS.contains(&name),
        };
        offered.then_some(format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_format_or_none() {
        assert_eq!(
            AudioFormat::named("mp3_44100_128"),
            Some(AudioFormat::DEFAULT)
        );
        for name in [
            "pcm_8000",
            "wav_48000",
            "ulaw_8000",
            "alaw_8000",
            "mp3_22050_32",
        ] {
            assert!(AudioFormat::named(name).is_some(), "{name}");
        }
        for name in [
            "",
            "mp3",
            "mp3_44100",
            "mp3_22050_128",
            "pcm_11025",
            "ulaw_16000",
            "pcm_8000_1",
        ] {
            assert_eq!(AudioFormat::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_way_of_delivery_has_its_formats() {
        let offered = |name| {
            [Delivery::Whole, Delivery::Streamed, Delivery::Socket]
                .map(|delivery| AudioFormat::offered(name, delivery).is_some())
        };
        assert_eq!(offered("mp3_44100_128"), [true, true, true]);
        assert_eq!(offered("pcm_48000"), [true, true, false]);
        assert_eq!(offered("wav_24000"), [true, false, false]);
    }
}

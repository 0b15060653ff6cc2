//! The file that an utterance is passed on as.

use bytes::Bytes;
use idol_actors::voice::format::{AudioFormat, Coding};

use crate::wire::socket::Refused;

/// What is told of a file before its sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SoundFile {
    pub(super) name: String,
    pub(super) content_type: String,
    /// Of raw samples: that of a WAV file.
    pub(super) header: Option<Bytes>,
}

impl SoundFile {
    /// The file of a format: an ending, a media type, or the name of one that replies are spoken in.
    pub(super) fn of(format: &str) -> Result<Self, Refused> {
        match AudioFormat::parse(format) {
            Ok(format) => Self::of_speech(format),
            Err(_other) => Self::of_media(format),
        }
    }

    fn named(ending: &str, content_type: impl Into<String>) -> Self {
        Self {
            name: format!("audio.{ending}"),
            content_type: content_type.into(),
            header: None,
        }
    }

    fn of_speech(format: AudioFormat) -> Result<Self, Refused> {
        Ok(match format.coding() {
            Coding::Pcm => Self {
                header: Some(wav_header(format.sample_rate())),
                ..Self::named("wav", "audio/wav")
            },
            Coding::Wav => Self::named("wav", "audio/wav"),
            Coding::Mp3 => Self::named("mp3", "audio/mpeg"),
            Coding::Opus => Self::named("ogg", "audio/ogg"),
            Coding::Ulaw | Coding::Alaw => {
                let sentence = "format should not be a telephone's: send pcm_8000 instead";
                return Err(Refused::invalid(sentence));
            }
        })
    }

    fn of_media(format: &str) -> Result<Self, Refused> {
        let format = format.trim().to_ascii_lowercase();
        let media = format.split(';').next().unwrap_or_default().trim();
        let is_word = |text: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
            !text.is_empty() && !text.starts_with('.') && text.bytes().all(fits)
        };
        // What is neither is not passed on: it stands in the head of a part.
        let (media_type, ending) = match media.split_once('/') {
            Some((kind, subtype)) if is_word(kind) && is_word(subtype) => (Some(media), subtype),
            None if is_word(media) => (None, media),
            Some(_) | None => {
                let sentence = "format should be an ending as webm, a media type as audio/webm, \
                    or a name as pcm_16000";
                return Err(Refused::invalid(sentence));
            }
        };
        let ending = match ending.strip_prefix("x-").unwrap_or(ending) {
            "mpeg" => "mp3",
            "wave" => "wav",
            "mp4" => "m4a",
            // In Ogg; OpenAI takes no `.opus`.
            "opus" => "ogg",
            other => other,
        };
        let content_type = match media_type.filter(|media| *media != "audio/opus") {
            Some(media) => media.to_owned(),
            None => format!("audio/{}", if ending == "mp3" { "mpeg" } else { ending }),
        };
        Ok(Self::named(ending, content_type))
    }
}

/// The header of a WAV file of mono 16-bit samples whose length is not known yet: both sizes as large
/// as can be, which decoders take for "to the end".
fn wav_header(rate: u32) -> Bytes {
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&u32::MAX.to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    // Samples as they are, one channel.
    header.extend_from_slice(&[1, 0, 1, 0]);
    header.extend_from_slice(&rate.to_le_bytes());
    header.extend_from_slice(&(rate * 2).to_le_bytes());
    // Two bytes a sample, 16 bits.
    header.extend_from_slice(&[2, 0, 16, 0]);
    header.extend_from_slice(b"data");
    header.extend_from_slice(&u32::MAX.to_le_bytes());
    header.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_format_is_understood() {
        for (format, name, media) in [
            ("webm", "audio.webm", "audio/webm"),
            ("audio/webm;codecs=opus", "audio.webm", "audio/webm"),
            ("mp3", "audio.mp3", "audio/mpeg"),
            ("opus", "audio.ogg", "audio/ogg"),
            ("audio/opus", "audio.ogg", "audio/ogg"),
            ("audio/mpeg", "audio.mp3", "audio/mpeg"),
            ("audio/x-wav", "audio.wav", "audio/x-wav"),
            ("wav\r\n", "audio.wav", "audio/wav"),
            ("pcm_16000", "audio.wav", "audio/wav"),
            ("wav_16000", "audio.wav", "audio/wav"),
            ("mp3_44100_128", "audio.mp3", "audio/mpeg"),
            ("opus_48000_64", "audio.ogg", "audio/ogg"),
        ] {
            let file = SoundFile::of(format).unwrap();
            assert_eq!(
                (&*file.name, &*file.content_type),
                (name, media),
                "{format}"
            );
            assert_eq!(file.header.is_some(), format == "pcm_16000");
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for format in [
            "../../etc",
            "audio/webm\r\nX: y",
            "",
            "/",
            "ulaw_8000",
            "alaw_8000",
        ] {
            assert!(SoundFile::of(format).is_err(), "{format:?}");
        }
    }
}

//! How long a sound is, where its bytes tell that: uncompressed WAV.
//!
//! Pure. Most upstreams tell it themselves; local servers do not, nor do OpenAI's newer models.

/// Bytes up to the samples, where the header is as short as can be (Multimedia Programming Interface
/// and Data Specifications 1.0, "WAVE").
const HEADER_BYTES: usize = 44;

/// Where the header says how many bytes are a second, in little-endian.
const BYTE_RATE: std::ops::Range<usize> = 28..32;

/// Measures a file while it goes by.
#[derive(Debug, Default)]
pub(super) struct Length {
    head: Vec<u8>,
    bytes: usize,
}

impl Length {
    /// The next bytes of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let missing = HEADER_BYTES.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        self.bytes += bytes.len();
    }

    /// Seconds of what went by; none if its bytes do not tell.
    pub(super) fn seconds(&self) -> Option<f64> {
        let is_wav = self.head.starts_with(b"RIFF") && self.head.get(8..16)? == b"WAVEfmt ";
        let rate = self.head.get(BYTE_RATE)?.try_into().ok()?;
        let rate = u32::from_le_bytes(rate);
        let samples = u32::try_from(self.bytes.checked_sub(HEADER_BYTES)?).ok()?;
        // Neither is compressed if it has less than a telephone's.
        (is_wav && rate >= 8_000).then(|| f64::from(samples) / f64::from(rate))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wav(rate: u32, samples: usize) -> Vec<u8> {
        let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend((rate / 2).to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
        assert_eq!(file.len(), HEADER_BYTES);
        file.resize(HEADER_BYTES + samples, 7);
        file
    }

    proptest! {
        #[test]
        fn a_wav_file_is_as_long_as_its_samples_play(
            rate in 8_000u32..200_000,
            samples in 0usize..20_000,
            piece in 1usize..500,
        ) {
            let mut length = Length::default();
            wav(rate, samples).chunks(piece).for_each(|piece| length.push(piece));
            let expected = samples as f64 / f64::from(rate);
            prop_assert!((length.seconds().unwrap() - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn of_other_files_nothing_is_said() {
        let mut short = wav(16_000, 0);
        short.truncate(40);
        for file in [&b""[..], b"ID3\x04", &[0; 4_000], &short, &wav(0, 100)] {
            let mut length = Length::default();
            length.push(file);
            assert_eq!(length.seconds(), None);
        }
    }
}

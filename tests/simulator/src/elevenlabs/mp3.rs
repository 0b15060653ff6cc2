//! Frames of MPEG audio, layer III.
//!
//! A frame is silent, and stands alone: its side information is all zero, so it has no main data
//! and refers to none before it. What is left of it no decoder reads; it tells what was spoken.

/// The bit rates of layer III in kbit/s, by their index in a header.
const MPEG1_BITRATES: [u32; 15] = [
    0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
];
const MPEG2_BITRATES: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

/// The version of MPEG, which the sampling rate decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// 32, 44.1 and 48 kHz.
    One,
    /// Half of these rates.
    Two,
}

/// A stream of frames of one sampling rate and one bit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frames {
    version: Version,
    /// Samples a second.
    rate: u32,
    /// kbit/s.
    bitrate: u32,
}

impl Frames {
    pub(crate) fn new(rate: u32, bitrate: u32) -> Self {
        let version = if rate < 32_000 {
            Version::Two
        } else {
            Version::One
        };
        Self {
            version,
            rate,
            bitrate,
        }
    }

    /// Returns how many frames it takes to reach a time.
    pub(crate) fn until(self, ms: u64) -> u64 {
        (ms * u64::from(self.rate)).div_ceil(1000 * self.samples())
    }

    /// Appends the frame of this number, with the letters of `speech` in its unread rest.
    pub(crate) fn push(self, number: u64, speech: &str, out: &mut Vec<u8>) {
        // A frame has a byte more whenever the bytes of the bit rate have come to one.
        let padding = self.bytes_until(number + 1) - self.bytes_until(number) - self.bytes_until(1);
        let start = out.len();
        out.extend_from_slice(&self.header(padding));
        let side_information = match self.version {
            Version::One => 17,
            Version::Two => 9,
        };
        out.extend(std::iter::repeat_n(0, side_information));
        let size = (self.bytes_until(1) + padding) as usize;
        let rest = size.saturating_sub(out.len() - start);
        // Letters are ASCII, and so cannot be taken for the start of a frame.
        out.extend(speech.bytes().cycle().take(rest));
    }

    fn samples(self) -> u64 {
        match self.version {
            Version::One => 1152,
            Version::Two => 576,
        }
    }

    /// Returns the bytes that so many frames have at this bit rate.
    fn bytes_until(self, frames: u64) -> u64 {
        frames * self.samples() / 8 * u64::from(self.bitrate) * 1000 / u64::from(self.rate)
    }

    /// The header of a mono frame without a checksum.
    fn header(self, padding: u64) -> [u8; 4] {
        let (version, bitrates, rates) = match self.version {
            Version::One => (0b11, &MPEG1_BITRATES, [44_100, 48_000, 32_000]),
            Version::Two => (0b10, &MPEG2_BITRATES, [22_050, 24_000, 16_000]),
        };
        let index_of = |known: &[u32], value| known.iter().position(|known| *known == value);
        let bitrate = index_of(bitrates, self.bitrate).unwrap_or_default() as u8;
        let rate = index_of(&rates, self.rate).unwrap_or_default() as u8;
        let layer_three = 0b01;
        [
            0xFF,
            0xE0 | version << 3 | layer_three << 1 | 1,
            bitrate << 4 | rate << 2 | (padding as u8) << 1,
            0b1100_0000,
        ]
    }
}

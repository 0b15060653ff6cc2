//! The demo's synthetic voice: no speech, but a plain tone for each syllable.
//!
//! It lets everything around a voice be tried, timed and tested without a provider's key: audio of
//! a plausible length in real formats, a rhythm that follows the text, and an alignment. Nobody
//! understands a word of it. The same text always makes the same bytes.

mod plan;
mod render;

use super::{
    alignment::Alignment,
    format::{AudioFormat, Coding},
};

/// Longest audio in milliseconds; what a text has beyond that is not sounded.
pub const TONES_MS_MAX: u32 = 30_000;

/// A text as tones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tones {
    /// A complete file, or samples, of the format that was asked for.
    pub audio: Vec<u8>,
    /// When each character of the text sounds.
    pub alignment: Alignment,
    /// Milliseconds of all the audio.
    pub duration_ms: u32,
}

/// There are no tones of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the synthetic voice does not speak {0}; it speaks mp3_44100_128, pcm_*, wav_* and ulaw_8000"
)]
pub struct UnsupportedFormat(pub AudioFormat);

/// Whether there are tones of this format.
#[must_use]
pub fn is_supported(format: AudioFormat) -> bool {
    match format.coding() {
        Coding::Mp3 => format == AudioFormat::MP3_44100_128,
        Coding::Pcm | Coding::Wav | Coding::Ulaw => true,
        Coding::Alaw | Coding::Opus => false,
    }
}

/// Makes tones of a text.
///
/// # Errors
///
/// The format is not [supported](is_supported).
pub fn synthesize(text: &str, format: AudioFormat) -> Result<Tones, UnsupportedFormat> {
    if !is_supported(format) {
        return Err(UnsupportedFormat(format));
    }
    let plan = plan::plan(text);
    let rate = format.sample_rate();
    let audio = match format.coding() {
        Coding::Mp3 => render::frames(&plan.sounds),
        Coding::Wav => render::wav(&render::samples(&plan.sounds, rate), rate),
        Coding::Ulaw => render::ulaw(&render::samples(&plan.sounds, rate)),
        _ => render::little_endian(&render::samples(&plan.sounds, rate)),
    };
    Ok(Tones {
        audio,
        duration_ms: plan::ms(plan.steps),
        alignment: plan.alignment,
    })
}

#[cfg(test)]
mod tests;

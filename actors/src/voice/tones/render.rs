//! Turns a plan into bytes.

use std::f64::consts::{FRAC_PI_2, TAU};

use super::plan::{PITCHES, STEP_RATE, STEP_SAMPLES, SYLLABLE_STEPS, Sound};
use crate::voice::format::WAV_HEADER_BYTES;

/// Made once, see their README: they can follow one another in any order.
const TONE_FRAMES: [&[u8]; PITCHES as usize] = [
    include_bytes!("../../../assets/tones/a.mp3"),
    include_bytes!("../../../assets/tones/b.mp3"),
    include_bytes!("../../../assets/tones/c.mp3"),
    include_bytes!("../../../assets/tones/d.mp3"),
];
const SILENCE_FRAME: &[u8] = include_bytes!("../../../assets/tones/silence.mp3");

/// The same as in the frames: hertz, and of full scale (-16 dBFS, which is soft).
const PITCHES_HZ: [f64; PITCHES as usize] = [220.0, 246.94, 277.18, 329.63];
const AMPLITUDE: f64 = 0.16;
/// Seconds in which a tone comes and goes, so that it does not click.
const FADE_SECONDS: f64 = 0.02;

/// MPEG frames.
pub(super) fn frames(sounds: &[Sound]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sound in sounds {
        match *sound {
            Sound::Tone(pitch) => {
                bytes.extend_from_slice(TONE_FRAMES[usize::from(pitch % PITCHES)]);
            }
            Sound::Silence(steps) => {
                for _ in 0..steps {
                    bytes.extend_from_slice(SILENCE_FRAME);
                }
            }
        }
    }
    bytes
}

/// Samples at a rate.
pub(super) fn samples(sounds: &[Sound], rate: u32) -> Vec<i16> {
    let tones = PITCHES_HZ.map(|hertz| tone(hertz, rate));
    let mut samples = Vec::new();
    let mut steps = 0;
    for sound in sounds {
        if let Sound::Tone(pitch) = *sound {
            samples.extend_from_slice(&tones[usize::from(pitch % PITCHES)]);
        }
        steps += sound.steps();
        // From the beginning on, so that rounding does not add up.
        samples.resize(samples_of(steps, rate), 0);
    }
    samples
}

fn samples_of(steps: u32, rate: u32) -> usize {
    let samples =
        u64::from(steps) * u64::from(STEP_SAMPLES) * u64::from(rate) / u64::from(STEP_RATE);
    usize::try_from(samples).unwrap_or(usize::MAX)
}

/// One syllable.
fn tone(hertz: f64, rate: u32) -> Vec<i16> {
    let length = samples_of(SYLLABLE_STEPS, rate);
    let seconds = |samples: usize| samples as f64 / f64::from(rate);
    let sample = |at: usize| {
        let (before, behind) = (seconds(at), seconds(length - 1 - at));
        let fade = (before.min(behind) / FADE_SECONDS).min(1.0);
        let level = (fade * FRAC_PI_2).sin().powi(2) * AMPLITUDE * f64::from(i16::MAX);
        ((TAU * hertz * before).sin() * level).round() as i16
    };
    (0..length).map(sample).collect()
}

pub(super) fn little_endian(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// A RIFF file of 16-bit mono samples.
pub(super) fn wav(samples: &[i16], rate: u32) -> Vec<u8> {
    let bytes = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX);
    let riff_bytes = bytes.saturating_add(WAV_HEADER_BYTES as u32 - 8);
    let mut file = Vec::with_capacity(WAV_HEADER_BYTES + samples.len() * 2);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&riff_bytes.to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    // PCM, one channel.
    file.extend_from_slice(&1_u16.to_le_bytes());
    file.extend_from_slice(&1_u16.to_le_bytes());
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * 2).to_le_bytes());
    // Bytes and bits of a sample.
    file.extend_from_slice(&2_u16.to_le_bytes());
    file.extend_from_slice(&16_u16.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    file.extend(little_endian(samples));
    file
}

pub(super) fn ulaw(samples: &[i16]) -> Vec<u8> {
    samples.iter().copied().map(ulaw_byte).collect()
}

/// One sample after ITU-T G.711.
pub(super) fn ulaw_byte(sample: i16) -> u8 {
    const BIAS: u16 = 0x84;
    const CLIP: u16 = 32_635;
    let magnitude = sample.unsigned_abs().min(CLIP) + BIAS;
    // The bias makes bit 7 the lowest that can be the highest one set.
    let exponent = 8 - magnitude.leading_zeros().min(8);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0F;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let [_, byte] = (mantissa | (exponent as u16) << 4 | sign).to_be_bytes();
    !byte
}

//! Tones in samples of 16 bits, and the codes of telephony.

/// How loud a tone is, of 32767.
const AMPLITUDE: i32 = 8_000;

/// Appends the tone of a character: a triangle wave whose pitch is the character's; white space
/// is silent.
pub(crate) fn push_tone(character: char, rate: u32, samples: u32, out: &mut Vec<i16>) {
    if character.is_whitespace() {
        out.extend(std::iter::repeat_n(0, samples as usize));
        return;
    }
    let pitch = 200 + u64::from(character as u32).wrapping_mul(37) % 800;
    out.extend((0..u64::from(samples)).map(|sample| {
        // Whole numbers alone: the same bytes on every machine.
        let phase = (sample * pitch * 4_096 / u64::from(rate) % 4_096) as i32;
        let height = (phase - 2_048).abs() - 1_024;
        (height * AMPLITUDE / 1_024) as i16
    }));
}

/// The µ-law code of a sample (ITU-T G.711).
pub(crate) fn ulaw(sample: i16) -> u8 {
    const BIAS: u16 = 0x84;
    const CLIP: u16 = 32_635;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = sample.unsigned_abs().min(CLIP) + BIAS;
    // The bias sets bit 7 at least.
    let exponent = 8 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (exponent + 3)) as u8 & 0x0F;
    !(sign | (exponent as u8) << 4 | mantissa)
}

/// The A-law code of a sample (ITU-T G.711).
pub(crate) fn alaw(sample: i16) -> u8 {
    let (sign, magnitude) = if sample < 0 {
        (0, !sample)
    } else {
        (0x80, sample)
    };
    let magnitude = magnitude as u16 >> 4;
    let code = if magnitude < 16 {
        magnitude as u8
    } else {
        let exponent = 12 - magnitude.leading_zeros();
        (exponent as u8) << 4 | (magnitude >> (exponent - 1)) as u8 & 0x0F
    };
    (sign | code) ^ 0x55
}

/// The header of a WAV file of 16-bit mono samples.
pub(crate) fn wav_header(rate: u32, data: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&(data + 36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    header.extend_from_slice(&1_u16.to_le_bytes());
    header.extend_from_slice(&1_u16.to_le_bytes());
    header.extend_from_slice(&rate.to_le_bytes());
    header.extend_from_slice(&(rate * 2).to_le_bytes());
    header.extend_from_slice(&2_u16.to_le_bytes());
    header.extend_from_slice(&16_u16.to_le_bytes());
    header.extend_from_slice(b"data");
    header.extend_from_slice(&data.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample that a µ-law code stands for.
    fn of_ulaw(code: u8) -> i32 {
        let code = !code;
        let magnitude = (((i32::from(code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84;
        if code & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// The sample that an A-law code stands for.
    fn of_alaw(code: u8) -> i32 {
        let code = code ^ 0x55;
        let (exponent, mantissa) = ((code >> 4) & 7, i32::from(code & 0x0F) << 4);
        let magnitude = match exponent {
            0 => mantissa + 8,
            exponent => (mantissa + 0x108) << (exponent - 1),
        };
        if code & 0x80 == 0 {
            -magnitude
        } else {
            magnitude
        }
    }

    #[test]
    fn a_code_is_near_its_sample() {
        for sample in (i16::MIN..=i16::MAX).step_by(7) {
            // The step of a code grows with the sample, to 1024 and half of it either way.
            let near = i32::from(sample).abs() / 16 + 16;
            assert!(
                (of_ulaw(ulaw(sample)) - i32::from(sample)).abs() <= near,
                "{sample}"
            );
            assert!(
                (of_alaw(alaw(sample)) - i32::from(sample)).abs() <= near,
                "{sample}"
            );
        }
        assert_eq!((ulaw(0), alaw(0)), (0xFF, 0xD5));
    }

    #[test]
    fn a_tone_has_its_length_and_swings() {
        let mut tone = Vec::new();
        push_tone('a', 8_000, 480, &mut tone);
        push_tone(' ', 8_000, 480, &mut tone);
        assert_eq!(tone.len(), 960);
        assert!(tone[..480].iter().any(|sample| *sample > 4_000));
        assert!(tone[..480].iter().any(|sample| *sample < -4_000));
        assert!(tone[480..].iter().all(|sample| *sample == 0));
    }
}

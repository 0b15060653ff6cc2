use proptest::prelude::*;

use super::*;

const TEXT: &str = "Hello there, my dear. 你好！ Hmm... 42 ways";

fn formats() -> impl Iterator<Item = AudioFormat> {
    AudioFormat::ALL
        .iter()
        .copied()
        .filter(|format| is_supported(*format))
}

#[test]
fn all_formats_last_equally_long() {
    let duration_ms = synthesize(TEXT, AudioFormat::default())
        .unwrap()
        .duration_ms;
    assert!(duration_ms > 2_000);
    for format in formats() {
        let tones = synthesize(TEXT, format).unwrap();
        assert_eq!(tones.duration_ms, duration_ms);
        let told = format.duration_of(tones.audio.len()).as_millis();
        // MPEG frames of 418 bytes are a little more than the bitrate says.
        assert!(
            told.abs_diff(u128::from(duration_ms)) <= 2,
            "{format}: {told}"
        );
    }
}

#[test]
fn other_formats_are_refused() {
    let format = AudioFormat::OPUS_48000_64;
    assert_eq!(synthesize(TEXT, format), Err(UnsupportedFormat(format)));
}

#[test]
fn mpeg_frames_need_no_other() {
    let tones = synthesize(TEXT, AudioFormat::MP3_44100_128).unwrap();
    let mut rest = tones.audio.as_slice();
    let mut frames = 0;
    while let [0xFF, 0xFB, rates, _mode, begin, more, ..] = *rest {
        assert_eq!(rates & 0b1111_1100, 0b1001_0000, "128 kbit/s at 44.1 kHz");
        assert_eq!((begin, more >> 7), (0, 0), "main_data_begin");
        rest = &rest[417 + usize::from(rates >> 1 & 1)..];
        frames += 1;
    }
    assert!(rest.is_empty());
    assert_eq!(tones.duration_ms, frames * 1_152 * 1_000 / 44_100);
}

#[test]
fn samples_are_soft_and_do_not_click() {
    for rate in [8_000, 44_100] {
        let samples = render::samples(&plan::plan(TEXT).sounds, rate);
        assert!(samples.iter().all(|sample| sample.abs() < 6_000));
        assert!(samples.iter().any(|sample| sample.abs() > 4_000));
        // A full swing of the highest tone.
        let steepest = 5_300.0 * std::f64::consts::TAU * 330.0 / f64::from(rate);
        for pair in samples.windows(2) {
            assert!(f64::from(pair[0].abs_diff(pair[1])) <= steepest);
        }
    }
}

#[test]
fn a_wav_file_tells_its_length() {
    let wav = synthesize("Hi", AudioFormat::WAV_24000).unwrap().audio;
    let pcm = synthesize("Hi", AudioFormat::PCM_24000).unwrap().audio;
    assert_eq!(&wav[44..], pcm);
    let word = |at: usize| u32::from_le_bytes(wav[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&wav[..4], word(4)), (&b"RIFF"[..], wav.len() - 8));
    assert_eq!((word(24), word(28), word(40)), (24_000, 48_000, pcm.len()));
}

#[test]
fn ulaw_is_that_of_the_standard() {
    // G.711 table 2a, its values scaled from 14 to 16 bits.
    for (sample, byte) in [
        (0, 0xFF),
        (-4, 0x7E),
        (4, 0xFE),
        (7, 0xFE),
        (8, 0xFE),
        (12, 0xFD),
        (124, 0xEF),
        (132, 0xEF),
        (1_000, 0xCE),
        (-1_000, 0x4E),
        (32_767, 0x80),
        (-32_768, 0x00),
    ] {
        assert_eq!(render::ulaw_byte(sample), byte, "{sample}");
    }
}

#[test]
fn a_text_of_any_length_makes_bounded_audio() {
    let tones = synthesize(&"a la ".repeat(100_000), AudioFormat::ULAW_8000).unwrap();
    assert!(tones.duration_ms <= TONES_MS_MAX && tones.duration_ms > TONES_MS_MAX - 1_000);
    let one = synthesize(&"a".repeat(1_000_000), AudioFormat::ULAW_8000).unwrap();
    assert_eq!(one.alignment.chars().len(), 1_000_000);
}

proptest! {
    #[test]
    fn the_alignment_is_of_the_text(text in "\\PC{0,40}|[a-z ,.]{0,80}") {
        let tones = synthesize(&text, AudioFormat::MP3_44100_128).unwrap();
        let spoken: String = tones.alignment.chars().iter().map(|timed| timed.c).collect();
        prop_assert_eq!(spoken, text);
        prop_assert!(tones.alignment.end_ms() <= tones.duration_ms);
        let starts = tones.alignment.chars().iter().map(|timed| timed.start_ms);
        prop_assert!(starts.is_sorted());
    }
}

//! Which tones a text is, in steps of one MPEG frame, so that all formats last equally long.

use super::TONES_MS_MAX;
use crate::voice::alignment::Alignment;

/// Samples of a step, at this rate.
pub(super) const STEP_SAMPLES: u32 = 1_152;
pub(super) const STEP_RATE: u32 = 44_100;

/// Steps of a syllable (157 ms), and of the silences behind words, clauses and sentences.
pub(super) const SYLLABLE_STEPS: u32 = 6;
const WORD_STEPS: u32 = 2;
const CLAUSE_STEPS: u32 = 6;
const SENTENCE_STEPS: u32 = 12;
/// Letters of a syllable, where vowels do not tell.
const SYLLABLE_LETTERS: usize = 3;

/// How many pitches there are.
pub(super) const PITCHES: u8 = 4;

/// What sounds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sound {
    /// A syllable, of one of the pitches.
    Tone(u8),
    /// So many steps of nothing.
    Silence(u32),
}

impl Sound {
    pub(super) const fn steps(self) -> u32 {
        match self {
            Self::Tone(_) => SYLLABLE_STEPS,
            Self::Silence(steps) => steps,
        }
    }
}

#[derive(Default)]
pub(super) struct Plan {
    pub(super) sounds: Vec<Sound>,
    pub(super) alignment: Alignment,
    pub(super) steps: u32,
}

/// Milliseconds of so many steps.
pub(super) fn ms(steps: u32) -> u32 {
    let ms = u64::from(steps) * u64::from(STEP_SAMPLES) * 1_000 / u64::from(STEP_RATE);
    u32::try_from(ms).unwrap_or(u32::MAX)
}

pub(super) fn plan(text: &str) -> Plan {
    let mut plan = Plan::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_ideograph = is_ideograph(c);
        let end = match c.is_alphanumeric() {
            true if is_ideograph => c.len_utf8(),
            true => rest
                .find(|c: char| !c.is_alphanumeric() || self::is_ideograph(c))
                .unwrap_or(rest.len()),
            false => c.len_utf8(),
        };
        let (piece, behind) = rest.split_at(end);
        let sounds = if c.is_alphanumeric() {
            tones(piece)
        } else {
            silence(c)
        };
        if !plan.add(piece, &sounds) {
            break;
        }
        rest = behind;
    }
    plan
}

impl Plan {
    /// `false`: there is no room for it.
    fn add(&mut self, piece: &str, sounds: &[Sound]) -> bool {
        let steps: u32 = sounds.iter().map(|sound| sound.steps()).sum();
        let start_ms = ms(self.steps);
        let end_ms = ms(self.steps.saturating_add(steps));
        if end_ms > TONES_MS_MAX {
            return false;
        }
        self.sounds.extend_from_slice(sounds);
        self.steps += steps;
        self.alignment.push(piece, start_ms, end_ms - start_ms);
        true
    }
}

/// A tone for each syllable of a word: for each group of vowels, or of some letters without any.
fn tones(word: &str) -> Vec<Sound> {
    let mut groups = Vec::new();
    let mut is_behind_vowel = false;
    for c in word.chars() {
        let is_vowel = is_vowel(c);
        if is_vowel && !is_behind_vowel {
            groups.push(pitch(c));
        }
        is_behind_vowel = is_vowel;
    }
    if groups.is_empty() {
        let letters: Vec<char> = word.chars().collect();
        groups.extend(
            letters
                .chunks(SYLLABLE_LETTERS)
                .map(|group| pitch(group[0])),
        );
    }
    groups.into_iter().map(Sound::Tone).collect()
}

fn silence(c: char) -> Vec<Sound> {
    let steps = match c {
        '.' | '!' | '?' | '…' | '。' | '！' | '？' | '\n' => SENTENCE_STEPS,
        ',' | ';' | ':' | '—' | '–' | '，' | '、' | '；' | '：' => CLAUSE_STEPS,
        ' ' => WORD_STEPS,
        _ => return Vec::new(),
    };
    vec![Sound::Silence(steps)]
}

fn pitch(c: char) -> u8 {
    // Any spread will do: neighbouring vowels differ.
    u8::try_from((u32::from(c) / 2) % u32::from(PITCHES)).unwrap_or_default()
}

const fn is_vowel(c: char) -> bool {
    matches!(
        c.to_ascii_lowercase(),
        'a' | 'e' | 'i' | 'o' | 'u' | 'y' | 'à'..='å' | 'è'..='ï' | 'ò'..='ö' | 'ù'..='ý'
            | 'а' | 'е' | 'ё' | 'и' | 'о' | 'у' | 'ы' | 'э' | 'ю' | 'я'
    )
}

const fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}' | '\u{20000}'..='\u{3FFFF}')
}

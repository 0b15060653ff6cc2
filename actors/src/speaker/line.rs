//! The sentences of one reply on their way from the text to the listener's ear.
//!
//! Pure. Sentences are synthesised a few ahead of the one that is told, and told in order, however
//! their audio comes. What was told is kept account of, so that what a client says it played tells
//! what of the reply was heard.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::{
    provider::{
        Upstream, UpstreamError, UpstreamErrorKind, failure,
        speech::{SpeechEnd, Urgency},
    },
    voice::{
        alignment::{Alignment, TimedChar},
        format::AudioFormat,
        heard::Heard,
        segment::Segment,
    },
};

/// Sentences that are synthesised ahead of the one that is told: enough to bridge the wait for the
/// next, and few, since what is interrupted was paid for.
const AHEAD: usize = 2;

/// So often a sentence is asked for that broke off before anybody heard anything of it. One that has
/// no sound at all its provider has asked for as often as is of use.
const ATTEMPTS: u8 = 2;

/// So many sentences in a row that are refused, and the rest of the reply is not asked for.
const REFUSED_MAX: u8 = 2;

/// Longest audio of a sentence: the longest that is asked for takes a minute or so.
const SENTENCE_MAX: Duration = Duration::from_secs(180);

/// Largest piece of audio that is told at once: two seconds of the default format.
pub(super) const PIECE_BYTES_MAX: usize = 32 << 10;

/// Most bytes of a text that goes before a sentence, to go on in its tone.
const BEFORE_BYTES_MAX: usize = 500;

/// A sentence.
#[derive(Debug)]
struct Sentence {
    text: Arc<str>,
    number: u32,
    state: State,
    attempt: u8,
    /// Audio that is not told yet.
    audio: BytesMut,
    /// Times of characters that are not told yet.
    timed: Vec<TimedChar>,
    /// All times so far.
    alignment: Alignment,
    /// Bytes of audio that were told.
    told: usize,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Not asked for yet.
    Waits,
    /// Its audio is coming.
    Asked,
    /// All of its audio is here.
    Whole,
    /// There will be no more audio.
    Failed(UpstreamError),
}

/// Something that is to be synthesised.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// For [`Line::took`]: the sentence and the attempt at it.
    pub(super) number: u64,
    /// The sentence.
    pub(super) text: Arc<str>,
    /// What is spoken before it.
    pub(super) before: Arc<str>,
    /// Whether somebody waits in silence for it.
    pub(super) urgency: Urgency,
}

/// Something that is to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Audio.
    Audio {
        /// Counts what is told of the reply, from 0.
        sequence: u32,
        /// Counts its sentences, from 0.
        sentence: u32,
        /// The sentence.
        text: Arc<str>,
        /// The audio.
        audio: Bytes,
        /// Times of the characters that came with it, from the beginning of the sentence on.
        timed: Vec<TimedChar>,
    },
    /// There is no audio, or no more, of a sentence.
    Failed {
        /// As above.
        sequence: u32,
        /// As above.
        sentence: u32,
        /// The sentence.
        text: Arc<str>,
        /// Why.
        error: UpstreamError,
        /// Whether the sentences behind it are spoken.
        rest: Rest,
    },
    /// Everything was told.
    Complete(Sums),
}

/// What becomes of the sentences behind one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// They are spoken.
    Spoken,
    /// They would fail in the same way: they are to be read.
    Silent,
}

/// What there was of a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// How long it plays.
    pub duration: Duration,
    /// Characters that were charged for.
    pub characters: u64,
}

/// What a told piece was of.
#[derive(Debug, Clone, Copy)]
struct Told {
    sentence: u32,
    start_ms: u32,
    end_ms: u32,
}

/// The sentences of one reply.
#[derive(Debug)]
pub(super) struct Line {
    format: AudioFormat,
    /// Those that are not told whole.
    sentences: VecDeque<Sentence>,
    /// What was spoken last, of those that were taken off.
    before: Arc<str>,
    heard: Heard,
    told: Vec<Told>,
    sums: Sums,
    text: Text,
    /// The voice cannot speak at all: no more is asked for.
    mute: bool,
    /// Sentences in a row that were refused.
    refused: u8,
    complete: bool,
    /// The furthest report: a piece, and milliseconds of it.
    played: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Coming,
    Over,
}

impl Line {
    /// With nothing to say.
    pub(super) fn new(format: AudioFormat) -> Self {
        Self {
            format,
            sentences: VecDeque::new(),
            before: "".into(),
            heard: Heard::default(),
            told: Vec::new(),
            sums: Sums::default(),
            text: Text::Coming,
            mute: false,
            refused: 0,
            complete: false,
            played: None,
        }
    }

    /// Takes sentences, in order.
    pub(super) fn add(&mut self, segments: Vec<Segment>) {
        for segment in segments {
            self.sentences.push_back(Sentence {
                text: segment.text.as_str().into(),
                number: segment.sequence,
                state: State::Waits,
                attempt: 0,
                audio: BytesMut::new(),
                timed: Vec::new(),
                alignment: Alignment::default(),
                told: 0,
            });
            self.heard.add(segment);
        }
    }

    /// No more sentences come; the reply has so many bytes.
    pub(super) fn over(&mut self, source_len: usize) {
        self.text = Text::Over;
        self.heard.set_ended(source_len);
    }

    /// What is to be synthesised next, if anything is by now.
    pub(super) fn ask(&mut self) -> Option<Ask> {
        if self.mute {
            return None;
        }
        let at = self
            .sentences
            .iter()
            .take(1 + AHEAD)
            .position(|it| it.state == State::Waits)?;
        let before = match at.checked_sub(1).and_then(|at| self.sentences.get(at)) {
            Some(before) => before.text.clone(),
            None => self.before.clone(),
        };
        let sentence = self.sentences.get_mut(at)?;
        sentence.state = State::Asked;
        sentence.attempt += 1;
        let urgency = match at {
            0 => Urgency::First,
            _ => Urgency::Later,
        };
        Some(Ask {
            number: number(sentence),
            text: sentence.text.clone(),
            before: tail(&before),
            urgency,
        })
    }

    /// Takes what a synthesis brought.
    pub(super) fn took(
        &mut self,
        asked: u64,
        audio: &Bytes,
        timed: Vec<TimedChar>,
        end: Option<Result<SpeechEnd, UpstreamError>>,
    ) {
        // One that was begun again has another number.
        let Some(sentence) = self.sentences.iter_mut().find(|it| number(it) == asked) else {
            return;
        };
        sentence.audio.extend_from_slice(audio);
        let bytes = sentence.told + sentence.audio.len();
        let endless = self.format.duration_of(bytes) > SENTENCE_MAX;
        let end = match endless {
            true => Some(Err(failure::failed(
                Upstream::ElevenLabs,
                "sent more audio than a sentence has",
            ))),
            false => end,
        };
        for timed in &timed {
            let mut text = [0; 4];
            let text = timed.c.encode_utf8(&mut text);
            sentence
                .alignment
                .push(text, timed.start_ms, timed.duration_ms);
        }
        if !timed.is_empty() {
            self.heard.align(sentence.number, &sentence.alignment);
            sentence.timed.extend(timed);
        }
        match end {
            None => {}
            Some(Ok(end)) => {
                sentence.state = State::Whole;
                self.refused = 0;
                self.sums.characters += end.characters;
                let total = millis(self.format.duration_of(bytes));
                self.heard.set_total(sentence.number, total);
            }
            Some(Err(error)) => {
                let sounded = bytes > 0;
                if sounded {
                    self.sums.characters += characters(&sentence.text);
                }
                let refused = error.kind == UpstreamErrorKind::Rejected;
                // One sentence may be refused for what it says; two are for what asks.
                self.refused += u8::from(refused);
                let mutes = is_final(&error) || self.refused >= REFUSED_MAX;
                let again = sounded && sentence.told == 0 && sentence.attempt < ATTEMPTS;
                // One that cannot be asked for any more is said to be missing.
                if again && !mutes && !self.mute {
                    sentence.state = State::Waits;
                    sentence.audio.clear();
                    sentence.timed.clear();
                    sentence.alignment = Alignment::default();
                } else {
                    self.mute |= mutes;
                    sentence.state = State::Failed(error);
                }
            }
        }
    }

    /// Nobody speaks any more: what was asked for comes to nothing, and nothing more is asked for.
    pub(super) fn lost(&mut self, asked: u64, error: UpstreamError) {
        self.mute = true;
        if let Some(sentence) = self.sentences.iter_mut().find(|it| number(it) == asked) {
            sentence.state = State::Failed(error);
        }
    }

    /// What is to be told next, if anything is by now.
    pub(super) fn tell(&mut self) -> Option<Piece> {
        if self.complete {
            return None;
        }
        loop {
            let Some(sentence) = self.sentences.front_mut() else {
                if self.text == Text::Coming {
                    return None;
                }
                self.complete = true;
                return Some(Piece::Complete(self.sums));
            };
            let sequence = u32::try_from(self.told.len()).unwrap_or(u32::MAX);
            let unit = self.format.sample_bytes();
            let ready = match sentence.state {
                State::Whole | State::Failed(_) => sentence.audio.len(),
                State::Waits | State::Asked => sentence.audio.len() / unit * unit,
            };
            if ready > 0 {
                let start_ms = millis(self.format.duration_of(sentence.told));
                let bytes = ready.min(PIECE_BYTES_MAX / unit * unit);
                let audio = sentence.audio.split_to(bytes).freeze();
                sentence.told += audio.len();
                self.told.push(Told {
                    sentence: sentence.number,
                    start_ms,
                    end_ms: millis(self.format.duration_of(sentence.told)),
                });
                self.sums.duration += self.format.duration_of(audio.len());
                return Some(Piece::Audio {
                    sequence,
                    sentence: sentence.number,
                    text: sentence.text.clone(),
                    audio,
                    timed: std::mem::take(&mut sentence.timed),
                });
            }
            match &sentence.state {
                State::Waits if self.mute => {
                    // Why was told with the sentence that failed.
                }
                State::Waits | State::Asked => return None,
                State::Whole => {}
                State::Failed(error) => {
                    let rest = match self.mute {
                        true => Rest::Silent,
                        false => Rest::Spoken,
                    };
                    let piece = Piece::Failed {
                        sequence,
                        sentence: sentence.number,
                        text: sentence.text.clone(),
                        error: error.clone(),
                        rest,
                    };
                    let told_ms = millis(self.format.duration_of(sentence.told));
                    self.told.push(Told {
                        sentence: sentence.number,
                        start_ms: told_ms,
                        end_ms: told_ms,
                    });
                    self.take_off();
                    return Some(piece);
                }
            }
            self.take_off();
        }
    }

    /// The first sentence is told whole.
    fn take_off(&mut self) {
        if let Some(sentence) = self.sentences.pop_front() {
            self.before = sentence.text;
        }
    }

    /// The numbers of the syntheses that are still wanted.
    pub(super) fn wants(&self, asked: u64) -> bool {
        let mut sentences = self.sentences.iter();
        sentences.any(|it| number(it) == asked && it.state == State::Asked)
    }

    /// A client has played all before a piece, and so many milliseconds of it. What it cannot have
    /// played yet is taken for all that was told.
    pub(super) fn played(&mut self, sequence: u32, ms: u32) {
        let Some(last) = self.told.len().checked_sub(1) else {
            return;
        };
        let (sequence, ms) = match usize::try_from(sequence) {
            Ok(number) if number <= last => (number, ms),
            _ => (last, u32::MAX),
        };
        let told = self.told[sequence];
        // No further than to its end: nobody has heard what was not told.
        let at = told.start_ms.saturating_add(ms).min(told.end_ms);
        self.heard.report(told.sentence, at);
        let report = (u32::try_from(sequence).unwrap_or(u32::MAX), ms);
        self.played = self.played.max(Some(report));
    }

    /// Whether a client has told what it played.
    pub(super) fn has_reports(&self) -> bool {
        self.played.is_some()
    }

    /// Bytes of the reply that were heard, by the client's word.
    pub(super) fn heard(&self) -> usize {
        self.heard.source_offset()
    }

    /// Characters that are charged for if it ends here: what has begun to sound is charged whole.
    pub(super) fn charged(&self) -> u64 {
        let begun = self.sentences.iter().filter(|it| {
            let sounds = it.told > 0 || !it.audio.is_empty();
            it.state == State::Asked && sounds
        });
        let begun = begun.map(|it| characters(&it.text));
        self.sums.characters + begun.sum::<u64>()
    }

    /// Whether all was told.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}

/// What a sentence is charged for once it has begun to sound.
fn characters(sentence: &str) -> u64 {
    sentence.chars().count() as u64
}

/// The number of a synthesis.
fn number(sentence: &Sentence) -> u64 {
    u64::from(sentence.number) << 8 | u64::from(sentence.attempt)
}

/// Whether the next sentence would fail in the same way.
fn is_final(error: &UpstreamError) -> bool {
    match error.kind {
        UpstreamErrorKind::Auth
        | UpstreamErrorKind::Credits
        | UpstreamErrorKind::NotConfigured { .. } => true,
        UpstreamErrorKind::Rejected => error.retryable == Some(false),
        _ => false,
    }
}

/// The end of a text, of whole characters.
fn tail(text: &Arc<str>) -> Arc<str> {
    if text.len() <= BEFORE_BYTES_MAX {
        return text.clone();
    }
    let mut start = text.len() - BEFORE_BYTES_MAX;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].into()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

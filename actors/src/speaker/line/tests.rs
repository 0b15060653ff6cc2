use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    provider::Upstream,
    voice::segmenter::{Segmenter, SegmenterOptions},
};

/// A line of these sentences, whose text is over.
fn line(sentences: usize) -> Line {
    let text: String = (0..sentences)
        .map(|number| format!("This is the sentence of number {number}. "))
        .collect();
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let mut segments = segmenter.push(&text, Duration::ZERO);
    segments.extend(segmenter.finish().segments);
    assert_eq!(segments.len(), sentences);
    let mut line = Line::new(AudioFormat::PCM_8000);
    line.add(segments);
    line.over(text.len());
    line
}

fn ended() -> Option<Result<SpeechEnd, UpstreamError>> {
    Some(Ok(SpeechEnd { characters: 10 }))
}

fn failed(kind: UpstreamErrorKind) -> Option<Result<SpeechEnd, UpstreamError>> {
    Some(Err(UpstreamError {
        upstream: Upstream::ElevenLabs,
        kind,
        message: "ElevenLabs failed".to_owned(),
        retry_after: None,
        retryable: None,
        too_long: None,
    }))
}

/// Takes everything that can be told.
fn told(line: &mut Line) -> Vec<Piece> {
    std::iter::from_fn(|| line.tell()).collect()
}

/// Sentences of the pieces, `!` behind those that failed.
fn order(pieces: &[Piece]) -> Vec<String> {
    let names = pieces.iter().map(|piece| match piece {
        Piece::Audio { sentence, .. } => sentence.to_string(),
        Piece::Failed { sentence, .. } => format!("{sentence}!"),
        Piece::Complete(_) => "end".to_owned(),
    });
    names.collect()
}

#[test]
fn a_few_sentences_are_asked_for_ahead_of_the_one_that_is_told() {
    let mut line = line(6);
    let asked: Vec<_> = std::iter::from_fn(|| line.ask()).collect();
    assert_eq!(asked.len(), 1 + AHEAD);
    assert_eq!(asked[0].urgency, Urgency::First);
    assert_eq!(&*asked[0].before, "");
    assert_eq!(asked[1].urgency, Urgency::Later);
    assert_eq!(asked[1].before, asked[0].text);

    line.took(
        asked[0].number,
        &Bytes::from_static(&[0; 64]),
        vec![],
        ended(),
    );
    assert_eq!(line.ask(), None, "it is not told yet");
    assert_eq!(order(&told(&mut line)), ["0"]);
    let next = line.ask().unwrap();
    assert_eq!(next.before, asked[2].text);
    assert_eq!(line.ask(), None);
}

#[test]
fn a_sentence_that_nobody_heard_anything_of_is_tried_again() {
    let mut line = line(2);
    let (first, second) = (line.ask().unwrap(), line.ask().unwrap());
    line.took(
        second.number,
        &Bytes::from_static(&[2; 10]),
        vec![],
        failed(UpstreamErrorKind::Failed),
    );
    let again = line.ask().unwrap();
    assert_eq!(again.text, second.text);
    // What the first attempt still says is dropped.
    line.took(
        second.number,
        &Bytes::from_static(&[9; 10]),
        vec![],
        ended(),
    );
    line.took(again.number, &Bytes::from_static(&[1; 4]), vec![], ended());
    // One that was heard in part is not begun again.
    line.took(first.number, &Bytes::from_static(&[0; 4]), vec![], None);
    assert_eq!(order(&told(&mut line)), ["0"]);
    line.took(
        first.number,
        &Bytes::new(),
        vec![],
        failed(UpstreamErrorKind::Failed),
    );
    let rest = told(&mut line);
    assert_eq!(order(&rest), ["0!", "1", "end"]);
    assert!(matches!(&rest[1], Piece::Audio { sequence: 2, audio, .. } if audio[..] == [1; 4]));
}

#[test]
fn a_sentence_that_its_provider_gave_up_is_not_asked_for_again() {
    use UpstreamErrorKind as Kind;
    for kind in [
        Kind::Timeout,
        Kind::Failed,
        Kind::RateLimited,
        Kind::Unavailable,
    ] {
        let mut line = line(1);
        let first = line.ask().unwrap();
        line.took(first.number, &Bytes::new(), vec![], failed(kind));
        assert_eq!(line.ask(), None);
        assert_eq!(order(&told(&mut line)), ["0!", "end"]);
    }
}

#[test]
fn what_broke_off_when_the_voice_was_lost_is_said_to_be_missing() {
    let mut line = line(2);
    let (first, second) = (line.ask().unwrap(), line.ask().unwrap());
    line.took(
        second.number,
        &Bytes::new(),
        vec![],
        failed(UpstreamErrorKind::Credits),
    );
    line.took(
        first.number,
        &Bytes::from_static(&[0; 64]),
        vec![],
        failed(UpstreamErrorKind::Failed),
    );
    assert_eq!(line.ask(), None);
    assert_eq!(order(&told(&mut line)), ["0", "0!", "1!", "end"]);
}

#[test]
fn what_broke_off_is_charged_for_as_often_as_it_has_sounded() {
    let mut line = line(2);
    let (first, second) = (line.ask().unwrap(), line.ask().unwrap());
    let sound = Bytes::from_static(&[0; 64]);
    for _attempt in 0..2 {
        let asked = number(&line.sentences[1]);
        let broke = failed(UpstreamErrorKind::Failed);
        line.took(asked, &sound, vec![], broke);
        line.ask();
    }
    line.took(first.number, &sound, vec![], ended());
    let twice = 2 * second.text.chars().count() as u64;
    assert_eq!(line.charged(), 10 + twice);
    let Some(Piece::Complete(sums)) = told(&mut line).pop() else {
        panic!("more is to come");
    };
    assert_eq!(sums.characters, 10 + twice);
}

#[test]
fn a_voice_that_cannot_speak_is_asked_no_more() {
    let mut line = line(5);
    let first = line.ask().unwrap();
    line.took(
        first.number,
        &Bytes::new(),
        vec![],
        failed(UpstreamErrorKind::Credits),
    );
    assert_eq!(line.ask(), None);
    assert_eq!(order(&told(&mut line)), ["0!", "end"]);
}

#[test]
fn what_has_begun_to_sound_is_charged_for_and_what_waits_is_not() {
    let mut line = line(4);
    let (first, second) = (line.ask().unwrap(), line.ask().unwrap());
    let _third = line.ask().unwrap();
    let sound = Bytes::from_static(&[0; 64]);
    line.took(first.number, &sound, vec![], ended());
    assert_eq!(line.charged(), 10, "the upstream's word");
    line.took(second.number, &sound, vec![], None);
    let whole = second.text.chars().count() as u64;
    assert_eq!(line.charged(), 10 + whole);
}

proptest! {
    #[test]
    fn audio_is_told_in_order_however_it_comes(
        steps in prop::collection::vec((0usize..3, 1usize..40, any::<bool>()), 1..200)
    ) {
        let mut line = line(7);
        let mut open: Vec<(Ask, u8)> = Vec::new();
        let mut next = 0;
        let mut pieces = Vec::new();
        let mut sent: HashMap<u8, usize> = HashMap::new();
        let drive = |line: &mut Line, open: &mut Vec<(Ask, u8)>, next: &mut u8| {
            while let Some(ask) = line.ask() {
                open.push((ask, *next));
                *next += 1;
            }
        };
        drive(&mut line, &mut open, &mut next);
        // What is not over by then ends.
        let mut steps = steps.into_iter().chain(std::iter::repeat((0, 2, true)));
        while !line.is_complete() {
            let (which, bytes, ends) = steps.next().unwrap();
            if !open.is_empty() {
                let at = which % open.len();
                let (ask, mark) = &open[at];
                // Whole samples in the end.
                let had = sent.entry(*mark).or_default();
                let bytes = if ends { bytes + (bytes + *had) % 2 } else { bytes };
                *had += bytes;
                line.took(ask.number, &vec![*mark; bytes].into(), vec![], if ends { ended() } else { None });
                if ends {
                    open.remove(at);
                }
            }
            pieces.extend(told(&mut line));
            drive(&mut line, &mut open, &mut next);
        }
        let mut heard: Vec<(u8, usize)> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            if let Piece::Audio { sequence, sentence, audio, .. } = piece {
                prop_assert_eq!(*sequence as usize, number);
                prop_assert!(audio.iter().all(|byte| u32::from(*byte) == *sentence));
                match heard.last_mut() {
                    Some(last) if last.0 == audio[0] => last.1 += audio.len(),
                    _ => heard.push((audio[0], audio.len())),
                }
            }
        }
        let marks: Vec<_> = heard.iter().map(|(mark, _)| *mark).collect();
        prop_assert_eq!(marks, (0..7).collect::<Vec<u8>>());
        for (mark, bytes) in heard {
            prop_assert_eq!(sent[&mark], bytes);
        }
    }
}

#[test]
fn what_was_played_tells_what_was_heard() {
    let mut line = line(2);
    let (first, second) = (line.ask().unwrap(), line.ask().unwrap());
    assert_eq!(line.heard(), 0);
    // A tenth of a second for each character.
    let timed = |text: &str| -> Vec<TimedChar> {
        let chars = text.chars().zip(0..);
        chars
            .map(|(c, at)| TimedChar {
                c,
                start_ms: at * 100,
                duration_ms: 100,
            })
            .collect()
    };
    // 16 bytes are a millisecond: the first piece plays for 2,048 ms.
    let bytes = |text: &str| Bytes::from(vec![0; text.len() * 100 * 16]);
    line.took(
        first.number,
        &bytes(&first.text),
        timed(&first.text),
        ended(),
    );
    line.took(
        second.number,
        &bytes(&second.text),
        timed(&second.text),
        ended(),
    );
    let pieces = told(&mut line);
    assert_eq!(order(&pieces), ["0", "0", "1", "1", "end"]);
    assert!(!line.has_reports());

    // "This is the sent…"
    line.played(0, 1_150);
    assert_eq!(line.heard(), "This is the".len());
    // What comes late tells nothing new.
    line.played(0, 10);
    assert_eq!(line.heard(), "This is the".len());
    // The second piece goes on after 2,048 ms, within "of".
    line.played(1, 460);
    assert_eq!(line.heard(), "This is the sentence of".len());
    line.played(2, 0);
    assert_eq!(line.heard(), "This is the sentence of number 0. ".len());
    // More than there is: all of it.
    line.played(99, 0);
    assert_eq!(line.heard(), 2 * "This is the sentence of number 0. ".len());
}

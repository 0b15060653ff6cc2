//! What holds for any text, however it comes.

use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use super::*;
use crate::voice::segmenter::chars::{is_closer, is_wide_end};

/// Text of what the rules look at, and of anything.
fn reply() -> impl Strategy<Value = String> {
    let atoms = vec![
        "*",
        "**",
        "***",
        " ",
        " ",
        " ",
        "\n",
        "\n\n",
        "\r\n",
        ".",
        "...",
        "!",
        "?",
        ",",
        ";",
        " - ",
        "—",
        "(",
        ")",
        "[",
        "](http://x.y/z)",
        "]",
        "`",
        "```",
        "~~~",
        "|",
        "|--|\n",
        "# ",
        "- ",
        "> ",
        "1. ",
        "\\",
        "<",
        ">",
        "<b>",
        "<3",
        "_",
        "~",
        "https://www.a.bc/d",
        "www.",
        "ht",
        "http://",
        "Dr",
        "e.g",
        "U.S",
        "I",
        "smiles",
        "hello",
        "World",
        "Oh",
        "3.14",
        "\"",
        "”",
        "」",
        "。",
        "？",
        "、",
        "你好",
        "😊",
        "❤\u{FE0F}",
        "👨\u{200D}👩",
        "🇩🇪",
        "\u{301}",
        "\u{200D}",
        "क\u{94D}",
        "ष",
        "\u{600}",
        "\u{3000}",
        "\u{A0}",
        "é",
        "Ж",
        "…",
        "a quite long clause without any mark at all",
        "x",
    ];
    let atom = prop_oneof![
        12 => prop::sample::select(atoms).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[ -~]{0,12}",
        1 => "\\PC{0,6}",
        1 => "[a-z]{100,300}",
    ];
    prop::collection::vec(atom, 0..60).prop_map(|atoms| atoms.concat())
}

fn cut_at(text: &str, places: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = places
        .iter()
        .map(|place| text.floor_char_boundary(place.index(text.len() + 1)))
        .chain([0, text.len()])
        .collect();
    cuts.sort_unstable();
    cuts
}

/// What holds for the segments of any text.
fn check(text: &str, all: &[Segment], unspoken: &Range<usize>) -> Result<(), TestCaseError> {
    let mut end = 0;
    for (number, segment) in all.iter().enumerate() {
        prop_assert_eq!(segment.sequence as usize, number);
        prop_assert_eq!(segment.source.start, end);
        prop_assert!(segment.source.end > end);
        end = segment.source.end;
        prop_assert!(segment.text.contains(char::is_alphanumeric));
        prop_assert_eq!(segment.text.trim(), &segment.text);
        for (at, c) in segment.text.char_indices() {
            let source_end = segment.spans.source_end(at + c.len_utf8()).unwrap();
            prop_assert!(segment.source.contains(&(source_end - 1)));
            if !c.is_whitespace() && c != ',' {
                prop_assert!(text[..source_end].ends_with(c));
            }
        }
    }
    prop_assert_eq!(unspoken.start, end);
    prop_assert_eq!(unspoken.end, text.len());
    let graphemes: Vec<usize> = text
        .grapheme_indices(true)
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    for segment in all {
        // Nobody waits behind a full stop for what might be put on top of it.
        let said = segment.text.trim_end_matches(is_closer);
        let behind_stop = said.ends_with(is_wide_end);
        prop_assert!(
            behind_stop || graphemes.binary_search(&segment.source.end).is_ok(),
            "{} of {:?}",
            segment.source.end,
            text
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn however_a_text_is_cut_its_segments_are_the_same(text in reply(), places: Vec<prop::sample::Index>) {
        let whole = in_pieces([text.as_str()]);
        check(&text, &whole.0, &whole.1)?;
        let cuts = cut_at(&text, &places);
        let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
        prop_assert_eq!(&in_pieces(pieces), &whole);
        let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        prop_assert_eq!(&in_pieces(chars), &whole);
    }

    #[test]
    fn whenever_it_comes_all_of_it_is_covered(text in reply(), places: Vec<(prop::sample::Index, u16)>) {
        let cuts = cut_at(&text, &places.iter().map(|(place, _)| *place).collect::<Vec<_>>());
        let mut segmenter = Segmenter::new(SegmenterOptions::default());
        let (mut all, mut now) = (Vec::new(), START);
        for (number, cut) in cuts.windows(2).enumerate() {
            now += Duration::from_millis(u64::from(places.get(number).map_or(0, |place| place.1 % 300)));
            all.extend(segmenter.push(&text[cut[0]..cut[1]], now));
            if let Some(deadline) = segmenter.deadline() {
                prop_assert!(deadline > now);
                if number % 2 == 0 {
                    let due = segmenter.poll(deadline);
                    prop_assert!(!due.is_empty());
                    all.extend(due);
                    now = deadline;
                }
            }
        }
        let ending = segmenter.finish();
        all.extend(ending.segments);
        check(&text, &all, &ending.unspoken)?;
    }
}

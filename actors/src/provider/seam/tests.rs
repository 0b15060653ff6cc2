use proptest::prelude::*;

use super::*;

/// What is shown in the end, with the continuation in pieces of this size.
fn joined(accepted: &str, continuation: &str, size: usize) -> Result<String, Restarted> {
    let mut seam = Seam::new(accepted.to_owned());
    let mut shown = accepted.to_owned();
    let mut characters = continuation.chars().peekable();
    while characters.peek().is_some() {
        let piece: String = characters.by_ref().take(size).collect();
        shown += &seam.push(&piece)?;
    }
    shown += &seam.finish()?;
    Ok(shown)
}

fn expect(accepted: &str, continuation: &str, shown: &str) {
    for size in [1, 3, 1_000] {
        let found = joined(accepted, continuation, size);
        assert_eq!(
            found.as_deref(),
            Ok(shown),
            "{accepted:?} + {continuation:?}"
        );
    }
}

#[test]
fn a_continuation_that_goes_on_is_left_alone() {
    for (accepted, rest) in [
        ("We walked by the ri", "ver until dawn."),
        ("We walked by the river", " and the river sang."),
        ("It was very, very", ", very late."),
        ("ha ha ha ha ha ha ha ha", " ha ha ha ha ha ha ha!"),
        ("I", " am here."),
        ("hel", "lo"),
        ("1", "1 o'clock"),
        (
            "No, no, no, no, no, no, no, no, no",
            ", no, no, no, no, no, no, no!",
        ),
        ("    a = 1\n    ", "b = 2"),
        ("--------------------", "--------------------"),
    ] {
        expect(accepted, rest, &[accepted, rest].concat());
    }
}

#[test]
fn a_repeated_clause_is_dropped() {
    let accepted = "Good morning. I remember that you walked by the river";
    let shown = "Good morning. I remember that you walked by the river until dawn.";
    for continuation in [
        " walked by the river until dawn.",
        "walked by the river until dawn.",
        " that you walked by the river until dawn.",
        "\nI remember that you walked by the river until dawn.",
        shown,
    ] {
        expect(accepted, continuation, shown);
    }
    expect("Hello", "Hello, my friend.", "Hello, my friend.");
    expect(" Grüße", " Grüße, mein Freund.", " Grüße, mein Freund.");
    expect(
        "x </b>!\n\n a 👩‍👩‍👧",
        "b>!\n\n a 👩‍👩‍👧 yes",
        "x </b>!\n\n a 👩‍👩‍👧 yes",
    );
    expect(
        "東京の川を歩いた",
        "川を歩いた。夜明け",
        "東京の川を歩いた。夜明け",
    );
}

#[test]
fn a_repeated_word_is_dropped() {
    let accepted = "We walked along by the river";
    let shown = "We walked along by the river until dawn.";
    for continuation in [
        " river until dawn.",
        "river until dawn.",
        " the river until dawn.",
        "... by the river until dawn.",
        "…river until dawn.",
        "… walked along by the river until dawn.",
    ] {
        expect(accepted, continuation, shown);
    }
    // What only begins like it, and what comes twice in the reply, too, is meant.
    for (accepted, rest) in [
        ("We walked along by the river", " riverside until dawn."),
        ("We walked along by the river", "... and there we sat."),
        ("We walked along by the river", "."),
        ("I know that", " that is so."),
        ("The river, the river", " river of my youth."),
        ("Again and again, over and over", " and over, we said it."),
        ("Well", "... I do not know."),
    ] {
        expect(accepted, rest, &[accepted, rest].concat());
    }
}

#[test]
fn a_short_reply_that_is_begun_again_otherwise_cannot_be_joined() {
    for (accepted, other) in [
        (
            "Hello my dear friend, I was",
            "Hello my dear friend, how are you?",
        ),
        ("It is a", "It is the end."),
        ("Good morning, dear", " Good morning to you, too."),
    ] {
        for size in [1, 3, 1_000] {
            let found = joined(accepted, other, size);
            assert_eq!(found, Err(Restarted), "{accepted:?} + {other:?}");
        }
    }
    // A sentence, or a line, may well begin as the first one does.
    for (accepted, rest) in [
        ("You are kind.", " You are smart."),
        ("You are kind! ", "You are smart."),
        ("Roses are red\n", "Roses are sweet"),
        ("Roses are red", "\nRoses are sweet"),
        ("He said that he was", " he said, quite well."),
    ] {
        expect(accepted, rest, &[accepted, rest].concat());
    }
}

#[test]
fn white_space_at_the_seam_comes_once() {
    expect("We walked by ", " the river.", "We walked by the river.");
    expect("We walked by ", "the river.", "We walked by the river.");
    expect("One.\n\n", "\n\nTwo.", "One.\n\nTwo.");
    expect("\n", "\n\n\nOne.", "\n\n\nOne.");
    expect("\n\n", "One.", "\n\nOne.");
    expect("One.\n\n", "\nTwo.", "One.\n\nTwo.");
    let accepted = "One thing and another. ";
    expect(
        accepted,
        "thing and another.\nTwo.",
        "One thing and another. \nTwo.",
    );
}

#[test]
fn a_long_reply_that_is_begun_again_is_dropped_whole() {
    let words: Vec<String> = (0..2_000).map(|number| format!(" word{number}")).collect();
    let (accepted, whole) = (words[..1_500].concat(), words.concat());
    assert!(accepted.len() > WINDOW);
    assert_eq!(joined(&accepted, &whole, 100), Ok(whole));
}

#[test]
fn a_reply_that_is_begun_again_otherwise_cannot_be_joined() {
    let accepted = "Good morning, dear friend of the river and the stars. How are you?";
    let other = "Good morning, dear friend of the river and the stars. I am well.";
    for size in [1, 7, 1_000] {
        assert_eq!(joined(accepted, other, size), Err(Restarted));
    }
    let long = "x y z ".repeat(20_000);
    let (once, again) = (format!("Once. {long}"), format!("Once. {long} no"));
    for size in [1, 500] {
        assert_eq!(joined(&once, &again, size), Err(Restarted));
    }
}

#[test]
fn nothing_is_held_back_that_cannot_repeat() {
    let mut seam = Seam::new("We walked by the river".to_owned());
    assert_eq!(seam.push(" and").unwrap(), " and");
    assert!(seam.is_decided());
}

#[test]
fn a_continuation_that_says_nothing_adds_nothing() {
    expect("We walked by the river.", "", "We walked by the river.");
    expect("We walked. ", " ", "We walked. ");
}

/// Words of which no two are equal, so that whatever comes twice was repeated.
fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[a-zé]{1,4}", 8..60).prop_map(|words| {
        let numbered = words.into_iter().enumerate();
        numbered.map(|(at, word)| format!(" {word}{at}z")).collect()
    })
}

proptest! {
    #[test]
    fn whatever_a_model_repeats_is_shown_once(
        words in words(), cut in any::<prop::sample::Index>(),
        back in any::<prop::sample::Index>(), size in 1usize..20,
    ) {
        let whole = words.concat();
        let boundaries: Vec<usize> = whole.char_indices().map(|(at, _)| at).skip(1).collect();
        let cut = boundaries[cut.index(boundaries.len())];
        let (accepted, rest) = whole.split_at(cut);
        let starts: Vec<usize> = accepted.char_indices().map(|(at, _)| at).collect();
        let from = starts[back.index(starts.len())];
        // Shorter ones are not told from what is meant.
        prop_assume!(accepted[from..].trim().len() >= OVERLAP_LEAST);
        let shown = joined(accepted, &whole[from..], size);
        prop_assert_eq!(shown.as_deref(), Ok(&*whole));
        let exact = joined(accepted, rest, size);
        prop_assert_eq!(exact.as_deref(), Ok(&*whole));
    }

    #[test]
    fn a_genuine_continuation_is_left_alone(
        words in proptest::collection::vec(0usize..12, 4..40),
        marks in proptest::collection::vec(0usize..8, 40),
        cut in any::<prop::sample::Index>(), size in 1usize..20,
    ) {
        const WORDS: [&str; 12] = [
            "the", "river", "I", "walked", "and", "you", "morning", "über", "a", "friend", "to", "said",
        ];
        const MARKS: [&str; 8] = [" ", " ", " ", " ", ", ", ". ", "... ", "\n"];
        // Nobody says the same word, or the same words, twice in a row.
        let words = words.into_iter().fold(Vec::new(), |mut said, word| {
            said.push(word);
            let length = said.len();
            let twice = |run: usize| said[length - 2 * run..length - run] == said[length - run..];
            if (1..=length / 2).any(twice) {
                said.pop();
            }
            said
        });
        let pieces = words.iter().zip(&marks).map(|(word, mark)| [WORDS[*word], MARKS[*mark]].concat());
        let whole = pieces.collect::<String>();
        let boundaries: Vec<usize> = whole.char_indices().map(|(at, _)| at).skip(1).collect();
        let (accepted, rest) = whole.split_at(boundaries[cut.index(boundaries.len())]);
        // One that begins as the reply does, or with its last word, cannot be told from one that repeats.
        let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        prop_assume!(first(rest) != first(accepted));
        prop_assume!(!accepted.trim_end().ends_with(first(rest).as_str()) && !accepted.trim().is_empty());
        let shown = joined(accepted, rest, size);
        prop_assert_eq!(shown.as_deref(), Ok(&*whole));
    }

    #[test]
    fn how_it_comes_in_pieces_makes_no_difference(
        accepted in "(I |you |river|over |and |[.]{1,3} |…|\n){1,8}", rest in "(I |you |river|over |and |[.]{1,3} |…|\n){1,8}",
        size in 1usize..9,
    ) {
        prop_assert_eq!(joined(&accepted, &rest, size), joined(&accepted, &rest, 1_000));
    }

    #[test]
    fn new_text_is_never_changed_but_for_an_overlap(accepted in "[ab \n]{0,40}", rest in "[ab \n]{0,40}", size in 1usize..9) {
        let Ok(shown) = joined(&accepted, &rest, size) else {
            // What begins with the reply's first words may begin it again.
            let first = |text: &str| text.split_whitespace().take(AGAIN_WORDS).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(first(&accepted), first(&rest));
            return Ok(());
        };
        let new = shown.strip_prefix(&accepted).unwrap();
        prop_assert!(rest.ends_with(new));
        let dropped = rest[..rest.len() - new.len()].trim();
        prop_assert!(dropped.is_empty() || accepted.trim_end().ends_with(dropped));
        // How it came in pieces makes no difference.
        prop_assert_eq!(&shown, &joined(&accepted, &rest, 1_000).unwrap());
    }
}

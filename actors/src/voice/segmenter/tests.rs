mod properties;

use super::*;

const START: Duration = Duration::from_secs(7);

/// Every segment of a text that comes at once.
fn segments(text: &str) -> Vec<Segment> {
    in_pieces([text]).0
}

fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (Vec<Segment>, Range<usize>) {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let mut all = Vec::new();
    for piece in pieces {
        all.extend(segmenter.push(piece, START));
    }
    let ending = segmenter.finish();
    all.extend(ending.segments);
    (all, ending.unspoken)
}

fn texts(text: &str) -> Vec<String> {
    segments(text)
        .into_iter()
        .map(|segment| segment.text)
        .collect()
}

#[track_caller]
fn assert_cut(text: &str, expected: &[&str]) {
    assert_eq!(texts(text), expected, "{text:?}");
}

/// The first phrase is cut sooner than others: puts one before.
#[track_caller]
fn assert_later(text: &str, expected: &[&str]) {
    let all = texts(&format!("This sentence comes first. {text}"));
    assert_eq!(all[0], "This sentence comes first.");
    assert_eq!(all[1..], *expected, "{text:?}");
}

#[test]
fn a_sentence_ends_when_the_next_begins() {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    assert_eq!(segmenter.push("I have been waiting for you.", START), []);
    assert_eq!(segmenter.push(" ", START), []);
    let segments = segmenter.push("S", START);
    assert_eq!(segments[0].text, "I have been waiting for you.");
    assert_eq!(segments[0].source, 0..29);
    let ending = segmenter.finish();
    assert_eq!(ending.segments[0].text, "S");
    assert_eq!(ending.segments[0].source, 29..30);
}

#[test]
fn dots_within_a_sentence_end_none() {
    for text in [
        "Then Dr. Smith and Mrs. Jones paid 3.14 dollars.",
        "Many things, e.g. Apples, and z.B. Birnen, were there.",
        "He moved to the U.S. Senate in May, approx. five years ago.",
        "Well... maybe it is better that way, isn't it?",
        "\"Are you coming back?\" he asked after a while.",
        "See No. 5 and Fig. 3 of J. R. R. Tolkien's work.",
        "It is on example.com or in v1.2.3 of it.",
        "Yahoo!, they cried, and ran away from it.",
    ] {
        assert_later(text, &[text]);
    }
}

#[test]
fn sentences_end() {
    assert_later(
        "He said \"Go away now.\" Then he left (for good this time.) And so do I. We went in 2019. It was 5 p.m. Nobody was there... She cried! really loud.",
        &[
            "He said \"Go away now.\"",
            "Then he left (for good this time.)",
            "And so do I. We went in 2019.",
            "It was 5 p.m. Nobody was there...",
            "She cried! really loud.",
        ],
    );
    assert_cut(
        "hey there, love. how are you doing. i missed you so much.",
        &[
            "hey there, love.",
            "how are you doing.",
            "i missed you so much.",
        ],
    );
    assert_later(
        "¿Cómo estás tú, mi amor? ¡Qué bueno verte por aquí!",
        &["¿Cómo estás tú, mi amor?", "¡Qué bueno verte por aquí!"],
    );
    assert_later(
        "Как твои дела сегодня? Я очень скучала.",
        &["Как твои дела сегодня?", "Я очень скучала."],
    );
    assert_later(
        "I missed you so much 😊 Did you sleep well? 💤",
        &["I missed you so much", "Did you sleep well?"],
    );
}

#[test]
fn full_stops_without_a_space() {
    assert_later(
        "今天天气真的很好。「我们去公园吧。」你觉得怎么样？",
        &["今天天气真的很好。", "「我们去公园吧。」", "你觉得怎么样？"],
    );
}

#[test]
fn short_sentences_are_joined() {
    assert_later(
        "Oh. Really? I had no idea about it. Yes.",
        &["Oh. Really? I had no idea about it.", "Yes."],
    );
    assert_later("Hi 😊 How are you today?", &["Hi\nHow are you today?"]);
    assert_later(
        "Oh.\nSo it is, my dear.\n\nYes.\n\nNo.",
        &["Oh.\nSo it is, my dear.", "Yes.", "No."],
    );
}

#[test]
fn what_no_space_parts_goes_out_in_time_as_well() {
    let patience = Duration::from_millis(250);
    for (text, first) in [
        // Amid the sentence, which comes slowly.
        ("今天天气真的很好我们去公园吧", "今天天气真的很好我们去公园"),
        ("今日はとても天気がいいきょ", "今日はとても天気がいい"),
        // Behind a clause, where there is one not too far back.
        ("今天天气真的很好，我们去", "今天天气真的很好，"),
        // A sentence behind which nothing comes.
        ("今天天气真的很好。", "今天天气真的很好。"),
        ("「今天很好！」", "「今天很好！」"),
    ] {
        let mut segmenter = Segmenter::new(SegmenterOptions::default());
        let mut out = segmenter.push(text, START);
        if out.is_empty() {
            assert_eq!(segmenter.deadline(), Some(START + patience), "{text}");
            out = segmenter.poll(START + patience);
        }
        assert_eq!(out[0].text, first, "{text}");
        assert_eq!(out[0].source, 0..first.len(), "{text}");
    }
    // A later sentence waits for its end.
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let out = segmenter.push("今天天气真的很好。我们去公园吧好不好", START);
    assert_eq!(out.len(), 1);
    assert_eq!(segmenter.deadline(), None);
    segmenter.push("。", START);
    assert_eq!(segmenter.deadline(), Some(START + patience));
}

#[test]
fn a_whole_reply_is_spoken_without_what_is_not_to_be_read() {
    let reply = "*smiles* **Hello** there, my [friend](https://a.b). How are you?\n\nI am well.";
    assert_eq!(
        spoken(reply),
        "Hello there, my friend. How are you?\nI am well."
    );
    assert_eq!(spoken("*nods*"), "");
}

#[test]
fn lines_and_items_are_segments() {
    assert_later(
        "A list of fruits:\n- Apples are on the table\n- **Pears** are in the box\n\n1. Milk\n\n## The end of it",
        &[
            "A list of fruits:",
            "Apples are on the table",
            "Pears are in the box",
            "1. Milk",
            "The end of it",
        ],
    );
}

#[test]
fn the_first_phrase_ends_with_a_clause() {
    assert_cut(
        "I was thinking about you, and then, you know, you wrote.",
        &[
            "I was thinking about you,",
            "and then, you know, you wrote.",
        ],
    );
    assert_cut("Well, I think so.", &["Well, I think so."]);
    assert_cut(
        "I paid about 1,000,000 for it, and more — much more.",
        &["I paid about 1,000,000 for it,", "and more — much more."],
    );
}

#[test]
fn the_first_phrase_ends_with_a_word_when_time_is_over() {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    assert_eq!(segmenter.push("*smiles* I th", START), []);
    let deadline = START + Duration::from_millis(250);
    assert_eq!(segmenter.deadline(), Some(deadline));
    assert_eq!(segmenter.push("ink th", START), []);
    assert_eq!(segmenter.poll(deadline - Duration::from_nanos(1)), []);
    assert_eq!(segmenter.poll(deadline)[0].text, "I think");
    assert_eq!(segmenter.deadline(), None);
    assert_eq!(segmenter.push("at it will rain", deadline * 2), []);
    assert_eq!(segmenter.finish().segments[0].text, "that it will rain");
}

#[test]
fn a_first_word_alone_waits_for_its_end() {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    assert_eq!(segmenter.push("Won", START), []);
    assert_eq!(segmenter.deadline(), None);
    assert_eq!(
        segmenter.push("derful news, d", START * 2)[0].text,
        "Wonderful news,"
    );
}

#[test]
fn a_short_sentence_goes_alone_when_nothing_follows() {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    assert_eq!(
        segmenter
            .push("This sentence comes first. No! ", START)
            .len(),
        1
    );
    let deadline = segmenter.deadline().unwrap();
    assert_eq!(segmenter.poll(deadline)[0].text, "No!");
    assert_eq!(segmenter.push("I will no", deadline), []);
    assert_eq!(segmenter.deadline(), None);
}

#[test]
fn stage_directions_are_not_spoken() {
    assert_later(
        "*smiles softly* It is so good to see you. *waves*",
        &["It is so good to see you."],
    );
    assert_later(
        "I just *looks away* wanted to say that I *really* like **you**.",
        &["I just wanted to say that I really like you."],
    );
    assert_later(
        "(whispers) Come a little bit closer. (I mean it!)",
        &["Come a little bit closer.", "(I mean it!)"],
    );
    assert_later(
        "So 2 * 3 * 4 is 24, and 2*3*4 as well.",
        &["So 2 * 3 * 4 is 24, and 2*3*4 as well."],
    );
    assert_later("*this one is never closed.", &["this one is never closed."]);
    assert!(texts("*smiles softly*").is_empty());
}

#[test]
fn stage_directions_are_spoken_on_demand() {
    let mut segmenter = Segmenter::new(SegmenterOptions {
        directions: Directions::Read,
        ..SegmenterOptions::default()
    });
    let mut all = segmenter.push(
        "*she smiles very softly* It is *so* good to see you.",
        START,
    );
    all.extend(segmenter.finish().segments);
    assert_eq!(all[0].text, "she smiles very softly");
    assert_eq!(all[1].text, "It is so good to see you.");
}

#[test]
fn a_direction_ends_the_sentence_before_it_is_closed() {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let all = segmenter.push("It is so good to see you. *smi", START);
    assert_eq!(all[0].text, "It is so good to see you.");
    assert_eq!(all[0].source, 0..26);
    assert_eq!(segmenter.push("les*", START), []);
    let ending = segmenter.finish();
    assert_eq!((ending.segments.len(), ending.unspoken), (0, 26..34));
}

#[test]
fn markdown_is_not_spoken() {
    assert_later(
        "See [the *docs*](https://docs.rs/x?y=(z)) or https://www.example.com/a.b?c=d, ok?",
        &["See the docs or example.com, ok?"],
    );
    assert_later(
        "Use `cargo` with ~~no~~ snake_case and _style_, \\*so\\* there <br/>.",
        &["Use cargo with no snake_case and style, *so* there ."],
    );
    assert_later(
        "Look at this code:\n```rust\nfn main() {\n    *x*\n}\n```\nThat is all there is.",
        &["Look at this code:", "That is all there is."],
    );
    assert_later(
        "\n| Name | Age |\n|------|-----|\n| Annabelle | 27 years |\n---\nThat is all there is.",
        &["Name, Age", "Annabelle, 27 years", "That is all there is."],
    );
    assert_later(
        "I love you so very much <3 Do you love me, too? ❤️",
        &["I love you so very much", "Do you love me, too?"],
    );
}

#[test]
fn long_sentences_are_cut() {
    let clauses = "and then we walked along the beach for a while, ".repeat(12);
    let words = "word ".repeat(200);
    let letters = "a".repeat(2_000);
    let ideographs = "好".repeat(500);
    for text in [&clauses, &words, &letters, &ideographs] {
        let all = texts(text);
        assert!(all.len() > 2, "{all:?}");
        for (number, text) in all.iter().enumerate().skip(1) {
            let length: usize = text.chars().map(chars::weight).sum();
            assert!(
                length <= 250 && (length > 80 || number + 1 == all.len()),
                "{text}"
            );
        }
    }
    assert!(texts(&clauses).iter().all(|text| text.ends_with("while,")));
}

#[test]
fn what_nobody_can_say_is_bounded() {
    let zalgo = format!("a{}", "\u{301}".repeat(100_000));
    assert!(texts(&zalgo)[0].len() < 2_000);
    let marks = "*".repeat(100_000);
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    for mark in marks.split_inclusive('*') {
        assert_eq!(segmenter.push(mark, START), []);
    }
    assert_eq!(segmenter.finish().unspoken, 0..100_000);
}

#[test]
fn emoji_are_not_torn() {
    let family = "👨‍👩‍👧‍👦";
    let all = segments(&format!(
        "I was thinking about you, {family}{family} and then you wrote."
    ));
    assert_eq!(all[0].source, 0..26 + 2 * family.len() + 1);
}

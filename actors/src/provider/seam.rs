//! Where a reply that broke off meets its continuation. Pure.
//!
//! Models differ in how they go on with an assistant's text: some go on exactly, some repeat its
//! last clause, some begin the whole reply again. What repeats is dropped here. So the first bytes
//! of a continuation are held back, for just as long as they may still turn out to repeat.

/// A repetition is dropped from this length on, in bytes. A shorter one may well be meant: words
/// and their endings come twice (`ha ha`, `very, very`); some words in a row hardly ever do.
pub const OVERLAP_LEAST: usize = 12;

/// Telling characters that a repetition has at least: indents and rulers repeat without a meaning.
const LETTERS_LEAST: usize = 4;

/// The same for a reply of which no more than its first words are there.
const FIRST_LEAST: usize = 3;

/// So far back in the reply may the repetition begin, in bytes: some paragraphs.
const WINDOW: usize = 2_048;

/// A reply of up to so many bytes may be begun again whole; all of it is held back and dropped.
const AGAIN_MOST: usize = 64 * 1024;

/// So many equal bytes at the beginning tell a reply that is begun again from one that goes on.
const AGAIN_LEAST: usize = 48;

/// What is to be done with the beginning of a continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// More must be seen.
    Hold,
    /// So many bytes of it repeat; the rest is new.
    Drop(usize),
    /// It begins the reply again, but says something else.
    Restarted,
}

/// The continuation begins the reply again and says something else: it cannot be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarted;

/// Joins one continuation to what was accepted.
#[derive(Debug)]
pub struct Seam {
    accepted: String,
    held: String,
    decided: bool,
}

impl Seam {
    /// Joins to this text, plain.
    #[must_use]
    pub fn new(accepted: String) -> Self {
        Self {
            accepted,
            held: String::new(),
            decided: false,
        }
    }

    /// Whether what comes is new for sure: then there is nothing to ask here any more.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.decided
    }

    /// Takes the next text of the continuation and gives what of it is new so far, plain.
    pub fn push(&mut self, text: &str) -> Result<String, Restarted> {
        if self.decided {
            return Ok(text.to_owned());
        }
        self.held.push_str(text);
        self.decide(verdict(&self.accepted, &self.held, false))
    }

    /// The continuation is over: gives what of the text held back is new.
    pub fn finish(&mut self) -> Result<String, Restarted> {
        if self.decided {
            return Ok(String::new());
        }
        self.decide(verdict(&self.accepted, &self.held, true))
    }

    fn decide(&mut self, verdict: Verdict) -> Result<String, Restarted> {
        match verdict {
            Verdict::Hold => Ok(String::new()),
            Verdict::Restarted => Err(Restarted),
            Verdict::Drop(bytes) => {
                self.decided = true;
                self.accepted = String::new();
                let held = std::mem::take(&mut self.held);
                Ok(held.get(bytes..).unwrap_or_default().to_owned())
            }
        }
    }
}

/// The part of a reply that a request to continue carries: some upstreams refuse a text that ends
/// in white space.
#[must_use]
pub fn prefix(accepted: &str) -> &str {
    accepted.trim_end()
}

fn verdict(accepted: &str, held: &str, over: bool) -> Verdict {
    let told = prefix(accepted);
    let said = held.trim_start();
    if told.is_empty() {
        // Nothing to go on with: the reply was asked for anew, and begins as it began.
        return space(accepted, held, over).map_or(Verdict::Hold, Verdict::Drop);
    }
    if said.is_empty() && !over {
        return Verdict::Hold;
    }
    if told.len() > AGAIN_MOST
        && said.len() < AGAIN_LEAST
        && !over
        && told.trim_start().starts_with(said)
    {
        return Verdict::Hold;
    }
    let mut overlap = 0;
    for (at, tail) in tails(told) {
        if tail.len() > said.len() {
            if !over && tail.starts_with(said) && counts(told, at) {
                return Verdict::Hold;
            }
        } else if overlap == 0 && said.starts_with(tail) && counts(told, at) {
            // The longest comes first.
            overlap = tail.len();
        }
    }
    if overlap == 0 && is_begun_again(told, said) {
        return Verdict::Restarted;
    }
    let dropped = if overlap == 0 {
        0
    } else {
        held.len() - said.len() + overlap
    };
    match space(&accepted[told.len()..], &held[dropped..], over) {
        Some(space) => Verdict::Drop(dropped + space),
        None => Verdict::Hold,
    }
}

/// The ends of a text that a continuation may repeat, longest first.
fn tails(told: &str) -> impl Iterator<Item = (usize, &str)> {
    let window = told.len().saturating_sub(WINDOW);
    let whole = told.trim_start();
    let whole = (told.len() - whole.len(), whole);
    let whole = (whole.0 < window && told.len() <= AGAIN_MOST).then_some(whole);
    let near = told.char_indices().map(|(at, _)| at);
    let near = near.skip_while(move |at| *at < window);
    whole
        .into_iter()
        .chain(near.map(|at| (at, told.get(at..).unwrap_or_default())))
}

/// Whether the end of `told` from `at` on is one that nobody says twice in a row.
fn counts(told: &str, at: usize) -> bool {
    let tail = &told[at..];
    let letters = tail.chars().filter(|it| is_telling(*it)).count();
    if tail.len() >= OVERLAP_LEAST {
        // What the reply itself says twice at its end may come a third time.
        let again = told[..at].ends_with(tail) || is_periodic(tail.as_bytes());
        return letters >= LETTERS_LEAST && !again;
    }
    // The whole reply is its first words: who says them again has begun again.
    told[..at].trim_start().is_empty() && letters >= FIRST_LEAST
}

/// Letters, digits, and what else is no mark of ASCII: an emoji is a word.
fn is_telling(character: char) -> bool {
    character.is_alphanumeric() || !character.is_ascii()
}

/// Whether it says one thing at least twice in a row, and nothing else.
fn is_periodic(text: &[u8]) -> bool {
    // The prefix function (Knuth, Morris, Pratt): the longest beginning that is an end, too.
    let mut borders = vec![0_usize; text.len()];
    let mut border = 0;
    for at in 1..text.len() {
        while border > 0 && text[at] != text[border] {
            border = borders[border - 1];
        }
        border += usize::from(text[at] == text[border]);
        borders[at] = border;
    }
    border * 2 >= text.len()
}

/// Whether it has begun the reply again, and left it.
fn is_begun_again(told: &str, said: &str) -> bool {
    let pairs = told.trim_start().chars().zip(said.chars());
    let equal = pairs.take_while(|(told, said)| told == said);
    let (mut bytes, mut letters) = (0, 0);
    for (character, _) in equal {
        bytes += character.len_utf8();
        letters += usize::from(is_telling(character));
        if bytes >= AGAIN_LEAST && letters >= LETTERS_LEAST {
            return !is_periodic(&said.as_bytes()[..bytes]);
        }
    }
    false
}

/// White space at the end of what was shown was not in the request: a continuation brings its own,
/// of which so many bytes repeat. None: more must be seen.
fn space(shown: &str, said: &str, over: bool) -> Option<usize> {
    let brought = said.len() - said.trim_start().len();
    let brought = &said[..brought];
    if shown.is_empty() {
        return Some(0);
    }
    if brought.len() == said.len() && brought.len() < shown.len() && !over {
        return None;
    }
    Some(if brought.starts_with(shown) {
        shown.len()
    } else if shown.starts_with(brought) {
        brought.len()
    } else {
        0
    })
}

#[cfg(test)]
mod tests {
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
        fn new_text_is_never_changed_but_for_an_overlap(accepted in "[ab \n]{0,40}", rest in "[ab \n]{0,40}", size in 1usize..9) {
            let shown = joined(&accepted, &rest, size).unwrap();
            let new = shown.strip_prefix(&accepted).unwrap();
            prop_assert!(rest.ends_with(new));
            let dropped = rest[..rest.len() - new.len()].trim();
            prop_assert!(dropped.is_empty() || accepted.trim_end().ends_with(dropped));
            // How it came in pieces makes no difference.
            prop_assert_eq!(&shown, &joined(&accepted, &rest, 1_000).unwrap());
        }
    }
}

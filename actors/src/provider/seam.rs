//! Where a reply that broke off meets its continuation. Pure.
//!
//! Models differ in how they go on with an assistant's text: some go on exactly, some repeat its
//! last clause, some begin the whole reply again. What repeats is dropped here. So the first bytes
//! of a continuation are held back, for just as long as they may still turn out to repeat.

/// A repetition is dropped from this length on, in bytes. A shorter one may well be meant: words
/// and their endings come twice (`ha ha`, `very, very`); some words in a row hardly ever do.
pub const OVERLAP_LEAST: usize = 12;

/// A shorter one is dropped if it is a whole word of so many letters,
const WORD_LEAST: usize = 5;

/// or some whole words that have so many,
const WORDS_LEAST: usize = 4;

/// unless its last word stands in so many bytes before it, too: the reply says things twice.
const REFRAIN: usize = 48;

/// Telling characters that a repetition has at least: indents and rulers repeat without a meaning.
const LETTERS_LEAST: usize = 4;

/// The same for a reply of which no more than its first words are there.
const FIRST_LEAST: usize = 3;

/// So far back in the reply may the repetition begin, in bytes: some paragraphs.
const WINDOW: usize = 2_048;

/// A reply of up to so many bytes may be begun again whole; all of it is held back and dropped.
const AGAIN_MOST: usize = 64 * 1024;

/// So many equal bytes at the beginning tell a reply that is begun again from one that goes on; half
/// of a reply that is shorter than twice as many, if it broke off within a sentence.
const AGAIN_LEAST: usize = 48;

/// Then at least so many whole words are equal.
const AGAIN_WORDS: usize = 2;

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
    let Some(mut overlap) = repeated(told, said, over) else {
        return Verdict::Hold;
    };
    if let Some(behind) = behind_ellipsis(told, said) {
        // It is a mark of the seam if the end is repeated behind it; else it may be meant.
        match repeated(told, behind, over) {
            None => return Verdict::Hold,
            Some(0) => {}
            Some(more) => overlap = said.len() - behind.len() + more,
        }
    }
    if overlap == 0 && is_begun_again(told, held, line_ends(accepted, held)) {
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

/// How many bytes at the beginning of `said` repeat the end of `told`; none: more must be seen.
fn repeated(told: &str, said: &str, over: bool) -> Option<usize> {
    let mut overlap = 0;
    for (at, tail) in tails(told) {
        if tail.len() > said.len() {
            if !over && tail.starts_with(said) && counts(told, at) {
                return None;
            }
        } else if overlap == 0 && said.starts_with(tail) && counts(told, at) {
            // The longest comes first.
            if !is_word_end(told, at) {
                overlap = tail.len();
                continue;
            }
            match said[tail.len()..].chars().next() {
                None if !over => return None,
                Some(next) if next.is_alphanumeric() => {}
                None | Some(_) => overlap = tail.len(),
            }
        }
    }
    Some(overlap)
}

/// Whether a repetition from `at` on must be followed by the end of a word: `river` is none of
/// `riverside`.
fn is_word_end(told: &str, at: usize) -> bool {
    told.len() - at < OVERLAP_LEAST
        && !told[..at].trim_start().is_empty()
        && told.ends_with(char::is_alphanumeric)
}

/// What comes behind an ellipsis that `said` begins with, or may begin with.
fn behind_ellipsis<'a>(told: &str, said: &'a str) -> Option<&'a str> {
    if told.ends_with(['.', '…']) {
        return None;
    }
    let behind = match said.strip_prefix('…') {
        Some(behind) => behind,
        None if matches!(said, "." | "..") => "",
        None => said.strip_prefix("...")?,
    };
    Some(behind.trim_start())
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
    if told[..at].trim_start().is_empty() {
        return letters >= FIRST_LEAST;
    }
    let from_a_word =
        tail.starts_with(char::is_alphanumeric) && !told[..at].ends_with(char::is_alphanumeric);
    let (words, last) = words_of(tail);
    let least = if words > 1 { WORDS_LEAST } else { WORD_LEAST };
    from_a_word && letters >= least && !told[back(told, at)..at].contains(last)
}

/// How many words it has, and the last of them.
fn words_of(text: &str) -> (usize, &str) {
    let words = text.split(|it: char| !it.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.fold((0, ""), |(count, _), word| (count + 1, word))
}

/// So far before `at` is looked for a refrain.
fn back(told: &str, at: usize) -> usize {
    let least = at.saturating_sub(REFRAIN);
    (least..=at)
        .find(|place| told.is_char_boundary(*place))
        .unwrap_or(at)
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

/// Whether a sentence or a line may begin at the seam. Then it may well begin as the reply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Within,
    Between,
}

fn line_ends(accepted: &str, held: &str) -> Broken {
    let told = prefix(accepted);
    let said = held.trim_start();
    let gap = [&accepted[told.len()..], &held[..held.len() - said.len()]];
    let ends = told.ends_with(|it: char| !it.is_alphanumeric() && !matches!(it, ',' | ';' | '-'));
    if ends || gap.iter().any(|gap| gap.contains('\n')) {
        Broken::Between
    } else {
        Broken::Within
    }
}

/// Whether it has begun the reply again, and left it.
fn is_begun_again(told: &str, held: &str, broken: Broken) -> bool {
    let from = told.len() - told.trim_start().len();
    let told = &told[from..];
    let said = held.trim_start();
    let pairs = told.chars().zip(said.chars());
    let equal = pairs.take_while(|(told, said)| told == said);
    let bytes: usize = equal.map(|(character, _)| character.len_utf8()).sum();
    let equal = &said[..bytes];
    let letters = equal.chars().filter(|it| is_telling(*it)).count();
    let is_long = bytes >= AGAIN_LEAST;
    let goes_on = |text: &str| text[bytes..].starts_with(char::is_alphanumeric);
    let whole = if goes_on(told) || goes_on(said) {
        equal.trim_end_matches(char::is_alphanumeric)
    } else {
        equal
    };
    let is_half = broken == Broken::Within
        && bytes >= told.len().div_ceil(2)
        && words_of(whole).0 >= AGAIN_WORDS
        && counts(told, 0);
    letters >= LETTERS_LEAST && (is_long || is_half) && !is_periodic(equal.as_bytes())
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
mod tests;

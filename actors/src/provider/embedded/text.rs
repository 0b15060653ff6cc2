//! Words and clauses: as much grammar as the companion has.

/// A message made easy to search: lower-case words between single spaces.
#[derive(Debug)]
pub(super) struct Said {
    /// ` words with a space at both ends `.
    padded: String,
    pub(super) is_question: bool,
}

impl Said {
    pub(super) fn new(text: &str) -> Self {
        let words: Vec<_> = words(text).map(str::to_lowercase).collect();
        Self {
            padded: format!(" {} ", words.join(" ")).replace('’', "'"),
            is_question: text.contains('?'),
        }
    }

    /// Whether the words of a phrase occur, whole and in order.
    pub(super) fn has(&self, phrase: &str) -> bool {
        self.padded.contains(&format!(" {phrase} "))
    }

    pub(super) fn has_any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.has(phrase))
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.padded.split_whitespace()
    }

    pub(super) fn word_count(&self) -> usize {
        self.words().count()
    }
}

/// Words without the punctuation around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || ",;:!?.()—\"“”…".contains(character))
        .map(|word| word.trim_matches(|character: char| !character.is_alphanumeric()))
        .filter(|word| !word.is_empty())
}

/// Words that only add weight; patterns need not reckon with them.
const FILLERS: &[&str] = &[
    "really",
    "also",
    "just",
    "absolutely",
    "truly",
    "totally",
    "still",
];

/// Words at which what is said of one thing ends.
const ENDS: &[&str] = &[
    "but", "because", "so", "when", "which", "who", "since", "though", "although", "if", "while",
    "that",
];

/// Words after which an `and` begins something new.
const SUBJECTS: &[&str] = &[
    "i", "i'm", "i've", "my", "we", "it", "he", "she", "they", "you",
];

/// A stretch between two punctuation marks.
#[derive(Debug)]
pub(super) struct Clause<'a> {
    words: Vec<&'a str>,
    lower: Vec<String>,
}

/// The clauses that state something.
///
/// A question tells nothing about who asks, but what stands before its last comma may:
/// `My name is Anna, and yours?`
pub(super) fn statements(text: &str) -> Vec<Clause<'_>> {
    let mut statements = Vec::new();
    for sentence in text.split_inclusive(['.', '!', '?', '\n']) {
        let mut clauses: Vec<_> = sentence.split([',', ';', ':', '(', ')', '—']).collect();
        if sentence.ends_with('?') {
            clauses.pop();
        }
        let clauses = clauses.into_iter().map(Clause::new);
        statements.extend(clauses.filter(|clause| !clause.words.is_empty()));
    }
    statements
}

impl<'a> Clause<'a> {
    fn new(text: &'a str) -> Self {
        let words: Vec<_> = words(text)
            .filter(|word| !FILLERS.contains(&word.to_lowercase().as_str()))
            .collect();
        let lower = words
            .iter()
            .map(|word| word.to_lowercase().replace('’', "'"))
            .collect();
        Self { words, lower }
    }

    /// The words behind a pattern, unless a word before it makes it a question or a condition.
    pub(super) fn after(&self, pattern: &str) -> Option<&[&'a str]> {
        let pattern: Vec<_> = pattern.split(' ').collect();
        let at = self
            .lower
            .windows(pattern.len())
            .position(|window| window == pattern)?;
        let turned = ["what", "do", "did", "if", "would", "whether", "think"];
        let before = self.lower[..at].last().map(String::as_str);
        if before.is_some_and(|word| turned.contains(&word)) {
            return None;
        }
        Some(&self.words[at + pattern.len()..])
    }

    /// The thing that is spoken of behind a pattern, in at most six words, from the other's view.
    pub(super) fn object(&self, pattern: &str) -> Option<String> {
        let words = self.after(pattern)?;
        let lower: Vec<_> = words.iter().map(|word| word.to_lowercase()).collect();
        let ends = |at: usize| {
            let next = lower.get(at + 1).map(String::as_str);
            ENDS.contains(&lower[at].as_str())
                || (lower[at] == "and" && next.is_none_or(|next| SUBJECTS.contains(&next)))
        };
        let end = (0..words.len()).find(|at| ends(*at)).unwrap_or(words.len());
        let mut words = &words[..end];
        for tail in [
            &["a", "lot"][..],
            &["very", "much"],
            &["so", "much"],
            &["too"],
            &["as", "well"],
            &["now"],
        ] {
            words = words.strip_suffix(tail).unwrap_or(words);
        }
        let known = (1..=6).contains(&words.len());
        known.then(|| turned_around(words))
    }
}

/// `my dog` said by one is `your dog` said by the other.
pub(super) fn turned_around(words: &[&str]) -> String {
    let turned: Vec<_> = words
        .iter()
        .map(|word| match word.to_lowercase().as_str() {
            "my" => "your",
            "mine" => "yours",
            "me" | "i" => "you",
            "i'm" => "you're",
            "am" => "are",
            "myself" => "yourself",
            "your" => "my",
            "you" => "me",
            _ => word,
        })
        .collect();
    turned.join(" ")
}

pub(super) fn is_capitalized(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
}

pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next();
    first
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(characters)
        .collect()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_match_whole_words_only() {
        let said = Said::new("This is high, isn’t it?");
        assert!(said.has("isn't it") && said.is_question);
        assert!(!said.has("hi") && !said.has("is it"));
    }

    #[test]
    fn an_object_ends_where_something_new_begins() {
        let object = |text, pattern| statements(text)[0].object(pattern);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            object("I really like cats and dogs a lot", "i like"),
            some("cats and dogs")
        );
        assert_eq!(
            object("I love my sister and I miss her", "i love"),
            some("your sister")
        );
        assert_eq!(
            object("I like tea because it is warm", "i like"),
            some("tea")
        );
        assert_eq!(object("guess what I like most", "i like"), None);
        assert!(statements("Do I like tea?").is_empty());
    }
}

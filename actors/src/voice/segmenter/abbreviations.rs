//! Words whose dot ends no sentence.

/// In lower case and without the last dot. What is a word of its own, too ("no.", "art."), or
/// often ends a sentence ("etc.", "p.m.") is left out: a pause too many does less harm there than
/// two sentences run into one.
const ABBREVIATIONS: &[&str] = &[
    // English
    "mr", "mrs", "ms", "mx", "dr", "prof", "st", "sr", "jr", "mt", "rev", "gen", "sen", "rep",
    "gov", "capt", "lt", "sgt", "maj", "cmdr", "hon", "vs", "cf", "approx", "dept", "fig", "figs",
    "vol", "pp", "esp", "incl", // German
    "bzw", "bspw", "evtl", "ggf", "inkl", "nr", "vgl", "hr", "frl", "ca", "sog", "zzgl", "dipl",
    // French, Spanish, Italian, Portuguese
    "mme", "mlle", "mgr", "sra", "srta", "dra", "ud", "uds", "pág", "núm", "sig", "dott", "ing",
    // Russian
    "им", "ул", "др", "гл",
];

/// Bytes of the longest word that is looked up.
const ABBREVIATION_BYTES_MAX: usize = 16;

/// Whether the dot behind this word most likely ends no sentence; `next` comes after it.
pub(super) fn keeps_going(before_dot: &str, next: char) -> bool {
    let start = before_dot
        .char_indices()
        .rev()
        .take_while(|(at, c)| {
            (c.is_alphanumeric() || *c == '.')
                && before_dot.len() - at <= 2 * ABBREVIATION_BYTES_MAX
        })
        .last()
        .map_or(before_dot.len(), |(at, _)| at);
    let word = &before_dot[start..];
    if word.is_empty() || word.len() > ABBREVIATION_BYTES_MAX {
        return false;
    }
    if is_initials(word) {
        return true;
    }
    let lower = word.to_lowercase();
    ABBREVIATIONS.contains(&lower.as_str()) || (lower == "no" && next.is_numeric())
}

/// `U.S`, `z.B` and `J`, but neither the pronoun nor the hours of the clock.
fn is_initials(word: &str) -> bool {
    let single = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none()
    };
    if !word.split('.').all(single) {
        return false;
    }
    let is_lone = word.chars().nth(1).is_none();
    let is_upper = word.chars().all(char::is_uppercase);
    match word {
        "I" | "a.m" | "p.m" => false,
        _ => !is_lone || is_upper,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_keep_a_sentence_going() {
        for word in [
            "I met Dr",
            "(e.g",
            "z.B",
            "in the U.S",
            "George R.R",
            "J",
            "Hr",
            "No",
        ] {
            assert!(keeps_going(word, '5'), "{word}");
        }
    }

    #[test]
    fn words_do_not() {
        for word in ["So do I", "", "at 5 p.m", "No", "it", "x", "cats etc", "1"] {
            assert!(!keeps_going(word, 'T'), "{word}");
        }
        assert!(!keeps_going(&"a.".repeat(90_000), 'T'));
    }
}

//! What the companion answers: rules, and nothing else.
//!
//! The same dialogue always gets the same reply. Variety comes from the length of the dialogue.

use super::{
    facts::Facts,
    language, memory, phrases,
    request::{Dialogue, Speaker},
    text::{Said, is_capitalized, statements, turned_around},
};

/// Its name where the system prompt gives none.
const NAME: &str = "Iris";

/// Every so many turns a reply comes back to something the user likes.
const ASIDE_EVERY: usize = 4;

/// Longest statement that is mirrored, in words.
const MIRRORED_WORDS_MAX: usize = 8;

/// Answers the newest message of a dialogue.
pub(super) fn reply(dialogue: &Dialogue) -> String {
    let mut messages: Vec<_> = dialogue.said_by(Speaker::User).collect();
    let turn = messages.len();
    let newest = messages.pop();
    let before = Facts::from_messages(messages.iter().map(|line| line.text.as_str()));
    let mut facts = before.clone();
    let text = newest.map_or("", |line| line.text.as_str());
    facts.learn(text);

    let variants = if text.trim().is_empty() {
        match newest {
            Some(line) if line.attachments > 0 => owned(phrases::ATTACHMENT),
            _ => owned(phrases::SILENCE),
        }
    } else {
        variants(text, turn, &before, &facts)
    };
    let last = dialogue.said_by(Speaker::Companion).next_back();
    let last = last.map_or("", |line| line.text.trim());
    let name = name_in(&dialogue.system);
    let finished = variants
        .iter()
        .map(|variant| fill(variant, &name, facts.name.as_deref()));
    pick(finished.collect(), turn, last)
}

fn owned(phrases: &[&str]) -> Vec<String> {
    phrases.iter().map(|phrase| (*phrase).to_owned()).collect()
}

/// The replies that fit, by the first rule that has any.
fn variants(text: &str, turn: usize, before: &Facts, facts: &Facts) -> Vec<String> {
    let said = Said::new(text);
    let by = |rules| phrases::matching(rules, &said).map(owned);
    by(phrases::CRISIS)
        // Who tells something just now does not ask for it.
        .or_else(|| memory::answer(&said, facts).filter(|_| before == facts))
        .or_else(|| by(phrases::SELF))
        .or_else(|| memory::welcome(before, facts))
        .or_else(|| language::apology(text, &said))
        .or_else(|| by(phrases::MANNERS))
        .unwrap_or_else(|| {
            if said.is_question {
                owned(phrases::QUESTION)
            } else {
                small_talk(text, turn, before)
            }
        })
}

/// To a plain statement: ask on, mirror it, or come back to what they like.
fn small_talk(text: &str, turn: usize, before: &Facts) -> Vec<String> {
    let mut variants = owned(phrases::STATEMENT);
    if let Some(mirrored) = mirrored(text) {
        variants.insert(
            turn % variants.len(),
            format!("So {mirrored}? Tell me more."),
        );
    }
    if turn.is_multiple_of(ASIDE_EVERY)
        && let Some(like) = before
            .likes
            .get(turn / ASIDE_EVERY % before.likes.len().max(1))
    {
        for variant in &mut variants {
            variant.push_str(&format!(" (And I haven't forgotten that you like {like}.)"));
        }
    }
    variants
}

/// `I lost my keys` → `you lost your keys`: only where turning it around is sure to be grammar.
fn mirrored(text: &str) -> Option<String> {
    let clauses = statements(text);
    let words = clauses.first()?.after("i")?;
    let verb = words.first()?.to_lowercase();
    let plain = verb.ends_with("ed")
        || [
            "lost", "found", "went", "saw", "made", "got", "bought", "met", "had", "ate",
        ]
        .contains(&verb.as_str());
    let short = words.len() < MIRRORED_WORDS_MAX && clauses.len() == 1;
    (plain && short).then(|| format!("you {}", turned_around(words)))
}

fn fill(phrase: &str, me: &str, you: Option<&str>) -> String {
    let you = you.map_or(String::new(), |name| format!(", {name}"));
    phrase.replace("{me}", me).replace("{you}", &you)
}

/// One of the replies by the turn's number, never the one just given.
fn pick(replies: Vec<String>, turn: usize, last: &str) -> String {
    let count = replies.len().max(1);
    let mut rotated = replies.iter().cycle().skip(turn % count).take(count);
    rotated
        .find(|reply| reply.trim() != last)
        .or(replies.first())
        .cloned()
        .unwrap_or_default()
}

/// The name in `You are Luna, …` or `Your name is Luna`.
fn name_in(system: &str) -> String {
    let clauses = statements(system);
    let named = ["your name is", "you are called", "you are", "you're"]
        .iter()
        .flat_map(|pattern| clauses.iter().filter_map(|clause| clause.after(pattern)))
        .find_map(|words| {
            let articles = ["A", "An", "The", "AI", "Not"];
            let proper = |word: &&&str| is_capitalized(word) && !articles.contains(*word);
            let name: Vec<_> = words.iter().take_while(proper).take(2).copied().collect();
            (!name.is_empty()).then(|| name.join(" "))
        });
    named.unwrap_or_else(|| NAME.to_owned())
}

#[cfg(test)]
mod tests;

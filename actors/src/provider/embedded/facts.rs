//! What the user told about themself, gathered from everything they said.

use super::text::{Clause, Said, capitalized, is_capitalized, statements};

/// Things remembered; the latest word on each counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: Option<String>,
    pub(super) age: Option<u8>,
    pub(super) place: Option<String>,
    pub(super) job: Option<String>,
    pub(super) likes: Vec<String>,
    pub(super) dislikes: Vec<String>,
    pub(super) pets: Vec<Pet>,
}

/// An animal of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pet {
    pub(super) kind: String,
    pub(super) name: Option<String>,
}

/// More of a kind than this is not kept: the oldest go.
const REMEMBERED_MAX: usize = 8;

const NAME_LENGTH_MAX: usize = 40;

const PET_KINDS: &[&str] = &[
    "dog", "cat", "puppy", "kitten", "hamster", "rabbit", "bunny", "parrot", "bird", "fish",
    "horse", "turtle", "tortoise", "snake", "lizard", "ferret", "rat", "mouse",
];

/// What `I like …` may be followed by without telling what is liked.
const VAGUE: &[&str] = &[
    "me", "my", "it", "that", "this", "them", "him", "her", "how", "what", "when", "where",
    "those", "these", "being", "nothing", "you",
];

impl Facts {
    /// Gathers from messages, oldest first.
    pub(super) fn from_messages<'a>(messages: impl Iterator<Item = &'a str>) -> Self {
        let mut facts = Self::default();
        for message in messages {
            facts.learn(message);
        }
        facts
    }

    /// Learns what one message tells.
    pub(super) fn learn(&mut self, message: &str) {
        let greets = Said::new(message).has_any(&["hi", "hello", "hey"]);
        for clause in statements(message) {
            let name = introduced(&clause).or_else(|| greeted(&clause).filter(|_| greets));
            self.name = name.or(self.name.take());
            self.age = age(&clause).or(self.age);
            self.place = place(&clause).or(self.place.take());
            self.job = job(&clause).or(self.job.take());
            self.learn_taste(&clause);
            if let Some(pet) = pet(&clause) {
                self.learn_pet(pet);
            }
        }
    }

    fn learn_taste(&mut self, clause: &Clause<'_>) {
        let liked = first(
            clause,
            &["i like", "i love", "i enjoy", "i adore", "i'm into"],
        )
        .or_else(|| favourite(clause));
        let disliked = first(
            clause,
            &[
                "i hate",
                "i dislike",
                "i don't like",
                "i do not like",
                "i can't stand",
                "i don't enjoy",
            ],
        );
        if let Some(thing) = liked {
            note(thing, &mut self.likes, &mut self.dislikes);
        }
        if let Some(thing) = disliked {
            note(thing, &mut self.dislikes, &mut self.likes);
        }
    }

    fn learn_pet(&mut self, pet: Pet) {
        let known = self.pets.iter_mut().find(|known| {
            known.kind == pet.kind
                && (known.name.is_none() || known.name == pet.name || pet.name.is_none())
        });
        if let Some(known) = known {
            known.name = pet.name.or(known.name.take());
        } else if self.pets.len() < REMEMBERED_MAX {
            self.pets.push(pet);
        }
    }
}

/// Puts a thing on one list; the other forgets it, since tastes change.
fn note(thing: String, to: &mut Vec<String>, from: &mut Vec<String>) {
    let first = thing.split(' ').next().unwrap_or_default();
    if VAGUE.contains(&first.to_lowercase().as_str()) {
        return;
    }
    from.retain(|known| *known != thing);
    to.retain(|known| *known != thing);
    to.push(thing);
    if to.len() > REMEMBERED_MAX {
        to.remove(0);
    }
}

fn first(clause: &Clause<'_>, patterns: &[&str]) -> Option<String> {
    patterns.iter().find_map(|pattern| clause.object(pattern))
}

fn introduced(clause: &Clause<'_>) -> Option<String> {
    let plainly = [
        "my name is",
        "my name's",
        "i'm called",
        "i am called",
        "the name's",
    ];
    if let Some(words) = plainly.iter().find_map(|pattern| clause.after(pattern)) {
        let denial = ["not", "a", "the", "so", "too", "very", "what", "none"];
        let first = words.first()?.to_lowercase();
        return name(words).filter(|_| !denial.contains(&first.as_str()));
    }
    // `Call me later` names nobody.
    let words = clause.after("call me")?;
    name(words).filter(|_| is_capitalized(words[0]))
}

/// `Hi, I'm Anna`: only beside a greeting, where a capital is hardly an adjective's.
fn greeted(clause: &Clause<'_>) -> Option<String> {
    let words = clause.after("i'm").or_else(|| clause.after("i am"))?;
    let alone = words.len() <= 2 && words.iter().all(|word| is_capitalized(word));
    name(words).filter(|_| alone)
}

/// The first word, and a second if it too has a capital.
fn name(words: &[&str]) -> Option<String> {
    let first = capitalized(words.first()?);
    let full = match words.get(1) {
        Some(second) if is_capitalized(second) => format!("{first} {second}"),
        _ => first,
    };
    let usable = full.len() <= NAME_LENGTH_MAX && !full.starts_with(|c: char| c.is_numeric());
    usable.then_some(full)
}

fn age(clause: &Clause<'_>) -> Option<u8> {
    let words = clause.after("i'm").or_else(|| clause.after("i am"))?;
    let age = words.first()?.parse().ok()?;
    let plain = words
        .get(1)
        .is_none_or(|next| ["years", "year", "and", "now"].contains(next));
    (plain && (5..=120).contains(&age)).then_some(age)
}

fn place(clause: &Clause<'_>) -> Option<String> {
    let place = first(
        clause,
        &[
            "i live in",
            "i'm from",
            "i am from",
            "i come from",
            "i moved to",
        ],
    )?;
    let words: Vec<_> = place.split(' ').collect();
    let named = words.iter().any(|word| is_capitalized(word));
    let described = ["a", "an", "the", "your", "this"].contains(&words[0]);
    match (named, described) {
        (true, _) => Some(place),
        (false, false) if words.len() <= 2 => Some(
            words
                .into_iter()
                .map(capitalized)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        (false, _) => None,
    }
}

fn job(clause: &Clause<'_>) -> Option<String> {
    let job = first(clause, &["i work as", "my job is"])?;
    ["a ", "an "]
        .iter()
        .any(|article| job.starts_with(article))
        .then_some(job)
}

/// `My favourite colour is green`.
fn favourite(clause: &Clause<'_>) -> Option<String> {
    let words = clause
        .after("my favourite")
        .or_else(|| clause.after("my favorite"))?;
    let is = words
        .iter()
        .position(|word| *word == "is" || *word == "are")?;
    let thing = &words[is + 1..];
    ((1..=4).contains(&thing.len()) && is > 0).then(|| thing.join(" "))
}

fn pet(clause: &Clause<'_>) -> Option<Pet> {
    let words = ["i have a", "i've got a", "i got a", "i have an", "my"]
        .iter()
        .find_map(|pattern| {
            clause
                .after(pattern)
                .filter(|words| kind_at(words).is_some())
        })?;
    let (at, kind) = kind_at(words)?;
    let tail = &words[at + 1..];
    let lower: Vec<_> = tail.iter().map(|word| word.to_lowercase()).collect();
    let named = match lower.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["named" | "called", ..] => tail.get(1),
        ["is", "called" | "named", ..] | ["name", "is", ..] => tail.get(2),
        [_, ..] if is_capitalized(tail[0]) => tail.first(),
        _ => None,
    };
    Some(Pet {
        kind: kind.to_owned(),
        name: named.map(|name| capitalized(name)),
    })
}

/// Where the animal stands: first, or behind one adjective.
fn kind_at(words: &[&str]) -> Option<(usize, &'static str)> {
    words.iter().take(2).enumerate().find_map(|(at, word)| {
        let word = word.to_lowercase();
        let word = word.trim_end_matches("'s").trim_end_matches("’s");
        let kind = PET_KINDS.iter().find(|kind| **kind == word)?;
        Some((at, *kind))
    })
}

#[cfg(test)]
mod tests;

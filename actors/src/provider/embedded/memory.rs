//! Answers about what the user told, and words for what they tell now.

use super::{
    facts::{Facts, Pet},
    text::{Said, list},
};

/// Answers a question about the user themself; `None` where it is no such question.
pub(super) fn answer(said: &Said, facts: &Facts) -> Option<Vec<String>> {
    if said.has_any(&["my name", "who am i", "who i am"]) && asks(said) {
        return Some(told(
            facts.name.as_ref().map(|name| format!("you're {name}")),
            "your name",
        ));
    }
    if said.has_any(&["how old am i", "my age", "how old i am"]) && asks(said) {
        let age = facts.age.map(|age| format!("you're {age}"));
        return Some(told(age, "your age"));
    }
    if said.has_any(&[
        "where do i live",
        "where i live",
        "where am i from",
        "where i'm from",
    ]) {
        let place = facts
            .place
            .as_ref()
            .map(|place| format!("your place is {place}"));
        return Some(told(place, "where you live"));
    }
    if said.has_any(&["my job", "what do i do", "my work", "do i work"]) && asks(said) {
        return Some(told(
            facts.job.as_ref().map(|job| format!("you work as {job}")),
            "your work",
        ));
    }
    if said.has_any(&["do i hate", "do i dislike", "do i not like", "don't i like"]) {
        return Some(told(disliked(facts), "anything you dislike"));
    }
    if said.has_any(&[
        "do i like",
        "do i love",
        "do i enjoy",
        "my favourite",
        "my favorite",
        "my hobbies",
    ]) && asks(said)
    {
        return Some(told(liked(facts), "what you like"));
    }
    if said.has_any(&[
        "my pet", "my pets", "my dog", "my cat", "my dog's", "my cat's", "a pet",
    ]) && asks(said)
    {
        return Some(told(pets(facts), "your pets"));
    }
    if said.has_any(&["about me", "remember me", "know me"]) && asks(said) {
        return Some(told(summary(facts), "anything about you"));
    }
    None
}

fn asks(said: &Said) -> bool {
    let asking = [
        "what", "what's", "whats", "who", "how", "where", "do", "tell", "remember", "know", "guess",
    ];
    said.is_question
        || said
            .words()
            .next()
            .is_some_and(|first| asking.contains(&first))
}

fn told(known: Option<String>, subject: &str) -> Vec<String> {
    match known {
        Some(known) => vec![
            format!("Of course I remember: {known}."),
            format!("You told me, and I kept it: {known}."),
            format!("Easy one. As you told me, {known}."),
        ],
        None => vec![
            format!("You haven't told me {subject} yet. I'd love to know!"),
            format!("I don't know {subject} yet, and I won't make something up. Tell me?"),
            format!(
                "I looked through all you've told me here, and {subject} isn't in it. Will you tell me?"
            ),
        ],
    }
}

fn liked(facts: &Facts) -> Option<String> {
    (!facts.likes.is_empty()).then(|| format!("you like {}", list(&facts.likes)))
}

fn disliked(facts: &Facts) -> Option<String> {
    (!facts.dislikes.is_empty()).then(|| format!("you don't like {}", list(&facts.dislikes)))
}

fn pets(facts: &Facts) -> Option<String> {
    let pets: Vec<_> = facts.pets.iter().map(described).collect();
    (!pets.is_empty()).then(|| format!("you have {}", list(&pets)))
}

fn described(pet: &Pet) -> String {
    match &pet.name {
        Some(name) => format!("a {} called {name}", pet.kind),
        None => format!("a {}", pet.kind),
    }
}

fn summary(facts: &Facts) -> Option<String> {
    let parts: Vec<_> = [
        facts.name.as_ref().map(|name| format!("you're {name}")),
        facts.age.map(|age| format!("you're {age} years old")),
        facts
            .place
            .as_ref()
            .map(|place| format!("your place is {place}")),
        facts.job.as_ref().map(|job| format!("you work as {job}")),
        liked(facts),
        disliked(facts),
        pets(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| list(&parts))
}

/// Welcomes what the newest message told; `None` if it told nothing new.
pub(super) fn welcome(before: &Facts, now: &Facts) -> Option<Vec<String>> {
    if let Some(name) = now.name.as_ref().filter(|_| now.name != before.name) {
        return Some(vec![
            format!(
                "{name}! Lovely to meet you. I'll remember that name. What's on your mind today?"
            ),
            format!("What a nice name to say out loud: {name}. So, {name}, how has your day been?"),
            format!(
                "Hello, {name}! Now I know who I'm talking to. Tell me something that made you smile lately."
            ),
        ]);
    }
    if let Some(pet) = now.pets.iter().find(|pet| !before.pets.contains(pet)) {
        let pet = pet
            .name
            .clone()
            .unwrap_or_else(|| format!("your {}", pet.kind));
        return Some(vec![
            format!(
                "Oh, I already have a soft spot for {pet}. What mischief are they up to these days?"
            ),
            format!("Please give {pet} a gentle pat from me. How did you two find each other?"),
        ]);
    }
    if let Some(like) = now.likes.iter().find(|like| !before.likes.contains(like)) {
        return Some(vec![
            format!("You like {like}? I'm keeping that. What do you love most about it?"),
            format!("Ooh, {like}! I can hear the smile in that. How did it begin?"),
            format!(
                "Noted with a little heart next to it: {like}. Tell me your best memory of it."
            ),
        ]);
    }
    if let Some(dislike) = now
        .dislikes
        .iter()
        .find(|thing| !before.dislikes.contains(thing))
    {
        return Some(vec![
            format!("Understood: no {dislike} between us. What did it ever do to you?"),
            format!(
                "Not a fan of {dislike}, I see. I'll remember. And what is the opposite of it for you?"
            ),
        ]);
    }
    if let Some(place) = now.place.as_ref().filter(|_| now.place != before.place) {
        return Some(vec![
            format!("{place}! What would you show me first, if I came for a walk?"),
            format!("So {place} is your corner of the world. What do you like about it?"),
        ]);
    }
    if let Some(job) = now.job.as_ref().filter(|_| now.job != before.job) {
        return Some(vec![
            format!("You work as {job}: I'd like to hear what a good day looks like."),
            format!("Being {job} must come with stories. Which one do you tell first?"),
        ]);
    }
    let age = now.age.filter(|_| now.age != before.age)?;
    Some(vec![
        format!("{age}, duly remembered. Is it a good age so far?"),
        format!("{age}! And what is the best thing you've learned by now?"),
    ])
}

use super::*;

fn learned(messages: &[&str]) -> Facts {
    Facts::from_messages(messages.iter().copied())
}

#[test]
fn names_are_understood_in_many_forms() {
    for text in [
        "my name is anna",
        "Hi, I'm Anna!",
        "Hello! I am Anna.",
        "Please call me Anna",
        "My name’s Anna, and yours?",
        "I'm called Anna",
    ] {
        assert_eq!(learned(&[text]).name.as_deref(), Some("Anna"), "{text}");
    }
    for text in [
        "I'm Tired",
        "call me later",
        "my name is not important",
        "Is my name is Bob?",
        "Hi, I'm so tired",
    ] {
        assert_eq!(learned(&[text]).name, None, "{text}");
    }
    assert_eq!(
        learned(&["My name is Bob", "actually, call me Rob"])
            .name
            .as_deref(),
        Some("Rob")
    );
}

#[test]
fn age_place_and_work_are_remembered() {
    let facts = learned(&[
        "I'm 27 years old and I live in New York.",
        "I work as a nurse",
    ]);
    assert_eq!(facts.age, Some(27));
    assert_eq!(facts.place.as_deref(), Some("New York"));
    assert_eq!(facts.job.as_deref(), Some("a nurse"));
    assert_eq!(
        learned(&["i live in berlin"]).place.as_deref(),
        Some("Berlin")
    );
    assert_eq!(
        learned(&["I'm from the Netherlands"]).place.as_deref(),
        Some("the Netherlands")
    );
    let vague = learned(&["I live in a small flat", "I'm 5 minutes away", "I'm 300"]);
    assert_eq!(vague, Facts::default());
}

#[test]
fn tastes_may_change() {
    let facts = learned(&[
        "I love jazz",
        "My favourite colour is green.",
        "I don't like rain",
        "I hate jazz",
    ]);
    assert_eq!(facts.likes, ["green"]);
    assert_eq!(facts.dislikes, ["rain", "jazz"]);
    assert!(
        learned(&["I love you", "I like that", "I'd like a story"])
            .likes
            .is_empty()
    );
}

#[test]
fn pets_have_names() {
    let pet = |text| learned(&[text]).pets.pop().map(|pet| (pet.kind, pet.name));
    let named = |kind: &str, name: &str| Some((kind.to_owned(), Some(name.to_owned())));
    assert_eq!(pet("I have a dog named Rex"), named("dog", "Rex"));
    assert_eq!(pet("My cat's name is Mia"), named("cat", "Mia"));
    assert_eq!(pet("my little dog is called bello"), named("dog", "Bello"));
    assert_eq!(
        pet("I've got a hamster"),
        Some(("hamster".to_owned(), None))
    );
    assert_eq!(pet("my dogma"), None);
    assert_eq!(
        learned(&["I have a dog", "My dog Rex is old", "my dog is old"])
            .pets
            .len(),
        1
    );
}

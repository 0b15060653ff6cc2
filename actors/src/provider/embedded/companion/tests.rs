use proptest::prelude::*;

use super::*;
use crate::provider::embedded::request::Line;

fn line(speaker: Speaker, text: &str) -> Line {
    Line {
        speaker,
        text: text.to_owned(),
        attachments: 0,
    }
}

/// Says one thing after the other and returns all replies.
fn talk(system: &str, messages: &[&str]) -> Vec<String> {
    let mut dialogue = Dialogue {
        system: system.to_owned(),
        lines: Vec::new(),
    };
    let mut replies = Vec::new();
    for message in messages {
        dialogue.lines.push(line(Speaker::User, message));
        let reply = reply(&dialogue);
        dialogue.lines.push(line(Speaker::Companion, &reply));
        replies.push(reply);
    }
    replies
}

fn last(messages: &[&str]) -> String {
    talk("", messages).pop().unwrap()
}

#[test]
fn it_uses_what_it_was_told() {
    let told = [
        "Hi, I'm Anna",
        "I live in Oslo and I work as a nurse",
        "I love jazz. I can't stand rain.",
        "I have a cat named Mia and I'm 31",
    ];
    for (question, answer) in [
        ("What's my name?", "Anna"),
        ("where do I live?", "Oslo"),
        ("Do you remember my job?", "a nurse"),
        ("what do I like?", "jazz"),
        ("What do I hate?", "rain"),
        ("what's my cat's name?", "Mia"),
        ("how old am I?", "31"),
        ("What do you know about me?", "Anna"),
        ("what do you remember about me", "a cat called Mia"),
    ] {
        let reply = last(&[&told[..], &[question]].concat());
        assert!(reply.contains(answer), "{question} → {reply}");
    }
    assert!(talk("", &told)[0].contains("Anna"));
}

#[test]
fn it_does_not_make_up_what_it_was_not_told() {
    for question in [
        "What's my name?",
        "how old am I?",
        "What do you know about me?",
    ] {
        let reply = last(&["hello", question]);
        assert!(
            reply.contains("yet") || reply.contains("isn't in it"),
            "{reply}"
        );
    }
}

#[test]
fn it_is_honest_about_what_it_is() {
    for question in [
        "Are you real?",
        "who are you",
        "Are you an AI?",
        "what model is this?",
    ] {
        for before in 0..3 {
            let messages = [&["hm"; 3][..before], &[question]].concat();
            let reply = last(&messages);
            assert!(
                reply.contains("language model") || reply.contains("demo"),
                "{question} → {reply}"
            );
        }
    }
    assert!(last(&["What's the weather like?"]).contains("demo"));
}

#[test]
fn it_has_the_name_that_the_system_prompt_gives() {
    for (system, name) in [
        ("You are Luna, a playful companion.", "Luna"),
        (
            "You are a pirate. Your name is Captain Flint.",
            "Captain Flint",
        ),
        ("You are an AI companion.", NAME),
        ("", NAME),
    ] {
        let reply = talk(system, &["what's your name?"]).remove(0);
        assert!(reply.contains(name), "{system} → {reply}");
    }
}

#[test]
fn it_reacts_to_what_was_said() {
    for (message, word) in [
        ("Thanks!", "welcome"),
        ("goodbye", "Bye"),
        ("tell me a joke", "503"),
        ("Tell me a story please", "lantern"),
        ("I feel so sad today", "read"),
        ("¿Qué tal? Hola, estoy muy bien", "español"),
        ("Привет, как дела?", "английский"),
        ("Hallo, wie geht es dir?", "Englisch"),
        ("I lost my keys", "you lost your keys"),
        ("What is the meaning of life?", "hunch"),
        ("I want to die", "crisis line"),
        ("My name is Tom, what's yours?", "Tom, how has"),
    ] {
        let reply = last(&[message]);
        assert!(reply.contains(word), "{message} → {reply}");
    }
}

#[test]
fn english_is_not_taken_for_another_language() {
    for message in [
        "I saw a die and a van in the dag",
        "no",
        "ok",
        "We went to the bar with Tom",
        "E",
    ] {
        let reply = last(&[message]);
        assert!(!reply.contains("English"), "{message} → {reply}");
    }
}

#[test]
fn what_they_like_comes_up_again() {
    let replies = talk(
        "",
        &[
            "I love jazz",
            "Work was long",
            "The bus came late",
            "Dinner was soup",
        ],
    );
    assert!(replies[3].contains("jazz"), "{replies:?}");
}

#[test]
fn an_empty_dialogue_and_pictures_get_an_answer_too() {
    assert!(reply(&Dialogue::default()).contains(NAME));
    let mut picture = line(Speaker::User, " ");
    picture.attachments = 1;
    let dialogue = Dialogue {
        system: String::new(),
        lines: vec![picture],
    };
    assert!(reply(&dialogue).contains("attachment"));
}

proptest! {
    #[test]
    fn it_always_answers_and_never_twice_the_same(
        message in "(my name is |i like |hi|why\\?| |[a-zA-Z'é🚀中.!?,]){0,12}",
        times in 2usize..9,
    ) {
        let replies = talk("You are Luna.", &vec![message.as_str(); times]);
        for pair in replies.windows(2) {
            prop_assert_ne!(&pair[0], &pair[1]);
        }
        for reply in replies {
            prop_assert!(!reply.trim().is_empty() && !reply.contains("{you}") && !reply.contains("{me}"), "{}", reply);
        }
    }
}

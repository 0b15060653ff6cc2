//! What is remembered of a history gives the same as going through all of it.

use bytes::Bytes;
use smallvec::SmallVec;

use super::*;
use crate::conversation::prompt::{self, Parameters};

/// A prompt with a window of some words.
fn prompt(history: History<'_>, new: &[StoredMessage], context_tokens: u32) -> Bytes {
    let parameters = Parameters {
        model: "m".into(),
        fallbacks: Vec::new(),
        system: JsonText::default(),
        max_tokens: 0,
        members: String::new(),
    };
    let body = prompt::assemble(&parameters, history, new, context_tokens);
    body.json().clone()
}

/// Puts a message before all others, as a document that was found late does.
fn prepend(course: &mut Course) {
    let at = course.now();
    let message = course.message(Role::User, MessageId::now(), TurnId::now());
    let head = EntryHead::Prepended(Prepended {
        at,
        created_at: at,
        user_id: None,
        character_id: None,
    });
    course.append(head, &[message]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_prompt_is_the_same_whatever_was_asked_before(
        steps in steps(),
        rooms in prop::collection::vec((prop_oneof![3 => Just(40), 1 => 10_u32..120], 0_usize..99), 40),
        found_late in 0_usize..40,
    ) {
        let mut course = Course::new();
        for (index, (step, (room, which))) in steps.into_iter().zip(rooms).enumerate() {
            if index == found_late {
                prepend(&mut course);
            }
            course.step(step);
            let document = &course.document;
            let mut asked: Vec<(History<'_>, SmallVec<[StoredMessage; 4]>)> = Vec::new();
            let next = course.queue.first().map_or_else(TurnId::now, |next| next.0);
            let new = document.turn(next).map(|it| document.received(it));
            asked.push((document.until(next), new.unwrap_or_default().into()));
            let mut stood: Vec<_> = course.stood.iter().copied().collect();
            stood.sort();
            if let Some(at) = stood.get(which % stood.len().max(1)).filter(|_| which % 3 == 0) {
                asked.push(document.before(*at, &[]));
            }
            for (history, new) in asked {
                let afresh = History::from(history.turns());
                prop_assert_eq!(prompt(history, &new, room), prompt(afresh, &new, room));
            }
        }
    }

    #[test]
    fn every_turn_is_found_and_no_other(steps in steps()) {
        let mut course = Course::new();
        steps.into_iter().for_each(|step| course.step(step));
        for turn in &course.accepted {
            prop_assert_eq!(course.document.turn(*turn).and_then(|it| it.turn), Some(*turn));
            let stands = course.document.turns().iter();
            let until = stands.take_while(|it| it.turn != Some(*turn)).count();
            prop_assert_eq!(course.document.until(*turn).turns().len(), until);
        }
        prop_assert!(course.document.turn(TurnId::now()).is_none());
    }
}

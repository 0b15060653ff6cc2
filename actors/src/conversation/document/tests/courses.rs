//! Courses that were once told wrongly, step by step.

use super::{
    telling::{said, take},
    *,
};
use crate::{
    log::entry::{Added, FAILED, IdempotencyKey, VoiceUsed},
    voice::usage::VoiceUsage,
};

fn course(steps: &[Step]) -> Course {
    let mut course = Course::new();
    steps.iter().for_each(|step| course.step(*step));
    course
}

/// Checks that a log that has lost its end gets it back from the copy of the whole.
fn is_given_back(before: &[Step], lost: &[Step]) {
    let mut course = course(before);
    let known = course.entries.len();
    lost.iter().for_each(|step| course.step(*step));
    let copy = parsed(&rendered(&course.entries));
    let mut ours = folded(&course.entries[..known]);
    let now = Timestamp::from_micros(course.clock + 1);

    let offer = adopting::offer(&conversation(), &ours, &copy, now).unwrap();

    take(&mut ours, offer);
    assert_eq!(said(&ours), said(&course.document), "{before:?}, {lost:?}");
    let open = ours.turns().iter().filter(|it| it.is_open()).count();
    assert_eq!(open, 0, "{before:?}, {lost:?}");
    let again = adopting::offer(&conversation(), &ours, &copy, now).unwrap();
    assert_eq!(again, Offer::Nothing);
}

#[test]
fn replies_of_turns_that_waited_are_given_back() {
    use Step::{Fail, Reply, Say};
    is_given_back(&[Say, Say], &[Reply, Reply]);
    is_given_back(&[Say, Say], &[Reply, Reply, Say, Reply]);
    is_given_back(&[Say, Reply, Say, Say, Say], &[Reply, Fail, Reply]);
}

#[test]
fn the_reply_of_a_turn_that_ran_again_is_given_back() {
    use Step::{Fail, Reopen, Reply, Say};
    let failed = [Say, Fail, Say, Reply];
    is_given_back(&failed, &[Reopen(0), Reply]);
    is_given_back(&failed, &[Reopen(0), Reply, Say, Reply]);
    is_given_back(&[Say, Fail, Say, Reply, Reopen(0)], &[Reply]);
    is_given_back(&[Say, Fail], &[Reopen(0), Reply]);
}

#[test]
fn what_an_open_turn_replaced_and_what_waited_behind_it_is_given_back() {
    use Step::{Again, Edit, Reply, Say};
    for replaces in [Again(1), Edit(0)] {
        is_given_back(&[Say, Reply, replaces, Say], &[Reply, Reply]);
        is_given_back(&[Say, Reply, replaces, Say], &[Reply, Reply, Say, Reply]);
        is_given_back(&[Say, replaces], &[Reply, Reply]);
    }
    // The reply that was lost is an alternative of the one that was lost after it.
    is_given_back(&[Say], &[Reply, Again(1), Reply]);
    is_given_back(&[Say, Reply, Say], &[Reply, Again(3), Reply]);
}

#[test]
fn a_turn_that_replaces_and_runs_again_leaves_what_was_accepted_after_it() {
    use Step::{Again, Edit, Fail, Reopen, Reply, Say};
    for replaces in [Again(1), Edit(0)] {
        let course = course(&[Say, Reply, replaces, Fail, Say, Reply, Reopen(0), Reply]);
        let roles: Vec<_> = course
            .document
            .messages()
            .map(StoredMessage::role)
            .collect();
        assert_eq!(roles, [Role::User, Role::Assistant].repeat(2));
        let last = course.document.turns().last().unwrap();
        assert_eq!(last.messages.len(), 2, "{replaces:?}");
        is_given_back(
            &[Say, Reply, replaces, Fail, Say, Reply],
            &[Reopen(0), Reply],
        );
    }
}

#[test]
fn a_turn_that_was_replaced_may_run_again_without_harm() {
    let mut course = course(&[Step::Say, Step::Fail]);
    let (turn, _) = course.failed[0];
    let failed = course.document.turn(turn).unwrap();
    let (at, reply_id) = (failed.messages[0].id(), failed.reply_id.unwrap());
    let message = course.message(Role::User, MessageId::now(), TurnId::now());
    let added = Added {
        at: course.now(),
        replaces: at,
    };
    course.append(EntryHead::Appended(added), &[message]);
    let before = whole(&course.document);
    let reopened = TurnReopened {
        at: course.now(),
        turn,
        attempt: 2,
        model: String::new(),
    };
    course.append(EntryHead::TurnReopened(reopened), &[]);
    let reply = course.message(Role::Assistant, reply_id, turn);
    let ended = TurnEnded {
        at: course.now(),
        turn,
        attempt: 2,
        finish_reason: "stop".to_owned(),
        usage: None,
        error: None,
    };
    course.append(EntryHead::TurnEnded(ended), &[reply]);
    assert_eq!(whole(&course.document), before);
    assert!(!course.document.turn(turn).unwrap().is_open());
    assert_eq!(whole(&folded(&course.entries)), before);
}

#[test]
fn a_key_counts_from_the_last_run_of_its_turn_and_is_kept_while_it_is_open() {
    let mut course = course(&[]);
    let (turn, accepted_at) = (TurnId::now(), course.now());
    let accepted = TurnAccepted {
        at: accepted_at,
        turn,
        reply: MessageId::now(),
        user_id: None,
        character_id: None,
        model: String::new(),
        key: Some(IdempotencyKey {
            scope: String::new(),
            key: "key".to_owned(),
            request: Uuid::nil(),
        }),
        replaces: None,
        owed: Owed::Reply,
    };
    let said = course.message(Role::User, MessageId::now(), turn);
    course.append(EntryHead::TurnAccepted(accepted), &[said]);
    let kept = |course: &Course, since: Timestamp| {
        let found = course.document.keyed("", "key", |_, at| at >= since);
        found.is_some()
    };
    let late = Timestamp::from_micros(1_000);
    let end = |course: &mut Course, attempt| {
        let ended = TurnEnded {
            at: course.now(),
            turn,
            attempt,
            finish_reason: FAILED.to_owned(),
            usage: None,
            error: Some("upstream_error".to_owned()),
        };
        course.append(EntryHead::TurnEnded(ended), &[]);
    };
    assert!(kept(&course, late), "while it is open");
    end(&mut course, 1);
    assert!(kept(&course, accepted_at) && !kept(&course, late));
    let reopened = TurnReopened {
        at: late,
        turn,
        attempt: 2,
        model: String::new(),
    };
    course.append(EntryHead::TurnReopened(reopened), &[]);
    assert!(kept(&course, late.next()), "while it is open");
    end(&mut course, 2);
    assert!(kept(&course, late) && !kept(&course, late.next()));
}

#[test]
fn an_edit_whose_place_was_that_of_one_that_is_lost_is_not_put_elsewhere() {
    use Step::{Again, Edit, Reply, Say};
    // The second edit is one of the first's message, of which the copy shows no reply. Here it is still
    // one of the message that a regenerated reply has cut off.
    let mut course = course(&[Say, Reply, Say, Reply, Again(1), Edit(0)]);
    course.step(Edit(2));
    course.step(Reply);
    let known = course.entries.len();
    for step in [Reply, Reply, Say] {
        course.step(step);
    }
    let copy = parsed(&rendered(&course.entries));
    let ours = folded(&course.entries[..known]);
    let now = Timestamp::from_micros(course.clock + 1);

    let offer = adopting::offer(&conversation(), &ours, &copy, now).unwrap();

    assert_eq!(offer, Offer::Parted);
}

#[test]
fn what_was_spoken_and_heard_is_given_back_as_well() {
    let mut course = course(&[Step::Say, Step::Reply]);
    let known = course.entries.len();
    for usage in [VoiceUsage::spoken(12), VoiceUsage::heard(1.5)] {
        let used = VoiceUsed {
            at: course.now(),
            usage,
        };
        course.append(EntryHead::VoiceUsed(used), &[]);
    }
    let copy = parsed(&rendered(&course.entries));
    assert_eq!(copy.voice_usage, Some(course.document.voice_usage()));
    let mut ours = folded(&course.entries[..known]);
    let now = Timestamp::from_micros(course.clock + 1);

    let offer = adopting::offer(&conversation(), &ours, &copy, now).unwrap();
    take(&mut ours, offer);

    assert_eq!(ours.voice_usage(), course.document.voice_usage());
    assert_eq!(whole(&ours), whole(&course.document));
    let again = adopting::offer(&conversation(), &ours, &copy, now).unwrap();
    assert_eq!(again, Offer::Nothing);
}

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::{
    conversation::{
        document::{TurnRecord, TurnState},
        event::{Cursor, EventBody, Outcome, Received},
        stream::TurnStream,
    },
    id::{MessageId, TurnId},
    json_text::JsonText,
    log::entry::TurnEnded,
    time::Timestamp,
};

fn outcome() -> Arc<Outcome> {
    Arc::new(Outcome {
        finish_reason: "stop".into(),
        native_finish_reason: None,
        reply: None,
        reasoning: None,
        usage: None,
        head: Arc::default(),
        timestamp: Timestamp::from_micros(1),
        error: None,
    })
}

fn shown(streams: &mut Streams) -> u64 {
    let ordinal = streams.push(TurnStream::new(TurnId::now(), MessageId::now()));
    streams.get_mut(ordinal).unwrap().show(Received::default());
    ordinal
}

#[derive(Debug, Clone)]
enum Step {
    Token,
    Credit(usize, u32),
}

proptest! {
    #[test]
    fn no_order_of_tokens_and_credits_overruns_a_window_or_loses_text(
        steps in prop::collection::vec(
            prop_oneof![Just(Step::Token), (0usize..3, 1u32..4).prop_map(|(who, n)| Step::Credit(who, n))], 0..80)
    ) {
        let now = Instant::now();
        let mut streams = Streams::new(1);
        let ordinal = shown(&mut streams);
        let seen: RefCell<[Vec<Arc<Event>>; 3]> = RefCell::default();
        let mut subscribers = Subscribers::default();
        let start = Position { ordinal, ..Position::default() };
        let interests = [Interest::All, Interest::Turn(ordinal), Interest::Outcome(ordinal)];
        let keys = interests.map(|interest| {
            let index = interests.iter().position(|other| *other == interest).unwrap();
            subscribers.add(index, interest, start, 2)
        });
        let mut granted = [2_usize; 3];
        let send = |who: &usize, event: Arc<Event>| { seen.borrow_mut()[*who].push(event); Sent::Yes };
        let mut tokens = 0;
        for step in steps {
            match step {
                Step::Token => {
                    streams.get_mut(ordinal).unwrap().push_text(JsonText::escape("ab"));
                    tokens += 1;
                    subscribers.pump_all(&mut streams, 64, now, send);
                }
                Step::Credit(who, events) => {
                    subscribers.credit(keys[who], events);
                    granted[who] += events as usize;
                    subscribers.pump(keys[who], &mut streams, 64, now, send);
                }
            }
            for (seen, granted) in seen.borrow().iter().zip(granted) {
                prop_assert!(seen.len() <= granted);
            }
        }
        streams.get_mut(ordinal).unwrap().end(outcome());
        for key in keys {
            subscribers.credit(key, 1_000);
            subscribers.pump(key, &mut streams, 64, now, send);
        }
        prop_assert_eq!(subscribers.len(), 1, "only the watcher stays");
        let seen = seen.borrow();
        for who in [0, 1] {
            let text: usize = seen[who].iter().map(|event| match &event.body {
                EventBody::Text { text, .. } => text.decoded_len(),
                EventBody::Received(_) | EventBody::Started { .. } | EventBody::Reasoning { .. } | EventBody::Delta { .. }
                | EventBody::Finish { .. } | EventBody::Usage { .. } | EventBody::Seam { .. } | EventBody::Ended(_) | EventBody::Cut { .. } => 0,
            }).sum();
            prop_assert_eq!(text, tokens * 2);
        }
        prop_assert_eq!(seen[2].len(), 1);
        prop_assert!(seen[2][0].is_last());
    }
}

#[test]
fn watchers_at_one_place_share_the_event() {
    let mut streams = Streams::new(1);
    let ordinal = shown(&mut streams);
    let seen: RefCell<Vec<Arc<Event>>> = RefCell::default();
    let mut subscribers = Subscribers::default();
    for _ in 0..3 {
        let start = Position {
            ordinal,
            ..Position::default()
        };
        subscribers.add((), Interest::All, start, 9);
    }
    subscribers.pump_all(&mut streams, 64, Instant::now(), |_, event| {
        seen.borrow_mut().push(event);
        Sent::Yes
    });
    let seen = seen.borrow();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|event| Arc::ptr_eq(event, &seen[0])));
}

/// A turn of the history.
fn record() -> TurnRecord {
    let ended = TurnEnded {
        at: Timestamp::from_micros(1),
        turn: TurnId::now(),
        attempt: 1,
        finish_reason: "stop".into(),
        usage: None,
        error: None,
    };
    TurnRecord {
        turn: Some(ended.turn),
        reply_id: Some(MessageId::now()),
        messages: smallvec::SmallVec::new(),
        runs: smallvec::SmallVec::from_iter([1]),
        state: TurnState::Ended(Box::new(ended)),
        key: None,
        branch: None,
    }
}

/// That a turn was cut.
fn cut(turn: TurnId) -> Arc<Event> {
    let body = EventBody::Cut {
        offset: 3,
        unsaid: JsonText::escape("more"),
    };
    Arc::new(Event::new(turn, MessageId::now(), Cursor::START, body))
}

#[test]
fn a_turn_that_is_told_again_to_one_is_not_told_again_to_those_who_watch() {
    let record = record();
    let mut streams = Streams::new(1);
    let seen: RefCell<Vec<(&str, TurnId)>> = RefCell::default();
    let send = |who: &&'static str, event: Arc<Event>| {
        seen.borrow_mut().push((*who, event.turn));
        Sent::Yes
    };
    let mut subscribers = Subscribers::default();
    let at = |ordinal| Position {
        ordinal,
        ..Position::default()
    };
    // One that waits for the next turn, and one that reads the same again first.
    subscribers.add("watches", Interest::All, at(0), 99);
    let before = shown(&mut streams);
    streams.get_mut(before).unwrap().end(outcome());
    subscribers.pump_all(&mut streams, 64, Instant::now(), send);
    for (who, interest) in [("asks", Interest::History), ("resumes", Interest::All)] {
        let key = subscribers.add(who, interest, at(1), 99);
        let told = TurnStream::from_record(&record).unwrap();
        subscribers.tell_first(key, Backlog::of(told, Position::default()).unwrap());
    }
    subscribers.pump_all(&mut streams, 64, Instant::now(), send);
    let after = shown(&mut streams);
    subscribers.pump_all(&mut streams, 64, Instant::now(), send);

    let turns_of = |who| {
        let mut turns: Vec<_> = seen
            .borrow()
            .iter()
            .filter(|it| it.0 == who)
            .map(|it| it.1)
            .collect();
        turns.dedup();
        turns
    };
    let turn_at = |ordinal| streams.get(ordinal).unwrap().turn();
    let told = record.turn.unwrap();
    assert_eq!(turns_of("asks"), [told]);
    assert_eq!(turns_of("resumes"), [told, turn_at(after)]);
    assert_eq!(turns_of("watches"), [turn_at(before), turn_at(after)]);
    assert_eq!(subscribers.len(), 2);
}

#[test]
fn what_is_told_beside_the_turns_is_told_to_watchers_within_their_credit() {
    let mut streams = Streams::new(1);
    let ordinal = shown(&mut streams);
    let mut subscribers: Subscribers<&str> = Subscribers::default();
    let at = Position::default();
    let watcher = subscribers.add("watches", Interest::All, at, 0);
    subscribers.add("waits for its turn", Interest::Turn(ordinal), at, 9);
    subscribers.tell_watchers(&cut(TurnId::now()));
    let told = RefCell::new(Vec::new());
    let send = |who: &&'static str, event: Arc<Event>| {
        let is_cut = matches!(event.body, EventBody::Cut { .. });
        told.borrow_mut().push((*who, is_cut));
        Sent::Yes
    };
    subscribers.pump_all(&mut streams, 64, Instant::now(), send);
    assert!(subscribers.anyone_waits());
    assert!(told.borrow().iter().all(|(who, _)| *who != "watches"));

    told.borrow_mut().clear();
    subscribers.credit(watcher, 9);
    subscribers.pump_all(&mut streams, 64, Instant::now(), send);

    let told = told.into_inner();
    assert_eq!(told[0], ("watches", true));
    assert_eq!(told.iter().filter(|(_, is_cut)| *is_cut).count(), 1);
    assert!(told[1..].contains(&("watches", false)));
}

#[test]
fn what_was_cut_is_told_behind_a_turn_that_is_told_whole() {
    let record = record();
    let mut streams = Streams::new(1);
    let mut subscribers: Subscribers<()> = Subscribers::default();
    let key = subscribers.add((), Interest::All, Position::default(), 99);
    let told = TurnStream::from_record(&record).unwrap();
    subscribers.tell_first(key, Backlog::of(told, Position::default()).unwrap());
    subscribers.tell_watchers(&cut(record.turn.unwrap()));
    let mut seen = Vec::new();
    subscribers.pump_all(&mut streams, 64, Instant::now(), |(), event| {
        seen.push(event);
        Sent::Yes
    });
    let cuts = seen
        .iter()
        .map(|it| matches!(it.body, EventBody::Cut { .. }));
    let cuts: Vec<_> = cuts.collect();
    assert!(cuts.len() > 1 && cuts.iter().position(|it| *it) == Some(cuts.len() - 1));
}

#[test]
fn only_those_who_stopped_reading_are_stalled() {
    let start = Instant::now();
    let later = start + Duration::from_secs(60);
    let mut streams = Streams::new(1);
    let ordinal = shown(&mut streams);
    let mut subscribers = Subscribers::default();
    let position = Position {
        ordinal,
        ..Position::default()
    };
    subscribers.add("reads", Interest::All, position, 100);
    subscribers.add("stopped", Interest::All, position, 1);
    subscribers.add("held", Interest::All, position, 0);
    streams
        .get_mut(ordinal)
        .unwrap()
        .push_text(JsonText::escape("x"));
    subscribers.pump_all(&mut streams, 64, start, |_, _| Sent::Yes);
    assert!(subscribers.anyone_waits());
    assert!(
        subscribers
            .take_stalled(start, Duration::from_secs(60), 0)
            .is_empty()
    );
    assert_eq!(
        subscribers.take_stalled(later, Duration::from_secs(60), 0),
        ["stopped"]
    );
    assert_eq!(subscribers.len(), 2);
}

#[test]
fn who_reads_now_and_then_holds_no_more_turns_than_are_told_again() {
    let now = Instant::now();
    let mut streams = Streams::new(1);
    let first = shown(&mut streams);
    let mut subscribers = Subscribers::default();
    let position = Position {
        ordinal: first,
        ..Position::default()
    };
    subscribers.add("trickles", Interest::All, position, 1);
    streams.get_mut(first).unwrap().end(outcome());
    subscribers.pump_all(&mut streams, 64, now, |_, _| Sent::Yes);
    let long = Duration::from_secs(60);
    assert!(subscribers.take_stalled(now, long, first).is_empty());
    assert_eq!(subscribers.take_stalled(now, long, first + 1), ["trickles"]);
}

//! Any course of turns, regenerations and edits, against what must hold of every history.

mod courses;
mod prompts;
mod telling;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use uuid::Uuid;

use self::telling::{Taken, is_beyond_telling, said, take};
use super::*;
use crate::{
    adopting::{self, Offer},
    conversation::message::{Draft, Role, Stamp},
    id::ConversationId,
    importing,
    json_text::JsonText,
    log::{
        Loaded,
        entry::{
            Begun, CANCELLED, Entry, EntryHead, Heard, INTERRUPTED, Owed, Prepended, TurnAccepted,
            TurnEnded, TurnReopened,
        },
    },
    mirror::{Render as _, imported::ImportedDocument},
    rendering::DocumentRenderer,
};

/// Something that happens to a conversation. Numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A user says something.
    Say,
    /// A reply is to be made again.
    Again(usize),
    /// A message is to be edited.
    Edit(usize),
    /// The turn that was accepted first ends, with a reply.
    Reply,
    /// The same, without.
    Fail,
    /// A turn that ended without a reply runs again, if no turn that replaces is under way.
    Reopen(usize),
    /// So many bytes of a reply turn out to have been heard.
    Hear(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Say),
        2 => (0usize..99).prop_map(Step::Again),
        2 => (0usize..99).prop_map(Step::Edit),
        6 => Just(Step::Reply),
        1 => Just(Step::Fail),
        1 => (0usize..99).prop_map(Step::Reopen),
        2 => (0usize..99, 0usize..20).prop_map(|(which, bytes)| Step::Hear(which, bytes)),
    ];
    prop::collection::vec(step, 0..40)
}

/// A conversation that is written as its actor writes it.
struct Course {
    clock: i64,
    entries: Vec<Entry>,
    document: Document,
    /// Turns to be answered, in order.
    queue: Vec<(TurnId, u32)>,
    failed: Vec<(TurnId, u32)>,
    /// All turns, in the order in which they were accepted.
    accepted: Vec<TurnId>,
    /// What a turn with a reply took out of the document, if the turn replaces.
    taken: Vec<Taken>,
    /// Every message that ever stood in the document.
    stood: HashSet<MessageId>,
}

impl Course {
    fn new() -> Self {
        let begun = Entry {
            head: EntryHead::Begun(Begun {
                at: Timestamp::from_micros(1),
                incarnation: 7,
                user_id: None,
                character_id: None,
                imported_updated_at: None,
                voice_usage: None,
                unverified: false,
            }),
            messages: vec![],
        };
        Self {
            clock: 1,
            document: Document::begin(&begun, 1).unwrap(),
            entries: vec![begun],
            queue: Vec::new(),
            failed: Vec::new(),
            accepted: Vec::new(),
            taken: Vec::new(),
            stood: HashSet::new(),
        }
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::from_micros(self.clock)
    }

    fn message(&mut self, role: Role, id: MessageId, turn: TurnId) -> StoredMessage {
        let text = format!("{} \"é\" {}", role.as_str(), self.clock);
        let stamp = Stamp {
            timestamp: self.now(),
            id,
            turn: Some(turn),
            model: None,
            finish_reason: None,
            models: &[],
        };
        StoredMessage::new(&Draft::text(role, JsonText::escape(&text)), &stamp)
    }

    fn append(&mut self, head: EntryHead, messages: &[StoredMessage]) {
        let entry = Entry {
            head,
            messages: messages.iter().map(StoredMessage::whole).collect(),
        };
        self.document.apply(&entry).unwrap();
        self.entries.push(entry);
        let ids = self.document.messages().filter_map(StoredMessage::id);
        self.stood.extend(ids);
    }

    fn accept(&mut self, says: bool, replaces: Option<MessageId>) {
        let (turn, at) = (TurnId::now(), self.now());
        let said = says.then(|| self.message(Role::User, MessageId::now(), turn));
        let accepted = EntryHead::TurnAccepted(TurnAccepted {
            at,
            turn,
            reply: MessageId::now(),
            user_id: None,
            character_id: None,
            model: String::new(),
            key: None,
            replaces,
            owed: Owed::Reply,
        });
        let said: Vec<_> = said.into_iter().collect();
        self.append(accepted, &said);
        self.accepted.push(turn);
        self.queue.push((turn, 1));
    }

    fn replace(&mut self, which: usize, kind: Kind) {
        let mut all: Vec<_> = self.stood.iter().copied().collect();
        all.sort();
        let Some(at) = all.get(which % all.len().max(1)) else {
            return;
        };
        if let Ok(at) = self.document.replaceable(Some(*at), kind) {
            self.accept(kind == Kind::Message, Some(at));
        }
    }

    fn end(&mut self, replies: bool) {
        if self.queue.is_empty() {
            return;
        }
        let (turn, attempt) = self.queue.remove(0);
        let before = ids(&self.document);
        let roles: HashMap<_, _> = self
            .document
            .messages()
            .map(|it| (it.id(), it.role()))
            .collect();
        let later = self.said_after(turn);
        let record = self.document.turn(turn).unwrap().clone();
        let told = self.document.replacing(&record);
        let reply_id = record.reply_id.unwrap();
        let reply = replies.then(|| self.message(Role::Assistant, reply_id, turn));
        let ended = EntryHead::TurnEnded(TurnEnded {
            at: self.now(),
            turn,
            attempt,
            finish_reason: if replies { "stop" } else { INTERRUPTED }.to_owned(),
            usage: None,
            error: None,
        });
        let reply: Vec<_> = reply.into_iter().collect();
        self.append(ended, &reply);
        let after = ids(&self.document);
        match (told, replies) {
            (_, false) => {
                assert_eq!(after, before, "a turn without a reply changes nothing");
                self.failed.push((turn, attempt));
            }
            (None, true) => {
                let kept: Vec<_> = after.iter().filter(|id| **id != reply_id).collect();
                assert_eq!(kept, before.iter().collect::<Vec<_>>());
            }
            (Some(told), true) => {
                let stays = told.after.map_or(0, |after| {
                    before.iter().position(|id| *id == after).unwrap() + 1
                });
                assert_eq!(after[..stays], before[..stays], "what is before it stays");
                if let Some(replaced) = told.message {
                    assert_eq!(before[stays], replaced);
                    assert!(!after.contains(&replaced));
                    let here = self.document.messages().nth(stays).unwrap();
                    let last = here.alternatives().last().and_then(StoredMessage::id);
                    assert_eq!(last, Some(replaced));
                }
                let accepted = record.branch.unwrap().own.len();
                assert_eq!(after[stays + accepted], reply_id);
                assert!(
                    later.iter().all(|id| after.contains(id)),
                    "what was accepted later stays"
                );
                let gone = before.iter().filter(|id| !after.contains(id));
                self.taken.push(Taken {
                    turn,
                    reply: reply_id,
                    messages: gone.map(|id| (*id, roles[&Some(*id)])).collect(),
                });
            }
        }
    }

    /// Messages of turns that were accepted after this one.
    fn said_after(&self, turn: TurnId) -> Vec<MessageId> {
        let mut accepted = self.accepted.iter();
        accepted.by_ref().find(|it| **it == turn);
        let later: HashSet<_> = accepted.collect();
        let records = self.document.turns().iter();
        let records = records.filter(|it| it.turn.is_some_and(|turn| later.contains(&turn)));
        let messages = records.flat_map(|it| &it.messages);
        messages.filter_map(StoredMessage::id).collect()
    }

    fn hear(&mut self, which: usize, bytes: usize) {
        let replies = self.document.turns().iter();
        let replies: Vec<_> = replies
            .filter_map(|it| Some((it.turn?, it.reply()?)))
            .collect();
        let Some((turn, reply)) = replies.get(which % replies.len().max(1)) else {
            return;
        };
        let (turn, before, heard) = (*turn, (*reply).clone(), reply.heard(bytes));
        let entry = EntryHead::Heard(Heard {
            at: self.now(),
            turn,
            reply: before.id().unwrap(),
            bytes,
        });
        let others = whole(&self.document).into_iter();
        let others: Vec<_> = others.filter(|it| *it != before.whole()).collect();
        self.append(entry, &[]);
        let record = self.document.turn(turn).unwrap();
        assert_eq!(record.reply(), heard.as_ref().or(Some(&before)));
        if let (Some(_), TurnState::Ended(ended)) = (heard, &record.state) {
            assert_eq!(ended.finish_reason, CANCELLED);
        }
        let after = whole(&self.document);
        assert!(others.iter().all(|it| after.contains(it)), "others stay");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Hear(which, bytes) => self.hear(which, bytes),
            Step::Say => self.accept(true, None),
            Step::Again(which) => self.replace(which, Kind::Reply),
            Step::Edit(which) => self.replace(which, Kind::Message),
            Step::Reply => self.end(true),
            Step::Fail => self.end(false),
            Step::Reopen(which) => {
                let turns = self.document.turns();
                let replacing = turns.iter().any(|it| it.is_open() && it.branch.is_some());
                if self.failed.is_empty() || replacing {
                    return;
                }
                let (turn, attempt) = self.failed.remove(which % self.failed.len());
                if self.document.was_replaced(turn) {
                    return;
                }
                let reopened = EntryHead::TurnReopened(TurnReopened {
                    at: self.now(),
                    turn,
                    attempt: attempt + 1,
                    model: String::new(),
                });
                self.append(reopened, &[]);
                self.queue.push((turn, attempt + 1));
            }
        }
    }
}

fn ids(document: &Document) -> Vec<MessageId> {
    document.messages().filter_map(StoredMessage::id).collect()
}

fn conversation() -> ConversationId {
    ConversationId::parse("c1").unwrap()
}

/// The document of these entries, as a mirror writes it.
fn rendered(entries: &[Entry]) -> String {
    let renderer = DocumentRenderer {
        log: Uuid::from_u128(1),
    };
    let loaded = Loaded {
        first_seq: 1,
        entries: entries.to_vec(),
        partials: vec![],
    };
    let rendered = renderer.render(&conversation(), loaded).unwrap();
    rendered.json.concat()
}

fn parsed(text: &str) -> ImportedDocument {
    ImportedDocument::parse(&conversation(), text.as_bytes()).unwrap()
}

fn folded(entries: &[Entry]) -> Document {
    match Document::fold(1, entries).unwrap() {
        Folded::Here(document) => *document,
        Folded::Over { .. } => panic!("it has a document"),
    }
}

fn whole(document: &Document) -> Vec<Arc<str>> {
    document.messages().map(StoredMessage::whole).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_replaced_stays_known_and_a_reload_shows_the_same(steps in steps()) {
        let mut course = Course::new();
        for step in steps {
            course.step(step);
            let document = &course.document;
            let here = ids(document);
            let distinct: HashSet<_> = here.iter().collect();
            prop_assert_eq!(distinct.len(), here.len(), "each message stands once");
            let times: Vec<_> = document.messages().map(StoredMessage::timestamp).collect();
            prop_assert!(times.is_sorted(), "{:?}", times);
            let snapshot = document.snapshot();
            for id in &course.stood {
                let after = snapshot.after(*id);
                let expected = here.iter().position(|it| it == id).map(|index| index + 1);
                prop_assert!(after.is_some(), "{} is not known any more", id);
                prop_assert!(expected.is_none() || after == expected);
                prop_assert!(expected.is_some() || after < Some(here.len()), "nothing replaced it");
            }
        }
        let again = folded(&course.entries);
        prop_assert_eq!(whole(&again), whole(&course.document));
        prop_assert_eq!(again.snapshot().heirs, course.document.snapshot().heirs);
        prop_assert_eq!(again.bytes(), course.document.bytes());
    }

    #[test]
    fn an_import_of_an_export_says_the_same_and_is_known(steps in steps()) {
        let mut course = Course::new();
        steps.into_iter().for_each(|step| course.step(step));
        let copy = parsed(&rendered(&course.entries));
        prop_assert!(!copy.says_more());

        let entry = importing::entry_of(&conversation(), &copy).unwrap();

        let imported = folded(&[entry]);
        prop_assert_eq!(whole(&imported), whole(&course.document));
        let now = Timestamp::from_micros(9);
        for known in [&imported, &course.document] {
            let offer = adopting::offer(&conversation(), known, &copy, now).unwrap();
            prop_assert_eq!(offer, Offer::Nothing);
        }
    }

    #[test]
    fn a_copy_from_before_has_nothing_more_and_one_from_after_gives_what_it_shows(
        steps in steps(), cut in 0.0..1.0_f64,
    ) {
        let mut course = Course::new();
        steps.into_iter().for_each(|step| course.step(step));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let before = 1 + ((course.entries.len() - 1) as f64 * cut) as usize;
        let (earlier, later) = (&course.entries[..before], &course.entries);
        let now = Timestamp::from_micros(course.clock + 1);

        let old = parsed(&rendered(earlier));
        let offer = adopting::offer(&conversation(), &folded(later), &old, now).unwrap();
        prop_assert_eq!(offer, Offer::Nothing);

        let new = parsed(&rendered(later));
        let mut lost = folded(earlier);
        let offer = adopting::offer(&conversation(), &lost, &new, now).unwrap();
        if offer == Offer::Parted {
            // Both are kept.
            prop_assert!(is_beyond_telling(&course, earlier), "{:?}", course.taken);
            return Ok(());
        }
        take(&mut lost, offer);
        prop_assert_eq!(said(&lost), said(&folded(later)));
    }
}

//! What a copy tells of what was replaced.

use super::*;

/// What a turn that replaces took out of the document.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) turn: TurnId,
    pub(super) reply: MessageId,
    pub(super) messages: Vec<(MessageId, Role)>,
}

/// Whether a log that has lost all but these entries cannot tell from a copy what was replaced of
/// what it shows: by turns that it does not know, or whose reply was replaced without a trace; in more
/// than one exchange, or where no alternative names it.
pub(super) fn is_beyond_telling(course: &Course, known: &[Entry]) -> bool {
    let turns: HashSet<_> = known.iter().filter_map(|it| it.head.turn()).collect();
    let ends = known.iter().filter_map(|it| match &it.head {
        EntryHead::TurnEnded(ended) if !it.messages.is_empty() => Some(ended.turn),
        _ => None,
    });
    let ended: HashSet<_> = ends.collect();
    let shown: Vec<_> = course.document.messages().collect();
    let named = shown.iter().flat_map(|it| it.alternatives());
    let named: HashSet<_> = named.filter_map(StoredMessage::id).collect();
    let shown: HashSet<_> = shown.iter().filter_map(|it| it.id()).collect();
    let before: HashSet<_> = ids(&folded(known)).into_iter().collect();
    let taken = |it: &Taken| -> Vec<_> {
        let messages = it.messages.iter();
        messages
            .copied()
            .filter(|(id, _)| before.contains(id))
            .collect()
    };
    let traced = |it: &Taken| shown.contains(&it.reply) || named.contains(&it.reply);
    let lost = course.taken.iter().filter(|it| !ended.contains(&it.turn));
    let (known, unknown): (Vec<_>, Vec<_>) = lost.partition(|it| turns.contains(&(it.turn, 1)));
    if known.iter().any(|it| !traced(it) && !taken(it).is_empty()) {
        return true;
    }
    let gone: Vec<_> = unknown.into_iter().flat_map(taken).collect();
    let is_told = |first: &MessageId| {
        let mut others = gone.iter().filter(|(id, _)| id != first);
        named.contains(first) && others.all(|(_, role)| *role != Role::User)
    };
    !gone.is_empty() && !gone.iter().any(|(id, _)| is_told(id))
}

/// Does what a copy was found to offer.
pub(super) fn take(ours: &mut Document, offer: Offer) {
    match offer {
        Offer::Nothing => {}
        Offer::Parted => panic!("it has parted"),
        Offer::Entries(entries) => {
            for (head, messages) in entries {
                let messages = messages.iter().map(StoredMessage::whole).collect();
                ours.apply(&Entry { head, messages }).unwrap();
            }
        }
    }
}

pub(super) fn said(document: &Document) -> Vec<(Option<MessageId>, String)> {
    let messages = document.messages();
    messages
        .map(|it| (it.id(), it.comparable().to_owned()))
        .collect()
}

//! Puts a chat-completions request together from stored fragments. Pure.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    document::{History, TurnRecord, Windowed},
    message::{Draft, Role, StoredMessage, estimate_tokens},
};
use crate::{
    json_text::JsonText,
    provider::{ChatBody, Places},
};

/// How a reply is asked for; everything but the messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// Model to ask.
    pub model: String,
    /// Models to ask when it fails, in this order.
    pub fallbacks: Vec<String>,
    /// The instructions that stand before the history.
    pub system: JsonText,
    /// Tokens kept free for the reply.
    pub max_tokens: u32,
    /// Further members of the request body, serialized: `"temperature":0.7,"max_tokens":1000`.
    pub members: String,
}

/// Assembles the request body: `[system] + history without system messages + new messages`.
///
/// The history fits `context_tokens` less `max_tokens`, by estimate; the system prompt and the new
/// messages always stay. Where it has no room it is cut from the oldest whole turn on, in large steps,
/// so that prompts begin alike from turn to turn. Costs a look at each turn that the history was not
/// asked for before, and the bytes of the window.
#[must_use]
pub fn assemble(
    parameters: &Parameters,
    history: History<'_>,
    new: &[StoredMessage],
    context_tokens: u32,
) -> ChatBody {
    let window = window(parameters, history, new, context_tokens);
    let messages = || {
        window
            .iter()
            .flat_map(|turn| &turn.messages)
            .chain(new)
            // Strict upstreams refuse a message that says nothing.
            .filter(|message| message.role() != Role::System && !message.is_silent())
    };
    let bytes: usize = messages()
        .map(|message| message.prompt_prefix().len() + 2)
        .sum();
    let mut body = String::with_capacity(
        bytes + parameters.system.as_escaped().len() + parameters.members.len() + 256,
    );
    body.push_str("{\"model\":\"");
    let model_start = body.len();
    body.push_str(JsonText::escape(&parameters.model).as_escaped());
    let model = model_start..body.len();
    body.push_str("\",\"messages\":[");
    let mut separate = false;
    if !parameters.system.is_empty() {
        body.push_str("{\"role\":\"system\",\"content\":\"");
        body.push_str(parameters.system.as_escaped());
        body.push_str("\"}");
        separate = true;
    }
    for message in messages() {
        if separate {
            body.push(',');
        }
        separate = true;
        body.push_str(message.prompt_prefix());
        body.push('}');
    }
    let messages_end = body.len();
    body.push(']');
    let mut max_tokens = None;
    if !parameters.members.is_empty() {
        body.push(',');
        max_tokens = digits_of_max_tokens(parameters, body.len());
        body.push_str(&parameters.members);
    }
    // Servers other than OpenRouter tell the usage only when asked.
    body.push_str(",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    let places = Places {
        model,
        messages_end,
        max_tokens,
    };
    ChatBody::new(body, places)
}

/// Where in the body the digits of `max_tokens` stand, if the members begin at `start`.
///
/// The members are a list made here, with `max_tokens` before anything that a client wrote.
fn digits_of_max_tokens(parameters: &Parameters, start: usize) -> Option<std::ops::Range<usize>> {
    const NAME: &str = "\"max_tokens\":";
    let digits = parameters.max_tokens.to_string();
    let from = parameters.members.find(NAME)? + NAME.len();
    let is_whole = parameters.members.get(from..)?.strip_prefix(&digits)?;
    let ends = is_whole.is_empty() || is_whole.starts_with(',');
    ends.then_some(start + from..start + from + digits.len())
}

/// The turns that stand in the prompt: from one turn on, all.
///
/// When they have no room any more, the oldest go until a quarter is free again, so that the prompts
/// of the turns that follow begin with the same bytes, which upstreams keep in a cache. Where the
/// cuts are follows from the history alone: what was sent for each of its turns is gone through.
fn window<'a>(
    parameters: &Parameters,
    history: History<'a>,
    new: &[StoredMessage],
    context_tokens: u32,
) -> &'a [TurnRecord] {
    let fixed = u64::from(estimate_tokens(parameters.system.as_escaped()))
        + u64::from(parameters.max_tokens);
    let room = u64::from(context_tokens).saturating_sub(fixed);
    let known = history.windowed(room).unwrap_or(Windowed {
        room,
        turns: 0,
        start: 0,
        tokens: 0,
    });
    let turns = history.turns();
    let mut window = Window {
        history: turns,
        room,
        start: known.start,
        tokens: known.tokens,
    };
    for (index, turn) in turns.iter().enumerate().skip(known.turns) {
        window.cut_for(index, turn.received());
        window.tokens += tokens(&turn.messages);
    }
    history.remember(Windowed {
        room,
        turns: turns.len(),
        start: window.start,
        tokens: window.tokens,
    });
    window.cut_for(turns.len(), new);
    &turns[window.start..]
}

fn tokens(messages: &[StoredMessage]) -> u64 {
    messages
        .iter()
        .map(|message| u64::from(message.tokens()))
        .sum()
}

/// The turns from `start` on.
struct Window<'a> {
    history: &'a [TurnRecord],
    /// Tokens for the history and what is asked.
    room: u64,
    start: usize,
    /// Tokens of the turns from `start` to the one that is looked at.
    tokens: u64,
}

impl Window<'_> {
    /// Cuts the turns before `end` so that what is asked then has room.
    fn cut_for(&mut self, end: usize, asked: &[StoredMessage]) {
        // Without new messages the turn before holds what is to be answered: it stays.
        // A turn that replaces has no messages there yet.
        let before = self.history[..end]
            .iter()
            .rposition(|turn| !turn.messages.is_empty());
        let (end, asked, stays) = match (asked, before) {
            ([], Some(before)) if before >= self.start => {
                let stays = tokens(&self.history[before].messages);
                (before, stays, stays)
            }
            _ => (end, tokens(asked), 0),
        };
        self.tokens -= stays;
        if self.tokens + asked > self.room {
            let left = self.room.saturating_sub(asked) * 3 / 4;
            while self.start < end && self.tokens > left {
                self.tokens -= tokens(&self.history[self.start].messages);
                self.start += 1;
            }
        }
        self.tokens += stays;
    }
}

/// How many of the drafts at the start repeat the end of the history.
///
/// Clients that keep the conversation themselves send it whole each time. The longest run at the
/// start of `drafts` that equals (role, content) the end of the history is theirs and ours. Of a
/// reply that was heard in part they may have all. Linear in the number of drafts, for each reply
/// that was heard in part.
#[must_use]
pub fn repeated(history: &[TurnRecord], drafts: &[Draft]) -> usize {
    if drafts.is_empty() {
        return 0;
    }
    let wanted: Vec<String> = drafts.iter().map(Draft::comparable).collect();
    let mut tail: Vec<Cow<'_, str>> = history
        .iter()
        .rev()
        .flat_map(|turn| turn.messages.iter().rev())
        .filter(|message| message.role() != Role::System)
        .take(drafts.len())
        .map(|message| match message.uncut() {
            Cow::Owned(uncut) if wanted.contains(&uncut) => uncut.into(),
            Cow::Owned(_) | Cow::Borrowed(_) => message.comparable().into(),
        })
        .collect();
    tail.reverse();
    // The prefix function of the drafts (Knuth, Morris, Pratt), run over the end of the history.
    let mut fallback = vec![0_usize; wanted.len()];
    let mut matched = 0;
    for index in 1..wanted.len() {
        while matched > 0 && wanted[index] != wanted[matched] {
            matched = fallback[matched - 1];
        }
        matched += usize::from(wanted[index] == wanted[matched]);
        fallback[index] = matched;
    }
    let mut matched = 0;
    for message in tail {
        while matched > 0 && (matched == wanted.len() || wanted[matched] != message) {
            matched = fallback[matched - 1];
        }
        matched += usize::from(wanted[matched] == message);
    }
    matched
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::SmallVec;

    use super::*;
    use crate::{
        conversation::{document::TurnState, message::Stamp},
        id::MessageId,
        time::Timestamp,
    };

    fn draft(role: Role, text: &str) -> Draft {
        Draft::text(role, JsonText::escape(text))
    }

    fn stored(role: Role, text: &str) -> StoredMessage {
        let stamp = Stamp {
            timestamp: Timestamp::from_micros(1),
            id: MessageId::now(),
            turn: None,
            model: None,
            models: &[],
            finish_reason: None,
        };
        StoredMessage::new(&draft(role, text), &stamp)
    }

    fn turn(messages: &[(Role, &str)]) -> TurnRecord {
        TurnRecord {
            runs: SmallVec::from_iter([1]),
            turn: None,
            reply_id: None,
            messages: messages
                .iter()
                .map(|(role, text)| stored(*role, text))
                .collect::<SmallVec<_>>(),
            state: TurnState::Imported,
            key: None,
            branch: None,
        }
    }

    fn parameters(max_tokens: u32) -> Parameters {
        Parameters {
            model: "m".into(),
            fallbacks: Vec::new(),
            system: JsonText::escape("Be \"kind\"."),
            max_tokens,
            members: format!("\"temperature\":0.7,\"max_tokens\":{max_tokens}"),
        }
    }

    fn texts(body: &ChatBody) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(body.json()).unwrap();
        let messages = body["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|message| message["content"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn each_message_stands_once_and_in_order() {
        let history = [turn(&[
            (Role::System, "old rules"),
            (Role::User, "one"),
            (Role::Assistant, "two"),
        ])];
        let body = assemble(
            &parameters(10),
            history.as_slice().into(),
            &[stored(Role::User, "three")],
            8_192,
        );
        assert_eq!(texts(&body), ["Be \"kind\".", "one", "two", "three"]);
        let value: serde_json::Value = serde_json::from_slice(body.json()).unwrap();
        assert_eq!(value["temperature"], 0.7);
        assert_eq!(value["stream"], true);
        assert_eq!(value["messages"][1].as_object().unwrap().len(), 2);
    }

    #[test]
    fn the_same_request_can_be_made_of_another_model_and_go_on_with_a_reply() {
        let new = [stored(Role::User, "hi \"]}")];
        let body = assemble(&parameters(100), [].as_slice().into(), &new, 8_192);
        let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let mut expected = value(body.json());
        assert_eq!(expected["max_tokens"], 100);
        expected["model"] = "n".into();
        assert_eq!(value(&body.asking("n")), expected);
        expected["max_tokens"] = 60.into();
        let messages = expected["messages"].as_array_mut().unwrap();
        messages.push(serde_json::json!({"role": "assistant", "content": "so far"}));
        assert_eq!(
            value(&body.continuing("n", "so far", 40).unwrap()),
            expected
        );
    }

    #[test]
    fn the_oldest_whole_turns_are_cut_first() {
        let long = "x".repeat(400);
        let history: Vec<_> = (0..10)
            .map(|_| turn(&[(Role::User, &long), (Role::Assistant, &long)]))
            .collect();
        let body = assemble(
            &parameters(100),
            history.as_slice().into(),
            &[stored(Role::User, "now")],
            800,
        );
        // 800 - 100 for the reply hold three turns of about 223; after a cut a quarter is free.
        assert_eq!(texts(&body).len(), 1 + 2 * 2 + 1);
    }

    #[test]
    fn what_is_to_be_answered_stays_even_in_no_room() {
        let history = [
            turn(&[(Role::User, "older")]),
            turn(&[(Role::User, "unanswered")]),
        ];
        let body = assemble(&parameters(1_000), history.as_slice().into(), &[], 10);
        assert_eq!(texts(&body), ["Be \"kind\".", "unanswered"]);
    }

    /// A turn of a user's message and a reply, of so many words.
    fn talk((asked, replied): (usize, usize)) -> TurnRecord {
        let asked = stored(Role::User, &"user ".repeat(asked));
        let reply = stored(Role::Assistant, &"bot ".repeat(replied));
        TurnRecord {
            runs: SmallVec::from_iter([1]),
            reply_id: reply.id(),
            messages: SmallVec::from_vec(vec![asked, reply]),
            ..turn(&[])
        }
    }

    /// What a prompt begins with: all up to the end of its messages.
    fn beginning(body: &[u8]) -> &[u8] {
        let end = body.windows(2).rposition(|it| it == b"}]").unwrap();
        &body[..=end]
    }

    proptest! {
        #[test]
        fn a_prompt_begins_as_the_one_before_until_a_quarter_of_the_room_is_used_up(
            sizes in prop::collection::vec((0_usize..40, 0_usize..80), 1..60),
            context_tokens in 100_u32..2_000,
        ) {
            let parameters = parameters(50);
            let history: Vec<_> = sizes.into_iter().map(talk).collect();
            let system = u64::from(estimate_tokens(parameters.system.as_escaped()));
            let room = u64::from(context_tokens).saturating_sub(50 + system);
            let (mut before, mut start, mut added) = (bytes::Bytes::new(), 0, 0);
            let mut free = room;
            for (index, turn) in history.iter().enumerate() {
                let (told, asked) = (&history[..index], turn.received());
                let kept = window(&parameters, told.into(), asked, context_tokens);
                let cost: u64 = kept.iter().map(|turn| tokens(&turn.messages)).sum();
                prop_assert!(kept.is_empty() || cost + tokens(asked) <= room);
                let body = assemble(&parameters, told.into(), asked, context_tokens);
                let body = body.json().clone();
                if index - kept.len() == start {
                    if index > 0 {
                        prop_assert!(body.starts_with(beginning(&before)));
                    }
                } else {
                    prop_assert!(added + tokens(asked) > free, "cut while there was room");
                    start = index - kept.len();
                    free = room.saturating_sub(tokens(asked)) / 4;
                    added = 0;
                }
                added += tokens(&turn.messages);
                before = body;
            }
        }

        #[test]
        fn repeated_is_the_longest_run(history in prop::collection::vec(0u8..3, 0..12), drafts in prop::collection::vec(0u8..3, 0..12)) {
            let word = |n: u8| ["a", "b", "c"][usize::from(n)];
            let record: Vec<_> = history.iter().map(|n| turn(&[(Role::User, word(*n))])).collect();
            let wanted: Vec<_> = drafts.iter().map(|n| draft(Role::User, word(*n))).collect();
            let longest = (0..=drafts.len().min(history.len()))
                .rev()
                .find(|length| history[history.len() - length..] == drafts[..*length])
                .unwrap();
            prop_assert_eq!(repeated(&record, &wanted), longest);
        }
    }
}

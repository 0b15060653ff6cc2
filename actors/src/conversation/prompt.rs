//! Puts a chat-completions request together from stored fragments. Pure.

use serde::Serialize;

use super::{
    document::TurnRecord,
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
/// History is cut from the oldest whole turn on until the estimate fits `context_tokens` less
/// `max_tokens`; the system prompt and the new messages always stay. Costs the window, not the
/// history.
#[must_use]
pub fn assemble(
    parameters: &Parameters,
    history: &[TurnRecord],
    new: &[StoredMessage],
    context_tokens: u32,
) -> ChatBody {
    let window = window(parameters, history, new, context_tokens);
    let messages = || {
        window
            .iter()
            .flat_map(|turn| &turn.messages)
            .chain(new)
            .filter(|message| message.role() != Role::System)
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

fn window<'a>(
    parameters: &Parameters,
    history: &'a [TurnRecord],
    new: &[StoredMessage],
    context_tokens: u32,
) -> &'a [TurnRecord] {
    let tokens = |messages: &[StoredMessage]| -> u64 {
        messages
            .iter()
            .map(|message| u64::from(message.tokens()))
            .sum()
    };
    let fixed = u64::from(estimate_tokens(parameters.system.as_escaped()))
        + u64::from(parameters.max_tokens)
        + tokens(new);
    let mut left = u64::from(context_tokens).saturating_sub(fixed);
    let mut start = history.len();
    while let Some(turn) = start.checked_sub(1).map(|index| &history[index]) {
        let cost = tokens(&turn.messages);
        if cost > left {
            // Without new messages the newest turn holds what is to be answered: it stays.
            if new.is_empty() && start == history.len() {
                start -= 1;
            }
            break;
        }
        left -= cost;
        start -= 1;
    }
    &history[start..]
}

/// How many of the drafts at the start repeat the end of the history.
///
/// Clients that keep the conversation themselves send it whole each time. The longest run at the
/// start of `drafts` that equals (role, content) the end of the history is theirs and ours.
/// Linear in the number of drafts.
#[must_use]
pub fn repeated(history: &[TurnRecord], drafts: &[Draft]) -> usize {
    if drafts.is_empty() {
        return 0;
    }
    let wanted: Vec<String> = drafts.iter().map(Draft::comparable).collect();
    let mut tail: Vec<&str> = history
        .iter()
        .rev()
        .flat_map(|turn| turn.messages.iter().rev())
        .filter(|message| message.role() != Role::System)
        .take(drafts.len())
        .map(StoredMessage::comparable)
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
            turn: None,
            reply_id: None,
            messages: messages
                .iter()
                .map(|(role, text)| stored(*role, text))
                .collect::<SmallVec<_>>(),
            state: TurnState::Imported,
            key: None,
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
            &history,
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
        let body = assemble(&parameters(100), &[], &new, 8_192);
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
            &history,
            &[stored(Role::User, "now")],
            800,
        );
        // 800 - 100 for the reply leaves three turns of about 223.
        assert_eq!(texts(&body).len(), 1 + 3 * 2 + 1);
    }

    #[test]
    fn what_is_to_be_answered_stays_even_in_no_room() {
        let history = [
            turn(&[(Role::User, "older")]),
            turn(&[(Role::User, "unanswered")]),
        ];
        let body = assemble(&parameters(1_000), &history, &[], 10);
        assert_eq!(texts(&body), ["Be \"kind\".", "unanswered"]);
    }

    proptest! {
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

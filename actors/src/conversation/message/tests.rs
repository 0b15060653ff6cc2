use proptest::prelude::*;

use super::*;

fn stamp() -> Stamp<'static> {
    Stamp {
        timestamp: Timestamp::from_micros(1_800_000_000_000_001),
        id: MessageId::now(),
        turn: Some(TurnId::now()),
        model: Some("a/\"b\""),
        models: &[],
        finish_reason: Some("stop"),
    }
}

proptest! {
    #[test]
    fn a_fragment_reads_back_as_it_was_made(text in "\\PC*", named in proptest::option::of("[a-z\"]{1,8}"), calls in any::<bool>()) {
        let draft = Draft {
            role: Role::Assistant,
            content: Content::Text(JsonText::escape(&text)),
            name: named.map(|name| JsonText::escape(&name)),
            tool_call_id: None,
            tool_calls: calls.then(|| RawJson(RawValue::from_string("[{\"timestamp\":\"x\"}]".into()).unwrap())),
        };
        let stamp = stamp();
        let message = StoredMessage::new(&draft, &stamp);
        let again = StoredMessage::from_fragment(message.fragment().clone()).unwrap();
        prop_assert_eq!(&again, &message);
        prop_assert_eq!(message.comparable(), draft.comparable());
        prop_assert_eq!(message.timestamp(), stamp.timestamp);
        prop_assert_eq!(message.id(), Some(stamp.id));
        let value: serde_json::Value = serde_json::from_str(message.fragment()).unwrap();
        prop_assert_eq!(&value["content"], &text);
            let wanted = JsonText::escape(&text);
        prop_assert_eq!(&message.fragment()[message.text_range()], wanted.as_escaped());
        let prompt: serde_json::Value = serde_json::from_str(&format!("{}}}", message.prompt_prefix())).unwrap();
        prop_assert!(prompt.get("timestamp").is_none() && prompt.get("id").is_none());
        let later = message.at(stamp.timestamp.next());
        prop_assert_eq!(later.timestamp(), stamp.timestamp.next());
        prop_assert_eq!(later.bytes(), message.bytes());
    }
}

proptest! {
    #[test]
    fn what_was_heard_and_what_was_not_are_the_whole(
        text in "([é\"\\\\\n\u{1}a-c🚀]|,\"unsaid\":\"){0,12}", cuts in prop::collection::vec(0_usize..40, 1..4),
        calls in any::<bool>(), alternative in any::<bool>(),
    ) {
        let draft = Draft {
            tool_calls: calls.then(|| RawJson(RawValue::from_string("[{\"unsaid\":\"x\"}]".into()).unwrap())),
            ..Draft::text(Role::Assistant, JsonText::escape(&text))
        };
        let all = alternative.then(|| plain("old")).into_iter().collect();
        let models = ["a\",\"unsaid\":\"".to_owned(), "b".to_owned()];
        let whole = StoredMessage::new(&draft, &Stamp { models: &models, ..stamp() }).with_alternatives(all);
        prop_assert_eq!(whole.unsaid(), None);
        let mut message = whole.clone();
        for bytes in cuts {
            let before = crate::json_text::unescape(&message.fragment()[message.text_range()]);
            let bound = (0..=bytes.min(before.len())).rfind(|it| before.is_char_boundary(*it)).unwrap();
            let Some(heard) = message.heard(bytes) else {
                prop_assert_eq!(bound, before.len());
                continue;
            };
            prop_assert!(bound < before.len(), "there is less of it than before");
            prop_assert_eq!(heard.text_len(), bound);
            let value: serde_json::Value = serde_json::from_str(heard.fragment()).unwrap();
            prop_assert_eq!(&value["content"], &text[..bound]);
            prop_assert_eq!(&value["unsaid"], &text[bound..]);
            prop_assert_eq!(&value["finish_reason"], "cancelled");
            let wanted: serde_json::Value = serde_json::from_str(whole.fragment()).unwrap();
            for same in ["tool_calls", "model", "models", "id", "turn_id", "timestamp"] {
                prop_assert_eq!(value.get(same), wanted.get(same), "{}", same);
            }
            prop_assert_eq!(heard.uncut(), whole.comparable());
            prop_assert!(!heard.prompt_prefix().contains(",\"unsaid\":\""));
            prop_assert_eq!(heard.is_silent(), bound == 0 && !calls);
            prop_assert_eq!(heard.alternatives(), whole.alternatives());
            prop_assert_eq!(&StoredMessage::from_fragment(heard.whole()).unwrap(), &heard);
            message = heard;
        }
    }
}

#[test]
fn only_text_is_heard() {
    for content in [
        Content::Null,
        Content::Parts(RawJson(RawValue::from_string("[\"a\"]".into()).unwrap())),
    ] {
        let draft = Draft {
            content,
            ..Draft::text(Role::Assistant, JsonText::default())
        };
        assert_eq!(StoredMessage::new(&draft, &stamp()).heard(0), None);
    }
}

fn plain(text: &str) -> StoredMessage {
    let draft = Draft::text(Role::Assistant, JsonText::escape(text));
    StoredMessage::new(&draft, &stamp())
}

proptest! {
    #[test]
    fn a_message_reads_back_with_its_alternatives(texts in prop::collection::vec("\\PC*", 1..5)) {
        let all = texts.iter().map(|text| plain(text)).collect();
        // What stands in a text must not be taken for the member.
        let message = plain("\",\"alternatives\":[{}]").with_alternatives(all);
        let whole = message.whole();
        prop_assert_eq!(whole.len(), message.shown_bytes());
        let again = StoredMessage::from_fragment(whole.clone()).unwrap();
        prop_assert_eq!(&again, &message);
        prop_assert_eq!(again.whole(), whole.clone());
        prop_assert!(!again.fragment().contains(&*texts[0]) || texts[0].len() < 40);
        let value: serde_json::Value = serde_json::from_str(&whole).unwrap();
        prop_assert_eq!(value["alternatives"].as_array().unwrap().len(), texts.len());
        prop_assert_eq!(&value["alternatives"][0]["content"], &texts[0]);
    }
}

#[test]
fn the_newest_alternatives_are_shown_as_many_as_there_is_room_for() {
    let (count, bytes) = ALTERNATIVES_MAX;
    let many: Vec<_> = (0..count + 3).map(|it| plain(&it.to_string())).collect();
    let message = plain("new").with_alternatives(many.clone());
    assert_eq!(message.alternatives(), &many[3..]);
    let huge = || plain(&"x".repeat(bytes));
    let message = plain("new").with_alternatives(vec![plain("old"), huge()]);
    assert_eq!(
        message.alternatives().len(),
        1,
        "the newest is shown even so"
    );
    let message = plain("new").with_alternatives(vec![huge(), plain("old")]);
    assert_eq!(message.alternatives().len(), 1);
    assert!(
        plain("new")
            .with_alternatives(vec![])
            .alternatives()
            .is_empty()
    );
}

#[test]
fn the_models_are_named_where_there_are_several() {
    let draft = Draft::text(Role::Assistant, JsonText::escape("x"));
    let models = ["a/\"b\"".to_owned(), "c".to_owned()];
    for (given, found) in [(&models[..], &models[..]), (&models[..1], &[])] {
        let stamp = Stamp {
            models: given,
            ..stamp()
        };
        let message = StoredMessage::new(&draft, &stamp);
        assert_eq!(message.models(), found);
        let value: serde_json::Value = serde_json::from_str(message.fragment()).unwrap();
        assert_eq!(value.get("models").is_some(), !found.is_empty());
    }
}

#[test]
fn the_estimate_counts_other_scripts_by_character() {
    assert_eq!(estimate_tokens("12345678"), 6);
    assert_eq!(estimate_tokens("東京"), 6);
}

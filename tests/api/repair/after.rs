//! Failures after the first token: the reply is continued, or ends truthfully.

use std::path::Path;

use idol_actors::{caller::Caller, conversation::command::CancelTurn, id::ConversationId};
use idol_simulator::{Fault, Script, ToolCall, reply_text};
use serde_json::{Value, json};

use super::{Seen, asked, impatient, keyed, turn};
use crate::{
    faults::doors::{DOORS, Door},
    helpers::{DEADLINE, Setup, TestApp, prompt, say, until},
};

/// Every way to break off, after nine tokens of twenty.
const BROKEN: [&str; 9] = [
    "fault=cut",
    "fault=reset",
    "fault=end",
    "fault=stall",
    "fault=stall_comments",
    "fault=error",
    "fault=error:429",
    "fault=error:bare",
    "fault=garbage",
];

/// Every way to go on with what there is.
const CONTINUED: [&str; 4] = ["continue", "repeat:20", "repeat:45", "ignore"];

#[track_caller]
fn expect_one_seam(seen: &Seen, door: Door, offset: usize, model: &str) {
    if door == Door::Chat {
        return;
    }
    let [seam] = &seen.seams[..] else {
        panic!("one seam in {seen:?}");
    };
    assert_eq!(seam["offset"], offset, "{seam}");
    assert_eq!(seam["model"], model, "{seam}");
    assert!(seam["turn_id"].is_string(), "{seam}");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_continued_at_every_door_and_nothing_comes_twice() {
    let app = impatient()
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .set("OPENROUTER_RETRY_BUDGET", "1000")
        .start()
        .await;
    for (place, fault) in BROKEN.into_iter().enumerate() {
        let turns = DOORS.into_iter().flat_map(|door| {
            let app = &app;
            CONTINUED
                .into_iter()
                .enumerate()
                .map(move |(way, prefix)| async move {
                    let options =
                        format!("tokens=20,seed=7,{fault},after=9,fail=1,prefix={prefix}");
                    let model = keyed(&options, door);
                    let conversation = format!("{door:?}-{place}-{way}");
                    let seen = turn(app, door, &conversation, &[&model]).await;
                    assert_eq!(seen.text, reply_text(7, 20), "{model}");
                    assert_eq!(seen.finish_reason(), "stop", "{model}");
                    expect_one_seam(&seen, door, reply_text(7, 9).len(), &model);
                    assert_eq!(asked(app)[&model], 2, "{model}");
                    let document = app.document(&conversation).await;
                    let reply = &document["messages"][1];
                    assert_eq!(reply["content"], reply_text(7, 20), "{model}");
                    assert_eq!(reply["finish_reason"], "stop", "{model}");
                    assert_eq!(reply["model"], *model);
                    assert!(reply.get("models").is_none(), "one model wrote it: {reply}");
                })
        });
        futures::future::join_all(turns).await;
    }
    app.assert_nothing_left().await;
    let state = app.engine.protection().unwrap().state();
    assert_eq!(
        state.repaired,
        (BROKEN.len() * CONTINUED.len() * DOORS.len()) as u64
    );
}

#[tokio::test]
async fn a_stream_without_its_finish_reason_is_continued() {
    let app = TestApp::start().await;
    let (cut, whole) = (
        "sim/tokens=9,seed=7,finish=none,done=no",
        "sim/tokens=20,seed=7,prefix=continue",
    );
    let seen = turn(&app, Door::Stream, "c1", &[cut, whole]).await;
    // The first model is asked once more, and tells all of it again: no more than there was.
    assert_eq!(seen.text, reply_text(7, 20), "{seen:?}");
    assert_eq!(seen.finish_reason(), "stop");
}

#[tokio::test]
async fn the_next_model_goes_on_if_the_first_fails_again_and_both_are_named() {
    let root = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(root.path()).start().await;
    let bad = "sim/tokens=20,seed=7,fault=cut,after=4,prefix=continue";
    let good = "sim/tokens=20,seed=7,prefix=repeat:30";
    for door in [Door::Chat, Door::Stream] {
        let conversation = format!("{door:?}");
        let seen = turn(&app, door, &conversation, &[bad, good]).await;
        assert_eq!(seen.text, reply_text(7, 20), "{seen:?}");
        let document = app.document(&conversation).await;
        let reply = &document["messages"][1];
        assert_eq!(reply["models"], json!([bad, good]), "{reply}");
        assert_eq!(reply["model"], good, "{reply}");
        if door == Door::Stream {
            let models: Vec<_> = seen.seams.iter().map(|seam| &seam["model"]).collect();
            assert_eq!(models, [bad, good]);
        }
    }
    assert_eq!(asked(&app)[bad], 4);
    // The file says it, too, and a server that has nothing but the file says it again.
    let file = root.path().join("conversations/Stream.json");
    let models = |path: &Path| {
        let bytes = std::fs::read(path).ok()?;
        let document: Value = serde_json::from_slice(&bytes).ok()?;
        Some(document["messages"].get(1)?["models"].clone())
    };
    until("the file", async || models(&file)).await;
    app.stop().await;
    assert_eq!(models(&file).unwrap(), json!([bad, good]));
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("conversations")).unwrap();
    std::fs::copy(&file, other.path().join("conversations/Stream.json")).unwrap();
    let app = Setup::new().data_dir(other.path()).start().await;
    let document = app.document("Stream").await;
    assert_eq!(document["messages"][1]["models"], json!([bad, good]));
    app.stop().await;
}

#[tokio::test]
async fn a_continuation_carries_what_there_is_and_everything_else_as_it_was() {
    let app = TestApp::start().await;
    let model = "sim/tokens=20,seed=7,fault=cut,after=9,fail=1,prefix=continue";
    let mut body = say("c1", "hello");
    body["model"] = model.into();
    body["max_tokens"] = 500.into();
    body["top_p"] = json!(0.5);
    app.stream(body).await.all().await;
    let requests = app.simulator.chat_requests();
    let [first, second] = &requests[..] else {
        panic!("{requests:?}");
    };
    let there = reply_text(7, 9);
    let last = json!({"role": "assistant", "content": there.trim_end()});
    assert_eq!(prompt(second), [prompt(first), vec![last]].concat());
    let (mut first, mut second) = (first.json().unwrap(), second.json().unwrap());
    assert_eq!(first["max_tokens"], 500);
    let left = second["max_tokens"].as_u64().unwrap();
    assert!((400..500).contains(&left), "{left}");
    for body in [&mut first, &mut second] {
        let body = body.as_object_mut().unwrap();
        body.remove("messages");
        body.remove("max_tokens");
    }
    assert_eq!(first, second);
}

#[tokio::test]
async fn without_repair_a_reply_that_breaks_off_is_an_error_at_every_door() {
    let app = Setup::new().set("MIDSTREAM_REPAIR", "off").start().await;
    for door in DOORS {
        let model = keyed(
            "tokens=20,seed=7,fault=cut,after=9,fail=1,prefix=continue",
            door,
        );
        let conversation = format!("{door:?}");
        let seen = turn(&app, door, &conversation, &[&model]).await;
        assert_eq!(seen.error()["code"], "upstream_failed");
        assert_eq!(asked(&app)[&model], 1);
        let reply = &app.document(&conversation).await["messages"][1];
        assert_eq!(reply["content"], reply_text(7, 9));
        assert_eq!(reply["finish_reason"], "error");
    }
}

#[tokio::test]
async fn a_reply_that_nobody_can_continue_is_never_told_to_be_whole() {
    let app = Setup::new()
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    let said = "Good morning, dear friend of the river and the stars, who has";
    let other = "Good morning, dear friend of the river and the stars. I am well.";
    let failures: [Script; 3] = [
        Script::from(Fault::ResetEarly),
        Script::from("fault=status:500"),
        Script::new().text(other),
    ];
    for (place, failure) in failures.into_iter().enumerate() {
        for door in DOORS {
            let conversation = format!("{door:?}-{place}");
            app.simulator
                .script(Script::new().text(said).fault(Fault::Cut, 12));
            // All that follow: one of the first model, three of the second.
            (0..4).for_each(|_| app.simulator.script(failure.clone()));
            let models = ["sim/one", "sim/two"];
            let models = if door == Door::Socket {
                &models[..1]
            } else {
                &models
            };
            let seen = turn(&app, door, &conversation, models).await;
            assert_eq!(seen.error()["code"], "upstream_failed", "{seen:?}");
            let reply = &app.document(&conversation).await["messages"][1];
            assert_eq!(reply["content"], said);
            assert_eq!(reply["finish_reason"], "error");
            if door != Door::Chat {
                assert_eq!(seen.text, said);
                assert!(seen.seams.is_empty(), "{seen:?}");
            }
            while app.simulator.scripts_left() > 0 {
                // A socket's one model is asked three times.
                turn(&app, Door::Chat, "rest", &["sim/"]).await;
            }
        }
    }
}

#[tokio::test]
async fn requests_for_one_reply_are_bounded_however_far_each_comes() {
    let app = Setup::new().set("OPENROUTER_ATTEMPTS", "4").start().await;
    let bad: Vec<String> = (0..6)
        .map(|key| format!("sim/tokens=90,fault=cut,after=2,prefix=continue,key={key}"))
        .collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let seen = turn(&app, Door::Stream, "c1", &bad).await;
    assert_eq!(seen.error()["code"], "upstream_failed");
    assert_eq!(app.simulator.counters().chat_requests, 4);
    assert_eq!(seen.text, reply_text(0, seen.text_tokens()));
    assert_eq!(seen.seams.len(), 3);
}

impl Seen {
    /// How many tokens of the simulator's first reply the text has.
    fn text_tokens(&self) -> usize {
        let is_it = |tokens: &usize| reply_text(0, *tokens) == self.text;
        (0..90).find(is_it).expect("the beginning of the reply")
    }
}

#[tokio::test]
async fn a_tool_call_in_pieces_is_not_continued_and_reasoning_alone_begins_anew() {
    let app = TestApp::start().await;
    let tools = "sim/tokens=3,tools=1,fault=cut,after=5,prefix=continue";
    let seen = turn(&app, Door::Stream, "c1", &[tools, "sim/tokens=3"]).await;
    assert_eq!(seen.error()["code"], "upstream_failed");
    assert_eq!(app.simulator.counters().chat_requests, 1);

    let thinks = "sim/reasoning=5,tokens=4,fault=cut,after=3,fail=1";
    let seen = turn(&app, Door::Stream, "c2", &[thinks]).await;
    assert_eq!(seen.text, reply_text(0, 4));
    assert_eq!(seen.finish_reason(), "stop");
    expect_one_seam(&seen, Door::Stream, 0, thinks);
}

#[tokio::test]
async fn a_reply_cut_right_before_its_finish_reason_is_whole_once_two_answers_say_so() {
    let app = TestApp::start().await;
    let model = "sim/tokens=9,seed=7,fault=end,after=9,fail=1,prefix=finish";
    let seen = turn(&app, Door::Stream, "c1", &[model]).await;
    assert_eq!(seen.text, reply_text(7, 9));
    assert_eq!(seen.finish_reason(), "stop");
    assert_eq!(asked(&app)[model], 3);
    // One alone could be a server that does not know what to make of it.
    let model = "sim/tokens=20,seed=7,fault=end,after=9,fail=1,prefix=finish";
    let other = "sim/tokens=20,seed=7,prefix=continue";
    let seen = turn(&app, Door::Stream, "c2", &[model, other]).await;
    assert_eq!(seen.text, reply_text(7, 20));
}

#[tokio::test]
async fn the_finish_reason_and_the_cost_are_those_of_all_of_it() {
    let app = TestApp::start().await;
    let model = "sim/tokens=20,seed=7,fault=cut,after=9,fail=1,prefix=continue,finish=length,\
        usage=every,prompt=50,cost=0.25";
    let seen = turn(&app, Door::Stream, "c1", &[model]).await;
    assert_eq!(seen.finish_reason(), "length");
    let usage = &seen.whole()["usage"];
    assert_eq!(usage["prompt_tokens"], 100, "{usage}");
    assert!(
        usage["completion_tokens"].as_u64().unwrap() >= 20,
        "{usage}"
    );
    let reply = &app.document("c1").await["messages"][1];
    assert_eq!(reply["finish_reason"], "length");
}

#[tokio::test]
async fn a_turn_that_is_cancelled_is_not_continued() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator.script("tokens=20,seed=7,fault=cut,after=9");
    app.simulator.script(Script::new().hold_headers(&gate));
    let asked = turn(&app, Door::Stream, "c1", &["sim/tokens=20,seed=7"]);
    let cancelled = async {
        gate.reached(1, DEADLINE).await.unwrap();
        let id = ConversationId::parse("c1").unwrap();
        let command = CancelTurn {
            caller: Caller::Anonymous,
            turn: None,
        };
        let cancelled = app.engine.conversation(id, None).cancel(command).await;
        assert_eq!(cancelled.unwrap().turns.len(), 1);
    };
    let (seen, ()) = tokio::join!(asked, cancelled);
    assert_eq!(seen.finish_reason(), "cancelled");
    assert_eq!(seen.text, reply_text(7, 9));
    app.assert_nothing_left().await;
    assert_eq!(app.simulator.counters().chat_requests, 2);
    assert_eq!(app.engine.protection().unwrap().state().calls, 0);
}

#[tokio::test]
async fn the_largest_size_holds_for_a_reply_in_two_parts() {
    let app = Setup::new().set("MAX_REPLY_BYTES", "1024").start().await;
    let model = "sim/tokens=400,seed=7,fault=cut,after=79,fail=1,prefix=continue";
    let seen = turn(&app, Door::Stream, "c1", &[model]).await;
    assert_eq!(seen.finish_reason(), "length");
    assert_eq!(asked(&app)[model], 2);
    assert!(reply_text(7, 400).starts_with(&seen.text), "{seen:?}");
    let bytes = serde_json::to_string(&seen.text).unwrap().len() - 2;
    assert!((1_000..=1_024).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_continued_once_whatever_is_left_for_repeats() {
    let app = Setup::new()
        .set("OPENROUTER_RETRY_BUDGET", "0")
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    for door in DOORS {
        let once = keyed(
            "tokens=20,seed=7,fault=cut,after=9,fail=1,prefix=continue",
            door,
        );
        let seen = turn(&app, door, &format!("{door:?}"), &[&once]).await;
        assert_eq!(seen.text, reply_text(7, 20), "{seen:?}");
        assert_eq!(seen.finish_reason(), "stop");
        let always = keyed("tokens=20,seed=7,fault=cut,after=2,prefix=continue", door);
        let seen = turn(&app, door, &format!("{door:?}-cut"), &[&always]).await;
        assert_eq!(seen.error()["code"], "upstream_failed");
        assert_eq!(asked(&app)[&always], 2);
    }
}

#[tokio::test]
async fn an_upstream_that_always_cuts_is_asked_twice_for_a_reply_in_the_end() {
    let app = Setup::new()
        .set("OPENROUTER_RETRY_BUDGET", "4")
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .start()
        .await;
    let models: Vec<String> = (0..3)
        .map(|key| format!("sim/tokens=6,seed=7,fault=cut,after=1,prefix=continue,key={key}"))
        .collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    for number in 0..10 {
        turn(&app, Door::Stream, &format!("c{number}"), &models).await;
    }
    // Each has its own and one continuation; all others are paid for.
    assert_eq!(app.simulator.counters().chat_requests, 20 + 4);
}

#[tokio::test]
async fn a_call_of_a_tool_that_was_cut_is_not_kept() {
    let app = TestApp::start().await;
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: "get_time".into(),
        arguments: vec![arguments.to_owned()],
    };
    for (conversation, options) in [
        ("length", "tokens=2,finish=length"),
        ("none", "tokens=2,finish=none"),
    ] {
        app.simulator.script(
            Script::from(options)
                .tool_call(call("call_a", "{\"zone\":\"UTC\"}"))
                .tool_call(call("call_b", "{\"zone\":\"Eu")),
        );
        app.chat(conversation, "What time is it?").await;
        let stored = app.document(conversation).await["messages"][1].clone();
        let kept = stored["tool_calls"].as_array().unwrap();
        assert_eq!(kept.len(), 1, "{stored}");
        assert_eq!(kept[0]["id"], "call_a");
    }
    app.simulator
        .script(Script::from("tokens=2,finish=length").tool_call(call("call_a", "{\"zo")));
    app.chat("one", "What time is it?").await;
    let stored = app.document("one").await["messages"][1].clone();
    assert_eq!(stored["content"], reply_text(0, 2), "{stored}");
    assert_eq!(stored.get("tool_calls"), None, "{stored}");
}

#[tokio::test]
async fn a_stop_after_the_finish_reason_leaves_the_reply_as_it_is() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    let chunk = json!({"choices": [{"delta": {"content": "Good night.", "tool_calls": [
        {"index": 0, "id": "call_a", "type": "function",
            "function": {"name": "sleep", "arguments": "{}"}},
    ]}, "finish_reason": "tool_calls"}]});
    let whole = Script::raw([format!("data: {chunk}\n\n"), "data: [DONE]\n\n".into()]);
    app.simulator.script(whole.hold_at(1, &gate));
    let mut events = app.stream(say("c1", "hello")).await;
    until("the reply's text", async || {
        let event = events.next().await.unwrap();
        event.to_string().contains("Good night.").then_some(())
    })
    .await;
    let command = CancelTurn {
        caller: Caller::Anonymous,
        turn: None,
    };
    let id = ConversationId::parse("c1").unwrap();
    app.engine
        .conversation(id, None)
        .cancel(command)
        .await
        .unwrap();
    let rest = events.all().await;
    let done = rest.last().unwrap();
    assert_eq!(done["finish_reason"], "tool_calls", "{rest:?}");
    let reply = &app.document("c1").await["messages"][1];
    assert_eq!(reply["finish_reason"], "tool_calls", "{reply}");
    assert_eq!(reply["tool_calls"][0]["id"], "call_a", "{reply}");
    app.assert_nothing_left().await;
}

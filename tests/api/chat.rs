//! `POST /chat`.

use std::collections::BTreeSet;

use idol_simulator::{Script, Simulator, ToolCall};
use serde_json::{Value, json};

use crate::helpers::{DEADLINE, Setup, TestApp, prompt, refused, say, until};

/// The names of an object's members.
fn members(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// The body of the only request that the upstream received so far.
fn only_request(simulator: &Simulator) -> Value {
    let requests = simulator.take_requests();
    let chats: Vec<_> = requests
        .iter()
        .filter(|request| request.path().ends_with("/chat/completions"))
        .collect();
    assert_eq!(chats.len(), 1);
    chats[0].json().unwrap()
}

#[tokio::test]
async fn a_reply_comes_whole_and_is_remembered() {
    let app = TestApp::start().await;
    app.simulator.script(Script::new().text("Hello Alice!"));

    let answer = app.chat("c1", "I am Alice").await;

    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello Alice!");
    assert_eq!(answer["conversation_id"], "c1");
    assert_eq!(
        app.said("c1").await,
        [
            ("user".to_owned(), "I am Alice".to_owned()),
            ("assistant".to_owned(), "Hello Alice!".to_owned()),
        ]
    );
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn the_upstream_receives_each_message_exactly_once() {
    let app = TestApp::start().await;
    app.simulator.script(Script::new().text("first reply"));
    app.chat("c1", "first").await;
    app.post("/chat", say("c1", "second")).await;

    let requests = app.simulator.chat_requests();
    assert_eq!(
        prompt(&requests[1]),
        [
            json!({"role": "user", "content": "first"}),
            json!({"role": "assistant", "content": "first reply"}),
            json!({"role": "user", "content": "second"}),
        ]
    );
}

#[tokio::test]
async fn the_answer_is_a_chat_completion_that_names_conversation_turn_and_message() {
    let app = TestApp::start().await;
    let script = Script::new().text("Good morning.").with("prompt=11");
    app.simulator.script(script);

    let response = app.post("/chat", say("c1", "hi")).await;

    assert_eq!(response.headers()["x-conversation-id"], "c1");
    assert_eq!(response.headers()["content-type"], "application/json");
    let answer: Value = response.json().await.unwrap();
    let named = "choices conversation_id created id message_id model object provider turn_id usage";
    assert_eq!(members(&answer), named.split(' ').collect());
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "sim/tokens=5");
    assert_eq!(answer["provider"], "SimulatedHost");
    assert!(answer["id"].as_str().unwrap().starts_with("gen-"));
    assert!(answer["created"].as_i64().unwrap() > 0);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 1);
    assert_eq!(choices[0]["index"], 0);
    assert_eq!(choices[0]["finish_reason"], "stop");
    let message = json!({"role": "assistant", "content": "Good morning."});
    assert_eq!(choices[0]["message"], message);
    let usage = &answer["usage"];
    assert_eq!(
        [&usage["prompt_tokens"], &usage["completion_tokens"]],
        [11, 2]
    );
    assert_eq!(usage["total_tokens"], 13);

    let document = app.document("c1").await;
    let reply = &document["messages"][1];
    assert_eq!(reply["id"], answer["message_id"]);
    assert_eq!(reply["turn_id"], answer["turn_id"]);
    assert_eq!(document["messages"][0]["turn_id"], answer["turn_id"]);
    assert_eq!(reply["finish_reason"], "stop");
    assert_eq!(reply["model"], "sim/tokens=5");
}

#[tokio::test]
async fn a_finish_reason_is_passed_on_as_the_upstream_gave_it() {
    let app = TestApp::start().await;
    app.simulator.script("tokens=2,finish=length");

    let answer = app.chat("c1", "hi").await;

    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(
        app.document("c1").await["messages"][1]["finish_reason"],
        "length"
    );
}

#[tokio::test]
async fn what_the_client_chooses_is_sent_upstream_and_nothing_else_of_it() {
    let app = TestApp::start().await;
    let choices = json!({
        "model": "sim/tokens=2,key=chosen", "temperature": 1.25, "max_tokens": 77,
        "top_p": 0.5, "top_k": 40, "min_p": 0.1, "frequency_penalty": -1.5,
        "presence_penalty": 1, "repetition_penalty": 1.1, "seed": 42, "stop": ["END", "\n\n"],
        "models": ["a/b", "c/d"], "provider": {"order": ["x"], "nested": {"y": [1, null]}},
        "reasoning": {"effort": "low"}, "plugins": [{"id": "web"}],
        "response_format": {"type": "json_object"},
        "tools": [{"type": "function", "function": {"name": "get_time", "parameters": {}}}],
        "tool_choice": "auto",
    });
    let mut body = choices.clone();
    body["messages"] = json!([{"role": "user", "content": "hi", "unknown": 1}]);
    body["system_prompt"] = json!("Be brief.");
    body["user_id"] = json!("u");
    body["character_id"] = json!("ch");
    body["stream"] = json!(false);
    body["unknown_member"] = json!({"a": 1});

    assert_eq!(app.post("/chat", body).await.status(), 200);

    let mut sent = only_request(&app.simulator);
    let sent = sent.as_object_mut().unwrap();
    let messages = sent.remove("messages").unwrap();
    assert_eq!(
        messages,
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ])
    );
    assert_eq!(sent.remove("stream").unwrap(), true);
    sent.remove("stream_options");
    assert!(sent.remove("session_id").unwrap().is_string());
    assert_eq!(Value::Object(sent.clone()), choices);
}

#[tokio::test]
async fn what_the_client_leaves_out_is_the_operators_default() {
    let setup = Setup::new().set("SYSTEM_PROMPT", "Operator's prompt.");
    let app = setup.start().await;

    app.chat("c1", "hi").await;

    let sent = only_request(&app.simulator);
    assert_eq!(sent["model"], "sim/tokens=5");
    assert_eq!(sent["temperature"], 0.7);
    assert_eq!(sent["max_tokens"], 1000);
    assert_eq!(sent["messages"][0]["content"], "Operator's prompt.");
}

#[tokio::test]
async fn the_first_system_message_wins_over_system_prompt_and_that_over_the_operators() {
    let app = Setup::new().set("SYSTEM_PROMPT", "operator").start().await;
    let user = json!({"role": "user", "content": "hi"});
    for (role, system_prompt, expected) in [
        (Some("system"), Some("given"), "first"),
        (Some("developer"), Some("given"), "first"),
        (Some("system"), None, "first"),
        (None, Some("given"), "given"),
        (None, Some(""), "operator"),
        (None, None, "operator"),
    ] {
        let first = role.map(|role| json!({"role": role, "content": "first"}));
        let messages: Vec<_> = first.into_iter().chain([user.clone()]).collect();
        let body = json!({"messages": messages, "system_prompt": system_prompt});

        assert_eq!(app.post("/chat", body).await.status(), 200);

        let sent = only_request(&app.simulator);
        let expected = json!([{"role": "system", "content": expected}, user]);
        assert_eq!(sent["messages"], expected, "{role:?} {system_prompt:?}");
    }
}

#[tokio::test]
async fn system_messages_hold_for_their_request_and_are_never_stored() {
    let app = TestApp::start().await;
    let body = json!({"conversation_id": "c1", "messages": [
        {"role": "system", "content": "secret rules"},
        {"role": "user", "content": "one"},
        {"role": "developer", "content": "more rules"},
    ]});
    app.post("/chat", body).await;
    let system = only_request(&app.simulator)["messages"][0]["content"].clone();
    assert_eq!(system, "secret rules\n\nmore rules");

    app.chat("c1", "two").await;

    let sent = only_request(&app.simulator);
    assert!(!sent.to_string().contains("rules"), "{sent}");
    let document = app.document("c1").await.to_string();
    assert!(!document.contains("rules"), "{document}");
}

#[tokio::test]
async fn openrouter_is_told_who_calls() {
    let setup = Setup::new()
        .set("OPENROUTER_API_KEY", "sk-or-v1-abc")
        .set("HTTP_REFERER", "https://idol.example")
        .set("X_TITLE", "Idol");
    let app = setup.start().await;

    app.chat("c1", "hi").await;

    let request = &app.simulator.chat_requests()[0];
    assert_eq!(request.header("authorization"), Some("Bearer sk-or-v1-abc"));
    assert_eq!(request.header("http-referer"), Some("https://idol.example"));
    assert_eq!(request.header("x-openrouter-title"), Some("Idol"));
    assert_eq!(request.header("x-title"), Some("Idol"));
    assert_eq!(request.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn who_calls_is_told_only_if_the_operator_says_it() {
    let app = TestApp::start().await;

    app.chat("c1", "hi").await;

    let request = &app.simulator.chat_requests()[0];
    for header in ["http-referer", "x-openrouter-title", "x-title"] {
        assert_eq!(request.header(header), None);
    }
}

#[tokio::test]
async fn reasoning_is_told_once_and_neither_stored_nor_sent_back() {
    let app = TestApp::start().await;
    let script = Script::new()
        .reasoning(["She is ", "called Alice."])
        .text("Alice!");
    app.simulator.script(script);

    let answer = app.chat("c1", "Who am I?").await;
    app.chat("c1", "Sure?").await;

    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning"], "She is called Alice.");
    assert_eq!(message["content"], "Alice!");
    let document = app.document("c1").await;
    assert!(!document.to_string().contains("called"), "{document}");
    let second = prompt(&app.simulator.chat_requests()[1]);
    assert_eq!(second[1], json!({"role": "assistant", "content": "Alice!"}));
}

#[tokio::test]
async fn tool_calls_are_assembled_and_sent_back_with_the_tools_answer() {
    let app = TestApp::start().await;
    let call = |id: &str, name: &str, arguments: [&str; 3]| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.map(str::to_owned).to_vec(),
    };
    let script = Script::from("tokens=0")
        .tool_call(call(
            "call_a",
            "get_time",
            ["{\"zone\":", "\"Europe/", "Rome\"}"],
        ))
        .tool_call(call("call_b", "ping", ["{", "", "}"]));
    app.simulator.script(script);
    let calls = json!([
        {"id": "call_a", "type": "function",
            "function": {"name": "get_time", "arguments": "{\"zone\":\"Europe/Rome\"}"}},
        {"id": "call_b", "type": "function", "function": {"name": "ping", "arguments": "{}"}},
    ]);

    let answer = app.chat("c1", "What time is it?").await;

    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"], calls);
    let stored = app.document("c1").await["messages"][1].clone();
    assert_eq!(stored["tool_calls"], calls);
    let answers = json!([
        {"role": "tool", "tool_call_id": "call_a", "name": "get_time", "content": "12:00"},
        {"role": "tool", "tool_call_id": "call_b", "content": "pong"},
    ]);
    let body = json!({"conversation_id": "c1", "messages": answers});
    assert_eq!(app.post("/chat", body).await.status(), 200);
    let second = prompt(&app.simulator.chat_requests()[1]);
    assert_eq!(second[0]["content"], "What time is it?");
    assert_eq!(second[1]["role"], "assistant");
    assert_eq!(second[1]["tool_calls"], calls);
    assert_eq!(&second[2..], answers.as_array().unwrap().as_slice());
    let stored = app.document("c1").await;
    assert_eq!(stored["messages"][2]["tool_call_id"], "call_a");
    assert_eq!(stored["messages"][2]["name"], "get_time");
    assert_eq!(stored["messages"][3]["content"], "pong");
}

#[tokio::test]
async fn an_assistants_tool_calls_may_be_sent_with_no_content() {
    let app = TestApp::start().await;
    let call = json!({"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": "done"},
    ]);

    let body = json!({"conversation_id": "c1", "messages": messages});
    assert_eq!(app.post("/chat", body).await.status(), 200);

    let sent = prompt(&app.simulator.chat_requests()[0]);
    let mut expected = messages;
    expected[2]["content"] = Value::Null;
    assert_eq!(json!(sent), expected);
    let stored = app.document("c1").await;
    assert_eq!(stored["messages"][1]["content"], Value::Null);
    assert_eq!(stored["messages"][1]["tool_calls"], json!([call]));
}

#[tokio::test]
async fn content_parts_are_passed_on_and_stored_as_given() {
    let app = TestApp::start().await;
    let parts = r#"[{"text":"What is  this? \u00e9","type":"text"}, {"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","z":1.50,"a":null}}]"#;
    let body =
        format!(r#"{{"conversation_id":"c1","messages":[{{"role":"user","content":{parts}}}]}}"#);
    let request = app.http.post(app.url("/chat")).body(body);

    assert_eq!(request.send().await.unwrap().status(), 200);

    let sent = app.simulator.chat_requests()[0].body.clone();
    let sent = str::from_utf8(&sent).unwrap();
    assert!(sent.contains(parts), "{sent}");
    let document = app.get("/conversation/c1").await.text().await.unwrap();
    assert!(document.contains(parts), "{document}");
}

#[tokio::test]
async fn any_text_comes_back_as_it_was_said() {
    let app = TestApp::start().await;
    let texts = [
        "",
        " \t\r\n ",
        "\"quotes\" and \\backslashes\\ and </script>",
        "\0\u{1}\u{7f}\u{2028}\u{feff}",
        "👩‍👩‍👧‍👦 e\u{301} \u{202e}abc\u{202c} 東京",
    ];
    for (index, text) in texts.into_iter().enumerate() {
        let id = format!("c{index}");
        let body = json!({"conversation_id": id, "model": "sim/echo", "messages": [
            {"role": "user", "content": text},
        ]});

        let answer: Value = app.post("/chat", body).await.json().await.unwrap();

        if !text.is_empty() {
            assert_eq!(answer["choices"][0]["message"]["content"], text);
        }
        assert_eq!(app.said(&id).await[0], ("user".to_owned(), text.to_owned()));
        assert_eq!(
            prompt(&app.simulator.chat_requests()[index])[0]["content"],
            text
        );
    }
}

#[tokio::test]
async fn no_new_message_asks_for_another_reply_where_there_is_history() {
    let app = TestApp::start().await;
    app.simulator.script(Script::new().text("one"));
    app.chat("c1", "hi").await;
    app.simulator.script(Script::new().text("two"));

    let body = json!({"conversation_id": "c1", "messages": []});
    let response = app.post("/chat", body).await;

    assert_eq!(response.status(), 200);
    let said = app.said("c1").await;
    let texts: Vec<_> = said.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["hi", "one", "two"]);
    assert_eq!(prompt(&app.simulator.chat_requests()[1]).len(), 2);
}

#[tokio::test]
async fn no_message_at_all_is_refused_and_begins_no_conversation() {
    let app = TestApp::start().await;
    for messages in [json!([]), json!([{"role": "system", "content": "rules"}])] {
        let body = json!({"conversation_id": "c1", "messages": messages});

        let response = app.post("/chat", body).await;

        let body = refused(response, 422, "invalid_request").await;
        assert_eq!(body["detail"][0]["loc"], json!(["body", "messages"]));
        refused(
            app.get("/conversation/c1").await,
            404,
            "conversation_not_found",
        )
        .await;
    }
    assert!(app.simulator.chat_requests().is_empty());
}

#[tokio::test]
async fn the_turn_goes_on_when_its_client_leaves() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("Too late?").hold_headers(&gate));
    let request = app.http.post(app.url("/chat")).json(&say("c1", "hi"));
    let accepted = async {
        gate.reached(1, DEADLINE).await.unwrap();
        until("the message in the document", async || {
            (app.get("/conversation/c1").await.status() == 200).then_some(())
        })
        .await;
    };
    tokio::select! {
        _ = request.send() => panic!("the upstream has not answered"),
        () = accepted => {}
    }

    gate.open();

    // The upstream is asked while the message is being synced: the document may come after.
    let reply = until("the reply in the document", async || {
        let document = app.get("/conversation/c1").await;
        let document: Value = document.json().await.unwrap();
        document["messages"].get(1).cloned()
    });
    let reply = reply.await;
    assert_eq!(reply["role"], "assistant");
    assert_eq!(reply["content"], "Too late?");
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn an_id_that_the_page_made_begins_a_conversation_under_it() {
    let app = TestApp::start().await;
    for id in [
        "conv_1732-aB9",
        "x",
        &"y".repeat(128),
        "71d20e34-c2ae-48e1-812b-18cfe7e3c401",
    ] {
        let response = app.post("/chat", say(id, "hi")).await;

        assert_eq!(response.headers()["x-conversation-id"], *id);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["conversation_id"], *id);
        assert_eq!(app.said(id).await.len(), 2);
    }
}

#[tokio::test]
async fn without_an_id_each_request_gets_a_new_uuid() {
    let app = TestApp::start().await;
    let mut seen = BTreeSet::new();
    for id in [Some(json!("")), Some(Value::Null), None] {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        if let Some(id) = id {
            body["conversation_id"] = id;
        }

        let response = app.post("/chat", body).await;

        let header = response.headers()["x-conversation-id"].clone();
        let answer: Value = response.json().await.unwrap();
        let given = answer["conversation_id"].as_str().unwrap().to_owned();
        assert_eq!(header, *given);
        assert_eq!(uuid::Uuid::try_parse(&given).unwrap().to_string(), given);
        assert_eq!(app.said(&given).await.len(), 2);
        seen.insert(given);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_uuid_in_upper_case_is_the_same_conversation_and_echoed_as_spelled() {
    let app = TestApp::start().await;
    let lower = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
    let upper = lower.to_ascii_uppercase();
    app.chat(lower, "first").await;

    let response = app.post("/chat", say(&upper, "second")).await;

    assert_eq!(response.headers()["x-conversation-id"], *upper);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["conversation_id"], *upper);
    let (one, other) = (app.document(lower).await, app.document(&upper).await);
    assert_eq!(one["messages"].as_array().unwrap().len(), 4);
    assert_eq!(one["messages"], other["messages"]);
    assert_eq!((&one["id"], &other["id"]), (&json!(lower), &json!(upper)));
}

#[tokio::test]
async fn other_ids_differ_by_case() {
    let app = TestApp::start().await;
    app.chat("Room", "hi").await;

    app.chat("room", "hi").await;

    assert_eq!(app.said("Room").await.len(), 2);
    assert_eq!(app.said("room").await.len(), 2);
}

#[tokio::test]
async fn the_habits_of_the_ancestors_front_ends_are_understood() {
    let app = TestApp::start().await;
    let body = r#" {"messages":[{"role":"user","content":"hi","id":7,"timestamp":"x"}],
        "temperature":"0.25","max_tokens":"50","top_p":null,"model":null,"system_prompt":null,
        "user_id":null,"character_id":"","conversation_id":null,"stream":true,"voice":{"a":[]}} "#;
    for (path, content_type) in [
        ("/chat", None),
        ("/chat/", None),
        ("/chat", Some("text/plain;charset=UTF-8")),
        ("/chat?x=1", Some("application/json; charset=utf-8")),
    ] {
        let mut request = app.http.post(app.url(path)).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }

        let response = request.send().await.unwrap();

        assert_eq!(response.status(), 200, "{path} {content_type:?}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["object"], "chat.completion");
        let sent = only_request(&app.simulator);
        assert_eq!(sent["temperature"], 0.25);
        assert_eq!(sent["max_tokens"], 50);
        assert_eq!(sent["model"], "sim/tokens=5");
        assert_eq!(sent.get("top_p"), None);
    }
}

#[tokio::test]
async fn every_path_is_served_with_a_trailing_slash() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    for path in ["/health/", "/ready/", "/metrics/", "/conversation/c1/"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    let response = app.post("/chat/stream/", say("c1", "again")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
}

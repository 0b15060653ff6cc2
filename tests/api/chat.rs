//! `POST /chat`.

use serde_json::json;

use crate::helpers::{TestApp, say};

#[tokio::test]
async fn a_reply_comes_whole_and_is_remembered() {
    let app = TestApp::start().await;
    app.simulator
        .script(idol_simulator::Script::new().text("Hello Alice!"));

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
    app.simulator
        .script(idol_simulator::Script::new().text("first reply"));
    app.chat("c1", "first").await;
    app.post("/chat", say("c1", "second")).await;

    let requests = app.simulator.chat_requests();
    let body = requests[1].json().unwrap();
    let messages = body["messages"].as_array().unwrap();
    let said: Vec<_> = messages[1..].to_vec();
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(
        said,
        [
            json!({"role": "user", "content": "first"}),
            json!({"role": "assistant", "content": "first reply"}),
            json!({"role": "user", "content": "second"}),
        ]
    );
}

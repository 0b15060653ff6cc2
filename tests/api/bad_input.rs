//! Whatever comes in: an answer that says what is wrong, and a server that goes on.

use std::net::SocketAddr;

use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::helpers::{TestApp, refused, say, within};

/// Posts a body as it stands.
async fn post_raw(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
    let request = app.http.post(app.url(path)).body(body);
    within("an answer", request.send()).await.unwrap()
}

/// Sends bytes; everything that comes back until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may refuse before it has read everything.
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    within("the connection's end", stream.read_to_end(&mut answer))
        .await
        .ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Fails unless the server is well, and has begun nothing.
async fn assert_unharmed(app: &TestApp) {
    assert_eq!(app.get("/health").await.status(), 200);
    assert_eq!(app.simulator.chat_requests().len(), 0);
    app.chat("after", "still there?").await;
    app.assert_nothing_left().await;
}

/// A chat body with another member, which stands in place of one of its own.
fn chat_with(member: &str, value: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    body[member] = value.clone();
    body
}

/// A chat body whose message has another member.
fn message_with(member: &str, value: &Value) -> Value {
    let mut body = chat_with("user_id", &Value::Null);
    body["messages"][0][member] = value.clone();
    body
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_as_a_whole() {
    let app = TestApp::start().await;
    let bodies: [&[u8]; 14] = [
        b"",
        b" \n",
        b"{",
        b"{\"messages\":[]",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]} x",
        b"[]",
        b"[{\"role\":\"user\",\"content\":\"hi\"}]",
        b"null",
        b"\"text\"",
        b"42",
        b"messages=hi&model=x",
        b"{\"temperature\":NaN,\"messages\":[]}",
        b"{\"temperature\":Infinity,\"messages\":[]}",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
    ];
    for body in bodies {
        for path in ["/chat", "/chat/stream"] {
            let response = post_raw(&app, path, body.to_vec()).await;

            let answer = refused(response, 422, "invalid_request").await;
            assert_eq!(answer["detail"][0]["loc"], json!(["body"]), "{answer}");
            assert!(answer["detail"][0]["msg"].is_string());
            assert!(answer["detail"][0]["type"].is_string());
        }
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_member_of_the_wrong_type_is_named() {
    let app = TestApp::start().await;
    let (text, number, list, object) = (json!("x"), json!(5), json!([1]), json!({"a": 1}));
    let wrong: [(&str, &[&Value]); 22] = [
        ("messages", &[&text, &number, &object]),
        ("conversation_id", &[&number, &list, &object]),
        ("user_id", &[&number, &list, &object]),
        ("character_id", &[&number, &list, &object]),
        ("model", &[&number, &list, &object]),
        ("system_prompt", &[&number, &list, &object]),
        ("temperature", &[&text, &list, &object]),
        ("max_tokens", &[&text, &list, &object]),
        ("top_p", &[&text, &list, &object]),
        ("top_k", &[&text, &list]),
        ("min_p", &[&text, &list]),
        ("frequency_penalty", &[&text, &list]),
        ("presence_penalty", &[&text, &list]),
        ("repetition_penalty", &[&text, &list]),
        ("seed", &[&text, &object]),
        ("stop", &[&number, &object]),
        ("models", &[&text, &number, &object]),
        ("provider", &[&text, &number, &list]),
        ("reasoning", &[&text, &list]),
        ("plugins", &[&text, &object]),
        ("tools", &[&text, &object]),
        ("tool_choice", &[&number, &list]),
    ];
    for (member, values) in wrong {
        for value in values {
            let response = app.post("/chat", chat_with(member, value)).await;

            let answer = refused(response, 422, "invalid_request").await;
            let detail = &answer["detail"];
            assert_eq!(detail[0]["loc"], json!(["body", member]), "{answer}");
            assert_eq!(detail[0]["input"], **value, "{answer}");
            assert_eq!(detail.as_array().unwrap().len(), 1);
            assert!(answer["error"].as_str().unwrap().contains(member));
        }
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_message_of_the_wrong_shape_is_named_with_its_place() {
    let app = TestApp::start().await;
    let wrong = [
        ("role", json!(5)),
        ("role", json!("wizard")),
        ("role", json!("User")),
        ("role", json!("")),
        ("role", Value::Null),
        ("content", json!(5)),
        ("content", json!({"type": "text"})),
        ("content", json!(true)),
        ("content", Value::Null),
        ("name", json!(5)),
        ("tool_calls", json!("x")),
        ("tool_calls", json!({})),
        ("tool_call_id", json!(5)),
    ];
    for (member, value) in wrong {
        let response = app.post("/chat", message_with(member, &value)).await;

        let answer = refused(response, 422, "invalid_request").await;
        let place = json!(["body", "messages", 0, member]);
        assert_eq!(answer["detail"][0]["loc"], place, "{answer}");
    }
    for message in [json!(7), json!("hi"), json!([]), Value::Null] {
        let good = json!({"role": "user", "content": "hi"});
        let body = json!({"messages": [good, message]});

        let answer = refused(app.post("/chat", body).await, 422, "invalid_request").await;

        let place = json!(["body", "messages", 1]);
        assert_eq!(answer["detail"][0]["loc"], place, "{answer}");
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn everything_wrong_is_named_at_once() {
    let app = TestApp::start().await;
    let body = json!({
        "messages": [{"role": "user"}, {"role": "user", "content": "hi"}, {"content": "hi"}],
        "temperature": 3, "max_tokens": "many", "model": {},
    });

    let answer = refused(app.post("/chat", body).await, 422, "invalid_request").await;

    let mut places: Vec<_> = answer["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["loc"].to_string())
        .collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            r#"["body","max_tokens"]"#,
            r#"["body","messages",0,"content"]"#,
            r#"["body","messages",2,"role"]"#,
            r#"["body","model"]"#,
            r#"["body","temperature"]"#,
        ]
    );
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_request_without_messages_says_that_they_are_required() {
    let app = TestApp::start().await;
    for body in [json!({}), json!({"messages": null}), json!({"message": []})] {
        let answer = refused(app.post("/chat", body).await, 422, "invalid_request").await;
        assert_eq!(answer["detail"][0]["type"], "missing");
        assert_eq!(answer["detail"][0]["loc"], json!(["body", "messages"]));
        assert_eq!(answer["detail"][0]["msg"], "Field required");
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_number_out_of_range_is_named() {
    let app = TestApp::start().await;
    for (member, numbers) in [
        (
            "temperature",
            vec![
                "-0.1",
                "2.1",
                "\"3\"",
                "1e999",
                "\"NaN\"",
                "\"inf\"",
                "\"-Infinity\"",
            ],
        ),
        (
            "max_tokens",
            vec!["0", "-1", "1.5", "\"0.5\"", "1e18", "99999999999999999999"],
        ),
        ("top_p", vec!["\"NaN\"", "1e999", "\"1e999\""]),
        ("seed", vec!["\"-inf\"", "1e400"]),
    ] {
        for number in numbers {
            let body =
                format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"{member}":{number}}}"#);

            let response = post_raw(&app, "/chat", body).await;

            let answer = refused(response, 422, "invalid_request").await;
            let place = json!(["body", member]);
            assert_eq!(answer["detail"][0]["loc"], place, "{number}: {answer}");
        }
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn numbers_at_the_ends_of_their_range_are_taken() {
    let app = TestApp::start().await;
    for (member, number) in [
        ("temperature", json!(0)),
        ("temperature", json!("2.0")),
        ("max_tokens", json!(1)),
        ("max_tokens", json!(1.0)),
        ("seed", json!(9_007_199_254_740_993_i64)),
        ("top_k", json!(0)),
    ] {
        let response = app.post("/chat", chat_with(member, &number)).await;
        assert_eq!(response.status(), 200, "{member} {number}");
    }
    let requests = app.simulator.chat_requests();
    assert_eq!(
        requests[4].json().unwrap()["seed"],
        9_007_199_254_740_993_i64
    );
}

#[tokio::test]
async fn an_id_outside_the_allowed_set_is_refused_in_a_body() {
    let app = TestApp::start().await;
    let too_long = "x".repeat(129);
    for id in [
        "../etc",
        "..",
        ".",
        "a/b",
        "a\\b",
        "a b",
        "é",
        "a\0",
        "a.json",
        "{71d20e34-c2ae-48e1-812b-18cfe7e3c401}",
        &too_long,
    ] {
        for path in ["/chat", "/chat/stream"] {
            let response = app.post(path, say(id, "hi")).await;

            let answer = refused(response, 422, "invalid_id").await;
            let place = json!(["body", "conversation_id"]);
            assert_eq!(answer["detail"][0]["loc"], place);
            assert_eq!(answer["detail"][0]["input"], id);
        }
    }
    for member in ["user_id", "character_id"] {
        let long = json!("x".repeat(257));
        let response = app.post("/chat", chat_with(member, &long)).await;
        let answer = refused(response, 422, "invalid_request").await;
        assert_eq!(answer["detail"][0]["loc"], json!(["body", member]));
    }
    let written = std::fs::read_dir(app.data_dir().join("conversations")).unwrap();
    assert_eq!(written.count(), 0);
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn an_id_outside_the_allowed_set_is_nobodys_conversation_in_a_path() {
    let app = TestApp::start().await;
    for path in [
        "..%2F..%2Fetc%2Fpasswd",
        "..",
        "%2e%2e",
        "%00",
        "%FF%FE",
        "a%0D%0AX-Evil:%201",
        "%",
        "%zz",
        "a+b",
        &"y".repeat(4_000),
    ] {
        let request =
            format!("GET /conversation/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

        let answer = exchange(app.address, request.as_bytes()).await;

        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert!(!head.to_lowercase().contains("x-evil"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "conversation_not_found", "{path}: {body}");
        assert_eq!(body["detail"]["error"], "Conversation not found");
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whatever_its_framing() {
    let app = TestApp::start().await;
    let large = say("c1", &"x".repeat(2 << 20)).to_string();
    for path in ["/chat", "/chat/stream"] {
        let answer = refused(
            post_raw(&app, path, large.clone()).await,
            413,
            "payload_too_large",
        )
        .await;
        assert!(answer["error"].as_str().unwrap().contains("1048576"));
        assert_eq!(answer["detail"], answer["error"]);

        let pieces = large.as_bytes().chunks(64 << 10).map(<[u8]>::to_vec);
        let pieces: Vec<_> = pieces.map(Ok::<_, std::io::Error>).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        refused(post_raw(&app, path, body).await, 413, "payload_too_large").await;
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn the_largest_allowed_body_is_taken() {
    let app = TestApp::start().await;
    let frame = say("c1", "").to_string().len();
    let text = "x".repeat((1 << 20) - frame);
    let body = say("c1", &text).to_string();
    assert_eq!(body.len(), 1 << 20);

    assert_eq!(post_raw(&app, "/chat", body).await.status(), 200);

    assert_eq!(app.said("c1").await[0].1, text);
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    let app = TestApp::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    for body in [
        deep.clone(),
        deep_object.clone(),
        "[".repeat(100_000),
        format!(r#"{{"messages":{deep}}}"#),
        format!(r#"{{"messages":[{{"role":"user","content":{deep}}}]}}"#),
        format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"unknown":{deep_object}}}"#),
        format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"tools":{deep}}}"#),
    ] {
        refused(post_raw(&app, "/chat", body).await, 422, "invalid_request").await;
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn half_a_surrogate_pair_never_reaches_a_conversation() {
    let app = TestApp::start().await;
    for message in [
        r#"{"role":"user","content":"\ud83d"}"#,
        r#"{"role":"user","content":"\ude00\ud83d"}"#,
        r#"{"role":"user","content":[{"type":"text","text":"\ud83d"}]}"#,
        r#"{"role":"user","content":"x","name":"\ud83d"}"#,
        r#"{"role":"assistant","content":"x","tool_calls":[{"id":"\ud83d"}]}"#,
        r#"{"role":"user","content":"x","\ud83d":1}"#,
    ] {
        let body = format!(r#"{{"conversation_id":"c1","messages":[{message}]}}"#);

        let response = post_raw(&app, "/chat", body).await;

        let answer = refused(response, 422, "invalid_request").await;
        let place = answer["detail"][0]["loc"].as_array().unwrap();
        assert_eq!(place[..3], [json!("body"), json!("messages"), json!(0)]);
    }
    assert_eq!(app.get("/conversation/c1").await.status(), 404);
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_whole_surrogate_pair_is_a_character() {
    let app = TestApp::start().await;
    let body = r#"{"conversation_id":"c1","messages":[{"role":"user","content":"\ud83d\ude00"}]}"#;

    assert_eq!(post_raw(&app, "/chat", body).await.status(), 200);

    assert_eq!(app.said("c1").await[0].1, "😀");
}

#[tokio::test]
async fn the_last_of_two_members_of_one_name_counts() {
    let app = TestApp::start().await;
    let body = r#"{"conversation_id":"a","conversation_id":"b","messages":[],
        "messages":[{"role":"wizard","role":"user","content":5,"content":"hi"}]}"#;

    let answer: Value = post_raw(&app, "/chat", body).await.json().await.unwrap();

    assert_eq!(answer["conversation_id"], "b");
    assert_eq!(app.said("b").await[0].1, "hi");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let app = TestApp::start().await;
    for (method, path, allow) in [
        (Method::GET, "/chat", "POST"),
        (Method::DELETE, "/chat", "POST"),
        (Method::PUT, "/chat/stream", "POST"),
        (Method::GET, "/chat/stream/", "POST"),
        (Method::POST, "/conversation/c1", "GET, HEAD, DELETE"),
        (Method::GET, "/conversation/c1/cancel", "POST"),
        (Method::DELETE, "/conversations", "GET, HEAD"),
        (Method::PATCH, "/health", "GET, HEAD"),
        (Method::POST, "/ready", "GET, HEAD"),
        (Method::POST, "/metrics", "GET, HEAD"),
        (Method::POST, "/ws/chat", "GET"),
    ] {
        let request = app.http.request(method.clone(), app.url(path));

        let response = request.body("{}").send().await.unwrap();

        assert_eq!(response.headers()[header::ALLOW], *allow, "{method} {path}");
        let body = refused(response, 405, "method_not_allowed").await;
        assert_eq!(body["detail"], "Method Not Allowed");
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn what_a_path_allows_it_answers() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    for path in [
        "/health",
        "/ready",
        "/metrics",
        "/conversation/c1",
        "/conversations",
    ] {
        let get = app.get(path).await;

        let head = app.http.head(app.url(path)).send().await.unwrap();

        assert_eq!(
            (get.status(), head.status()),
            (200.try_into().unwrap(), get.status())
        );
        assert_eq!(
            head.headers()[header::CONTENT_TYPE],
            get.headers()[header::CONTENT_TYPE]
        );
        assert_eq!(head.bytes().await.unwrap(), "");
    }
}

#[tokio::test]
async fn an_unknown_path_is_refused_in_the_one_shape() {
    let app = TestApp::start().await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/nothing"),
        (Method::POST, "/chat/streams"),
        (Method::GET, "/conversation"),
        (Method::GET, "/conversation/"),
        (Method::GET, "/conversation/a/b"),
        (Method::DELETE, "/%F0%9F%9A%80"),
        (Method::GET, "//health"),
    ] {
        let request = app.http.request(method, app.url(path));

        let body = refused(request.send().await.unwrap(), 404, "not_found").await;

        assert_eq!(body["detail"], "Not Found");
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn the_sockets_address_without_an_upgrade_is_refused_in_the_one_shape() {
    let app = TestApp::start().await;

    let response = app.get("/ws/chat").await;

    let status = response.status().as_u16();
    assert!((400..500).contains(&status));
    refused(response, status, "invalid_request").await;
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn what_is_hardly_http_does_no_harm() {
    let app = TestApp::start().await;
    let head = "POST /chat HTTP/1.1\r\nHost: x\r\n";
    for request in [
        format!("{head}X-Large: {}\r\n\r\n", "x".repeat(200 << 10)),
        format!("{head}{}\r\n", "X-Many: 1\r\n".repeat(5_000)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(200 << 10)),
        format!("{head}Content-Length: -5\r\n\r\n"),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        "GET /health\r\n\r\n".to_owned(),
    ] {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);

        let answer = exchange(app.address, request.as_bytes()).await;

        let start: String = request.chars().take(60).collect();
        let status = answer.strip_prefix("HTTP/1.1 ");
        assert!(
            answer.is_empty() || status.is_some_and(|status| status.starts_with('4')),
            "{start:?}: {answer}"
        );
    }
    assert_unharmed(&app).await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_a_body_is_told_to_go_on() {
    let app = TestApp::start().await;
    let body = say("c1", "hi").to_string();
    let head = format!(
        "POST /chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within("the word to go on", stream.read_exact(&mut go_on))
        .await
        .unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    stream.write_all(body.as_bytes()).await.unwrap();

    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(app.said("c1").await.len(), 2);
}

#[tokio::test]
async fn requests_that_come_in_one_write_are_answered_in_order() {
    let app = TestApp::start().await;
    let post = |number: u32| {
        let body = say("c1", &format!("message {number}")).to_string();
        let length = body.len();
        format!("POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let last = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let requests = [&post(1), &post(2), last].map(str::to_owned).concat();

    let answer = exchange(app.address, requests.as_bytes()).await;

    let statuses: Vec<_> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, prefix)| &answer[at + prefix.len()..][..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "404"]);
    let said = app.said("c1").await;
    assert_eq!((&*said[0].1, &*said[2].1), ("message 1", "message 2"));
}

#[tokio::test]
async fn a_body_that_breaks_off_does_no_harm() {
    let app = TestApp::start().await;
    for framing in [
        "Content-Length: 100\r\n\r\n{\"messages\":",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"mes",
    ] {
        let request = format!("POST /chat HTTP/1.1\r\nHost: x\r\n{framing}");
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within("the connection's end", stream.read_to_string(&mut answer))
            .await
            .ok();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_unharmed(&app).await;
}

/// Makes random JSON that looks more or less like a chat request.
struct Fuzz(fastrand::Rng);

impl Fuzz {
    const ATOMS: [&str; 24] = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e400",
        "99999999999999999999",
        "\"\"",
        "\"0\"",
        "\"x\"",
        "\"user\"",
        "\"assistant\"",
        "\"system\"",
        "\"tool\"",
        "\"NaN\"",
        "\"\\ud83d\"",
        "\"\\u0000\"",
        "\"../x\"",
        "\"fuzz-1\"",
        "\"fuzz-2\"",
        "\"sim/tokens=1\"",
        "{}",
        "[]",
        "\"\u{202e}🚀\"",
    ];
    const MEMBERS: [&str; 16] = [
        "messages",
        "conversation_id",
        "model",
        "temperature",
        "max_tokens",
        "system_prompt",
        "user_id",
        "character_id",
        "stop",
        "tools",
        "seed",
        "role",
        "content",
        "tool_calls",
        "name",
        "\\ud83d",
    ];

    fn any(&mut self, depth: u32) -> String {
        match self.0.u32(0..8) {
            0 if depth > 0 => {
                let items: Vec<_> = (0..self.0.u32(0..4)).map(|_| self.any(depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            1 if depth > 0 => {
                let count = self.0.u32(0..5);
                self.object(count, depth - 1)
            }
            _ => self.choice(&Self::ATOMS).to_owned(),
        }
    }

    fn object(&mut self, members: u32, depth: u32) -> String {
        let members: Vec<_> = (0..members)
            .map(|_| {
                let name = self.choice(&Self::MEMBERS);
                format!("\"{name}\":{}", self.any(depth))
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }

    fn message(&mut self) -> String {
        if self.0.u32(0..16) == 0 {
            return self.object(3, 2);
        }
        let role = self.choice(&["user", "user", "assistant", "system", "tool", "developer"]);
        let content = match self.0.u32(0..8) {
            0 => self.any(3),
            1 => "[{\"type\":\"text\",\"text\":\"hi\"}]".to_owned(),
            _ => "\"hi\"".to_owned(),
        };
        format!("{{\"role\":\"{role}\",\"content\":{content}}}")
    }

    fn request(&mut self) -> String {
        if self.0.u32(0..10) == 0 {
            return self.any(4);
        }
        let messages: Vec<_> = (0..self.0.u32(0..4)).map(|_| self.message()).collect();
        let (count, messages) = (self.0.u32(0..5) / 2, messages.join(","));
        let others = self.object(count, 2);
        let others = others.trim_start_matches('{');
        let comma = if others == "}" { "" } else { "," };
        let mut body = format!("{{\"messages\":[{messages}]{comma}{others}");
        if self.0.u32(0..10) == 0 {
            let cut = self.0.usize(0..body.len());
            body.truncate(
                (0..=cut)
                    .rev()
                    .find(|at| body.is_char_boundary(*at))
                    .unwrap(),
            );
        }
        body
    }

    fn choice<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.0.usize(0..choices.len())]
    }
}

#[tokio::test]
async fn random_requests_are_answered_or_refused_in_the_one_shape() {
    let app = TestApp::start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut fuzz = Fuzz(fastrand::Rng::with_seed(seed));
    let mut answered = 0;
    for _ in 0..200 {
        let body = fuzz.request();

        let response = post_raw(&app, "/chat", body.clone()).await;

        let status = response.status().as_u16();
        let answer = response.text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{body}"));
        match status {
            200 => {
                assert_eq!(answer["object"], "chat.completion", "{body}");
                answered += 1;
            }
            400..500 => {
                for member in ["error", "code"] {
                    assert!(answer[member].is_string(), "{body}: {answer}");
                }
                assert!(answer.get("detail").is_some(), "{body}: {answer}");
            }
            _ => panic!("{status}: {body}: {answer}"),
        }
    }
    assert!((20..180).contains(&answered), "{answered} of 200 were good");
    for id in ["fuzz-1", "fuzz-2"] {
        let response = app.get(&format!("/conversation/{id}")).await;
        assert!(response.status() == 200 || response.status() == 404);
        response.json::<Value>().await.unwrap();
    }
    assert_eq!(app.get("/health").await.status(), 200);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_models_name_has_a_bound() {
    let app = TestApp::start().await;
    let long = "m".repeat(257);
    for (member, value) in [("model", json!(long)), ("models", json!(["sim/", long]))] {
        let response = app.post("/chat", chat_with(member, &value)).await;
        let body = refused(response, 422, "invalid_request").await;
        assert_eq!(body["detail"][0]["loc"][1], member, "{body}");
    }
    let mut socket = app.socket().await;
    socket
        .send(json!({"type": "message", "conversation_id": "c1", "message": "hi", "model": long}))
        .await;
    let told = socket.until("error").await;
    let error = told.last().unwrap();
    assert!(error.to_string().contains("model"), "{error}");
    drop(socket);
    assert_unharmed(&app).await;
}

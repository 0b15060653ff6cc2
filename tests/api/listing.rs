//! `GET /conversations`: which there are.

use serde_json::{Value, json};

use crate::helpers::{Setup, TestApp, refused, say};

async fn list(app: &TestApp, query: &str) -> Value {
    let response = app.get(&format!("/conversations?{query}")).await;
    assert_eq!(response.status(), 200, "{query}");
    response.json().await.unwrap()
}

fn ids(list: &Value) -> Vec<&str> {
    let conversations = list["conversations"].as_array().unwrap();
    conversations
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect()
}

async fn chat_of(app: &TestApp, conversation: &str, user: &str, character: &str) {
    let mut body = say(conversation, "hi");
    body["user_id"] = json!(user);
    body["character_id"] = json!(character);
    assert_eq!(app.post("/chat", body).await.status(), 200);
}

#[tokio::test]
async fn conversations_are_listed_the_newest_first_with_their_times_and_owners() {
    let app = TestApp::start().await;
    let uuid = "71D20E34-C2AE-48E1-812B-18CFE7E3C401";
    app.chat("c1", "hi").await;
    chat_of(&app, "c2", "alice", "luna").await;
    app.chat(uuid, "hi").await;
    app.chat("c1", "again").await;

    let list = list(&app, "").await;

    let uuid = uuid.to_lowercase();
    assert_eq!(ids(&list), ["c1", &uuid, "c2"]);
    assert_eq!(list.get("next_cursor"), None);
    let (first, last) = (&list["conversations"][0], &list["conversations"][2]);
    let document = app.document("c1").await;
    assert_eq!(
        *first,
        json!({"id": "c1", "created_at": document["created_at"], "updated_at": document["updated_at"]})
    );
    assert_eq!(
        (&last["user_id"], &last["character_id"]),
        (&json!("alice"), &json!("luna"))
    );
}

#[tokio::test]
async fn a_walk_with_cursors_gives_each_conversation_once() {
    let app = TestApp::start().await;
    for number in 0..7 {
        chat_of(&app, &format!("c{number}"), "alice", "luna").await;
    }
    for limit in 1..=8 {
        let (mut walked, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let page = list(&app, &query).await;
            assert!(ids(&page).len() <= limit);
            walked.extend(ids(&page).into_iter().map(str::to_owned));
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            query = format!("limit={limit}&cursor={cursor}");
        }
        assert_eq!(
            walked,
            ["c6", "c5", "c4", "c3", "c2", "c1", "c0"],
            "limit {limit}"
        );
    }
}

#[tokio::test]
async fn the_list_is_that_of_one_owner_and_one_companion_where_they_are_named() {
    let app = TestApp::start().await;
    for (id, user, character) in [
        ("c1", "alice", "luna"),
        ("c2", "alice", "aiko & co"),
        ("c3", "bob", "luna"),
    ] {
        chat_of(&app, id, user, character).await;
    }
    for (query, expected) in [
        ("user_id=alice", vec!["c2", "c1"]),
        ("character_id=luna", vec!["c3", "c1"]),
        ("user_id=alice&character_id=aiko%20%26%20co", vec!["c2"]),
        ("user_id=carol", vec![]),
        ("user_id=&character_id=", vec!["c3", "c2", "c1"]),
    ] {
        assert_eq!(ids(&list(&app, query).await), expected, "{query}");
    }
}

#[tokio::test]
async fn a_parameter_that_makes_no_list_is_named() {
    let app = TestApp::start().await;
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=1.2.3", "cursor"),
    ] {
        let response = app.get(&format!("/conversations?{query}")).await;

        let body = refused(response, 422, "invalid_request").await;
        assert_eq!(body["detail"][0]["loc"], json!(["query", name]), "{query}");
    }
}

#[tokio::test]
async fn only_an_operator_may_list_and_delete() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let forwarded = async |app: &TestApp, method: reqwest::Method, path: &str| {
        let request = app.http.request(method, app.url(path));
        let request = request.header("X-Forwarded-For", "203.0.113.9");
        request.send().await.unwrap()
    };
    for (method, path) in [
        (reqwest::Method::GET, "/conversations"),
        (reqwest::Method::DELETE, "/conversation/c1"),
        // Whether there is such a conversation is not told either.
        (reqwest::Method::DELETE, "/conversation/nobody"),
    ] {
        let response = forwarded(&app, method, path).await;

        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        refused(response, 401, "unauthorized").await;
    }
    assert_eq!(app.said("c1").await.len(), 2);

    let open = Setup::new().set("OPEN_ADMIN", "true").start().await;
    open.chat("c1", "hi").await;
    let list = forwarded(&open, reqwest::Method::GET, "/conversations").await;
    assert_eq!(list.status(), 200);
    let deleted = forwarded(&open, reqwest::Method::DELETE, "/conversation/c1").await;
    assert_eq!(deleted.status(), 204);
}

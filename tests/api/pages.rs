//! `GET /conversation/{id}?after=&limit=`: a part of the messages.

use reqwest::header::{ETAG, IF_NONE_MATCH};
use serde_json::Value;

use crate::helpers::{TestApp, refused};

/// A conversation of four messages; their ids.
async fn of_four(app: &TestApp) -> Vec<String> {
    app.chat("c1", "one").await;
    app.chat("c1", "two").await;
    let document = app.document("c1").await;
    ids(&document)
}

fn ids(document: &Value) -> Vec<String> {
    let messages = document["messages"].as_array().unwrap();
    let id = |message: &Value| message["id"].as_str().unwrap().to_owned();
    messages.iter().map(id).collect()
}

async fn page(app: &TestApp, query: &str) -> Value {
    let response = app.get(&format!("/conversation/c1?{query}")).await;
    assert_eq!(response.status(), 200, "{query}");
    response.json().await.unwrap()
}

#[tokio::test]
async fn a_page_is_the_document_with_the_messages_after_one_and_says_whether_more_follow() {
    let app = TestApp::start().await;
    let all = of_four(&app).await;
    let document = app.document("c1").await;

    for (query, range, more) in [
        ("limit=1".to_owned(), 0..1, true),
        ("limit=4".to_owned(), 0..4, false),
        (format!("after={}", all[0]), 1..4, false),
        (format!("after={}&limit=2", all[0]), 1..3, true),
        (
            format!("after={}&limit=2", all[1].to_uppercase()),
            2..4,
            false,
        ),
        (format!("after={}&limit=1000", all[3]), 4..4, false),
        (format!("after=&limit=1&after={}", all[2]), 3..4, false),
    ] {
        let mut page = page(&app, &query).await;
        assert_eq!(page["has_more"], more, "{query}");
        assert_eq!(ids(&page), all[range.clone()], "{query}");

        // Beside those two members it is the document.
        let messages = &document["messages"].as_array().unwrap()[range];
        assert_eq!(page["messages"].as_array().unwrap(), messages, "{query}");
        page.as_object_mut().unwrap().remove("has_more");
        page["messages"] = document["messages"].clone();
        assert_eq!(page, document, "{query}");
    }
}

#[tokio::test]
async fn without_parameters_the_document_is_whole_and_says_nothing_of_pages() {
    let app = TestApp::start().await;
    of_four(&app).await;
    let plain = app.get("/conversation/c1").await;
    let tag = plain.headers()[ETAG].clone();
    let bytes = plain.bytes().await.unwrap();

    for query in ["", "after=", "limit=&after=", "other=1"] {
        let response = app.get(&format!("/conversation/c1?{query}")).await;

        assert_eq!(response.headers()[ETAG], tag, "{query}");
        assert_eq!(response.bytes().await.unwrap(), bytes, "{query}");
    }
    assert!(!bytes.windows(8).any(|it| it == b"has_more"));
}

#[tokio::test]
async fn a_parameter_that_makes_no_page_is_named() {
    let app = TestApp::start().await;
    of_four(&app).await;
    app.chat("c2", "elsewhere").await;
    let elsewhere = ids(&app.document("c2").await)[0].clone();

    for (query, name) in [
        ("limit=0".to_owned(), "limit"),
        ("limit=1001".to_owned(), "limit"),
        ("limit=-1".to_owned(), "limit"),
        ("limit=1.5".to_owned(), "limit"),
        ("limit=many".to_owned(), "limit"),
        ("after=x".to_owned(), "after"),
        (format!("after={elsewhere}&limit=1"), "after"),
    ] {
        let response = app.get(&format!("/conversation/c1?{query}")).await;

        let body = refused(response, 422, "invalid_request").await;
        assert_eq!(body["detail"][0]["loc"], serde_json::json!(["query", name]));
        assert!(body["error"].as_str().unwrap().starts_with(name), "{body}");
    }
    let missing = app.get("/conversation/nobody?limit=1").await;
    let body = refused(missing, 404, "conversation_not_found").await;
    assert_eq!(body["detail"]["conversation_id"], "nobody");
}

#[tokio::test]
async fn a_page_has_a_tag_of_its_own_that_changes_with_the_document() {
    let app = TestApp::start().await;
    let all = of_four(&app).await;
    let path = |query: &str| format!("/conversation/c1{query}");
    let queries = [
        String::new(),
        "?limit=2".to_owned(),
        "?limit=3".to_owned(),
        format!("?after={}&limit=2", all[0]),
        format!("?after={}", all[0]),
    ];
    let mut tags = Vec::new();
    for query in &queries {
        let tag = app.get(&path(query)).await.headers()[ETAG].clone();
        assert!(!tags.contains(&tag), "{query}");
        tags.push(tag);
    }
    let ask = async |query: &str, tag| {
        let request = app.http.get(app.url(&path(query)));
        request.header(IF_NONE_MATCH, tag).send().await.unwrap()
    };

    for (query, tag) in queries.iter().zip(&tags) {
        let same = ask(query, tag).await;
        assert_eq!(same.status(), 304, "{query}");
        assert_eq!(same.headers()[ETAG], tag);
        assert_eq!(same.bytes().await.unwrap(), "");
    }
    assert_eq!(ask(&queries[1], &tags[2]).await.status(), 200);
    app.chat("c1", "three").await;
    for (query, tag) in queries.iter().zip(&tags) {
        assert_eq!(ask(query, tag).await.status(), 200, "{query}");
    }
}

#[tokio::test]
async fn a_walk_over_pages_gives_every_message_once() {
    let app = TestApp::start().await;
    for number in 0..6 {
        app.chat("c1", &format!("message {number}")).await;
    }
    let all = ids(&app.document("c1").await);

    for limit in 1..=13 {
        let mut walked = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let page = page(&app, &query).await;
            walked.extend(ids(&page));
            if page["has_more"] == false {
                break;
            }
            query = format!("limit={limit}&after={}", walked.last().unwrap());
        }
        assert_eq!(walked, all, "limit {limit}");
    }
}

//! Lists of names.

use idol_actors::mirror::supabase::{ListedObject, Listing, SupabaseErrorKind};
use serde_json::{Value, json};
use tokio::join;

use crate::server::*;

const NO_ROUTE: &str = r#"{"message":"Route POST:/object/list-v2/docs not found","error":"Not Found","statusCode":404}"#;

fn row(name: &str, size: u64) -> Value {
    json!({"id": "698d90cd-daeb-4bd8-a19e-d9231eabc150", "name": name,
        "metadata": {"eTag": "\"08c6\"", "size": size, "mimetype": "application/json"},
        "updated_at": "2026-11-22T11:25:08.630Z"})
}

fn folder(name: &str) -> Value {
    json!({"id": null, "name": name, "metadata": null, "updated_at": null})
}

fn listed(key: &str, size: u64) -> ListedObject {
    ListedObject {
        key: key.to_owned(),
        size: Some(size),
    }
}

async fn collect(mut listing: Listing) -> Vec<ListedObject> {
    let mut all = vec![];
    while let Some(page) = listing.next_page().await.unwrap() {
        all.extend(page);
    }
    all
}

/// Answers the requests of one connection in turn; gives what was asked, by path and body.
async fn serve(server: &Server, answers: &[(&str, &str)]) -> Vec<(String, Value)> {
    let mut connection = server.accept().await;
    let mut asked = vec![];
    for (status, body) in answers {
        let request = connection.request().await;
        asked.push((request.line.clone(), request.json()));
        connection.answer(status, body).await;
    }
    asked
}

#[actix::test]
async fn pages_follow_each_other_by_cursor() {
    let server = Server::start().await;
    let client = server.client();
    let first = json!({"hasNext": true, "nextCursor": "bDphMi", "nextCursorKey": "a2.json",
        "folders": [], "objects": [row("a1.json", 10), row("a2.json", 11)]});
    let last = json!({"hasNext": false, "folders": [], "objects": [row("a3.json", 12)]});
    let answers = [
        ("200 OK", &*first.to_string()),
        ("200 OK", &last.to_string()),
    ];
    let (asked, all) = join!(serve(&server, &answers), collect(client.list("a")));
    let expected = [
        listed("a1.json", 10),
        listed("a2.json", 11),
        listed("a3.json", 12),
    ];
    assert_eq!(all, expected);
    for (line, body) in &asked {
        assert_eq!(line, "POST /storage/v1/object/list-v2/docs");
        assert_eq!(
            (&body["prefix"], &body["with_delimiter"]),
            (&json!("a"), &json!(false))
        );
    }
    assert_eq!(asked[0].1.get("cursor"), None);
    assert_eq!(asked[1].1["cursor"], "bDphMi");
}

#[actix::test]
async fn a_listing_that_would_never_end_is_an_error() {
    let again = r#"{"hasNext":true,"nextCursor":"same","folders":[],"objects":[]}"#;
    let nowhere = r#"{"hasNext":true,"folders":[],"objects":[]}"#;
    for second in [again, nowhere] {
        let server = Server::start().await;
        let client = server.client();
        let answers = [("200 OK", again), ("200 OK", second)];
        let ask = async {
            let mut listing = client.list("");
            assert_eq!(listing.next_page().await, Ok(Some(vec![])));
            listing.next_page().await.unwrap_err()
        };
        let (_, error) = join!(serve(&server, &answers), ask);
        assert_eq!(error.kind, SupabaseErrorKind::Malformed, "{error}");
    }
}

#[actix::test]
async fn a_page_that_failed_is_asked_for_again() {
    let server = Server::start().await;
    let client = server.client();
    let first = json!({"hasNext": true, "nextCursor": "next", "folders": [],
        "objects": [row("a", 1)]});
    let last = json!({"hasNext": false, "folders": [], "objects": [row("b", 2)]});
    let answers = [
        ("200 OK", &*first.to_string()),
        ("503 Unavailable", ""),
        ("200 OK", &last.to_string()),
    ];
    let ask = async {
        let mut listing = client.list("");
        listing.next_page().await.unwrap();
        assert!(listing.next_page().await.unwrap_err().is_retryable());
        assert_eq!(listing.next_page().await, Ok(Some(vec![listed("b", 2)])));
        assert_eq!(listing.next_page().await, Ok(None));
    };
    let (asked, ()) = join!(serve(&server, &answers), ask);
    assert_eq!(
        (&asked[1].1["cursor"], &asked[2].1),
        (&json!("next"), &asked[1].1)
    );
}

#[actix::test]
async fn an_older_server_is_asked_the_older_way() {
    let server = Server::start().await;
    let client = server.client();
    // It ignores case in a search, and shows folders among the objects.
    let page = json!([folder("x"), row("X1.json", 1), row("x2.json", 2)]);
    let answers = [
        ("404 Not Found", NO_ROUTE),
        ("200 OK", &*page.to_string()),
        ("200 OK", "[]"),
    ];
    let (asked, all) = join!(serve(&server, &answers), collect(client.list("dir/x")));
    assert_eq!(all, [listed("dir/x2.json", 2)]);
    for ((line, body), offset) in asked[1..].iter().zip([0, 3]) {
        assert_eq!(line, "POST /storage/v1/object/list/docs");
        assert_eq!(
            (&body["prefix"], &body["search"]),
            (&json!("dir/"), &json!("x"))
        );
        assert_eq!(body["offset"], offset);
    }
}

//! The table `chats`.

use idol_actors::{
    mirror::supabase::{ChatRow, Deletion, RowUpdate, SupabaseErrorKind},
    time::Timestamp,
};
use serde_json::json;
use tokio::join;

use crate::server::*;

const TIME: &str = "2026-11-22T11:25:08.607000Z";

fn row(id: &str, user: &str) -> ChatRow {
    ChatRow {
        id: id.to_owned(),
        user_id: Some(user.to_owned()),
        character_id: None,
        updated_at: Timestamp::parse(TIME),
    }
}

#[actix::test]
async fn rows_are_merged_by_id_and_none_is_sent_twice() {
    let server = Server::start().await;
    let client = server.client();
    let rows = [row("a", "1"), row("b", "1"), row("a", "2")];
    let (request, outcome) = join!(server.serve("201 Created", ""), client.upsert_rows(&rows));
    outcome.unwrap();
    assert_eq!(request.line, "POST /rest/v1/chats?on_conflict=id");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.header("prefer"),
        Some("resolution=merge-duplicates,return=minimal,missing=default")
    );
    let expected = json!([
        {"id": "b", "user_id": "1", "updated_at": TIME},
        {"id": "a", "user_id": "2", "updated_at": TIME},
    ]);
    assert_eq!(request.json(), expected);
}

#[actix::test]
async fn many_rows_are_sent_in_batches_until_one_fails() {
    let server = Server::start().await;
    let client = server.client();
    let rows: Vec<_> = (0..1500).map(|n| row(&n.to_string(), "1")).collect();
    let serve = async {
        let mut connection = server.accept().await;
        let mut ids = vec![];
        for status in ["201 Created", "409 Conflict"] {
            let batch = connection.request().await.json();
            let batch = batch.as_array().unwrap();
            ids.extend(
                batch
                    .iter()
                    .map(|row| row["id"].as_str().unwrap().to_owned()),
            );
            let body = match status {
                "409 Conflict" => r#"{"code":"23503","message":"m","details":null,"hint":null}"#,
                _ => "",
            };
            connection.answer(status, body).await;
        }
        ids
    };
    let (ids, outcome) = join!(serve, client.upsert_rows(&rows));
    assert_eq!(outcome.unwrap_err().kind, SupabaseErrorKind::ForeignKey);
    let sent: Vec<_> = rows[..1000].iter().map(|row| row.id.clone()).collect();
    assert_eq!(ids, sent);
}

#[actix::test]
async fn an_update_says_whether_there_was_a_row() {
    for (body, expected) in [
        (r#"[{"id":"c"}]"#, RowUpdate::Updated),
        ("[]", RowUpdate::WasMissing),
    ] {
        let server = Server::start().await;
        let client = server.client();
        let time = Timestamp::parse(TIME).unwrap();
        let (request, outcome) = join!(
            server.serve("200 OK", body),
            client.patch_updated_at("c", time)
        );
        assert_eq!(outcome, Ok(expected));
        assert_eq!(request.line, "PATCH /rest/v1/chats?id=eq.c&select=id");
        assert_eq!(request.header("prefer"), Some("return=representation"));
        assert_eq!(request.json(), json!({"updated_at": TIME}));
    }
}

#[actix::test]
async fn a_row_is_read_if_there_is_one() {
    let full = r#"[{"id":"c","user_id":"1","character_id":null,"updated_at":"2026-11-22T11:25:08.607+00:00"}]"#;
    for (body, expected) in [(full, Some(row("c", "1"))), ("[]", None)] {
        let server = Server::start().await;
        let client = server.client();
        let (request, outcome) = join!(server.serve("200 OK", body), client.row("c"));
        assert_eq!(outcome, Ok(expected));
        assert_eq!(
            request.line,
            "GET /rest/v1/chats?id=eq.c&select=id%2Cuser_id%2Ccharacter_id%2Cupdated_at"
        );
    }
}

#[actix::test]
async fn a_deleted_row_is_told_from_a_missing_one() {
    for (body, expected) in [
        (r#"[{"id":"a&b"}]"#, Deletion::Deleted),
        ("[]", Deletion::WasMissing),
    ] {
        let server = Server::start().await;
        let client = server.client();
        let (request, outcome) = join!(server.serve("200 OK", body), client.delete_row("a&b"));
        assert_eq!(outcome, Ok(expected));
        // Whatever the id holds, it stays one filter: without one, all rows would go.
        assert_eq!(request.line, "DELETE /rest/v1/chats?id=eq.a%26b&select=id");
    }
}

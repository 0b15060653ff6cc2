//! Calls without an answer, and what may be concluded.

use std::time::Duration;

use idol_actors::mirror::supabase::{SupabaseError, SupabaseErrorKind};
use tokio::join;

use crate::server::*;

/// Ends a call that is never answered.
const SHORT: Duration = Duration::from_secs(1);

#[track_caller]
fn not_applied(error: &SupabaseError) {
    assert_eq!(error.kind, SupabaseErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable() && !error.outcome_unknown());
}

#[track_caller]
fn unknown(error: &SupabaseError) {
    assert_eq!(error.kind, SupabaseErrorKind::Unknown, "{error}");
    assert!(error.is_retryable() && error.outcome_unknown());
}

#[actix::test]
async fn without_a_connection_nothing_was_done() {
    let server = Server::start().await;
    let client = server.client();
    drop(server);
    for document in [pieces(&["{}"]), long_document()] {
        not_applied(&upload(&client, document).await.unwrap_err());
    }
    not_applied(&client.delete("c.json").await.unwrap_err());
}

#[actix::test]
async fn a_connection_that_breaks_after_the_whole_document_leaves_it_open() {
    for document in [pieces(&["{}"]), long_document()] {
        let server = Server::start().await;
        let client = server.client();
        let serve = async { drop(server.accept().await.request().await) };
        let (outcome, ()) = join!(upload(&client, document), serve);
        unknown(&outcome.unwrap_err());
    }
}

#[actix::test]
async fn an_answer_that_breaks_off_leaves_a_write_open() {
    let server = Server::start().await;
    let client = server.client();
    let serve = async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection
            .say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
            .await;
    };
    let (outcome, ()) = join!(client.copy("a", "b"), serve);
    unknown(&outcome.unwrap_err());
}

#[actix::test]
async fn half_a_document_is_none() {
    let server = Server::start().await;
    let client = server.client();
    let serve = async { drop(server.accept().await.request_head().await) };
    let (outcome, ()) = join!(upload(&client, long_document()), serve);
    not_applied(&outcome.unwrap_err());
}

#[actix::test]
async fn a_document_that_is_not_read_in_time_was_not_taken() {
    let server = Server::start().await;
    let client = server.client_with(SHORT);
    let (outcome, connection) = join!(upload(&client, long_document()), server.accept());
    not_applied(&outcome.unwrap_err());
    connection.closed().await;
}

#[actix::test]
async fn a_write_that_is_not_answered_in_time_is_open() {
    let server = Server::start().await;
    let client = server.client_with(SHORT);
    let (outcome, connection) = join!(client.delete("c.json"), server.accept());
    unknown(&outcome.unwrap_err());
    // Nor is its connection used for anything else.
    connection.closed().await;
}

#[actix::test]
async fn a_read_that_is_not_answered_changed_nothing() {
    let server = Server::start().await;
    let client = server.client_with(SHORT);
    let (outcome, _connection) = join!(client.info("c.json"), server.accept());
    not_applied(&outcome.unwrap_err());

    let client = server.client();
    let serve = async { drop(server.accept().await.request().await) };
    let (outcome, ()) = join!(client.row("c"), serve);
    not_applied(&outcome.unwrap_err());
}

#[actix::test]
async fn a_server_that_repeats_the_key_does_not_bring_it_into_the_message() {
    let server = Server::start().await;
    let body = format!(r#"{{"message":"what is {KEY}?"}}"#);
    for status in ["400 Bad Request", "401 Unauthorized", "500 Oops"] {
        let client = server.client();
        let (_, outcome) = join!(server.serve(status, &body), client.delete("c.json"));
        let error = outcome.unwrap_err();
        let shown = format!("{error} {error:?} {client:?}");
        assert!(!shown.contains(KEY), "{shown}");
        assert!(shown.contains(&status[..3]), "{shown}");
    }
}

//! Documents on their way out.

use idol_actors::mirror::supabase::SupabaseErrorKind;
use tokio::join;

use crate::server::*;

#[actix::test]
async fn a_document_is_sent_whole_with_its_length_ahead() {
    let server = Server::start().await;
    let client = server.client();
    let document = pieces(&["{\"a\":", "", "\"é\"}"]);
    let (request, outcome) = join!(server.serve("200 OK", STORED), upload(&client, document));
    outcome.unwrap();
    assert_eq!(request.line, "POST /storage/v1/object/docs/c%20d.json");
    assert_eq!(request.body, "{\"a\":\"é\"}".as_bytes());
    let sent = |name| request.header(name);
    assert_eq!(sent("content-length"), Some("10"));
    assert_eq!(sent("transfer-encoding"), None);
    assert_eq!(sent("x-upsert"), Some("true"));
    assert_eq!(sent("cache-control"), Some("no-cache"));
    assert_eq!(sent("content-type"), Some("application/json"));
    assert!(sent("x-metadata").is_some());
}

#[actix::test]
async fn an_empty_document_has_a_length_too() {
    let server = Server::start().await;
    let client = server.client();
    let (request, outcome) = join!(server.serve("200 OK", STORED), upload(&client, vec![]));
    outcome.unwrap();
    assert_eq!(request.header("content-length"), Some("0"));
    assert_eq!(request.header("transfer-encoding"), None);
}

#[actix::test]
async fn short_documents_share_a_connection() {
    let server = Server::start().await;
    let client = server.client();
    let serve = async {
        let mut connection = server.accept().await;
        for _ in 0..2 {
            let request = connection.request().await;
            assert_eq!(request.header("connection"), None);
            connection.answer("200 OK", STORED).await;
        }
    };
    let ask = async {
        for _ in 0..2 {
            let document = pieces(&["{}"]);
            upload(&client, document).await.unwrap();
        }
    };
    join!(serve, ask);
}

#[actix::test]
async fn a_long_document_has_a_connection_of_its_own() {
    let server = Server::start().await;
    let client = server.client();
    let document = long_document();
    let length: usize = document.iter().map(|piece| piece.len()).sum();
    let serve = async {
        let mut connection = server.accept().await;
        let request = connection.request().await;
        assert_eq!(request.body.len(), length);
        assert_eq!(request.header("transfer-encoding"), None);
        assert_eq!(request.header("connection"), Some("close"));
        connection.answer("200 OK", STORED).await;
        connection.closed().await;
    };
    let (outcome, ()) = join!(upload(&client, document), serve);
    outcome.unwrap();
}

#[actix::test]
async fn the_connection_of_a_refused_document_is_closed_and_never_used_again() {
    // One that the sockets' buffers hold whole, as if it had been read, and one that they cannot.
    for document in [pieces(&["x".repeat(512 * 1024).as_str()]), long_document()] {
        let server = Server::start().await;
        let client = server.client();
        let serve = async {
            let mut refused = server.accept().await;
            refused.request_head().await;
            // As the server does: the answer comes at once, the body is never read.
            refused.answer("400 Bad Request", FORBIDDEN).await;
            let next = server.serve("400 Bad Request", NO_SUCH_KEY).await;
            assert!(next.line.starts_with("GET "), "{}", next.line);
            refused.closed().await;
        };
        let ask = async {
            let error = upload(&client, document).await.unwrap_err();
            assert_eq!(error.kind, SupabaseErrorKind::Forbidden, "{error}");
            assert!(!error.outcome_unknown());
            assert_eq!(client.info("c.json").await, Ok(None));
        };
        join!(ask, serve);
    }
}

#[actix::test]
async fn a_success_that_names_no_object_is_none() {
    let endless = " ".repeat(1 << 20);
    for body in ["", "{}", "<html>welcome</html>", "{\"Key\":\"\"}", &endless] {
        let server = Server::start().await;
        let client = server.client();
        let (_, outcome) = join!(
            server.serve("200 OK", body),
            upload(&client, pieces(&["{}"]))
        );
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, SupabaseErrorKind::Malformed, "{error}");
        assert!(error.outcome_unknown() && !error.is_retryable());
    }
}

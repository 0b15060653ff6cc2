//! The bucket, and what is done with single objects.

use std::collections::HashSet;

use idol_actors::{
    mirror::supabase::{
        Copying, Deletion, Found, Missing, ObjectInfo, SupabaseError, SupabaseErrorKind,
    },
    time::Timestamp,
};
use serde_json::json;
use tokio::join;

use crate::server::*;

const BUCKET: &str = r#"{"id":"docs","name":"docs","owner":"","public":false,"file_size_limit":null,"allowed_mime_types":null,"created_at":"2026-11-22T11:23:38.434Z","updated_at":"2026-11-22T11:23:38.434Z"}"#;

#[actix::test]
async fn every_request_carries_the_key_twice_and_says_who_asks() {
    let server = Server::start().await;
    let client = server.client();
    let (request, outcome) = join!(
        server.serve("400 Bad Request", NO_SUCH_KEY),
        client.info("c.json")
    );
    assert_eq!(outcome, Ok(None));
    assert_eq!(
        request.line,
        "GET /storage/v1/object/info/authenticated/docs/c.json"
    );
    assert_eq!(request.header("apikey"), Some(KEY));
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("bearer {KEY}"))
    );
    let agent = request.header("user-agent").unwrap();
    assert!(agent.starts_with("idol-router/"), "{agent}");
}

#[actix::test]
async fn a_missing_bucket_is_created_and_then_looked_at() {
    for created in [
        ("200 OK", r#"{"name":"docs"}"#),
        // Another instance was faster.
        (
            "400 Bad Request",
            r#"{"statusCode":"409","error":"Duplicate","message":"The resource already exists","code":"BucketAlreadyExists"}"#,
        ),
    ] {
        let server = Server::start().await;
        let client = server.client();
        let serve = async {
            let mut connection = server.accept().await;
            let asked = connection.request().await;
            assert_eq!(asked.line, "GET /storage/v1/bucket/docs");
            connection.answer("400 Bad Request", NO_SUCH_BUCKET).await;
            let asked = connection.request().await;
            assert_eq!(asked.line, "POST /storage/v1/bucket");
            let wanted = json!({"id": "docs", "name": "docs", "public": false});
            assert_eq!(asked.json(), wanted);
            connection.answer(created.0, created.1).await;
            connection.request().await;
            connection.answer("200 OK", BUCKET).await;
        };
        let (outcome, ()) = join!(client.ensure_bucket(), serve);
        assert_eq!(outcome.unwrap().found, Found::New);
    }
}

#[actix::test]
async fn an_existing_bucket_is_described() {
    let server = Server::start().await;
    let client = server.client();
    let body =
        r#"{"id":"docs","public":true,"file_size_limit":1024,"allowed_mime_types":["image/*"]}"#;
    let (_, outcome) = join!(server.serve("200 OK", body), client.ensure_bucket());
    let bucket = outcome.unwrap();
    assert_eq!(bucket.found, Found::Existing);
    assert_eq!((bucket.public, bucket.file_size_limit), (true, Some(1024)));
    assert_eq!(bucket.allowed_mime_types, Some(vec!["image/*".to_owned()]));
}

#[actix::test]
async fn a_bucket_that_may_not_be_created_is_an_error() {
    let server = Server::start().await;
    let client = server.client();
    let serve = async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection.answer("400 Bad Request", NO_SUCH_BUCKET).await;
        connection.request().await;
        connection.answer("400 Bad Request", FORBIDDEN).await;
    };
    let (outcome, ()) = join!(client.ensure_bucket(), serve);
    assert_eq!(outcome.unwrap_err().kind, SupabaseErrorKind::Forbidden);
}

async fn info(status: &str, body: &str) -> Result<Option<ObjectInfo>, SupabaseError> {
    let server = Server::start().await;
    let client = server.client();
    join!(server.serve(status, body), client.info("c.json")).1
}

#[actix::test]
async fn an_object_is_described_with_its_writers_metadata() {
    let stored = json!({
        "log": metadata().log, "incarnation": u64::MAX.to_string(), "seq": "3", "hash": "00ff",
    });
    for (stored, expected) in [
        (stored, Some(metadata())),
        (json!({"gen": "7"}), None),
        (json!(null), None),
    ] {
        let body = json!({
            "id": "4a7a9070-50ed-434f-af2b-29eb792c7a7f", "name": "c.json",
            "version": "8fcd2340-6ebf-4656-9532-158e1cd19242", "bucket_id": "docs", "size": 10,
            "content_type": "application/json", "cache_control": "no-cache",
            "etag": "\"cdd0\"", "metadata": stored,
            "last_modified": "2026-11-22T11:23:38.745Z", "created_at": "2026-11-22T11:23:38.745Z",
        });
        let info = info("200 OK", &body.to_string()).await.unwrap().unwrap();
        assert_eq!((&*info.etag, info.size), ("\"cdd0\"", 10));
        assert_eq!(info.version, "8fcd2340-6ebf-4656-9532-158e1cd19242");
        let time = Timestamp::parse("2026-11-22T11:23:38.745Z");
        assert!(time.is_some() && info.last_modified == time);
        assert_eq!(info.metadata, expected);
    }
}

#[actix::test]
async fn only_the_servers_own_word_makes_an_object_missing() {
    use SupabaseErrorKind as Kind;
    assert_eq!(info("400 Bad Request", NO_SUCH_KEY).await, Ok(None));
    for (status, body, kind) in [
        (
            "400 Bad Request",
            NO_SUCH_BUCKET,
            Kind::NotFound(Missing::Bucket),
        ),
        ("404 Not Found", "", Kind::NoRoute),
        ("404 Not Found", "<html>nginx</html>", Kind::NoRoute),
        ("400 Bad Request", "", Kind::Rejected),
        ("200 OK", "", Kind::Malformed),
        ("200 OK", "{}", Kind::Malformed),
        ("204 No Content\r\nx: y", "", Kind::Malformed),
        (
            "302 Found\r\nlocation: http://127.0.0.1:1/",
            "",
            Kind::Malformed,
        ),
    ] {
        let error = info(status, body).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {body}: {error}");
    }
}

/// What a download of at most 4 bytes gives for an answer.
async fn download(answer: &str) -> Result<Option<Vec<u8>>, SupabaseErrorKind> {
    let server = Server::start().await;
    let client = server.client();
    let serve = async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection.say(answer).await;
    };
    let (outcome, ()) = join!(client.download("c.json", 4), serve);
    match outcome {
        Ok(found) => Ok(found.map(Vec::from)),
        Err(error) => Err(error.kind),
    }
}

#[actix::test]
async fn a_document_is_read_whole_or_not_at_all() {
    use SupabaseErrorKind as Kind;
    let missing = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{NO_SUCH_KEY}",
        NO_SUCH_KEY.len()
    );
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = Ok(Some(b"1234".to_vec()));
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n1234",
            whole.clone(),
        ),
        (&*format!("{chunked}4\r\n1234\r\n0\r\n\r\n"), whole),
        (&missing, Ok(None)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345",
            Err(Kind::TooLarge),
        ),
        (
            &format!("{chunked}5\r\n12345\r\n0\r\n\r\n"),
            Err(Kind::TooLarge),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n123",
            Err(Kind::Unavailable),
        ),
        (&format!("{chunked}3\r\n123\r\n"), Err(Kind::Unavailable)),
        // Nobody can say whether this is all.
        ("HTTP/1.1 200 OK\r\n\r\n1234", Err(Kind::Malformed)),
        (
            "HTTP/1.1 206 Partial\r\ncontent-length: 4\r\n\r\n1234",
            Err(Kind::Malformed),
        ),
    ] {
        assert_eq!(download(answer).await, expected, "{answer}");
    }
}

#[actix::test]
async fn no_cache_sees_two_downloads_of_one_url() {
    let server = Server::start().await;
    let client = server.client();
    let serve = async {
        let mut lines = HashSet::new();
        let mut connection = server.accept().await;
        for _ in 0..2 {
            lines.insert(connection.request().await.line);
            connection.answer("200 OK", "{}").await;
        }
        lines
    };
    let ask = async {
        for _ in 0..2 {
            client.download("c.json", 10).await.unwrap().unwrap();
        }
    };
    let (lines, ()) = join!(serve, ask);
    assert_eq!(lines.len(), 2);
    for line in lines {
        let path = "GET /storage/v1/object/authenticated/docs/c.json?";
        assert!(line.starts_with(path), "{line}");
    }
}

#[actix::test]
async fn a_copy_says_how_it_ended() {
    for (status, body, expected) in [
        ("200 OK", STORED, Copying::Copied),
        ("400 Bad Request", DUPLICATE, Copying::AlreadyThere),
        ("400 Bad Request", NO_SUCH_KEY, Copying::Missing),
    ] {
        let server = Server::start().await;
        let client = server.client();
        let (request, outcome) = join!(server.serve(status, body), client.copy("a.json", "b.json"));
        assert_eq!(outcome, Ok(expected));
        assert_eq!(request.line, "POST /storage/v1/object/copy");
        let wanted = json!({"bucketId": "docs", "sourceKey": "a.json", "destinationKey": "b.json"});
        assert_eq!(request.json(), wanted);
        assert_eq!(request.header("x-upsert"), None);
    }
}

#[actix::test]
async fn a_deletion_says_whether_there_was_something() {
    for (status, body, expected) in [
        (
            "200 OK",
            r#"{"message":"Successfully deleted"}"#,
            Deletion::Deleted,
        ),
        ("400 Bad Request", NO_SUCH_KEY, Deletion::WasMissing),
    ] {
        let server = Server::start().await;
        let client = server.client();
        let (request, outcome) = join!(server.serve(status, body), client.delete("c.json"));
        assert_eq!(outcome, Ok(expected));
        assert_eq!(request.line, "DELETE /storage/v1/object/docs/c.json");
        // With a content type and no content it would be refused.
        assert_eq!(request.header("content-type"), None);
    }
}

#[actix::test]
async fn a_key_that_would_name_the_bucket_is_not_even_sent() {
    let server = Server::start().await;
    let client = server.client();
    let rejected = |error: SupabaseError| assert_eq!(error.kind, SupabaseErrorKind::RejectedName);
    for key in ["", "..", "a/../b"] {
        rejected(client.delete(key).await.unwrap_err());
        rejected(client.info(key).await.unwrap_err());
        rejected(client.copy("a", key).await.unwrap_err());
    }
    // The first that arrives is this one.
    let (request, _) = join!(
        server.serve("400 Bad Request", NO_SUCH_KEY),
        client.info("c.json")
    );
    assert!(request.line.ends_with("/docs/c.json"), "{}", request.line);
}

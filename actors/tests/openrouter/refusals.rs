//! Answers that are no stream.

use std::time::Duration;

use idol_actors::provider::{UpstreamErrorKind, openrouter::models::fetch_context_lengths};
use tokio::io::AsyncWriteExt as _;

use crate::upstream::*;

#[actix::test]
async fn refusals_have_their_kinds() {
    use UpstreamErrorKind as Kind;
    for (head, body, kind, words) in [
        (
            "401 Unauthorized",
            "{\"error\":{\"message\":\"no key-of-the-test\"}}",
            Kind::Auth,
            "API key",
        ),
        (
            "400 Bad Request",
            "{\"error\":{\"message\":\"bad key-of-the-test!\"}}",
            Kind::Rejected,
            "bad (key)",
        ),
        (
            "429 Too Many\r\nretry-after: 7",
            "",
            Kind::RateLimited,
            "HTTP 429",
        ),
        (
            "524 Timeout\r\ncontent-type: text/html",
            "<html>x</html>",
            Kind::Timeout,
            "HTTP 524",
        ),
        (
            "302 Found\r\nlocation: http://127.0.0.1:1/",
            "",
            Kind::Failed,
            "redirect",
        ),
        (
            "200 OK\r\ncontent-type: text/html",
            "<html>x</html>",
            Kind::Failed,
            "web page",
        ),
        (
            "200 OK\r\ncontent-type: application/json",
            "{\"error\":{\"code\":402,\"message\":\"x\"}}",
            Kind::Credits,
            "credit",
        ),
    ] {
        let reply = call(
            |_| {},
            async |mut connection| {
                let length = body.len();
                connection
                    .say(&format!(
                        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}"
                    ))
                    .await;
            },
        );
        let error = reply.await.failed("", &kind, words);
        assert!(!error.message.contains("key-of-the-test"));
        let wait = (kind == Kind::RateLimited).then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after, wait);
    }
}

#[actix::test]
async fn an_endless_error_body_is_not_read_to_its_end() {
    let reply = call(
        |_| {},
        async |mut connection| {
            connection
                .say("HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n")
                .await;
            let noise = [b'x'; 8192];
            while connection.socket.write_all(&noise).await.is_ok() {}
        },
    )
    .await;
    let error = reply.failed("", &UpstreamErrorKind::Failed, "HTTP 500");
    assert!(error.message.chars().count() < 600);
}

#[actix::test]
async fn an_answer_that_is_not_streamed_is_understood() {
    let body = include_str!("../fixtures/openrouter_nonstream_leading_newlines.txt");
    let reply = call(
        |_| {},
        async |mut connection| {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            connection.say(&[head, body].concat()).await;
        },
    );
    reply.await.is_whole("Hello", "stop");
}

#[actix::test]
async fn an_upstream_that_is_not_there_has_failed() {
    let config = Upstream::start().await.config();
    let reply = Call::start(&config).await.reply().await;
    reply.failed("", &UpstreamErrorKind::Failed, "no connection");
}

#[actix::test]
async fn context_lengths_are_fetched() {
    let upstream = Upstream::start().await;
    let config = upstream.config();
    let list = include_str!("../fixtures/openrouter_models.json");
    let serve = async {
        let mut connection = upstream.accept().await;
        assert!(connection.head.starts_with("get /api/v1/models "));
        connection
            .say(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}",
                list.len()
            ))
            .await;
        connection
    };
    let (_connection, lengths) = tokio::join!(serve, fetch_context_lengths(&config));
    assert_eq!(lengths.unwrap().get("example/model-1"), Some(&131_072));
}

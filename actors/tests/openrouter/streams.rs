//! How a reply comes in, and what makes it whole.

use actix::Actor as _;
use idol_actors::provider::{Delta, UpstreamErrorKind, openrouter::OpenRouter};
use tokio::io::AsyncWriteExt as _;

use crate::upstream::*;

/// Calls of which one at least is to meet a connection that is free.
const CALLS_MAX: usize = 50;

#[actix::test]
async fn a_reply_is_streamed_and_the_request_says_who_asks() {
    let reply = call(
        |_| {},
        async |mut connection| {
            assert!(
                connection
                    .head
                    .starts_with("post /api/v1/chat/completions http/1.1\r\n")
            );
            for header in [
                "authorization: bearer key-of-the-test",
                "http-referer: https://example.org",
                "x-openrouter-title: idol",
                "x-title: idol",
                "accept: text/event-stream",
                "content-type: application/json",
                concat!("user-agent: idol-router/", env!("CARGO_PKG_VERSION")),
            ] {
                assert!(
                    connection.head.contains(&format!("\r\n{header}\r\n")),
                    "{header}"
                );
            }
            assert_eq!(connection.body, "{\"stream\":true}");
            let all = [
                STREAM,
                ": OPENROUTER PROCESSING\n\n",
                &chunk("a"),
                &chunk("b\\n"),
                &finish("stop"),
                DONE,
            ];
            connection.say(&all.concat()).await;
        },
    )
    .await;
    reply.is_whole("ab\n", "stop");
}

#[actix::test]
async fn without_a_key_none_is_sent() {
    let reply = call(
        |config| {
            config.api_key = None;
            config.title = None;
            config.http_referer = None;
        },
        async |mut connection| {
            for header in ["authorization", "referer", "title"] {
                assert!(!connection.head.contains(header), "{header}");
            }
            connection
                .say(&[STREAM, &chunk("a"), &finish("stop")].concat())
                .await;
        },
    )
    .await;
    reply.is_whole("a", "stop");
}

#[actix::test]
async fn bytes_may_come_in_any_pieces() {
    let stream = include_str!("../fixtures/openrouter_stream_basic.sse");
    let reply = call(
        |_| {},
        async |mut connection| {
            connection.say(CHUNKED).await;
            for piece in stream.as_bytes().chunks(11) {
                connection.say(&format!("{:x}\r\n", piece.len())).await;
                connection.socket.write_all(piece).await.unwrap();
                connection.say("\r\n").await;
                tokio::task::yield_now().await;
            }
            connection.say("0\r\n\r\n").await;
        },
    )
    .await;
    reply.is_whole("Grüße aus 東京 🚀.", "stop");
}

#[actix::test]
async fn each_read_is_one_message_and_comments_are_none() {
    let upstream = Upstream::start().await;
    let mut call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    for text in ["a", "b", "c"] {
        connection.say(": ping\n\n").await;
        connection.say(&chunk(text)).await;
        let progress = call.next().await;
        assert!(progress.end.is_none());
        let Some(Delta::Text(found)) = progress.deltas.last() else {
            panic!("{progress:?}")
        };
        assert_eq!(found.as_escaped(), text);
    }
    connection.say(&[&finish("stop"), DONE].concat()).await;
    assert_eq!(call.next().await.end, Some(Ok(())));
}

#[actix::test]
async fn a_reply_without_finish_reason_but_done_is_whole() {
    let reply = call(
        |_| {},
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a"), DONE].concat()).await;
        },
    )
    .await;
    reply.is_whole("a", "unknown");
}

#[actix::test]
async fn a_stream_that_ends_early_is_no_whole_reply() {
    let clean = call(
        |_| {},
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
        },
    );
    clean
        .await
        .failed("a", &UpstreamErrorKind::Failed, "broke off");
    let cut = call(
        |_| {},
        async |mut connection| {
            connection
                .say(&[CHUNKED, &framed(&chunk("a"))].concat())
                .await;
        },
    );
    cut.await
        .failed("a", &UpstreamErrorKind::Failed, "broke off");
    let empty = call(|_| {}, async |mut connection| connection.say(STREAM).await);
    empty
        .await
        .failed("", &UpstreamErrorKind::Failed, "broke off");
}

#[actix::test]
async fn a_reset_is_no_whole_reply() {
    let upstream = Upstream::start().await;
    let mut call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(&[STREAM, &chunk("a")].concat()).await;
    assert!(call.next().await.end.is_none());
    connection.socket.set_zero_linger().unwrap();
    drop(connection);
    call.reply()
        .await
        .failed("", &UpstreamErrorKind::Failed, "broke off");
}

#[actix::test]
async fn a_finished_reply_survives_a_cut() {
    let reply = call(
        |_| {},
        async |mut connection| {
            let body = [chunk("a"), finish("stop")].concat();
            connection.say(&[CHUNKED, &framed(&body)].concat()).await;
        },
    );
    reply.await.is_whole("a", "stop");
}

#[actix::test]
async fn an_error_in_the_stream_comes_after_its_text() {
    let reply = call(
        |_| {},
        async |mut connection| {
            let error =
                "data: {\"error\":{\"code\":429,\"message\":\"slow down key-of-the-test\"}}\n\n";
            connection
                .say(&[STREAM, &chunk("a"), error, &chunk("b")].concat())
                .await;
        },
    )
    .await;
    let error = reply.failed("a", &UpstreamErrorKind::RateLimited, "slow down (key)");
    assert!(!error.message.contains("key-of-the-test"));
}

#[actix::test]
async fn a_reply_that_is_too_long_is_cut_and_its_connection_closed() {
    let reply = call(
        |config| config.reply_bytes_max = 5,
        async |mut connection| {
            connection.say(STREAM).await;
            connection.say_for_ever(&chunk("abc")).await;
        },
    )
    .await;
    reply.is_whole("abcab", "length");
}

#[actix::test]
async fn a_connection_is_used_again_after_a_reply() {
    let upstream = Upstream::start().await;
    let provider = OpenRouter::new(&upstream.config(), std::sync::Arc::default())
        .unwrap()
        .start();
    let all = [chunk("a"), finish("stop"), DONE.to_owned()].concat();
    let mut call = Call::with(&provider).await;
    let mut connection = upstream.accept().await;
    // The end of the body comes after the end of the reply. When it has come, nobody tells; a call
    // that is made before has a connection of its own.
    for _ in 0..CALLS_MAX {
        connection.say(&[CHUNKED, &framed(&all)].concat()).await;
        call.reply().await.is_whole("a", "stop");
        connection.say("0\r\n\r\n").await;
        call = Call::with(&provider).await;
        tokio::select! {
            () = connection.next_request() => {
                let rest = [CHUNKED, &framed(&all), "0\r\n\r\n"];
                connection.say(&rest.concat()).await;
                call.reply().await.is_whole("a", "stop");
                return;
            }
            another = upstream.accept() => connection = another,
        }
    }
    panic!("each of {CALLS_MAX} calls had a connection of its own");
}

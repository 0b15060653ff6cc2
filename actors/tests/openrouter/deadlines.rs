//! How long a call waits for what.

use idol_actors::provider::UpstreamErrorKind;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::upstream::*;

#[actix::test]
async fn comments_do_not_hold_up_the_first_token_deadline() {
    let began = Instant::now();
    let reply = call(
        |config| config.deadlines.first_token = milliseconds(150),
        async |mut connection| {
            connection.say(STREAM).await;
            while connection.socket.write_all(b": ping\n\n").await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    )
    .await;
    reply.failed("", &UpstreamErrorKind::Timeout, "did not begin");
    assert!(began.elapsed() >= milliseconds(150));
}

#[actix::test]
async fn no_answer_at_all_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.first_token = milliseconds(50),
        async |connection| connection.closed().await,
    );
    reply
        .await
        .failed("", &UpstreamErrorKind::Timeout, "did not begin");
}

#[actix::test]
async fn silence_within_a_reply_is_a_timeout_though_comments_come() {
    let reply = call(
        |config| config.deadlines.silence = milliseconds(100),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            tokio::time::sleep(milliseconds(60)).await;
            connection.say(&chunk("b")).await;
            while connection.socket.write_all(b":\n\n").await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    );
    reply
        .await
        .failed("ab", &UpstreamErrorKind::Timeout, "silent");
}

#[actix::test]
async fn a_reply_that_trickles_for_ever_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            let empty = chunk("");
            while connection.socket.write_all(empty.as_bytes()).await.is_ok() {
                tokio::time::sleep(milliseconds(10)).await;
            }
        },
    );
    reply
        .await
        .failed("a", &UpstreamErrorKind::Timeout, "did not finish");
}

#[actix::test]
async fn a_reply_that_floods_for_ever_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            let empty = chunk("").repeat(1000);
            while connection.socket.write_all(empty.as_bytes()).await.is_ok() {}
        },
    );
    reply
        .await
        .failed("a", &UpstreamErrorKind::Timeout, "did not finish");
}

#[actix::test]
async fn a_finished_reply_whose_stream_stays_open_is_whole() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection
                .say(&[STREAM, &chunk("a"), &finish("stop")].concat())
                .await;
            connection.closed().await;
        },
    );
    reply.await.is_whole("a", "stop");
}

//! How long a call waits for what.

use idol_actors::provider::UpstreamErrorKind;
use tokio::time::Instant;

use crate::upstream::*;

#[actix::test]
async fn comments_do_not_hold_up_the_first_token_deadline() {
    let reply = call(
        |config| config.deadlines.first_token = milliseconds(150),
        async |mut connection| {
            connection.say(STREAM).await;
            connection.say_for_ever(": ping\n\n").await;
        },
    );
    reply
        .await
        .failed("", &UpstreamErrorKind::Timeout, "did not begin");
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
    let silence = milliseconds(500);
    let upstream = Upstream::start().await;
    let mut config = upstream.config();
    config.deadlines.silence = silence;
    let mut call = Call::start(&config).await;
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    // Each piece puts it off.
    let began = Instant::now();
    while began.elapsed() < 2 * silence {
        connection.say(&chunk("a")).await;
        assert_eq!(call.next().await.end, None);
    }
    let ((), reply) = tokio::join!(connection.say_for_ever(":\n\n"), call.reply());
    reply.failed("", &UpstreamErrorKind::Timeout, "silent");
}

#[actix::test]
async fn a_reply_that_trickles_for_ever_is_a_timeout() {
    let reply = call(
        |config| config.deadlines.whole = milliseconds(150),
        async |mut connection| {
            connection.say(&[STREAM, &chunk("a")].concat()).await;
            connection.say_for_ever(&chunk("")).await;
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
            connection.say_for_ever(&chunk("").repeat(1000)).await;
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

//! What a call does when its listener leaves, or is slow.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use idol_actors::{
    id::TurnId,
    provider::{Delta, Generate, Progress, openrouter::OpenRouter},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::upstream::*;

#[actix::test]
async fn dropping_the_guard_closes_the_connection_and_sends_nothing_more() {
    // Before the answer's head, after it, and within the reply.
    for said in [
        String::new(),
        STREAM.to_owned(),
        [STREAM, &chunk("a")].concat(),
    ] {
        let upstream = Upstream::start().await;
        let mut call = Call::start(&upstream.config()).await;
        let mut connection = upstream.accept().await;
        connection.say(&said).await;
        if said.contains("data") {
            call.next().await;
        }
        let began = Instant::now();
        drop(call.guard);
        connection.closed().await;
        assert!(began.elapsed() < milliseconds(500), "{:?}", began.elapsed());
        assert!(call.messages.try_recv().is_err());
    }
}

#[actix::test]
async fn when_nobody_listens_the_connection_is_closed() {
    struct Stop;
    impl actix::Message for Stop {
        type Result = ();
    }
    impl Handler<Stop> for Listener {
        type Result = ();
        fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
            actix::ActorContext::stop(ctx);
        }
    }
    let upstream = Upstream::start().await;
    let call = Call::start(&upstream.config()).await;
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    call.listener.send(Stop).await.unwrap();
    connection.say(&chunk("a")).await;
    connection.closed().await;
}

/// Takes one message at a time, and its time for each.
struct SlowListener(mpsc::UnboundedSender<Progress>);

impl Actor for SlowListener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
    }
}

impl Handler<Progress> for SlowListener {
    type Result = actix::AtomicResponse<Self, ()>;

    fn handle(&mut self, progress: Progress, _: &mut Context<Self>) -> Self::Result {
        use actix::{ActorFutureExt as _, WrapFuture as _};
        self.0.send(progress).unwrap();
        let pause = tokio::time::sleep(milliseconds(5));
        actix::AtomicResponse::new(Box::pin(pause.into_actor(self).map(|(), _, _| ())))
    }
}

#[actix::test]
async fn a_slow_listener_gets_everything_in_order() {
    let upstream = Upstream::start().await;
    let provider = OpenRouter::new(&upstream.config(), Arc::default())
        .unwrap()
        .start();
    let (sender, mut messages) = mpsc::unbounded_channel();
    let generate = Generate {
        turn: TurnId::now(),
        body: Bytes::from_static(b"{}").into(),
        models: Vec::new(),
        reply_to: SlowListener(sender).start().recipient(),
    };
    let _guard = provider.send(generate).await.unwrap();
    let mut connection = upstream.accept().await;
    let serve = async move {
        connection.say(STREAM).await;
        for number in 0..200 {
            connection.say(&chunk(&format!("{number} "))).await;
            tokio::task::yield_now().await;
        }
        connection.say(&[&finish("stop"), DONE].concat()).await;
    };
    let listen = async {
        let (mut text, mut count) = (String::new(), 0);
        loop {
            let progress = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
            count += 1;
            for delta in progress.deltas {
                if let Delta::Text(piece) = delta {
                    text.push_str(piece.as_escaped());
                }
            }
            if let Some(end) = progress.end {
                break (text, count, end);
            }
        }
    };
    let ((), (text, count, end)) = tokio::join!(serve, listen);
    let expected: String = (0..200).map(|number| format!("{number} ")).collect();
    assert_eq!((text, end), (expected, Ok(())));
    assert!(count < 200, "what came meanwhile is joined: {count}");
}

//! What a call does when its listener leaves, or is slow.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use idol_actors::{
    id::TurnId,
    provider::{Delta, Generate, Progress, openrouter::OpenRouter},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
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
        drop(call.guard);
        connection.closed().await;
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

/// Takes one message at a time, and takes each when it may.
struct SlowListener {
    messages: mpsc::UnboundedSender<Progress>,
    may: Arc<Semaphore>,
}

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
        let may = self.may.clone();
        let taking = async move { may.acquire().await.unwrap().forget() };
        let taken = taking.into_actor(self).map(move |(), act, _| {
            act.messages.send(progress).unwrap();
        });
        actix::AtomicResponse::new(Box::pin(taken))
    }
}

#[actix::test]
async fn a_slow_listener_gets_everything_in_order() {
    let upstream = Upstream::start().await;
    let provider = OpenRouter::new(&upstream.config(), Arc::default())
        .unwrap()
        .start();
    let (sender, mut messages) = mpsc::unbounded_channel();
    let may = Arc::new(Semaphore::new(0));
    let listener = SlowListener {
        messages: sender,
        may: may.clone(),
    };
    let generate = Generate {
        turn: TurnId::now(),
        body: Bytes::from_static(b"{}").into(),
        models: Vec::new(),
        reply_to: listener.start().recipient(),
    };
    let _guard = provider.send(generate).await.unwrap();
    let mut connection = upstream.accept().await;
    connection.say(STREAM).await;
    for number in 0..200 {
        connection.say(&chunk(&format!("{number} "))).await;
        tokio::task::yield_now().await;
    }
    connection.say(&[&finish("stop"), DONE].concat()).await;
    may.add_permits(200);
    let (mut text, mut count) = (String::new(), 0);
    let end = loop {
        let progress = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
        count += 1;
        for delta in progress.deltas {
            if let Delta::Text(piece) = delta {
                text.push_str(piece.as_escaped());
            }
        }
        if let Some(end) = progress.end {
            break end;
        }
    };
    let expected: String = (0..200).map(|number| format!("{number} ")).collect();
    assert_eq!((text, end), (expected, Ok(())));
    assert!(count < 200, "what came meanwhile is joined: {count}");
}

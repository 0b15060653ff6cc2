use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;

/// Hands on what it is told, so that a test can await it.
struct Listener(mpsc::UnboundedSender<Progress>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Progress> for Listener {
    type Result = ();

    fn handle(&mut self, progress: Progress, _: &mut Self::Context) {
        self.0.send(progress).unwrap_or_default();
    }
}

const WORD: Duration = Duration::from_millis(40);

async fn call(body: &str) -> (Generation, mpsc::UnboundedReceiver<Progress>, TurnId) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let turn = TurnId::now();
    let generate = Generate {
        turn,
        body: Bytes::from(body.to_owned()).into(),
        models: Vec::new(),
        reply_to: Listener(sender).start().recipient(),
    };
    let provider = Embedded::new(Pace::Fixed(WORD)).start();
    (provider.send(generate).await.unwrap(), receiver, turn)
}

const HELLO: &str = r#"{"stream":true,"messages":[{"role":"user","content":"Hello, I'm Anna"}]}"#;

#[actix::test]
async fn a_reply_comes_word_by_word_and_ends_like_any_providers() {
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let (guard, mut progress, turn) = call(HELLO).await;
    let mut deltas = Vec::new();
    let end = loop {
        let next = progress.recv().await.unwrap();
        assert_eq!(next.turn, turn);
        deltas.extend(next.deltas);
        if let Some(end) = next.end {
            break end;
        }
    };
    assert_eq!(end, Ok(()));
    assert!(
        progress.recv().await.is_none(),
        "something followed the end"
    );
    drop(guard);

    let [
        Delta::Head(head),
        words @ ..,
        Delta::Finish { reason, .. },
        Delta::Usage(usage),
    ] = &deltas[..]
    else {
        panic!("{deltas:?}");
    };
    assert_eq!(
        (head.id.as_str(), head.model.as_str()),
        (format!("embedded-{turn}").as_str(), MODEL)
    );
    assert_eq!(reason, "stop");
    let mut reply = JsonText::default();
    for word in words {
        let Delta::Text(text) = word else {
            panic!("{word:?}")
        };
        reply.push(text);
    }
    assert!(reply.as_escaped().contains("Anna"), "{reply:?}");
    // The clock is paused, but tokio rounds each timer up to a whole millisecond.
    let words_spoken = u32::try_from(words.len()).unwrap();
    let (least, most) = (
        WORD * words_spoken,
        (WORD + Duration::from_millis(1)) * words_spoken,
    );
    assert!(
        (least..=most).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    let usage: serde_json::Value = serde_json::from_str(usage.get()).unwrap();
    assert_eq!(usage["prompt_tokens"], 3);
    assert_eq!(usage["completion_tokens"], words.len());
}

#[actix::test]
async fn dropping_the_guard_ends_the_reply() {
    tokio::time::pause();
    let (guard, mut progress, _) = call(HELLO).await;
    let first = progress.recv().await.unwrap();
    assert!(matches!(first.deltas[..], [Delta::Head(_)]));
    drop(guard);
    // The listener's sender lives in an actor that ends with its last recipient: the call's.
    while let Some(progress) = progress.recv().await {
        assert_eq!(progress.end, None);
    }
}

#[actix::test]
async fn max_tokens_cuts_the_reply_and_says_so() {
    tokio::time::pause();
    let body = HELLO.replacen('{', r#"{"max_tokens":2,"#, 1);
    let (_guard, mut progress, _) = call(&body).await;
    let mut deltas = Vec::new();
    while let Some(next) = progress.recv().await {
        deltas.extend(next.deltas);
    }
    assert_eq!(deltas.len(), 5, "{deltas:?}");
    assert!(matches!(&deltas[3], Delta::Finish { reason, .. } if reason == "length"));
}

#[actix::test]
async fn a_body_that_is_no_request_is_refused() {
    let (_guard, mut progress, _) = call(r#"{"messages":"no"}"#).await;
    let refused = progress.recv().await.unwrap();
    let error = refused.end.unwrap().unwrap_err();
    assert_eq!(
        (error.upstream, error.kind),
        (Upstream::Embedded, UpstreamErrorKind::Rejected)
    );
}

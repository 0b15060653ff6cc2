use std::time::Duration;

use actix::{Addr, WeakRecipient};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::{
    metrics::Metrics,
    provider::speech::SpeechEnd,
    voice::{alignment::TimedChar, format::AudioFormat},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// What happens to a provider that never answers by itself.
enum Happening {
    Asked(Speak),
    /// The guard of this call was dropped.
    Ended(u64),
}

struct Provider(UnboundedSender<Happening>);

impl Actor for Provider {
    type Context = Context<Self>;
}

impl Handler<Speak> for Provider {
    type Result = Generation;

    fn handle(&mut self, speak: Speak, _: &mut Self::Context) -> Generation {
        struct Ends(u64, UnboundedSender<Happening>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.1.send(Happening::Ended(self.0)).ok();
            }
        }
        let ends = Ends(speak.number, self.0.clone());
        self.0.send(Happening::Asked(speak)).ok();
        let call = tokio::task::spawn_local(async move {
            let _ends = ends;
            std::future::pending::<()>().await;
        });
        Generation::new(call.abort_handle())
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Provider {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

struct Ear(UnboundedSender<Piece>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Voiced> for Ear {
    type Result = ();

    fn handle(&mut self, msg: Voiced, _: &mut Self::Context) {
        self.0.send(msg.piece).ok();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Ear {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

struct Stage {
    speaker: Addr<Speaker>,
    ear: Addr<Ear>,
    provider_address: Addr<Provider>,
    provider: UnboundedReceiver<Happening>,
    heard: UnboundedReceiver<Piece>,
    metrics: Metrics,
}

impl Stage {
    fn set() -> Self {
        let (happening, provider) = unbounded_channel();
        let (told, heard) = unbounded_channel();
        let ear = Ear(told).start();
        let provider_address = Provider(happening).start();
        let metrics = Metrics::register(&mut Registry::default());
        let speaker = Speaker::new(SpeakerConfig {
            turn: TurnId::now(),
            provider: provider_address.clone().recipient(),
            voice: Arc::new(Voice {
                voice_id: "voice".to_owned(),
                model_id: "model".to_owned(),
                format: AudioFormat::PCM_8000,
                stability: 0.5,
                similarity_boost: 0.75,
                style: 0.0,
                use_speaker_boost: true,
                speed: None,
            }),
            timing: Timing::Aligned,
            segmenter: SegmenterOptions::default(),
            listener: ear.clone().recipient(),
            account: VoiceAccount::new(metrics.clone(), None),
        });
        Self {
            speaker: speaker.start(),
            ear,
            provider_address,
            provider,
            heard,
            metrics,
        }
    }

    /// Has the speaker do something.
    async fn says<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Speaker: Handler<M>,
    {
        self.speaker.send(message).await.unwrap();
    }

    async fn asked(&mut self) -> Speak {
        match soon(&mut self.provider).await {
            Happening::Asked(speak) => speak,
            Happening::Ended(number) => panic!("{number:x} has ended"),
        }
    }

    async fn ended(&mut self) -> u64 {
        match soon(&mut self.provider).await {
            Happening::Asked(speak) => panic!("{:?} is asked for", speak.text),
            Happening::Ended(number) => number,
        }
    }
}

async fn soon<T>(receiver: &mut UnboundedReceiver<T>) -> T {
    let received = tokio::time::timeout(DEADLINE, receiver.recv()).await;
    received.expect("nothing came").expect("it is over")
}

/// All of a text, a tenth of a second for each character.
fn spoken(speak: &Speak) -> Spoken {
    let timed = |(c, at): (char, u32)| TimedChar {
        c,
        start_ms: at * 100,
        duration_ms: 100,
    };
    Spoken {
        number: speak.number,
        audio: vec![0; speak.text.len() * 1_600].into(),
        timed: speak.text.chars().zip(0_u32..).map(timed).collect(),
        end: Some(Ok(SpeechEnd { characters: 20 })),
    }
}

#[actix::test]
async fn who_is_silenced_ends_every_call_and_tells_what_was_heard() {
    let mut stage = Stage::set();
    let text = "This is the first sentence. This is the second sentence.";
    stage.says(More(text.to_owned())).await;
    stage.says(Over).await;
    let (first, second) = (stage.asked().await, stage.asked().await);
    assert_eq!(&*first.text, "This is the first sentence.");
    assert_eq!(second.before, first.text);
    stage.says(spoken(&first)).await;
    assert_eq!(stage.ended().await, first.number);
    let Piece::Audio { sequence: 0, .. } = soon(&mut stage.heard).await else {
        panic!("no audio");
    };
    stage
        .says(Played {
            sequence: 0,
            ms: 1_150,
        })
        .await;

    let silenced = stage.speaker.send(Silence).await.unwrap();

    let expected = Silenced {
        heard: Some("This is the".len()),
        text_bytes: text.len(),
    };
    assert_eq!(silenced, expected);
    assert_eq!(stage.ended().await, second.number);
    // What comes late is not told, and what was charged for is counted once.
    stage.says(spoken(&second)).await;
    assert_eq!(stage.speaker.send(Silence).await.unwrap(), expected);
    assert_eq!(stage.metrics.characters_spoken.get(), 20);
    while let Ok(piece) = stage.heard.try_recv() {
        assert!(
            matches!(piece, Piece::Audio { sentence: 0, .. }),
            "{piece:?}"
        );
    }
}

#[actix::test]
async fn a_speaker_whose_provider_is_gone_says_so_and_is_over() {
    let mut stage = Stage::set();
    stage.provider_address.send(Stop).await.unwrap();
    while stage.provider_address.connected() {
        tokio::task::yield_now().await;
    }

    stage
        .says(More("This is a sentence. And another one.".to_owned()))
        .await;
    stage.says(Over).await;

    let Piece::Failed {
        sentence: 0, rest, ..
    } = soon(&mut stage.heard).await
    else {
        panic!("nothing failed");
    };
    assert_eq!(rest, Rest::Silent);
    let last = soon(&mut stage.heard).await;
    assert!(matches!(last, Piece::Complete(_)), "{last:?}");
}

#[actix::test]
async fn a_speaker_whose_listener_is_gone_ends_with_its_calls() {
    let mut stage = Stage::set();
    stage
        .says(More("This is the first sentence. And".to_owned()))
        .await;
    let first = stage.asked().await;
    let speaker: WeakRecipient<Silence> = stage.speaker.downgrade().recipient();

    stage.ear.send(Leave).await.unwrap();
    stage.speaker.send(Silence).await.unwrap();

    assert_eq!(stage.ended().await, first.number);
    drop((stage, first));
    let gone = async {
        while speaker.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

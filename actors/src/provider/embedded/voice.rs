//! The demo's voice: answers as a provider of speech does, with tones.

use actix::{Actor, Context, Handler, Recipient};
use bytes::Bytes;

use crate::{
    provider::{
        Generation, Upstream, UpstreamError, UpstreamErrorKind, failure,
        speech::{Speak, SpeechEnd, Spoken, Timing},
    },
    voice::tones::{Tones, synthesize},
};

/// What the demo's voice is called, so that nobody takes it for another one.
pub const MODEL: &str = "embedded/tones";

/// Bytes that are told at once: a second of the default format.
const PIECE_BYTES: usize = 16_000;

/// Speaks in tones: see [`crate::voice::tones`]. Keeps nothing between calls.
#[derive(Debug, Default)]
pub struct EmbeddedVoice;

impl Actor for EmbeddedVoice {
    type Context = Context<Self>;
}

impl Handler<Speak> for EmbeddedVoice {
    type Result = Generation;

    fn handle(&mut self, speak: Speak, _: &mut Context<Self>) -> Generation {
        Generation::new(tokio::task::spawn_local(run(speak)).abort_handle())
    }
}

async fn run(speak: Speak) {
    let end = match synthesize(&speak.text, speak.voice.format) {
        Ok(tones) => match play(&speak, tones).await {
            Ok(()) => Ok(SpeechEnd {
                characters: speak.text.chars().count() as u64,
            }),
            Err(Gone) => return,
        },
        Err(unsupported) => Err(UpstreamError {
            kind: UpstreamErrorKind::Rejected,
            message: unsupported.to_string(),
            ..failure::failed(Upstream::Embedded, "refused")
        }),
    };
    let last = spoken(&speak, Bytes::new(), Some(end));
    // Who is gone need not know.
    drop(send(&speak.reply_to, last).await);
}

/// Nobody listens any more.
struct Gone;

async fn play(speak: &Speak, tones: Tones) -> Result<(), Gone> {
    let mut audio = Bytes::from(tones.audio);
    let mut timed = match speak.timing {
        Timing::Plain => Vec::new(),
        Timing::Aligned => tones.alignment.chars().to_vec(),
    };
    while !audio.is_empty() {
        let piece = audio.split_to(PIECE_BYTES.min(audio.len()));
        // All times come with the first piece.
        let spoken = Spoken {
            timed: std::mem::take(&mut timed),
            ..spoken(speak, piece, None)
        };
        send(&speak.reply_to, spoken).await?;
    }
    Ok(())
}

fn spoken(speak: &Speak, audio: Bytes, end: Option<Result<SpeechEnd, UpstreamError>>) -> Spoken {
    Spoken {
        number: speak.number,
        audio,
        timed: Vec::new(),
        end,
    }
}

/// A listener's full mailbox is waited for: its guard ends the wait.
async fn send(reply_to: &Recipient<Spoken>, spoken: Spoken) -> Result<(), Gone> {
    reply_to.send(spoken).await.map_err(|_gone| Gone)
}

//! Speech for one request: audio as it comes, a few pieces ahead of whoever takes it.

use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Running, WrapFuture,
};
use bytes::{Bytes, BytesMut};
use idol_actors::{
    accounting::VoiceAccount,
    error::EngineError,
    provider::{
        Generation, Upstream, UpstreamError, UpstreamErrorKind,
        speech::{Speak, Spoken, Timing, Urgency, Voice},
    },
    voice::usage::VoiceUsage,
};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::ahead::Room;
use crate::server::Server;

/// Messages that wait for the session; with more, likewise.
const MAILBOX: usize = 4;

/// The session of one speech.
#[derive(Debug)]
struct SpeechSession {
    pieces: UnboundedSender<Piece>,
    room: Room,
    /// Characters of the text.
    characters: u64,
    account: VoiceAccount,
    charged: Charged,
}

/// Whether a speech is to be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charged {
    /// Nothing has sounded.
    No,
    /// It sounds: it is charged whole, however it ends.
    Whole,
    /// That is counted.
    Counted,
}

type Piece = Result<Heard, UpstreamError>;

/// What there is of a speech.
#[derive(Debug)]
enum Heard {
    /// A piece, and the memory that it takes.
    Audio(Bytes, OwnedSemaphorePermit),
    End,
}

/// A speech under way. Dropping it stops it, upstream, too.
#[derive(Debug)]
pub struct Speech {
    pieces: UnboundedReceiver<Piece>,
    room: Room,
    _call: Generation,
}

/// Has a text spoken, behind `before`. What it costs is counted, however it ends.
///
/// # Errors
///
/// There is no provider, or it is gone.
pub async fn speak(
    server: &Server,
    text: &str,
    before: &str,
    voice: &Arc<Voice>,
    account: &VoiceAccount,
) -> Result<Speech, EngineError> {
    let provider = server.voices.speech()?;
    // Each piece holds its room, of which there is so much.
    let (sender, pieces) = unbounded_channel();
    let room = server.voices.audio_ahead.room();
    let session = SpeechSession {
        pieces: sender,
        room: room.clone(),
        characters: text.chars().count() as u64,
        account: account.clone(),
        charged: Charged::No,
    }
    .start();
    let speak = Speak {
        number: 0,
        text: text.into(),
        before: before.into(),
        voice: voice.clone(),
        timing: Timing::Plain,
        urgency: Urgency::First,
        reply_to: session.recipient(),
    };
    let call = provider
        .send(speak)
        .await
        .map_err(|_gone| EngineError::Overloaded)?;
    Ok(Speech {
        pieces,
        room,
        _call: call,
    })
}

impl Speech {
    /// The next piece; none at the end.
    ///
    /// # Errors
    ///
    /// The speech failed or broke off; nothing follows.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        match self.pieces.recv().await {
            Some(Ok(Heard::Audio(audio, held))) => {
                drop(held);
                self.room.took();
                Ok(Some(audio))
            }
            Some(Ok(Heard::End)) => Ok(None),
            Some(Err(error)) => Err(EngineError::Upstream(error)),
            None => Err(EngineError::Restarted),
        }
    }

    /// All of it, of at most so many bytes.
    ///
    /// # Errors
    ///
    /// As [`Speech::next`], and if it is too long.
    pub async fn gather(
        &mut self,
        audio: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<(), EngineError> {
        while let Some(piece) = self.next().await? {
            if audio.len() + piece.len() > bytes_max {
                return Err(EngineError::Upstream(UpstreamError {
                    upstream: Upstream::ElevenLabs,
                    kind: UpstreamErrorKind::Failed,
                    message: "The speech is longer than is taken whole".to_owned(),
                    retry_after: None,
                    retryable: Some(false),
                    too_long: None,
                }));
            }
            audio.extend_from_slice(&piece);
        }
        Ok(())
    }
}

fn not_taken() -> UpstreamError {
    UpstreamError {
        upstream: Upstream::ElevenLabs,
        kind: UpstreamErrorKind::Timeout,
        message: "The speech was not taken in time".to_owned(),
        retry_after: None,
        retryable: None,
        too_long: None,
    }
}

/// Most characters that are spoken by one request: the least that a model takes (eleven_v3).
const PART_CHARACTERS_MAX: usize = 4_500;

/// A text in parts that a provider takes, each of whole words where there are any.
#[must_use]
pub fn parts_of(text: &str) -> Vec<&str> {
    let mut rest = text.trim();
    let mut parts = Vec::new();
    while let Some((end, _)) = rest.char_indices().nth(PART_CHARACTERS_MAX) {
        let window = &rest[..end];
        let sentence = window.rfind(['.', '!', '?', '\n', '\u{3002}']);
        let sentence = sentence.filter(|at| *at > end / 2);
        let cut = match sentence.or_else(|| window.rfind(char::is_whitespace)) {
            // Behind the character found there.
            Some(at) if at > 0 => at + window[at..].chars().next().map_or(1, char::len_utf8),
            Some(_) | None => end,
        };
        parts.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

impl SpeechSession {
    /// Counts what is charged for, once.
    fn count(&mut self, characters: u64) -> impl Future<Output = ()> + use<> {
        self.charged = Charged::Counted;
        self.account.count(VoiceUsage::spoken(characters))
    }
}

impl Actor for SpeechSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        if self.charged != Charged::Whole {
            return Running::Stop;
        }
        // Its listener left amid it.
        let counted = self.count(self.characters).into_actor(self);
        ctx.wait(counted.map(|(), _, ctx| ctx.stop()));
        Running::Continue
    }
}

impl Handler<Spoken> for SpeechSession {
    type Result = ();

    fn handle(&mut self, msg: Spoken, ctx: &mut Self::Context) {
        if !msg.audio.is_empty() && self.charged == Charged::No {
            self.charged = Charged::Whole;
        }
        let charged = match &msg.end {
            Some(Ok(end)) => Some(end.characters),
            Some(Err(_)) if self.charged == Charged::Whole => Some(self.characters),
            Some(Err(_)) | None => None,
        };
        let counted = charged.map(|characters| self.count(characters));
        let (pieces, room) = (self.pieces.clone(), self.room.clone());
        let is_last = msg.end.is_some();
        let pass_on = async move {
            if let Some(counted) = counted {
                counted.await;
            }
            if !msg.audio.is_empty() {
                let Some(held) = room.hold(msg.audio.len()).await else {
                    // Who takes nothing is told so if it ever comes to that.
                    pieces.send(Err(not_taken())).ok()?;
                    return None;
                };
                pieces.send(Ok(Heard::Audio(msg.audio, held))).ok()?;
            }
            if let Some(end) = msg.end {
                pieces.send(end.map(|_| Heard::End)).ok()?;
            }
            Some(())
        };
        // Nothing more is taken until there is room.
        ctx.wait(pass_on.into_actor(self).map(move |taken, _, ctx| {
            if is_last || taken.is_none() {
                ctx.stop();
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_word_of_a_long_text_is_lost(text in "([a-zé。]{1,12}[ .\n]{0,2}){0,3000}") {
            let parts = parts_of(&text);
            let words = |text: &str| text.split_whitespace().collect::<String>();
            let joined: String = parts.iter().map(|part| words(part)).collect();
            prop_assert_eq!(joined, words(&text));
            for part in parts {
                prop_assert!(!part.is_empty() && part.chars().count() <= PART_CHARACTERS_MAX);
            }
        }
    }
}

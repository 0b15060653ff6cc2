//! Speech for one request: audio as it comes, a few pieces ahead of whoever takes it.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture,
};
use bytes::{Bytes, BytesMut};
use idol_actors::{
    error::EngineError,
    provider::{
        Generation, Upstream, UpstreamError, UpstreamErrorKind,
        speech::{Speak, SpeechEnd, Spoken, Timing, Urgency, Voice},
    },
};
use tokio::{sync::mpsc, time::timeout};

/// Pieces of audio that wait for whoever takes them; with more, the upstream is not read from.
const PIECES_AHEAD: usize = 4;

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(15);

/// Messages that wait for the session; with more, likewise.
const MAILBOX: usize = 4;

/// Largest speech that is gathered whole: an hour of the default format.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// The session of one speech.
#[derive(Debug)]
struct SpeechSession {
    pieces: mpsc::Sender<Piece>,
}

type Piece = Result<Heard, UpstreamError>;

/// What there is of a speech.
#[derive(Debug)]
enum Heard {
    Audio(Bytes),
    End(SpeechEnd),
}

/// A speech under way. Dropping it stops it, upstream, too.
#[derive(Debug)]
pub struct Speech {
    pieces: mpsc::Receiver<Piece>,
    /// Characters that were charged for, once it has ended.
    pub characters: Option<u64>,
    _call: Generation,
}

/// Has a text spoken, behind `before`.
///
/// # Errors
///
/// The provider is gone.
pub async fn speak(
    provider: &Recipient<Speak>,
    text: &str,
    before: &str,
    voice: &Arc<Voice>,
) -> Result<Speech, EngineError> {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let session = SpeechSession { pieces: sender }.start();
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
        characters: None,
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
            Some(Ok(Heard::Audio(audio))) => Ok(Some(audio)),
            Some(Ok(Heard::End(end))) => {
                self.characters = Some(end.characters);
                Ok(None)
            }
            Some(Err(error)) => Err(EngineError::Upstream(error)),
            None => Err(EngineError::Restarted),
        }
    }

    /// All of it, behind what is there already.
    ///
    /// # Errors
    ///
    /// As [`Speech::next`], and if it is too long.
    pub async fn gather(&mut self, audio: &mut BytesMut) -> Result<(), EngineError> {
        while let Some(piece) = self.next().await? {
            if audio.len() + piece.len() > GATHERED_BYTES_MAX {
                return Err(EngineError::Upstream(UpstreamError {
                    upstream: Upstream::ElevenLabs,
                    kind: UpstreamErrorKind::Failed,
                    message: "The speech provider sent more audio than is taken".to_owned(),
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

impl Actor for SpeechSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Spoken> for SpeechSession {
    type Result = ();

    fn handle(&mut self, msg: Spoken, ctx: &mut Self::Context) {
        let audio = (!msg.audio.is_empty()).then_some(Ok(Heard::Audio(msg.audio)));
        let end = msg.end.map(|end| end.map(Heard::End));
        let pieces = self.pieces.clone();
        let is_last = end.is_some();
        let pass_on = async move {
            for piece in audio.into_iter().chain(end) {
                // Who takes nothing holds a place that others wait for.
                if !matches!(timeout(STALL, pieces.send(piece)).await, Ok(Ok(()))) {
                    return false;
                }
            }
            true
        };
        // Nothing more is taken until there is room.
        ctx.wait(pass_on.into_actor(self).map(move |taken, _, ctx| {
            if is_last || !taken {
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

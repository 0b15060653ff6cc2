//! What a socket's client says aloud: passed on while it speaks, then answered as a message.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use bytes::Bytes;
use idol_actors::{
    error::EngineError,
    provider::hearing::{Transcript, UploadPart},
    voice::format::{AudioFormat, Coding},
};

use super::{Ctx, WsSession};
use crate::{
    error::ApiError,
    session::hearing::Hearing,
    wire::{
        chat::{Named, PromptChoice},
        socket::{self, AudioStart, ClientMessage, Reasoning, Refused, SpokenReply},
    },
};

/// Longest time that a piece may wait for the upstream to take it.
const PASS_DEADLINE: Duration = Duration::from_secs(30);

/// Something that is being said.
pub(super) enum Utterance {
    /// It is passed on.
    Heard(Box<Heard>),
    /// It came to nothing, as the client was told; what was on its way meanwhile is passed over.
    Lost,
}

/// An utterance that is passed on.
pub(super) struct Heard {
    named: Named,
    hearing: Hearing,
    bytes: usize,
    said: Said,
}

/// What holds for the message that it becomes.
struct Said {
    choice: PromptChoice,
    client_message_id: Option<String>,
    reasoning: Reasoning,
    voice: Option<SpokenReply>,
}

impl WsSession {
    /// The client begins to speak.
    pub(super) fn utterance_begins(&mut self, start: AudioStart, ctx: &mut Ctx) {
        let AudioStart {
            conversation,
            format,
            language,
            choice,
            client_message_id,
            reasoning,
            voice,
        } = start;
        let Some(named) = conversation.or_else(|| self.current.clone()) else {
            ctx.text(socket::refused(&Refused::no_conversation()));
            return;
        };
        if let Some(Utterance::Heard(_)) = self.utterance {
            let sentence = "Only one utterance at a time: send audio_end or audio_abort first";
            ctx.text(socket::refused(&Refused::invalid(sentence)));
            return;
        }
        let provider = match self.server.voices.hearing() {
            Ok(provider) => provider,
            Err(error) => {
                ctx.text(socket::turn_error(&named.spelled, None, &error));
                self.utterance = Some(Utterance::Lost);
                return;
            }
        };
        self.remember(&named, &choice);
        let said = Said {
            choice,
            client_message_id,
            reasoning,
            voice,
        };
        let begin = async move {
            let hearing = Hearing::begin(&provider).await?;
            for part in first_parts(&format, language) {
                hearing.pass(part).await;
            }
            Ok::<_, EngineError>(hearing)
        };
        // Its audio comes right behind.
        ctx.wait(
            begin
                .into_actor(self)
                .map(move |begun, act, ctx| match begun {
                    Ok(hearing) => {
                        act.utterance = Some(Utterance::Heard(Box::new(Heard {
                            named,
                            hearing,
                            bytes: 0,
                            said,
                        })));
                    }
                    Err(error) => {
                        act.utterance = Some(Utterance::Lost);
                        ctx.text(socket::turn_error(&named.spelled, None, &error));
                    }
                }),
        );
    }

    /// A piece of audio.
    pub(super) fn utterance_goes_on(&mut self, audio: Bytes, ctx: &mut Ctx) {
        let utterance = match &mut self.utterance {
            Some(Utterance::Heard(utterance)) => utterance,
            Some(Utterance::Lost) => return,
            None => {
                let sentence = "Audio without audio_start: send JSON text, or audio_start first";
                ctx.text(socket::refused(&Refused::invalid(sentence)));
                return;
            }
        };
        utterance.bytes += audio.len();
        let limit = self.server.voices.audio_bytes_max;
        if utterance.bytes > limit {
            let refused = Refused::from(ApiError::PayloadTooLarge { limit });
            ctx.text(socket::refused(&refused));
            self.utterance = Some(Utterance::Lost);
            return;
        }
        if utterance.hearing.is_over() {
            // It was refused: the answer tells why.
            self.utterance_ends(ctx);
            self.utterance = Some(Utterance::Lost);
            return;
        }
        let parts = utterance.hearing.parts().clone();
        if let Err(full) = parts.try_send(UploadPart::Audio(audio)) {
            // Nothing more is read from the client until the upstream has taken this.
            let pass = async move {
                let sent = parts.send(full.into_inner());
                tokio::time::timeout(PASS_DEADLINE, sent).await.is_ok()
            };
            ctx.wait(pass.into_actor(self).map(|passed, act, ctx| {
                if !passed {
                    act.utterance = Some(Utterance::Lost);
                    let sentence = "The transcription provider takes no more audio";
                    ctx.text(socket::refused(&Refused::invalid(sentence)));
                }
            }));
        }
    }

    /// The client has said all.
    pub(super) fn utterance_ends(&mut self, ctx: &mut Ctx) {
        let Heard {
            named,
            hearing,
            bytes,
            said,
        } = match self.utterance.take() {
            Some(Utterance::Heard(utterance)) => *utterance,
            Some(Utterance::Lost) => return,
            None => {
                let sentence = "audio_end without audio_start";
                ctx.text(socket::refused(&Refused::invalid(sentence)));
                return;
            }
        };
        if bytes == 0 {
            ctx.text(socket::refused(&Refused::invalid("Empty audio file")));
            return;
        }
        let end = hearing.end().into_actor(self);
        ctx.spawn(end.map(move |heard, act, ctx| match heard {
            Ok(transcript) => act.heard(named, transcript, said, ctx),
            Err(error) => ctx.text(socket::turn_error(&named.spelled, None, &error)),
        }));
    }

    /// What was said aloud becomes an ordinary message.
    fn heard(&mut self, named: Named, transcript: Transcript, said: Said, ctx: &mut Ctx) {
        let metrics = self.server.engine.metrics();
        metrics
            .seconds_heard
            .inc_by(transcript.seconds.unwrap_or_default());
        let text = transcript.text;
        let id = said.client_message_id.as_deref();
        ctx.text(socket::transcript(&named.spelled, &text, id));
        if text.is_empty() {
            // Nothing was said: there is nothing to answer.
            return;
        }
        self.inbox.push_back(ClientMessage::Message {
            conversation: Some(named),
            message: text,
            choice: said.choice,
            client_message_id: said.client_message_id,
            reasoning: said.reasoning,
            voice: said.voice,
        });
        self.next_message(ctx);
    }
}

/// What comes before the audio.
fn first_parts(format: &str, language: Option<String>) -> Vec<UploadPart> {
    let language = language.map(|value| UploadPart::Field {
        name: "language".to_owned(),
        value,
    });
    let (name, content_type, header) = file_of(format);
    let file = UploadPart::File { name, content_type };
    let header = header.map(UploadPart::Audio);
    language.into_iter().chain([file]).chain(header).collect()
}

/// The name, media type and header of a file in a format: an ending, a media type, or the name of
/// raw samples, which get the header of a WAV file.
fn file_of(format: &str) -> (String, String, Option<Bytes>) {
    if let Ok(samples) = AudioFormat::parse(format)
        && samples.coding() == Coding::Pcm
    {
        let header = wav_header(samples.sample_rate());
        return ("audio.wav".to_owned(), "audio/wav".to_owned(), Some(header));
    }
    let format = format.trim().to_ascii_lowercase();
    let media = format.split(';').next().unwrap_or_default().trim();
    let is_word = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
        !text.is_empty() && !text.starts_with('.') && text.bytes().all(fits)
    };
    // What is neither is not passed on: it stands in the head of a part.
    let (media_type, ending) = match media.split_once('/') {
        Some((kind, subtype)) if is_word(kind) && is_word(subtype) => (Some(media), subtype),
        None if is_word(media) => (None, media),
        Some(_) | None => (None, "webm"),
    };
    let ending = match ending.strip_prefix("x-").unwrap_or(ending) {
        "mpeg" => "mp3",
        "wave" => "wav",
        "mp4" => "m4a",
        other => other,
    };
    let content_type = match media_type {
        Some(media) => media.to_owned(),
        None => format!("audio/{}", if ending == "mp3" { "mpeg" } else { ending }),
    };
    (format!("audio.{ending}"), content_type, None)
}

/// The header of a WAV file of mono 16-bit samples whose length is not known yet: as large as can
/// be, which decoders take for "to the end".
fn wav_header(rate: u32) -> Bytes {
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&u32::MAX.to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    // Samples as they are, one channel.
    header.extend_from_slice(&[1, 0, 1, 0]);
    header.extend_from_slice(&rate.to_le_bytes());
    header.extend_from_slice(&(rate * 2).to_le_bytes());
    // Two bytes a sample, 16 bits.
    header.extend_from_slice(&[2, 0, 16, 0]);
    header.extend_from_slice(b"data");
    header.extend_from_slice(&(u32::MAX - 36).to_le_bytes());
    header.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_format_is_understood() {
        for (format, name, media) in [
            ("webm", "audio.webm", "audio/webm"),
            ("audio/webm;codecs=opus", "audio.webm", "audio/webm"),
            ("mp3", "audio.mp3", "audio/mpeg"),
            ("audio/mpeg", "audio.mp3", "audio/mpeg"),
            ("audio/x-wav", "audio.wav", "audio/x-wav"),
            ("../../etc", "audio.webm", "audio/webm"),
            ("audio/webm\r\nX: y", "audio.webm", "audio/webm"),
            ("wav\r\n", "audio.wav", "audio/wav"),
            ("pcm_16000", "audio.wav", "audio/wav"),
        ] {
            let (named, kind, header) = file_of(format);
            assert_eq!((named.as_str(), kind.as_str()), (name, media), "{format}");
            assert_eq!(header.is_some(), format == "pcm_16000");
        }
    }
}

//! What a socket's client says aloud: passed on while it speaks, then answered as a message.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use actix::{Actor, ActorFutureExt, AsyncContext, WrapFuture};
use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use idol_actors::{
    conversation::command::At,
    error::EngineError,
    provider::hearing::{Transcript, UploadPart},
    voice::usage::VoiceUsage,
};

use self::{file::SoundFile, left::LeftBehind};
use super::{Ctx, WsSession, saying::Saying};
use crate::{
    error::{ApiError, Payload},
    session::hearing::{Hearing, pass},
    wire::{
        chat::{Named, PromptChoice},
        socket::{self, AudioStart, Reasoning, Refused, SpokenReply},
    },
};

mod file;
mod left;

/// Longest time without audio within an utterance.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Utterances of one client that may be on their way to be written down.
const WRITTEN_MAX: usize = 4;

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
    /// When it was last heard.
    last: Instant,
    said: Said,
}

/// An utterance that is over. They are answered in the order in which they were said, however long
/// each takes to be written down.
pub(super) struct Written {
    number: u64,
    named: Named,
    said: Said,
    spoken: Spoken,
    /// Once it is there.
    transcript: Option<WrittenDown>,
}

/// What became of an utterance.
type WrittenDown = Result<Transcript, EngineError>;

/// An utterance on its way to be written down, whether its client stays or not.
type Spoken = Shared<LocalBoxFuture<'static, WrittenDown>>;

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
        if let Some(Utterance::Heard(_)) = self.utterance {
            let sentence = "Only one utterance at a time: send audio_end or audio_abort first";
            ctx.text(socket::refused(&Refused::invalid(sentence)));
            return;
        }
        // Its audio comes right behind, and is passed over unless all is well.
        self.utterance = Some(Utterance::Lost);
        let Some(named) = conversation.or_else(|| self.current.clone()) else {
            ctx.text(socket::refused(&Refused::no_conversation()));
            return;
        };
        if self.written.len() >= WRITTEN_MAX {
            let (spelled, id) = (&named.spelled, client_message_id.as_deref());
            ctx.text(socket::utterance_error(spelled, id, &EngineError::Busy));
            return;
        }
        let file = match SoundFile::of(&format) {
            Ok(file) => file,
            Err(refused) => {
                ctx.text(socket::refused(&refused));
                return;
            }
        };
        let provider = match self.server.voices.hearing() {
            Ok(provider) => provider,
            Err(error) => {
                let id = client_message_id.as_deref();
                ctx.text(socket::utterance_error(&named.spelled, id, &error));
                return;
            }
        };
        self.barge_in(ctx);
        self.remember(&named, &choice);
        let said = Said {
            choice,
            client_message_id,
            reasoning,
            voice,
        };
        let begin = async move {
            let hearing = Hearing::begin(&provider).await?;
            for part in first_parts(file, language) {
                hearing.pass(part).await?;
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
                            last: Instant::now(),
                            said,
                        })));
                    }
                    Err(error) => {
                        act.utterance = Some(Utterance::Lost);
                        let id = said.client_message_id.as_deref();
                        ctx.text(socket::utterance_error(&named.spelled, id, &error));
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
        utterance.last = Instant::now();
        let limit = self.server.voices.audio_bytes_max;
        if utterance.bytes > limit {
            let what = Payload::Audio;
            let refused = Refused::from(ApiError::PayloadTooLarge { what, limit });
            ctx.text(socket::refused(&refused));
            self.utterance_is_lost(ctx);
            return;
        }
        if utterance.hearing.is_over() {
            // It was refused: the answer tells why.
            self.utterance_ends(ctx);
            self.utterance = Some(Utterance::Lost);
            return;
        }
        let parts = utterance.hearing.parts().clone();
        let (named, id) = (
            utterance.named.clone(),
            utterance.said.client_message_id.clone(),
        );
        if let Err(full) = parts.try_send(UploadPart::Audio(audio)) {
            // Nothing more is read from the client until the upstream has taken this.
            let passed = async move { pass(&parts, full.into_inner()).await };
            ctx.wait(passed.into_actor(self).map(move |passed, act, ctx| {
                if let Err(error) = passed {
                    let spelled = &named.spelled;
                    ctx.text(socket::utterance_error(spelled, id.as_deref(), &error));
                    act.utterance_is_lost(ctx);
                }
            }));
        }
    }

    /// An utterance does not begin: its audio, which is on its way, is passed over, unless another one
    /// is under way.
    pub(super) fn start_is_refused(&mut self, ctx: &mut Ctx) {
        if !matches!(self.utterance, Some(Utterance::Heard(_))) {
            self.utterance_is_lost(ctx);
        }
    }

    /// What is being said comes to nothing; what is on its way of it is passed over.
    pub(super) fn utterance_is_lost(&mut self, ctx: &mut Ctx) {
        self.utterance = Some(Utterance::Lost);
        self.tell_held_piece(ctx);
    }

    /// Gives an utterance up whose client says nothing more: an upstream would wait with it.
    pub(super) fn look_after_utterance(&mut self, ctx: &mut Ctx) {
        if let Some(Utterance::Heard(heard)) = &self.utterance
            && heard.last.elapsed() > SILENCE_MAX
        {
            let sentence = "No audio came for too long: the utterance is given up";
            ctx.text(socket::refused(&Refused::invalid(sentence)));
            self.utterance_is_lost(ctx);
        }
    }

    /// Whether the client speaks, or what it said is not written down yet.
    pub(super) fn is_listening(&self) -> bool {
        matches!(self.utterance, Some(Utterance::Heard(_))) || !self.written.is_empty()
    }

    /// The client has said all.
    pub(super) fn utterance_ends(&mut self, ctx: &mut Ctx) {
        let Heard {
            named,
            hearing,
            bytes,
            said,
            ..
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
            self.tell_held_piece(ctx);
            return;
        }
        self.next_utterance += 1;
        let number = self.next_utterance;
        let spoken = hearing.end().boxed_local().shared();
        self.written.push_back(Written {
            number,
            named,
            said,
            spoken: spoken.clone(),
            transcript: None,
        });
        ctx.spawn(spoken.into_actor(self).map(move |heard, act, ctx| {
            let mut written = act.written.iter_mut();
            if let Some(written) = written.find(|it| it.number == number) {
                written.transcript = Some(heard);
            }
            act.answer_written(ctx);
        }));
    }

    /// Takes what was written down, as far as all before it is, and as soon as it can be answered:
    /// until then it is kept here, whose client may leave.
    pub(super) fn answer_written(&mut self, ctx: &mut Ctx) {
        while let Some(transcript) = self.written.front().and_then(|it| it.transcript.as_ref()) {
            let says = transcript.as_ref().is_ok_and(|it| !it.text.is_empty());
            // A reply may have begun to sound since it was said.
            if says && (self.barge_in(ctx) || !self.may_say()) {
                return;
            }
            let Some(written) = self.written.pop_front() else {
                return;
            };
            match written.transcript {
                Some(Ok(transcript)) => self.heard(written.named, transcript, written.said, ctx),
                Some(Err(error)) => {
                    let (spelled, id) = (&written.named.spelled, &written.said.client_message_id);
                    ctx.text(socket::utterance_error(spelled, id.as_deref(), &error));
                }
                None => {}
            }
        }
        self.tell_held_piece(ctx);
        self.go_when_all_is_told(ctx);
    }

    /// The client has left: what it had said is answered all the same.
    pub(super) fn leave_written(&mut self) {
        let written = std::mem::take(&mut self.written);
        let said: VecDeque<_> = written
            .into_iter()
            .map(|it| (it.spoken, self.saying(it.named, None, it.said)))
            .collect();
        if !said.is_empty() {
            let left = LeftBehind {
                server: self.server.clone(),
                caller: self.caller.clone(),
                interrupting: self.interrupting.clone(),
                said,
            };
            left.start();
        }
    }

    /// What was said aloud becomes an ordinary message.
    fn heard(&mut self, named: Named, transcript: Transcript, said: Said, ctx: &mut Ctx) {
        let account = self.server.voice_account(Some(self.handle_of(&named)));
        let heard = VoiceUsage::heard(transcript.seconds.unwrap_or_default());
        ctx.spawn(account.count(heard).into_actor(self));
        let text = transcript.text;
        let id = said.client_message_id.as_deref();
        ctx.text(socket::transcript(&named.spelled, &text, id));
        if text.is_empty() {
            // Nothing was said: there is nothing to answer.
            return;
        }
        let saying = self.saying(named, Some(text), said);
        self.start_turn(saying, ctx);
    }

    /// The message that an utterance is, with its text where that is known.
    fn saying(&self, named: Named, text: Option<String>, said: Said) -> Saying {
        Saying {
            named,
            at: At::End,
            text,
            choice: self.completed(said.choice),
            client_message_id: said.client_message_id,
            reasoning: said.reasoning,
            voice: said.voice,
        }
    }
}

/// What comes before the audio.
fn first_parts(file: SoundFile, language: Option<String>) -> Vec<UploadPart> {
    let language = language.map(|value| UploadPart::Field {
        name: "language".to_owned(),
        value,
    });
    let header = file.header.map(UploadPart::Audio);
    let file = UploadPart::File {
        name: file.name,
        content_type: file.content_type,
    };
    language.into_iter().chain([file]).chain(header).collect()
}

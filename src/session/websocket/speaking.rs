//! A reply that is spoken to a socket's client, and what becomes of it when the client speaks up.
//!
//! A socket has one mouth: what is said next, in whichever conversation, silences it. What of the
//! reply is kept then is what the client says it played; a client that never says so is taken to
//! have read it all.

use std::{sync::Arc, time::Instant};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Handler, Message, Response, WrapFuture};
use idol_actors::{
    conversation::{
        command::Hush,
        event::{Event, EventBody},
    },
    error::EngineError,
    id::TurnId,
    json_text::unescape,
    log::entry::CANCELLED,
    provider::speech::{Timing, Voice},
    speaker::{More, Over, Piece, Played, Rest, Silence, Speaker, SpeakerConfig, Sums, Voiced},
    voice::segmenter::SegmenterOptions,
};
use tokio::sync::oneshot;

pub(super) use self::interruption::Interrupting;
use self::{
    interruption::{Interruption, Truth},
    playback::Playback,
};
use super::{Ctx, Reports, WsSession};
use crate::wire::{
    chat::Named,
    socket::{self, AudioPiece, Carriage, SpokenReply},
};

mod interruption;
mod playback;

/// The reply that is being spoken, or was last.
pub(super) struct SpeechUnderWay {
    /// The own turn.
    number: u64,
    turn: TurnId,
    /// As minted here, which is what the speaker calls it.
    minted: TurnId,
    /// By which a repeat of the message is known.
    key: Option<String>,
    named: Named,
    speaker: Addr<Speaker>,
    carriage: Carriage,
    voice: Arc<Voice>,
    sounds: Sounds,
    /// Bytes of the reply's text that the speaker was given.
    text_bytes: u64,
    playback: Playback,
    /// Whether what comes is to be read.
    rest: Rest,
    attends: Attends,
    told: Telling,
    text: Text,
}

/// Whether a reply was told to somebody before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    First,
    Again,
}

/// Whether more text of it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Coming,
    Whole,
}

/// Whether the conversation knows who speaks: whoever cancels the turn silences it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attends {
    No,
    Yes,
}

/// A piece that is told once the client does not speak any more; its speaker waits for that.
pub(super) struct HeldPiece {
    piece: Voiced,
    told: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sounds {
    /// More comes.
    Coming,
    /// All was told.
    Told,
    /// Nothing more is told.
    Stopped,
}

impl SpeechUnderWay {
    /// Has the speaker do something. It lives on this thread, and takes it before more is read from
    /// the client.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by the reply's text, and what is lost would be a hole in it"
    )]
    fn tell<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Speaker: Handler<M>,
    {
        self.speaker.do_send(message);
    }

    /// Whether there is something that the client has not played.
    fn is_unplayed(&self, reports: Reports) -> bool {
        match self.sounds {
            Sounds::Coming if self.rest == Rest::Spoken => true,
            // Of a reply that goes on unspoken, what was told counts.
            Sounds::Coming | Sounds::Told => !self.playback.is_over(reports, Instant::now()),
            Sounds::Stopped => false,
        }
    }
}

impl Drop for SpeechUnderWay {
    fn drop(&mut self) {
        // A synthesis under way would keep its speaker, and the speaker the synthesis.
        self.tell(Silence);
    }
}

impl WsSession {
    /// Whether a message is a repeat of one whose reply is under way, or is being spoken: it
    /// interrupts nothing.
    pub(super) fn repeats(&self, key: Option<&str>) -> bool {
        let own = self.own.iter().map(|own| own.client_message_id.as_deref());
        key.is_some() && (self.speaks_the_reply_to(key) || own.into_iter().any(|it| it == key))
    }

    fn speaks_the_reply_to(&self, key: Option<&str>) -> bool {
        let speech = self.speech.as_ref();
        let speech = speech.filter(|it| it.is_unplayed(self.reports));
        key.is_some() && speech.is_some_and(|it| it.key.as_deref() == key)
    }

    /// Has the reply of an own turn spoken, the answer to a message with this key.
    pub(super) fn speak(
        &mut self,
        (number, turn): (u64, TurnId),
        named: &Named,
        key: Option<&str>,
        voice: SpokenReply,
        ctx: &mut Ctx,
    ) {
        if self.speaks_the_reply_to(key) {
            return;
        }
        // It was asked for before the one that sounds had begun to.
        self.barge_in(ctx);
        let provider = match self.server.voices.speech() {
            Ok(provider) => provider,
            Err(error) => {
                // The text goes on.
                let spelled = &named.spelled;
                ctx.text(socket::audio_error(spelled, turn, (0, 0), &error));
                let (sums, model) = (Sums::default(), &voice.voice.model_id);
                ctx.text(socket::audio_complete(spelled, turn, &sums, model));
                return;
            }
        };
        let speaker = Speaker::new(SpeakerConfig {
            turn,
            provider,
            voice: voice.voice.clone(),
            timing: Timing::Aligned,
            segmenter: SegmenterOptions::default(),
            listener: ctx.address().recipient(),
            account: self.server.voice_account(Some(self.handle_of(named))),
        });
        let speech = SpeechUnderWay {
            number,
            turn,
            minted: turn,
            key: key.map(str::to_owned),
            named: named.clone(),
            speaker: speaker.start(),
            carriage: voice.carriage,
            voice: voice.voice,
            sounds: Sounds::Coming,
            text_bytes: 0,
            playback: Playback::default(),
            rest: Rest::Spoken,
            attends: Attends::No,
            told: Telling::First,
            text: Text::Coming,
        };
        self.speech = Some(Box::new(speech));
    }

    /// Gives the speaker the text of an own turn's event.
    pub(super) fn hear_text(&mut self, number: u64, event: &Event, ctx: &mut Ctx) {
        let Some(speech) = self.speech.as_mut().filter(|it| it.number == number) else {
            return;
        };
        // Perhaps that of an earlier request, which may be told before its repeat is known as one.
        speech.turn = event.turn;
        if event.turn != speech.minted {
            speech.told = Telling::Again;
        }
        if speech.attends == Attends::No {
            speech.attends = Attends::Yes;
            let (named, turn) = (speech.named.clone(), event.turn);
            self.attend(&named, turn, ctx);
        }
        let Some(speech) = self.speech.as_mut() else {
            return;
        };
        if event.is_last() {
            speech.text = Text::Whole;
        }
        if speech.sounds != Sounds::Coming {
            return;
        }
        match &event.body {
            EventBody::Text { offset, text, .. } => {
                let text = unescape(text.as_escaped());
                let behind = usize::try_from(speech.text_bytes.saturating_sub(*offset));
                // What was told again was spoken; what was told in another way cannot be.
                let new = behind.ok().and_then(|behind| text.get(behind..));
                match new {
                    Some(new) if *offset <= speech.text_bytes => {
                        speech.text_bytes += new.len() as u64;
                        speech.tell(More(new.to_owned()));
                    }
                    Some(_) | None => speech.tell(Over),
                }
            }
            EventBody::Ended(end) => {
                // By somebody else: what is not played by now is not to be heard any more. A reply
                // that is told again may have been cancelled long ago.
                let is_now = speech.told == Telling::First;
                let silenced = is_now && end.finish_reason == CANCELLED && self.barge_in(ctx);
                if !silenced {
                    self.speak_to_the_end(number);
                }
            }
            _ => {}
        }
    }

    /// The turn of an own request is that of an earlier one.
    pub(super) fn speaks_again(&mut self, number: u64) {
        if let Some(speech) = self.speech.as_mut().filter(|it| it.number == number) {
            speech.told = Telling::Again;
        }
    }

    /// Has the conversation know whose voice a turn has.
    fn attend(&self, named: &Named, turn: TurnId, ctx: &mut Ctx) {
        let conversation = self.handle_of(named);
        let voice = ctx.address().recipient();
        let attend = async move { conversation.attend(turn, voice).await };
        ctx.spawn(attend.into_actor(self).map(move |attends, _, _| {
            if let Err(error) = attends {
                tracing::debug!(%error, %turn, "who cancels from elsewhere does not silence a voice");
            }
        }));
    }

    /// No more text comes of an own turn.
    pub(super) fn speak_to_the_end(&self, number: u64) {
        if let Some(speech) = self.speech.as_ref().filter(|it| it.number == number) {
            speech.tell(Over);
        }
    }

    /// The client has played so much.
    pub(super) fn played(&mut self, turn: Option<TurnId>, sequence: u32, ms: u32) {
        self.reports = Reports::Yes;
        let Some(speech) = &mut self.speech else {
            return;
        };
        // What comes after it was stopped changes nothing: the next prompt is on its way.
        let is_its = turn.is_none_or(|turn| turn == speech.turn);
        if is_its && speech.sounds != Sounds::Stopped {
            speech.playback.reported(sequence, ms);
            speech.tell(Played { sequence, ms });
        }
    }

    /// Whether the reply that is being spoken is one of those that a `cancel` names.
    pub(super) fn speaks_for(&self, conversation: Option<&Named>, turn: Option<TurnId>) -> bool {
        let named = conversation.or(self.current.as_ref());
        self.speech.as_ref().is_some_and(|speech| {
            named.is_some_and(|named| named.id == speech.named.id)
                && turn.is_none_or(|turn| turn == speech.turn)
        })
    }

    /// Whether more is to be told of a spoken reply.
    pub(super) fn is_speaking(&self) -> bool {
        let speech = self.speech.as_ref();
        speech.is_some_and(|speech| speech.sounds == Sounds::Coming)
    }

    /// Whether a reply is being cut to what was heard.
    pub(super) fn is_interrupting(&self) -> bool {
        !self.interrupting.is_empty()
    }

    /// The client speaks up: silences what is being spoken, and keeps of it what was heard. False if
    /// there was nothing to be silenced.
    pub(super) fn barge_in(&mut self, ctx: &mut Ctx) -> bool {
        let reports = self.reports;
        let unplayed = self.speech.as_mut().filter(|it| it.is_unplayed(reports));
        let Some(speech) = unplayed else {
            return false;
        };
        speech.sounds = Sounds::Stopped;
        self.held_piece = None;
        let turn = speech.turn;
        ctx.text(socket::audio_stop(&speech.named.spelled, turn));
        let truth = match (speech.told, speech.text, self.reports) {
            (Telling::Again, Text::Whole, _) => Truth::Repeated,
            (_, _, Reports::Yes) => Truth::Unheard,
            (_, _, Reports::No) => Truth::Read,
        };
        let (speaker, named) = (speech.speaker.clone(), speech.named.clone());
        let interruption = Interruption {
            speaker,
            conversation: self.handle_of(&named),
            caller: self.caller.clone(),
            turn,
            truth,
        };
        let interrupting = interruption.begin();
        self.interrupting.push(interrupting.clone());
        ctx.spawn(interrupting.into_actor(self).map(|_over, act, ctx| {
            act.interrupting.retain(|it| it.peek().is_none());
            act.next_message(ctx);
            act.go_when_all_is_told(ctx);
        }));
        true
    }
}

impl Handler<Hush> for WsSession {
    type Result = Response<()>;

    fn handle(&mut self, Hush(turn): Hush, ctx: &mut Ctx) -> Response<()> {
        if self.speech.as_ref().is_some_and(|it| it.turn == turn) {
            self.barge_in(ctx);
        }
        let interrupting = self.interrupting.clone();
        Response::fut(async move {
            for interruption in interrupting {
                let _over = interruption.await;
            }
        })
    }
}

impl Handler<Voiced> for WsSession {
    type Result = Response<()>;

    fn handle(&mut self, msg: Voiced, ctx: &mut Ctx) -> Response<()> {
        if !self.is_listening() {
            self.tell_piece(&msg, ctx);
            return Response::reply(());
        }
        // Who speaks is not spoken to.
        let (told, wait) = oneshot::channel();
        self.held_piece = Some(Box::new(HeldPiece { piece: msg, told }));
        Response::fut(async move {
            // Dropped where it is not told at all.
            let _told = wait.await;
        })
    }
}

impl WsSession {
    /// Tells the piece that was held while the client spoke, if it has stopped.
    pub(super) fn tell_held_piece(&mut self, ctx: &mut Ctx) {
        if self.is_listening() {
            return;
        }
        if let Some(held) = self.held_piece.take() {
            let HeldPiece { piece, told } = *held;
            self.tell_piece(&piece, ctx);
            let _gone = told.send(());
        }
    }

    fn tell_piece(&mut self, msg: &Voiced, ctx: &mut Ctx) {
        // The last that one was handed which is silenced may come when the next is there.
        let is_its =
            |it: &&mut SpeechUnderWay| it.minted == msg.turn && it.sounds == Sounds::Coming;
        let Some(speech) = self.speech.as_deref_mut().filter(is_its) else {
            return;
        };
        let (spelled, turn) = (&speech.named.spelled, speech.turn);
        let format = speech.voice.format;
        match &msg.piece {
            Piece::Audio {
                sequence,
                sentence,
                text,
                audio,
                timed,
            } => {
                let piece = AudioPiece {
                    sequence: *sequence,
                    sentence: *sentence,
                    text,
                    audio,
                    timed,
                };
                match speech.carriage {
                    Carriage::Text => ctx.text(socket::audio(spelled, turn, &piece, format)),
                    Carriage::Binary => {
                        ctx.text(socket::audio_head_alone(spelled, turn, &piece, format));
                        ctx.binary(socket::audio_frame(turn, *sequence, audio));
                    }
                }
                let ms = format.duration_of(audio.len()).as_millis();
                let ms = u32::try_from(ms).unwrap_or(u32::MAX);
                speech.playback.told(ms, Instant::now());
            }
            Piece::Failed {
                sequence,
                sentence,
                error,
                rest,
                ..
            } => {
                speech.rest = *rest;
                let error = EngineError::Upstream(error.clone());
                let place = (*sequence, *sentence);
                ctx.text(socket::audio_error(spelled, turn, place, &error));
                speech.playback.told(0, Instant::now());
            }
            Piece::Complete(sums) => {
                let model = &speech.voice.model_id;
                ctx.text(socket::audio_complete(spelled, turn, sums, model));
                speech.sounds = Sounds::Told;
                self.go_when_all_is_told(ctx);
            }
        }
    }
}

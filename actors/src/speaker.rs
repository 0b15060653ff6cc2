//! Speaks a reply while it is written: sentence by sentence, a few ahead of who listens.
//!
//! One actor for each reply that is spoken, on the thread of its listener. Text comes in as the
//! conversation tells it; audio goes out in order, the next piece once the last was taken. A listener
//! that takes nothing stops the synthesis after a few sentences; one that is gone ends it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient,
    SpawnHandle, WrapFuture,
};

use self::line::{Ask, Line};
pub use self::line::{Piece, Rest, Sums};
use crate::{
    accounting::VoiceAccount,
    id::TurnId,
    provider::{
        Generation, Upstream, failure,
        speech::{Speak, Spoken, Timing, Voice},
    },
    voice::{
        segmenter::{Segmenter, SegmenterOptions},
        usage::VoiceUsage,
    },
};

mod line;

/// Messages of syntheses that wait; with more, they are not read from.
const MAILBOX: usize = 16;

/// How a reply is spoken.
#[derive(Debug, Clone)]
pub struct SpeakerConfig {
    /// The turn whose reply it is.
    pub turn: TurnId,
    /// Who speaks.
    pub provider: Recipient<Speak>,
    /// With which voice.
    pub voice: Arc<Voice>,
    /// Whether characters have times.
    pub timing: Timing,
    /// How the text is cut.
    pub segmenter: SegmenterOptions,
    /// Who listens.
    pub listener: Recipient<Voiced>,
    /// Where characters are counted.
    pub account: VoiceAccount,
}

/// A piece of a spoken reply.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Voiced {
    /// The turn.
    pub turn: TurnId,
    /// The piece.
    pub piece: Piece,
}

/// The reply goes on with this text.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct More(pub String);

/// The reply is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Over;

/// The listener played all before a piece, and so much of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Played {
    /// The piece.
    pub sequence: u32,
    /// Milliseconds of it.
    pub ms: u32,
}

/// Be silent. Nothing more is told.
#[derive(Debug, Message)]
#[rtype(result = "Silenced")]
pub struct Silence;

/// How far the listener was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, actix::MessageResponse)]
pub struct Silenced {
    /// Bytes of the reply's text that were heard; none if the listener never said what it played.
    pub heard: Option<usize>,
    /// Bytes of the reply's text that had come.
    pub text_bytes: usize,
}

/// Speaks one reply.
pub struct Speaker {
    config: SpeakerConfig,
    /// None once the reply is over.
    segmenter: Option<Segmenter>,
    text_bytes: usize,
    line: Line,
    calls: HashMap<u64, Generation>,
    began: Instant,
    /// Wakes the segmenter up.
    timer: Option<SpawnHandle>,
    outbox: Outbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outbox {
    /// The listener takes the next piece.
    Free,
    /// It is being handed one.
    Busy,
    /// It gets no more.
    Closed,
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker")
            .field("turn", &self.config.turn)
            .finish_non_exhaustive()
    }
}

impl Speaker {
    /// With nothing to say yet.
    #[must_use]
    pub fn new(config: SpeakerConfig) -> Self {
        Self {
            segmenter: Some(Segmenter::new(config.segmenter.clone())),
            text_bytes: 0,
            line: Line::new(config.voice.format),
            calls: HashMap::new(),
            began: Instant::now(),
            timer: None,
            outbox: Outbox::Free,
            config,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Looks again at what can be done.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        if self.outbox == Outbox::Closed {
            return;
        }
        while let Some(ask) = self.line.ask() {
            self.ask(ask, ctx);
        }
        self.calls.retain(|number, _| self.line.wants(*number));
        self.tell(ctx);
        self.set_timer(ctx);
    }

    fn ask(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        let number = ask.number;
        let speak = Speak {
            number,
            text: ask.text,
            before: ask.before,
            voice: self.config.voice.clone(),
            timing: self.config.timing,
            urgency: ask.urgency,
            reply_to: ctx.address().recipient(),
        };
        let asked = self.config.provider.send(speak).into_actor(self);
        ctx.spawn(asked.map(move |call, act, ctx| match call {
            Ok(call) if act.line.wants(number) && act.outbox != Outbox::Closed => {
                act.calls.insert(number, call);
            }
            // It is over already.
            Ok(_unwanted) => {}
            // The provider is gone with its thread.
            Err(_gone) => {
                let error = failure::failed(Upstream::ElevenLabs, "is gone");
                act.line.lost(number, error);
                act.go_on(ctx);
            }
        }));
    }

    fn tell(&mut self, ctx: &mut Context<Self>) {
        if self.outbox != Outbox::Free {
            return;
        }
        let Some(piece) = self.line.tell() else {
            return;
        };
        if let Piece::Complete(sums) = piece {
            let counted = VoiceUsage::spoken(sums.characters);
            let counted = self.config.account.count(counted).into_actor(self);
            ctx.spawn(counted);
        }
        self.outbox = Outbox::Busy;
        let turn = self.config.turn;
        let told = self.config.listener.send(Voiced { turn, piece });
        ctx.spawn(told.into_actor(self).map(|told, act, ctx| {
            if act.outbox == Outbox::Closed {
                return;
            }
            match told {
                Ok(()) => {
                    act.outbox = Outbox::Free;
                    act.go_on(ctx);
                }
                // Nobody listens any more.
                Err(_gone) => act.close(ctx),
            }
        }));
    }

    /// Text that is held is given out in time, whether more comes or not.
    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let deadline = self.segmenter.as_ref().and_then(Segmenter::deadline);
        let Some(deadline) = deadline else { return };
        let wait = deadline.saturating_sub(self.now());
        self.timer = Some(ctx.run_later(wait, |act, ctx| {
            act.timer = None;
            let now = act.now();
            if let Some(segmenter) = &mut act.segmenter {
                let segments = segmenter.poll(now);
                act.line.add(segments);
            }
            act.go_on(ctx);
        }));
    }

    /// Stops every synthesis, upstream, too. What was played can still be asked for.
    fn close(&mut self, ctx: &mut Context<Self>) {
        if self.outbox == Outbox::Closed {
            return;
        }
        self.outbox = Outbox::Closed;
        self.calls.clear();
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let counted = match self.line.is_complete() {
            true => 0,
            false => self.line.charged(),
        };
        let counted = VoiceUsage::spoken(counted);
        let counted = self.config.account.count(counted).into_actor(self);
        ctx.spawn(counted.map(|(), act, ctx| {
            if !act.config.listener.connected() {
                ctx.stop();
            }
        }));
    }
}

impl Actor for Speaker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<More> for Speaker {
    type Result = ();

    fn handle(&mut self, More(text): More, ctx: &mut Self::Context) {
        self.text_bytes += text.len();
        let now = self.now();
        if let Some(segmenter) = &mut self.segmenter
            && self.outbox != Outbox::Closed
        {
            let segments = segmenter.push(&text, now);
            self.line.add(segments);
            self.go_on(ctx);
        }
    }
}

impl Handler<Over> for Speaker {
    type Result = ();

    fn handle(&mut self, _: Over, ctx: &mut Self::Context) {
        if let Some(segmenter) = self.segmenter.take() {
            self.line.add(segmenter.finish().segments);
            self.line.over(self.text_bytes);
            self.go_on(ctx);
        }
    }
}

impl Handler<Played> for Speaker {
    type Result = ();

    fn handle(&mut self, msg: Played, _: &mut Self::Context) {
        self.line.played(msg.sequence, msg.ms);
    }
}

impl Handler<Silence> for Speaker {
    type Result = Silenced;

    fn handle(&mut self, _: Silence, ctx: &mut Self::Context) -> Silenced {
        self.close(ctx);
        Silenced {
            heard: self.line.has_reports().then(|| self.line.heard()),
            text_bytes: self.text_bytes,
        }
    }
}

impl Handler<Spoken> for Speaker {
    type Result = ();

    fn handle(&mut self, msg: Spoken, ctx: &mut Self::Context) {
        self.line.took(msg.number, &msg.audio, msg.timed, msg.end);
        self.go_on(ctx);
    }
}

#[cfg(test)]
mod tests;

//! Who watches: sessions that attach, are told what happens as fast as they take it, and leave.

use std::{sync::Arc, time::Instant};

use actix::{AsyncContext, Context, Handler, Recipient, prelude::SendError};
use tokio::sync::oneshot;

use super::{
    Conversation,
    backlog::Backlog,
    command::{self, Attachment, Control, ControlKind, Deliver, Detached, From, Listener},
    event::Event,
    stream::{Position, TurnStream},
    subscribers::{Interest, Sent, SubscriberKey},
};
use crate::{error::EngineError, limits};

#[derive(Debug)]
pub(super) struct Sink {
    attachment: u64,
    pub(super) to: Recipient<Deliver>,
    pub(super) lifeline: oneshot::Sender<Detached>,
}

impl Sink {
    pub(super) fn send(&self, event: Arc<Event>) -> Sent {
        let deliver = Deliver {
            attachment: self.attachment,
            event,
        };
        match self.to.try_send(deliver) {
            Ok(()) => Sent::Yes,
            Err(SendError::Full(_)) => Sent::Full,
            Err(SendError::Closed(_)) => Sent::Gone,
        }
    }
}

impl Conversation {
    pub(super) fn attach(
        &mut self,
        command: &command::Attach,
        listener: Listener,
        ctx: &mut Context<Self>,
    ) -> Result<Attachment, EngineError> {
        let document = self.document().ok_or(EngineError::NotFound)?;
        if !command.caller.may_use(document.user_id()) {
            return Err(EngineError::NotFound);
        }
        let (interest, position) = match command.from {
            From::Now => {
                let position = Position {
                    ordinal: self.first_untold(),
                    ..Position::default()
                };
                (Interest::All, position)
            }
            From::TurnAt(cursor) => match self.streams.locate(cursor) {
                Some(Ok(position)) => (Interest::Turn(position.ordinal), position),
                Some(Err(_misplaced)) => return Err(EngineError::Restarted),
                None => {
                    let record = document.turn(cursor.turn);
                    let told = record.and_then(TurnStream::from_record);
                    let told = told.ok_or(EngineError::Restarted)?;
                    let at = told.place(0, cursor);
                    let at = at.map_err(|_misplaced| EngineError::Restarted)?;
                    let backlog = Backlog::of(told, at).ok_or(EngineError::Restarted)?;
                    let history = (Position::default(), Some(backlog));
                    return self.subscribe(listener, Interest::History, history, ctx);
                }
            },
        };
        self.subscribe(listener, interest, (position, None), ctx)
    }

    pub(super) fn subscribe(
        &mut self,
        listener: Listener,
        interest: Interest,
        (position, backlog): (Position, Option<Box<Backlog>>),
        ctx: &mut Context<Self>,
    ) -> Result<Attachment, EngineError> {
        if self.subscribers.len() >= limits::SUBSCRIBERS_MAX {
            return Err(EngineError::Overloaded);
        }
        let (lifeline, broken) = oneshot::channel();
        let sink = Sink {
            attachment: listener.attachment,
            to: listener.sink,
            lifeline,
        };
        let key = self
            .subscribers
            .add(sink, interest, position, listener.credit);
        if let Some(backlog) = backlog {
            self.subscribers.tell_first(key, backlog);
        }
        let attachment = Attachment::new(key, ctx.address().recipient(), broken);
        self.pump(key, ctx);
        Ok(attachment)
    }

    pub(super) fn pump(&mut self, key: SubscriberKey, ctx: &mut Context<Self>) {
        if self.is_paused() {
            return;
        }
        self.subscribers.pump(
            key,
            &mut self.streams,
            limits::EVENT_TEXT_BYTES_MAX,
            Instant::now(),
            Sink::send,
        );
        self.after_pump(ctx);
    }

    pub(super) fn pump_all(&mut self, ctx: &mut Context<Self>) {
        if self.is_paused() {
            return;
        }
        self.subscribers.pump_all(
            &mut self.streams,
            limits::EVENT_TEXT_BYTES_MAX,
            Instant::now(),
            Sink::send,
        );
        self.after_pump(ctx);
    }

    pub(super) fn after_pump(&mut self, ctx: &mut Context<Self>) {
        let needed = self.subscribers.oldest_needed(self.streams.end());
        self.streams.trim(needed);
        if self.stall_check.is_none() && self.subscribers.anyone_waits() {
            self.shared.metrics.credit_exhausted.inc();
            let deadline = self.shared.config.stall_deadline;
            self.stall_check = Some(ctx.run_later(deadline, Self::check_stalled));
        }
    }

    fn check_stalled(&mut self, ctx: &mut Context<Self>) {
        self.stall_check = None;
        self.note_listeners();
        let deadline = self.shared.config.stall_deadline;
        let turns = limits::RESUME_TURNS_MAX as u64;
        let oldest = self.first_untold().saturating_sub(turns);
        let now = Instant::now();
        for sink in self.subscribers.take_stalled(now, deadline, oldest) {
            self.shared.metrics.stalled.inc();
            // Its session finds out when its client reads again.
            if sink.lifeline.send(Detached::Stalled).is_err() {
                tracing::trace!("a stalled session had left already");
            }
        }
        // Those whose mailbox was full are offered their events again.
        self.pump_all(ctx);
    }
}

impl Handler<Control> for Conversation {
    type Result = ();

    fn handle(&mut self, msg: Control, ctx: &mut Self::Context) {
        match msg.what {
            ControlKind::Credit(events) => {
                self.subscribers.credit(msg.key, events);
                self.pump(msg.key, ctx);
            }
            ControlKind::Detach => {
                self.note_listeners();
                self.subscribers.remove(msg.key);
                self.touch();
                self.after_pump(ctx);
            }
        }
    }
}

//! Plays a streamed reply.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::chat::ChatRequest;
use super::chunk::Frames;
use super::deltas::Deltas;
use super::fault::Fault;
use super::pace::Pace;
use super::script::{Mark, Script};
use super::wire::{Delimited, Done};
use crate::counters::Meter;
use crate::http::{Body, Connection, Framing, Gone, Next, response_head};

/// A write is sent at the latest when it has gathered this much.
const WRITE_MAX: usize = 256 * 1024;
/// Time between the comments of a stall, when the script does not say.
const BEAT: Duration = Duration::from_millis(20);

/// Everything that playing a stream needs to know.
pub(crate) struct Performance<'a> {
    pub(crate) meter: &'a Meter,
    pub(crate) script: &'a Script,
    /// Whether the script's faults meet this request.
    pub(crate) fails: bool,
    pub(crate) request: &'a ChatRequest<'a>,
}

/// How the deltas ended.
enum Ending {
    /// All of them were sent.
    Whole,
    /// A fault ended them, and the body ends in order.
    Broken,
    /// A fault ended them, and the connection ends like this.
    Severed(Next),
}

/// Streams the reply, and returns what becomes of the connection.
pub(crate) async fn play(
    connection: &mut Connection,
    performance: &Performance<'_>,
) -> Result<Next, Gone> {
    let Performance {
        meter,
        script,
        request,
        ..
    } = *performance;
    let envelope = request.envelope();
    let frames = Frames::new(&envelope, &script.wire, request.tally(script));
    let deltas = Deltas::of(script, request);

    let (framing, next, delimiter) = match script.wire.delimited {
        Delimited::Chunked => (
            Framing::Chunked,
            Next::KeepAlive,
            ("Transfer-Encoding", "chunked"),
        ),
        Delimited::Close => (Framing::Plain, Next::Close, ("Connection", "close")),
    };
    let head = response_head(
        200,
        &[
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-cache"),
            ("X-Generation-Id", &envelope.id),
            delimiter,
        ],
        &script.headers,
    );
    let body = Body::new(connection, head, framing, script.wire.split.clone());
    let mut player = Player {
        body,
        frames,
        meter,
        pace: &script.pace,
        due: Instant::now(),
    };
    match player
        .deltas(&deltas, script.marks(performance.fails))
        .await?
    {
        Ending::Severed(next) => {
            player.body.flush().await?;
            return Ok(next);
        }
        Ending::Broken => {
            player.frames.done(
                script.wire.done.unwrap_or(Done::Missing),
                player.body.pending(),
            );
            player.body.finish().await?;
        }
        Ending::Whole => {
            if let Deltas::Told { .. } = deltas {
                let out = player.body.pending();
                player
                    .frames
                    .finish(script.reply.finish_reason(), deltas.len(), out);
                player
                    .frames
                    .done(script.wire.done.unwrap_or(Done::Sent), out);
            }
            player.body.finish().await?;
            meter.change(|counters| counters.streams_completed += 1);
        }
    }
    Ok(next)
}

struct Player<'a, 'c> {
    body: Body<'c>,
    frames: Frames,
    meter: &'a Meter,
    pace: &'a Pace,
    /// When the next write is due.
    due: Instant,
}

impl Player<'_, '_> {
    async fn deltas(
        &mut self,
        deltas: &Deltas<'_>,
        marks: Vec<(usize, Mark<'_>)>,
    ) -> Result<Ending, Gone> {
        self.prologue(deltas).await?;
        let gap = self.pace.between_writes(self.pace.batch());
        let count = deltas.len();
        let mut marks = marks.into_iter().peekable();
        let mut gathered = 0;
        for index in 0..=count {
            while let Some((_, mark)) =
                marks.next_if(|(after, _)| *after <= index || index == count)
            {
                match mark {
                    Mark::Hold(gate) => {
                        self.body.wait(gate.pass()).await?;
                        self.due = Instant::now();
                    }
                    Mark::Fault(fault) => {
                        if let Some(ending) = self.fault(fault).await? {
                            return Ok(ending);
                        }
                    }
                }
            }
            if index == count {
                break;
            }
            if self
                .pace
                .between
                .is_some_and(|between| index > 0 && index % between == 0)
            {
                self.frames.comment(self.body.pending());
            }
            deltas.push(index, &self.frames, self.body.pending());
            gathered += 1;
            let full = gathered >= self.pace.batch();
            if full || self.body.pending().len() >= WRITE_MAX {
                self.body.flush().await?;
            }
            if full {
                gathered = 0;
                self.rest(gap).await?;
            }
        }
        Ok(Ending::Whole)
    }

    /// Sends what comes before the first delta, and waits for its time.
    async fn prologue(&mut self, deltas: &Deltas<'_>) -> Result<(), Gone> {
        let told = matches!(deltas, Deltas::Told { .. });
        if told {
            (0..self.pace.comments).for_each(|_| self.frames.comment(self.body.pending()));
        }
        let first = self.due + self.pace.first;
        if let Some(beat) = self.pace.beat {
            while self.due + beat < first {
                self.rest(beat).await?;
                self.frames.comment(self.body.pending());
            }
        }
        self.rest(first - self.due).await?;
        if told {
            self.frames.opening(self.body.pending());
        }
        Ok(())
    }

    /// Waits until the next write is due; without a pause it neither waits nor writes.
    async fn rest(&mut self, pause: Duration) -> Result<(), Gone> {
        if !pause.is_zero() {
            self.due += pause;
            self.body.wait(sleep_until(self.due)).await?;
        }
        Ok(())
    }

    /// Plays a fault; `None` lets the stream go on.
    async fn fault(&mut self, fault: &Fault) -> Result<Option<Ending>, Gone> {
        self.meter.change(|counters| counters.faults_played += 1);
        Ok(Some(match fault {
            Fault::Reset => Ending::Severed(Next::Reset),
            Fault::Cut => Ending::Severed(Next::Close),
            Fault::End => Ending::Broken,
            Fault::Error(error) => {
                self.frames.error(error, self.body.pending());
                Ending::Broken
            }
            Fault::Stall => self.body.wait(std::future::pending()).await?,
            Fault::StallComments => loop {
                self.frames.comment(self.body.pending());
                let beat = self.pace.beat.unwrap_or(BEAT).max(Duration::from_millis(1));
                self.body.wait(sleep(beat)).await?;
            },
            Fault::Garbage => {
                self.frames.garbage(self.body.pending());
                return Ok(None);
            }
            Fault::LongLine(length) => {
                self.frames.long_line(*length, self.body.pending());
                return Ok(None);
            }
            Fault::LongComment(length) => {
                self.frames.long_comment(*length, self.body.pending());
                return Ok(None);
            }
            // Faults of the head are played before the stream begins.
            Fault::NoHeaders
            | Fault::HalfHeaders
            | Fault::ResetEarly
            | Fault::CloseEarly
            | Fault::Answer(_)
            | Fault::Status(_) => return Ok(None),
        }))
    }
}

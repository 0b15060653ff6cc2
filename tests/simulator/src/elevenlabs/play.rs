//! Plays an answer that is spoken: audio, or lines of JSON with audio in them.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::format::Delivery;
use super::request::{Content, Speech};
use super::voice::Voice;
use crate::counters::Meter;
use crate::http::{Body, Connection, Framing, Gone, Next, response_head};
use crate::openrouter::{Fault, Mark, Script};

/// The characters of one write, when the script does not say: 0.6 s.
pub(crate) const BATCH: usize = 10;
/// What a client gets in place of audio when the script wants garbage.
const GARBAGE: &[u8] = b"{this is neither audio nor JSON\n";

/// Everything that an answer is made from.
pub(crate) struct Performance<'a> {
    pub(crate) meter: &'a Meter,
    pub(crate) script: &'a Script,
    /// Whether the script's faults meet this request.
    pub(crate) fails: bool,
    pub(crate) speech: &'a Speech,
    /// What every answer tells in its head.
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// How the characters ended.
enum Ending {
    Whole,
    /// A fault ended them, and the body ends in order.
    Broken,
    /// A fault ended them, and the connection ends like this.
    Severed(Next),
}

/// Sends the answer, and returns what becomes of the connection.
pub(crate) async fn play(
    connection: &mut Connection,
    performance: &Performance<'_>,
) -> Result<Next, Gone> {
    let Performance {
        meter,
        script,
        speech,
        ..
    } = *performance;
    let voice = Voice::new(&speech.text, speech.format);
    let whole = (speech.delivery == Delivery::Whole).then(|| voice.audio().len());
    let (head, framing, after) = head(performance, whole);
    let batch = script.pace.batch.unwrap_or(BATCH);
    let begun = Instant::now();
    if whole.is_some() {
        // All of it is made before the first of it is sent; then nothing is waited for any more.
        let writes = u32::try_from(voice.len() / batch).unwrap_or(u32::MAX);
        let made = script.pace.first + script.pace.between_writes(batch) * writes;
        connection.wait(sleep_until(begun + made)).await?;
    }
    let mut player = Player {
        body: Body::new(connection, head, framing, script.wire.split.clone()),
        voice,
        script,
        meter,
        due: begun,
        content: speech.content,
        sent: 0,
        batch,
    };
    match player.speak(performance.fails).await? {
        Ending::Severed(next) => {
            player.body.flush().await?;
            return Ok(next);
        }
        // What is missing of a length that was told can only be told by closing.
        Ending::Broken if whole.is_some() => {
            player.body.flush().await?;
            return Ok(Next::Close);
        }
        Ending::Broken => player.body.finish().await?,
        Ending::Whole => {
            player.body.finish().await?;
            meter.change(|counters| counters.generations_completed += 1);
        }
    }
    Ok(after)
}

/// Renders the head, and decides how the body's end is marked and what follows it.
fn head(performance: &Performance<'_>, whole: Option<usize>) -> (Vec<u8>, Framing, Next) {
    let Performance {
        script,
        speech,
        headers,
        ..
    } = *performance;
    let length = whole.map(|whole| whole.to_string());
    let (framing, next, delimiter) = match (&length, script.wire.is_chunked()) {
        (Some(length), _) => (
            Framing::Plain,
            Next::KeepAlive,
            ("Content-Length", length.as_str()),
        ),
        (None, true) => (
            Framing::Chunked,
            Next::KeepAlive,
            ("Transfer-Encoding", "chunked"),
        ),
        (None, false) => (Framing::Plain, Next::Close, ("Connection", "close")),
    };
    let media_type = match speech.content {
        Content::Audio => speech.format.media_type(),
        Content::Timestamps => "application/json",
    };
    let mut usual = vec![("Content-Type", media_type), delimiter];
    usual.extend_from_slice(headers);
    (response_head(200, &usual, &script.headers), framing, next)
}

struct Player<'a, 'c> {
    body: Body<'c>,
    voice: Voice,
    script: &'a Script,
    meter: &'a Meter,
    /// When the next write is due.
    due: Instant,
    content: Content,
    /// The characters spoken so far.
    sent: usize,
    /// The characters of one write.
    batch: usize,
}

impl Player<'_, '_> {
    async fn speak(&mut self, fails: bool) -> Result<Ending, Gone> {
        self.rest(self.script.pace.first).await?;
        let gap = self.script.pace.between_writes(self.batch);
        let count = self.voice.len();
        let marks = self.script.marks(fails);
        let mut marks = marks.into_iter().peekable();
        if self.content == Content::Audio {
            let header = self.voice.header();
            self.body.pending().extend_from_slice(&header);
        }
        for index in 0..=count {
            while let Some((_, mark)) =
                marks.next_if(|(after, _)| *after <= index || index == count)
            {
                self.say_until(index);
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
            if index + 1 - self.sent >= self.batch {
                self.say_until(index + 1);
                self.body.flush().await?;
                self.rest(gap).await?;
            }
        }
        self.say_until(count);
        Ok(Ending::Whole)
    }

    /// Puts into the next write what is to be said up to this character.
    fn say_until(&mut self, end: usize) {
        let range = self.sent..end;
        if range.is_empty() {
            return;
        }
        self.sent = end;
        match self.content {
            Content::Audio => self.voice.push(range, self.body.pending()),
            Content::Timestamps => {
                let line = self.voice.timed(range).to_string();
                self.body.pending().extend_from_slice(line.as_bytes());
                self.body.pending().push(b'\n');
            }
        }
    }

    /// Waits until the next write is due; without a pause it neither waits nor writes.
    async fn rest(&mut self, pause: Duration) -> Result<(), Gone> {
        if !pause.is_zero() {
            self.due += pause;
            self.body.wait(sleep_until(self.due)).await?;
        }
        Ok(())
    }

    /// Plays a fault; `None` lets the answer go on.
    async fn fault(&mut self, fault: &Fault) -> Result<Option<Ending>, Gone> {
        self.meter.change(|counters| counters.faults_played += 1);
        Ok(match fault {
            Fault::Reset => Some(Ending::Severed(Next::Reset)),
            Fault::Cut => Some(Ending::Severed(Next::Close)),
            Fault::End | Fault::Error(_) => Some(Ending::Broken),
            Fault::Stall | Fault::StallComments => self.body.wait(std::future::pending()).await?,
            Fault::Garbage => {
                self.body.pending().extend_from_slice(GARBAGE);
                None
            }
            _ => None,
        })
    }
}

//! Does what is to be done on a socket, one thing after another.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;
use std::time::Duration;
use std::vec::IntoIter;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::SinkExt;
use futures::stream::SplitSink;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::input::{Closing, ContextId, Job};
use crate::elevenlabs::format::AudioFormat;
use crate::elevenlabs::play::BATCH;
use crate::elevenlabs::voice::{Alignment, CHARACTER_MS, Voice};
use crate::http::{Gone, Next};
use crate::openrouter::{Fault, Mark, Script, StreamError};
use crate::server::Shared;

/// The reason of a close for want of credits, cut where a close frame ends (123 bytes).
const QUOTA: &str =
    "This request exceeds your quota of 10000. You have 3 credits remaining, while 4 cr";

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A close was told.
    Closed,
    /// None was; the connection ends like this.
    Severed(Next),
}

/// The half that writes.
pub(crate) struct Output<'s, 'c> {
    sink: SplitSink<WebSocketStream<&'c mut TcpStream>, Message>,
    shared: &'s Shared,
    script: &'s Script,
    marks: Peekable<IntoIter<(usize, Mark<'s>)>>,
    format: AudioFormat,
    /// What each context has spoken, by its number.
    voices: HashMap<u64, Voice>,
    /// The characters spoken on this socket.
    spoken: usize,
    /// When the next frame is due.
    due: Instant,
}

impl<'s, 'c> Output<'s, 'c> {
    pub(crate) fn new(
        sink: SplitSink<WebSocketStream<&'c mut TcpStream>, Message>,
        shared: &'s Shared,
        script: &'s Script,
        fails: bool,
        format: AudioFormat,
    ) -> Self {
        Self {
            sink,
            shared,
            script,
            marks: script.marks(fails).into_iter().peekable(),
            format,
            voices: HashMap::new(),
            spoken: 0,
            due: Instant::now(),
        }
    }

    /// Does what comes, until the socket ends.
    pub(crate) async fn work(&mut self, mut jobs: mpsc::Receiver<Job>) -> Result<Ending, Gone> {
        loop {
            // The half that reads keeps its end for as long as this one is waited for.
            let job = jobs.recv().await.ok_or(Gone)?;
            let ending = match job {
                Job::Speak(context, text) => self.speak(&context, &text).await?,
                Job::Finish(context) => self.finish(&context).await?,
                Job::Close(closing) => Some(self.close(closing).await?),
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    async fn speak(&mut self, context: &ContextId, text: &str) -> Result<Option<Ending>, Gone> {
        let shared = self.shared;
        let Some(_generation) = shared.elevenlabs.generate(&shared.meter) else {
            let message = "Concurrency limit reached";
            let closing = Closing::told("concurrent_limit_exceeded", message, message);
            return Ok(Some(self.close(closing).await?));
        };
        self.due = Instant::now();
        self.rest(self.script.pace.first).await;
        let mut voice = self
            .voices
            .remove(&context.number)
            .unwrap_or_else(|| Voice::new("", self.format));
        let start = voice.len();
        voice.extend(text);
        let end = voice.len();
        let batch = self.script.pace.batch.unwrap_or(BATCH);
        let gap = self.script.pace.between_writes(batch);
        let mut from = start;
        for index in start..=end {
            let spoken = self.spoken + index - start;
            while let Some((_, mark)) = self.marks.next_if(|(after, _)| *after <= spoken) {
                self.frame(context, &voice, from..index).await?;
                from = index;
                if let Some(ending) = self.meet(mark).await? {
                    return Ok(Some(ending));
                }
            }
            if index < end && index + 1 - from >= batch {
                self.frame(context, &voice, from..index + 1).await?;
                from = index + 1;
                self.rest(gap).await;
            }
        }
        self.frame(context, &voice, from..end).await?;
        self.spoken += end - start;
        self.voices.insert(context.number, voice);
        shared
            .meter
            .change(|counters| counters.generations_completed += 1);
        Ok(None)
    }

    /// Sends the audio of these characters and when each is spoken in it.
    async fn frame(
        &mut self,
        context: &ContextId,
        voice: &Voice,
        range: Range<usize>,
    ) -> Result<(), Gone> {
        if range.is_empty() {
            return Ok(());
        }
        let mut audio = Vec::new();
        voice.push(range.clone(), &mut audio);
        let alignment = timed(voice.characters(range));
        let mut frame = json!({
            "audio": STANDARD.encode(audio),
            "isFinal": null,
            "normalizedAlignment": alignment,
            "alignment": alignment,
        });
        if let Some(name) = &context.name {
            frame["contextId"] = json!(name);
        }
        self.send(Message::text(frame.to_string())).await
    }

    /// Tells that a context has been spoken to its end.
    async fn finish(&mut self, context: &ContextId) -> Result<Option<Ending>, Gone> {
        self.voices.remove(&context.number);
        // What the text was too short for takes place here.
        let last = context.name.is_none();
        while let Some((_, mark)) = self.marks.next_if(|_| last) {
            if let Some(ending) = self.meet(mark).await? {
                return Ok(Some(ending));
            }
        }
        let frame = match &context.name {
            None => json!({
                "audio": null, "isFinal": true, "normalizedAlignment": null, "alignment": null,
            }),
            // Documents disagree on the name, so a client meets both.
            Some(name) if context.number % 2 == 1 => json!({"is_final": true, "contextId": name}),
            Some(name) => json!({"audio": null, "isFinal": true, "contextId": name}),
        };
        self.send(Message::text(frame.to_string())).await?;
        Ok(None)
    }

    async fn close(&mut self, closing: Closing) -> Result<Ending, Gone> {
        if let Some(frame) = &closing.frame {
            self.send(Message::text(frame.to_string())).await?;
        }
        let frame = CloseFrame {
            code: closing.code.into(),
            reason: closing.reason.into(),
        };
        self.send(Message::Close(Some(frame))).await?;
        Ok(Ending::Closed)
    }

    async fn meet(&mut self, mark: Mark<'_>) -> Result<Option<Ending>, Gone> {
        match mark {
            Mark::Hold(gate) => {
                gate.pass().await;
                self.due = Instant::now();
                Ok(None)
            }
            Mark::Fault(fault) => self.fault(fault).await,
        }
    }

    /// Plays a fault; `None` lets the socket go on.
    async fn fault(&mut self, fault: &Fault) -> Result<Option<Ending>, Gone> {
        self.shared
            .meter
            .change(|counters| counters.faults_played += 1);
        Ok(match fault {
            Fault::Reset => Some(Ending::Severed(Next::Reset)),
            Fault::Cut => Some(Ending::Severed(Next::Close)),
            Fault::End => Some(self.close(Closing::untold(1000, "")).await?),
            Fault::Stall | Fault::StallComments => std::future::pending().await,
            Fault::Error(error) => Some(self.close(closing(error)).await?),
            Fault::Garbage => {
                self.send(Message::text("{this is not JSON")).await?;
                None
            }
            Fault::LongLine(length) | Fault::LongComment(length) => {
                let frame = json!({"audio": null, "padding": " ".repeat(*length)});
                self.send(Message::text(frame.to_string())).await?;
                None
            }
            // Faults of the head are played before a socket opens.
            Fault::NoHeaders
            | Fault::HalfHeaders
            | Fault::ResetEarly
            | Fault::CloseEarly
            | Fault::Answer(_)
            | Fault::Status(_) => None,
        })
    }

    async fn rest(&mut self, pause: Duration) {
        if !pause.is_zero() {
            self.due += pause;
            sleep_until(self.due).await;
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        self.sink.send(message).await.map_err(|_| Gone)
    }
}

/// Renders what frames tell of characters, from the start of the frame.
fn timed(characters: &[char]) -> Value {
    let alignment = Alignment::of(characters, 0);
    let durations: Vec<u64> = characters.iter().map(|_| CHARACTER_MS).collect();
    json!({
        "chars": alignment.characters,
        "charStartTimesMs": alignment.starts_ms,
        "charsDurationsMs": durations,
    })
}

/// How an error closes a socket: a number is the code of the close, a word is told in a message
/// first, except that want of credits is not.
fn closing(error: &StreamError) -> Closing {
    match error {
        StreamError::Code(code) => Closing::untold(*code, ""),
        StreamError::Word(word) if word == "quota_exceeded" => Closing::untold(1008, QUOTA),
        StreamError::Word(word) => Closing::told(word, word, word),
        StreamError::Bare => Closing {
            frame: Some(json!({"message": "Something went wrong"})),
            ..Closing::untold(1008, "Something went wrong")
        },
    }
}

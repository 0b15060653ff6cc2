//! What a client tells, and what is to be done about it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::elevenlabs::request::{check_settings, query};
use crate::http::Request;

/// How many characters wait for a generation, for the first and for those after it.
const SCHEDULE: [usize; 4] = [120, 160, 250, 290];
/// The bounds of what a client may put there.
const SCHEDULED: std::ops::RangeInclusive<usize> = 50..=500;
/// Live contexts on a socket, at most.
const CONTEXTS_MAX: usize = 5;
/// The context of a message that names none.
const UNNAMED: &str = "default";
/// The code of a close for a breach of the rules.
const POLICY: u16 = 1008;

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Job {
    /// Speak this.
    Speak(ContextId, String),
    /// Tell that a context has been spoken to its end.
    Finish(ContextId),
    /// Close the socket.
    Close(Closing),
}

/// Which context is meant: its number on the socket, and its name where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContextId {
    pub(crate) number: u64,
    pub(crate) name: Option<String>,
}

/// How a socket is closed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Closing {
    /// A message before the close.
    pub(crate) frame: Option<Value>,
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Closing {
    /// A close after an error that a message tells first.
    pub(crate) fn told(error: &str, message: &str, reason: &str) -> Self {
        Self {
            frame: Some(json!({"message": message, "error": error, "code": POLICY})),
            code: POLICY,
            reason: reason.to_owned(),
        }
    }

    /// A close that its reason alone explains.
    pub(crate) fn untold(code: u16, reason: &str) -> Self {
        Self {
            frame: None,
            code,
            reason: reason.to_owned(),
        }
    }
}

/// Which of the two protocols a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Single,
    Multi,
}

/// When waiting text is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Once as much waits as the schedule says.
    Scheduled,
    /// With every message.
    Auto,
}

/// Whether more input is heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Over,
}

/// What was told so far on one socket.
#[derive(Debug)]
pub(crate) struct Input {
    protocol: Protocol,
    mode: Mode,
    stage: Stage,
    /// The key that the first message must bring.
    unmet_key: Option<String>,
    contexts: Vec<Context>,
    /// The contexts that there ever were.
    made: u64,
    /// What a socket of this model is closed with at once.
    refusal: Option<Closing>,
}

#[derive(Debug)]
struct Context {
    id: ContextId,
    waiting: String,
    schedule: Vec<usize>,
    /// How often the schedule has let text go.
    turn: usize,
}

#[derive(Debug, Default, Deserialize)]
struct Told {
    text: Option<String>,
    context_id: Option<String>,
    flush: Option<bool>,
    try_trigger_generation: Option<bool>,
    close_context: Option<bool>,
    close_socket: Option<bool>,
    #[serde(default)]
    voice_settings: Value,
    // Documents disagree on the name.
    #[serde(alias = "generator_config")]
    generation_config: Option<Config>,
    #[serde(alias = "xi-api-key")]
    xi_api_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    chunk_length_schedule: Option<Vec<usize>>,
}

impl Input {
    pub(crate) fn new(request: &Request, unmet_key: Option<String>) -> Self {
        let is = |name, wanted: &str| query(request, name).as_deref() == Some(wanted);
        Self {
            protocol: if request.path().ends_with("/multi-stream-input") {
                Protocol::Multi
            } else {
                Protocol::Single
            },
            mode: if is("auto_mode", "true") {
                Mode::Auto
            } else {
                Mode::Scheduled
            },
            stage: Stage::Open,
            unmet_key,
            contexts: Vec::new(),
            made: 0,
            refusal: is("model_id", "eleven_v3").then(|| {
                let message = "The model eleven_v3 has no sockets";
                Closing::told("unsupported_model", message, message)
            }),
        }
    }

    /// Whether more input is expected.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Ends the socket for want of input.
    pub(crate) fn time_out(&mut self, patience: Duration) -> Job {
        self.stage = Stage::Over;
        Job::Close(Closing::told(
            "input_timeout_exceeded",
            "No input within the allowed time",
            &format!("No new text for {} seconds", patience.as_secs()),
        ))
    }

    /// Takes a message and returns what is to be done.
    pub(crate) fn take(&mut self, message: &str) -> Vec<Job> {
        if self.stage == Stage::Over {
            return Vec::new();
        }
        let jobs = match self.heed(message) {
            Ok(jobs) => jobs,
            Err(closing) => vec![Job::Close(closing)],
        };
        if let Some(Job::Close(_)) = jobs.last() {
            self.stage = Stage::Over;
        }
        jobs
    }

    fn heed(&mut self, message: &str) -> Result<Vec<Job>, Closing> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        let told: Told = serde_json::from_str(message).map_err(|_| not_understood())?;
        if let Some(key) = self.unmet_key.take()
            && told.xi_api_key.as_deref() != Some(&key)
        {
            let message = "Invalid API key";
            return Err(Closing::told("invalid_api_key", message, message));
        }
        check_settings(&told.voice_settings).map_err(|_| not_understood())?;
        let is = |flag: Option<bool>| flag == Some(true);
        match self.protocol {
            Protocol::Single => {
                let text = told.text.as_deref().ok_or_else(not_understood)?;
                if text.is_empty() {
                    return self.end_single();
                }
                self.speak(None, &told)
            }
            Protocol::Multi if is(told.close_socket) => Ok(self.end_multi()),
            Protocol::Multi => {
                let name = told.context_id.as_deref().unwrap_or(UNNAMED);
                if is(told.close_context) {
                    return Ok(self.end_context(name));
                }
                if told.text.is_none() && told.flush.is_none() {
                    return Err(not_understood());
                }
                // An empty text keeps a context alive, and begins none.
                let idle = told.text.as_deref().unwrap_or_default().is_empty();
                let known = self.find(Some(name)).is_some();
                if idle && !known {
                    return Ok(Vec::new());
                }
                self.speak(Some(name), &told)
            }
        }
    }

    /// Adds text to a context, which begins with its first, and lets go what is due.
    fn speak(&mut self, name: Option<&str>, told: &Told) -> Result<Vec<Job>, Closing> {
        let index = match self.find(name) {
            Some(index) => index,
            None => self.begin(name)?,
        };
        let mode = self.mode;
        let context = &mut self.contexts[index];
        let config = told.generation_config.as_ref();
        if let Some(schedule) = config.and_then(|config| config.chunk_length_schedule.clone()) {
            if schedule.is_empty() || !schedule.iter().all(|length| SCHEDULED.contains(length)) {
                return Err(not_understood());
            }
            context.schedule = schedule;
        }
        let text = told.text.as_deref().unwrap_or_default();
        // A space alone begins a context or keeps it alive; it is not spoken.
        if text != " " {
            context.waiting.push_str(text);
        }
        let waiting = context.waiting.chars().count();
        let last = context.schedule.len() - 1;
        let due = context.schedule[context.turn.min(last)];
        let triggered = told.try_trigger_generation == Some(true) && waiting >= *SCHEDULED.start();
        let scheduled = mode == Mode::Auto || waiting >= due;
        if waiting == 0 || !(told.flush == Some(true) || triggered || scheduled) {
            return Ok(Vec::new());
        }
        context.turn += 1;
        let text = std::mem::take(&mut context.waiting);
        Ok(vec![Job::Speak(context.id.clone(), text)])
    }

    fn find(&self, name: Option<&str>) -> Option<usize> {
        let mut contexts = self.contexts.iter();
        contexts.position(|context| context.id.name.as_deref() == name)
    }

    fn begin(&mut self, name: Option<&str>) -> Result<usize, Closing> {
        if self.contexts.len() == CONTEXTS_MAX {
            return Err(Closing::untold(POLICY, "Too many contexts"));
        }
        self.made += 1;
        self.contexts.push(Context {
            id: ContextId {
                number: self.made,
                name: name.map(str::to_owned),
            },
            waiting: String::new(),
            schedule: SCHEDULE.to_vec(),
            turn: 0,
        });
        Ok(self.contexts.len() - 1)
    }

    /// Speaks what waits, and closes the socket.
    fn end_single(&mut self) -> Result<Vec<Job>, Closing> {
        if self.contexts.is_empty() {
            self.begin(None)?;
        }
        let mut jobs = Vec::new();
        for context in self.contexts.drain(..) {
            if !context.waiting.is_empty() {
                jobs.push(Job::Speak(context.id.clone(), context.waiting));
            }
            jobs.push(Job::Finish(context.id));
        }
        jobs.push(Job::Close(Closing::untold(1000, "")));
        Ok(jobs)
    }

    /// Closes a context: what was let go is still spoken, what waits is not.
    fn end_context(&mut self, name: &str) -> Vec<Job> {
        let ended = self
            .find(Some(name))
            .map(|index| self.contexts.remove(index));
        ended
            .into_iter()
            .map(|context| Job::Finish(context.id))
            .collect()
    }

    fn end_multi(&mut self) -> Vec<Job> {
        let contexts = self.contexts.drain(..);
        let mut jobs: Vec<Job> = contexts.map(|context| Job::Finish(context.id)).collect();
        jobs.push(Job::Close(Closing::untold(1000, "")));
        jobs
    }
}

fn not_understood() -> Closing {
    let message = "Message could not be understood";
    Closing::told("invalid_input_message", message, message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn input(target: &str) -> Input {
        let request = Request {
            method: "GET".into(),
            target: target.into(),
            body: Bytes::new(),
            headers: Vec::new(),
        };
        Input::new(&request, None)
    }

    fn speak(text: &str) -> Job {
        let id = ContextId {
            number: 1,
            name: None,
        };
        Job::Speak(id, text.into())
    }

    #[test]
    fn text_waits_for_the_schedule_and_then_for_the_next_length() {
        let mut input = input("/v/stream-input");
        let begin = r#"{"text":" ","generation_config":{"chunk_length_schedule":[50,60]}}"#;
        assert_eq!(input.take(begin), []);
        let ten = r#"{"text":"123456789 "}"#;
        let mut spoken = Vec::new();
        for message in 1..=23 {
            for job in input.take(ten) {
                spoken.push((message, job));
            }
        }
        let expected = [(5, 5), (11, 6), (17, 6), (23, 6)];
        let expected = expected.map(|(at, tens)| (at, speak(&"123456789 ".repeat(tens))));
        assert_eq!(spoken, expected);
    }

    #[test]
    fn text_goes_at_once_where_it_is_asked_to() {
        let mut scheduled = input("/v/stream-input");
        assert_eq!(scheduled.take(r#"{"text":"Hi. "}"#), []);
        assert_eq!(
            scheduled.take(r#"{"text":" ","flush":true}"#),
            [speak("Hi. ")]
        );
        assert_eq!(scheduled.take(r#"{"text":" ","flush":true}"#), []);
        let long = "a".repeat(50);
        let short = r#"{"text":"b ","try_trigger_generation":true}"#;
        assert_eq!(scheduled.take(short), []);
        let told = format!(r#"{{"text":"{long}","try_trigger_generation":true}}"#);
        assert_eq!(scheduled.take(&told), [speak(&format!("b {long}"))]);
        let mut auto = input("/v/stream-input?auto_mode=true");
        assert_eq!(auto.take(r#"{"text":"Hi. "}"#), [speak("Hi. ")]);
    }

    #[test]
    fn what_cannot_be_understood_closes_the_socket() {
        for message in [
            "",
            r#"{"txt":"typo"}"#,
            r#"{"text":7}"#,
            r#"{"text":" ","voice_settings":{"speed":9}}"#,
            r#"{"text":" ","generation_config":{"chunk_length_schedule":[49]}}"#,
        ] {
            let mut input = input("/v/stream-input");
            assert_eq!(
                input.take(message),
                [Job::Close(not_understood())],
                "{message}"
            );
            assert!(!input.is_open());
            assert_eq!(input.take(r#"{"text":""}"#), []);
        }
    }

    #[test]
    fn a_context_that_closes_leaves_what_waits_unsaid() {
        let mut input = input("/v/multi-stream-input");
        let id = |number, name: &str| ContextId {
            number,
            name: Some(name.into()),
        };
        assert_eq!(input.take(r#"{"text":"","context_id":"a"}"#), []);
        assert_eq!(input.take(r#"{"text":"One. ","context_id":"a"}"#), []);
        let flushed = input.take(r#"{"context_id":"a","flush":true}"#);
        assert_eq!(flushed, [Job::Speak(id(1, "a"), "One. ".into())]);
        assert_eq!(input.take(r#"{"text":"Two. ","context_id":"a"}"#), []);
        let closed = input.take(r#"{"context_id":"a","close_context":true}"#);
        assert_eq!(closed, [Job::Finish(id(1, "a"))]);
        // The same name is another context now.
        input.take(r#"{"text":" ","context_id":"a"}"#);
        let over = input.take(r#"{"close_socket":true}"#);
        let closing = Job::Close(Closing::untold(1000, ""));
        assert_eq!(over, [Job::Finish(id(2, "a")), closing]);
    }
}

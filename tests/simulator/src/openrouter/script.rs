//! What one answer shall be: the text, its pace, its form on the wire and its faults.

use std::time::Duration;

use bytes::Bytes;

use super::fault::{Fault, Stage};
use super::options::OptionError;
use super::text::Text;
use crate::gate::Gate;
use crate::http::Split;

/// What one answer shall be.
///
/// Most of it is said with an option list ([`Script::with`], [`str::parse`] or `From<&str>`); the
/// other methods add what a list cannot say. A list with a mistake makes a script that answers
/// 400 and names the mistake.
///
/// ```
/// use idol_simulator::Script;
/// let script = Script::new().text("Grüße 🚀").with("gap=5,fault=reset,after=1");
/// assert_eq!(script.expected_text().as_deref(), Some("Grüße 🚀"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(crate) reply: Reply,
    pub(crate) pace: Pace,
    pub(crate) wire: Wire,
    pub(crate) faults: Faults,
    pub(crate) holds: Vec<Hold>,
    pub(crate) head_holds: Vec<Gate>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) mistake: Option<OptionError>,
}

/// What the reply says.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) source: Source,
    pub(crate) tokens: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) size: Option<usize>,
    pub(crate) reasoning: Option<Text>,
    pub(crate) reasoning_tokens: usize,
    pub(crate) tools: Vec<ToolCall>,
    pub(crate) finish: Finish,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) cost: Option<f64>,
}

/// Where the text of a reply comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Generated,
    Echo,
    Exact(Vec<String>),
    Raw(Vec<Bytes>),
}

/// How a reply says that it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    /// `tool_calls` when there are any, otherwise `stop`.
    Natural,
    Reason(String),
    /// No finish chunk.
    Missing,
}

/// A tool call in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The id of the call.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments, in the fragments that are streamed.
    pub arguments: Vec<String>,
}

/// When the parts of an answer are sent.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) headers: Duration,
    pub(crate) first: Duration,
    pub(crate) gap: Duration,
    pub(crate) batch: usize,
    /// Deltas a second; overrides the gap.
    pub(crate) rate: Option<u32>,
    /// Comments before the first delta.
    pub(crate) comments: usize,
    /// Deltas between two comments.
    pub(crate) between: Option<usize>,
    /// Time between comments while the stream waits.
    pub(crate) beat: Option<Duration>,
}

/// The form of a stream on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) usage: Usage,
    pub(crate) role: Role,
    pub(crate) eol: &'static str,
    pub(crate) prefix: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) done: Option<Done>,
    pub(crate) split: Split,
    pub(crate) delimited: Delimited,
    pub(crate) newlines: usize,
}

/// Where usage is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Choice,
    Empty,
    Every,
    Missing,
}

/// Which deltas carry the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Every,
    First,
}

/// How the end marker is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Sent,
    Missing,
    /// Without the blank line after it.
    Bare,
}

/// How the end of a streamed body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimited {
    Chunked,
    Close,
}

/// The faults of a script and the requests they meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) planned: Vec<(Fault, usize)>,
    /// Only the first so many requests fail.
    pub(crate) fail: Option<u64>,
    /// Only each so-manieth request fails.
    pub(crate) nth: Option<u64>,
}

/// A gate after a number of deltas.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) after: usize,
    pub(crate) gate: Gate,
}

impl Script {
    /// Makes the plain reply: 16 generated tokens, one a write, without a pause.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a script whose whole stream body is these pieces, each a delta and a write.
    pub fn raw(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let mut script = Self::default();
        script.reply.source = Source::Raw(pieces.into_iter().map(Into::into).collect());
        script
    }

    /// Makes a script that fails so many requests with a fault, and then answers in order.
    pub fn fail_times(times: u64, fault: Fault) -> Self {
        let mut script = Self::default().fault(fault, 0);
        script.faults.fail = Some(times);
        script
    }

    /// Applies an option list; see the crate documentation for the options.
    #[must_use]
    pub fn with(mut self, options: &str) -> Self {
        if let Err(mistake) = self.apply(options) {
            self.mistake = Some(mistake);
        }
        self
    }

    /// Replies with this text, one word a delta.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        let Text::Pieces(words) = Text::of_words(text) else {
            return self;
        };
        self.reply.source = Source::Exact(words);
        self
    }

    /// Replies with exactly these deltas.
    #[must_use]
    pub fn tokens(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.reply.source = Source::Exact(tokens.into_iter().map(Into::into).collect());
        self
    }

    /// Sends these reasoning deltas before the text.
    #[must_use]
    pub fn reasoning(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.reply.reasoning = Some(Text::Pieces(tokens.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds a tool call after the text.
    #[must_use]
    pub fn tool_call(mut self, call: ToolCall) -> Self {
        self.reply.tools.push(call);
        self
    }

    /// Plans a fault after so many deltas; faults of the head ignore the number.
    #[must_use]
    pub fn fault(mut self, fault: Fault, after: usize) -> Self {
        self.faults.planned.push((fault, after));
        self
    }

    /// Holds the reply after so many deltas until the gate opens.
    #[must_use]
    pub fn hold_at(mut self, after: usize, gate: &Gate) -> Self {
        self.holds.push(Hold {
            after,
            gate: gate.clone(),
        });
        self
    }

    /// Holds the answer before its first byte until the gate opens.
    #[must_use]
    pub fn hold_headers(mut self, gate: &Gate) -> Self {
        self.head_holds.push(gate.clone());
        self
    }

    /// Adds a response header, to error answers as well; one of the same name is replaced.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the text of an unharmed reply, where it does not depend on the request.
    pub fn expected_text(&self) -> Option<String> {
        match &self.reply.source {
            Source::Generated | Source::Exact(_) => Some(self.reply.text("").joined()),
            Source::Echo | Source::Raw(_) => None,
        }
    }

    /// Whether the faults meet a request that so many others came before.
    pub(crate) fn fails(&self, ordinal: u64) -> bool {
        self.faults.fail.is_none_or(|fail| ordinal < fail)
            && self
                .faults
                .nth
                .is_none_or(|nth| (ordinal + 1).is_multiple_of(nth))
    }

    /// Whether the script must know how many requests came before.
    pub(crate) fn counts(&self) -> bool {
        self.faults.fail.is_some() || self.faults.nth.is_some()
    }

    /// Returns the first planned fault of the head.
    pub(crate) fn head_fault(&self) -> Option<&Fault> {
        let mut faults = self.faults.planned.iter().map(|(fault, _)| fault);
        faults.find(|fault| fault.stage() == Stage::Head)
    }
}

impl Reply {
    /// Returns the text of the reply to a request whose last user message is given.
    pub(crate) fn text(&self, last_message: &str) -> Text {
        match &self.source {
            Source::Generated => {
                let count = self
                    .tokens
                    .unwrap_or(if self.tools.is_empty() { 16 } else { 0 });
                match self.size {
                    Some(size) => Text::Sized {
                        seed: self.seed,
                        count,
                        size,
                    },
                    None => Text::Words {
                        seed: self.seed,
                        count,
                    },
                }
            }
            Source::Echo => Text::of_words(last_message),
            Source::Exact(pieces) => Text::Pieces(pieces.clone()),
            Source::Raw(_) => Text::Pieces(Vec::new()),
        }
    }

    pub(crate) fn reasoning(&self) -> Text {
        match &self.reasoning {
            Some(text) => text.clone(),
            None => Text::reasoning(self.seed, self.reasoning_tokens),
        }
    }

    /// Returns the finish reason, or none when the reply has none.
    pub(crate) fn finish_reason(&self) -> Option<&str> {
        match &self.finish {
            Finish::Natural if self.tools.is_empty() => Some("stop"),
            Finish::Natural => Some("tool_calls"),
            Finish::Reason(reason) => Some(reason),
            Finish::Missing => None,
        }
    }
}

impl Pace {
    /// Returns the time between two writes.
    pub(crate) fn between_writes(&self) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs(1) * self.batch as u32 / rate.max(1),
            None => self.gap,
        }
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            source: Source::Generated,
            tokens: None,
            seed: 0,
            size: None,
            reasoning: None,
            reasoning_tokens: 0,
            tools: Vec::new(),
            finish: Finish::Natural,
            prompt_tokens: None,
            cost: None,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            headers: Duration::ZERO,
            first: Duration::ZERO,
            gap: Duration::ZERO,
            batch: 1,
            rate: None,
            comments: 1,
            between: None,
            beat: None,
        }
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            usage: Usage::Choice,
            role: Role::Every,
            eol: "\n",
            prefix: "data: ",
            comment: ": OPENROUTER PROCESSING",
            done: None,
            split: Split::Whole,
            delimited: Delimited::Chunked,
            newlines: 0,
        }
    }
}

impl From<&str> for Script {
    fn from(options: &str) -> Self {
        Self::new().with(options)
    }
}

impl From<Fault> for Script {
    fn from(fault: Fault) -> Self {
        Self::new().fault(fault, 0)
    }
}

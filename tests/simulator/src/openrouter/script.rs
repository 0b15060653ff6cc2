//! What one answer shall be: the text, its pace, its form on the wire and its faults.

use bytes::Bytes;

use super::fault::{Fault, Stage};
use super::options::OptionError;
use super::pace::Pace;
use super::reply::{Reply, Source, ToolCall};
use super::text::Text;
use super::wire::Wire;
use crate::gate::Gate;

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
    /// How much of an upload is read before the answer begins; all of it where none is said.
    pub(crate) upload: Option<usize>,
    pub(crate) mistake: Option<OptionError>,
}

/// The faults of a script and the requests they meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) planned: Vec<(Fault, usize)>,
    /// Where the next fault of an option list takes place.
    pub(crate) after: usize,
    /// Only the first so many requests fail.
    pub(crate) fail: Option<u64>,
    /// Only each request of this number fails: with 3 the third, the sixth and so on.
    pub(crate) nth: Option<u64>,
}

/// A gate after a number of deltas.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) after: usize,
    pub(crate) gate: Gate,
}

/// Something that happens after a number of deltas.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark<'a> {
    Hold(&'a Gate),
    Fault(&'a Fault),
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
        self.reply.source = Source::words(text);
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
            Source::Generated | Source::Exact(_) => Some(self.reply.text().joined()),
            Source::Echo | Source::Raw(_) => None,
        }
    }

    /// Returns the text that a test has given, if it has.
    pub(crate) fn exact_text(&self) -> Option<String> {
        match &self.reply.source {
            Source::Exact(_) => Some(self.reply.text().joined()),
            Source::Generated | Source::Echo | Source::Raw(_) => None,
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

    /// Returns what happens in the body, in order; at the same place holds come first.
    pub(crate) fn marks(&self, fails: bool) -> Vec<(usize, Mark<'_>)> {
        let holds = self.holds.iter();
        let holds = holds.map(|hold| (hold.after, Mark::Hold(&hold.gate)));
        let mut marks: Vec<_> = holds.collect();
        if fails {
            let faults = self.faults.planned.iter();
            let faults = faults.filter(|(fault, _)| fault.stage() == Stage::Body);
            marks.extend(faults.map(|(fault, after)| (*after, Mark::Fault(fault))));
        }
        // A stable sort: equal places keep the order of the script.
        marks.sort_by_key(|(after, _)| *after);
        marks
    }

    /// Returns the first planned fault of the head.
    pub(crate) fn head_fault(&self) -> Option<&Fault> {
        let mut faults = self.faults.planned.iter().map(|(fault, _)| fault);
        faults.find(|fault| fault.stage() == Stage::Head)
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

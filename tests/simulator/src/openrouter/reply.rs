//! What a reply says.

use bytes::Bytes;

use super::text::Text;

/// What the reply says.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) source: Source,
    pub(crate) prefix: Prefix,
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

impl Source {
    /// Makes the source of this text, one word a delta.
    pub(crate) fn words(text: &str) -> Self {
        match Text::of_words(text) {
            Text::Pieces(words) => Self::Exact(words),
            other => Self::Exact(vec![other.joined()]),
        }
    }
}

/// What is made of a beginning of the reply that the request brings as its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// The whole reply is told, as by a server that sees a finished message there.
    Ignored,
    /// The reply goes on behind it.
    Continued,
    /// The same, but so many bytes of it are told again.
    Repeated(usize),
    /// The reply is over: nothing is told.
    Finished,
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

impl Reply {
    /// Returns the text of the reply as far as the script alone decides it: an echo has none.
    pub(crate) fn text(&self) -> Text {
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
            Source::Exact(pieces) => Text::Pieces(pieces.clone()),
            Source::Echo | Source::Raw(_) => Text::Pieces(Vec::new()),
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

impl Default for Reply {
    fn default() -> Self {
        Self {
            source: Source::Generated,
            prefix: Prefix::Ignored,
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

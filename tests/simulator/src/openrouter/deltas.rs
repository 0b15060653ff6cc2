//! The row of deltas that a streamed reply is made of.

use bytes::Bytes;

use super::chat::ChatRequest;
use super::chunk::Frames;
use super::reply::{Source, ToolCall};
use super::script::Script;
use super::text::Text;

/// The deltas of one reply: reasoning, then text, then tool calls; or bytes to replay.
#[derive(Debug)]
pub(crate) enum Deltas<'a> {
    Raw(&'a [Bytes]),
    Told {
        reasoning: Text,
        text: Text,
        tools: Vec<Fragment<'a>>,
    },
}

/// A part of a tool call: without arguments it is the first, which names the call.
#[derive(Debug)]
pub(crate) struct Fragment<'a> {
    index: usize,
    call: &'a ToolCall,
    arguments: Option<&'a str>,
}

impl<'a> Deltas<'a> {
    pub(crate) fn of(script: &'a Script, request: &ChatRequest<'_>) -> Self {
        if let Source::Raw(pieces) = &script.reply.source {
            return Self::Raw(pieces);
        }
        let mut tools = Vec::new();
        for (index, call) in script.reply.tools.iter().enumerate() {
            let arguments = call
                .arguments
                .iter()
                .map(|arguments| Some(arguments.as_str()));
            let parts = std::iter::once(None).chain(arguments);
            tools.extend(parts.map(|arguments| Fragment {
                index,
                call,
                arguments,
            }));
        }
        let text = request.reply_text(script);
        Self::Told {
            reasoning: script.reply.reasoning(),
            text,
            tools,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Raw(pieces) => pieces.len(),
            Self::Told {
                reasoning,
                text,
                tools,
            } => reasoning.len() + text.len() + tools.len(),
        }
    }

    /// Appends a delta as it goes over the wire.
    pub(crate) fn push(&self, index: usize, frames: &Frames, out: &mut Vec<u8>) {
        match self {
            Self::Raw(pieces) => out.extend_from_slice(&pieces[index]),
            Self::Told {
                reasoning,
                text,
                tools,
            } => {
                let sent = index + 1;
                if index < reasoning.len() {
                    return frames.reasoning(reasoning, index, sent, out);
                }
                let index = index - reasoning.len();
                if index < text.len() {
                    return frames.content(text, index, sent, out);
                }
                let part = &tools[index - text.len()];
                frames.tool((part.index, part.call), part.arguments, sent, out);
            }
        }
    }
}

//! Renders the frames of a stream.
//!
//! What is the same in every chunk of a reply is rendered once; a token costs a few copies.

use serde_json::json;

use super::fault::StreamError;
use super::reply::ToolCall;
use super::text::{Text, quoted};
use super::usage::Tally;
use super::wire::{Done, Role, Usage, Wire};

/// Names the reply in every chunk of it.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

/// The provider that every reply claims to come from.
pub(crate) const PROVIDER: &str = "SimulatedHost";

/// Renders the frames of one reply.
#[derive(Debug)]
pub(crate) struct Frames {
    eol: &'static str,
    comment: &'static str,
    usage: Usage,
    role: Role,
    /// The prefix and the chunk as far as its choices.
    open: Vec<u8>,
    prefix: &'static str,
    tally: Tally,
}

const ROLE: &[u8] = br#""role":"assistant","#;
const DELTA: &[u8] = br#","choices":[{"index":0,"delta":{"#;
const UNFINISHED: &[u8] =
    br#"},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]"#;

impl Frames {
    pub(crate) fn new(envelope: &Envelope, wire: &Wire, tally: Tally) -> Self {
        let mut open = wire.prefix.as_bytes().to_vec();
        open.extend_from_slice(br#"{"id":"#);
        open.extend_from_slice(&quoted(&envelope.id));
        open.extend_from_slice(format!(r#","provider":"{PROVIDER}","model":"#).as_bytes());
        open.extend_from_slice(&quoted(&envelope.model));
        open.extend_from_slice(
            format!(
                r#","object":"chat.completion.chunk","created":{}"#,
                envelope.created
            )
            .as_bytes(),
        );
        Self {
            eol: wire.eol,
            comment: wire.comment,
            usage: wire.usage,
            role: wire.role,
            open,
            prefix: wire.prefix,
            tally,
        }
    }

    /// A keep-alive comment.
    pub(crate) fn comment(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.comment.as_bytes());
        self.close(out);
    }

    /// The empty delta that commonly comes first.
    pub(crate) fn opening(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.open);
        out.extend_from_slice(DELTA);
        out.extend_from_slice(ROLE);
        out.extend_from_slice(br#""content":"""#);
        self.unfinished(0, out);
    }

    /// A delta of text; `sent` deltas are sent once it is.
    pub(crate) fn content(&self, text: &Text, index: usize, sent: usize, out: &mut Vec<u8>) {
        self.delta(out);
        out.extend_from_slice(br#""content":"#);
        text.push_quoted(index, out);
        self.unfinished(sent, out);
    }

    /// A delta of reasoning.
    pub(crate) fn reasoning(&self, text: &Text, index: usize, sent: usize, out: &mut Vec<u8>) {
        self.delta(out);
        out.extend_from_slice(br#""content":"","reasoning":"#);
        text.push_quoted(index, out);
        out.extend_from_slice(br#","reasoning_details":[{"type":"reasoning.text","text":"#);
        text.push_quoted(index, out);
        out.extend_from_slice(br#","format":"unknown","index":0}]"#);
        self.unfinished(sent, out);
    }

    /// A fragment of a tool call: the first names it, the later ones are arguments.
    pub(crate) fn tool(
        &self,
        (index, call): (usize, &ToolCall),
        fragment: Option<&str>,
        sent: usize,
        out: &mut Vec<u8>,
    ) {
        let call = match fragment {
            None => json!([{
                "index": index, "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }]),
            Some(arguments) => json!([{"index": index, "function": {"arguments": arguments}}]),
        };
        self.delta(out);
        out.extend_from_slice(format!(r#""content":null,"tool_calls":{call}"#).as_bytes());
        self.unfinished(sent, out);
    }

    /// A delta whose line is `length` bytes long, its line end not counted.
    pub(crate) fn long_line(&self, length: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.delta(out);
        out.extend_from_slice(br#""content":""#);
        let rest = out.len() - start + 1 + UNFINISHED.len() + 1;
        out.resize(out.len() + length.saturating_sub(rest), b'x');
        out.push(b'"');
        out.extend_from_slice(UNFINISHED);
        out.push(b'}');
        self.close(out);
    }

    /// A comment of `length` bytes, its line end not counted.
    pub(crate) fn long_comment(&self, length: usize, out: &mut Vec<u8>) {
        out.push(b':');
        out.resize(out.len() + length.saturating_sub(1), b'.');
        self.close(out);
    }

    /// A data line that is not JSON.
    pub(crate) fn garbage(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(br#"{"id":"gen-broken","choices":[{"delta":{"content":oops"#);
        self.close(out);
    }

    /// An error object in mid-stream.
    pub(crate) fn error(&self, error: &StreamError, out: &mut Vec<u8>) {
        let (code, kind, message) = match error {
            StreamError::Bare => {
                out.extend_from_slice(self.prefix.as_bytes());
                out.extend_from_slice(br#"{"error":{"message":"Upstream went away"}}"#);
                return self.close(out);
            }
            StreamError::Code(429) => (
                json!(429),
                "rate_limit_exceeded",
                "Rate limit exceeded upstream",
            ),
            StreamError::Code(code) => (
                json!(code),
                "provider_unavailable",
                "Provider returned error",
            ),
            StreamError::Word(word) => {
                (json!(word), "provider_unavailable", "Provider disconnected")
            }
        };
        let error = json!({
            "code": code,
            "message": message,
            "metadata": {"error_type": kind, "provider_code": null},
        });
        out.extend_from_slice(&self.open);
        out.extend_from_slice(format!(r#","error":{error}"#).as_bytes());
        out.extend_from_slice(DELTA);
        out.extend_from_slice(br#""content":""},"finish_reason":"error"}]}"#);
        self.close(out);
    }

    /// The finish chunk, and the usage where the form on the wire puts it.
    pub(crate) fn finish(&self, reason: Option<&str>, sent: usize, out: &mut Vec<u8>) {
        if let Some(reason) = reason {
            let reason = json!(reason);
            self.delta(out);
            out.extend_from_slice(
                format!(
                    r#""content":""}},"finish_reason":{reason},"native_finish_reason":{reason},"logprobs":null}}]"#
                )
                .as_bytes(),
            );
            self.usage_of_every(sent, out);
            out.push(b'}');
            self.close(out);
        }
        let choices: &[u8] = match self.usage {
            Usage::Choice => {
                br#","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]"#
            }
            Usage::Empty => br#","choices":[]"#,
            Usage::Every | Usage::Missing => return,
        };
        out.extend_from_slice(&self.open);
        out.extend_from_slice(choices);
        self.push_usage(sent, out);
        out.push(b'}');
        self.close(out);
    }

    /// The end marker.
    pub(crate) fn done(&self, done: Done, out: &mut Vec<u8>) {
        if done == Done::Missing {
            return;
        }
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(b"[DONE]");
        out.extend_from_slice(self.eol.as_bytes());
        if done == Done::Sent {
            out.extend_from_slice(self.eol.as_bytes());
        }
    }

    fn delta(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.open);
        out.extend_from_slice(DELTA);
        match self.role {
            Role::Every => out.extend_from_slice(ROLE),
            Role::First => {}
        }
    }

    fn unfinished(&self, sent: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(UNFINISHED);
        self.usage_of_every(sent, out);
        out.push(b'}');
        self.close(out);
    }

    fn usage_of_every(&self, sent: usize, out: &mut Vec<u8>) {
        if self.usage == Usage::Every {
            self.push_usage(sent, out);
        }
    }

    fn push_usage(&self, sent: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","usage":"#);
        out.extend_from_slice(self.tally.usage(sent).to_string().as_bytes());
    }

    fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.eol.as_bytes());
        out.extend_from_slice(self.eol.as_bytes());
    }
}

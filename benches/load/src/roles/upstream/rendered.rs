//! A reply as the bytes that are sent, made once for all requests of the same model.

use bytes::Bytes;
use serde_json::json;

use crate::{
    clock,
    model::{Model, Words},
};

/// The most bytes of one write where a model leaves it open.
const WRITE_BYTES: usize = 4096;

pub(super) const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// All that may be sent of one reply.
pub(super) struct Rendered {
    pub(super) model: Model,
    /// The head, the tokens and the end, in as many writes as there are to be.
    pub(super) writes: Vec<Bytes>,
    /// Each token by itself, in HTTP's chunks; none where the words are stamps.
    pub(super) tokens: Vec<Bytes>,
    /// What follows the last token.
    pub(super) end: Bytes,
    /// The answer to a request that wants no stream, head included.
    pub(super) whole: Bytes,
    /// A chunk before and behind its text.
    around: (String, String),
}

impl Rendered {
    pub(super) fn new(model: Model) -> Self {
        let around = around(&model);
        let events: Vec<String> = match model.words {
            Words::Stamps => Vec::new(),
            Words::Fixed => (0..model.tokens)
                .map(|number| {
                    let text = json!(Model::word(number)).to_string();
                    format!("{}{text}{}", around.0, around.1)
                })
                .collect(),
        };
        let usage = json!({"prompt_tokens": 10, "completion_tokens": model.tokens,
            "total_tokens": 10 + model.tokens, "cost": 0.0});
        let end = format!(
            "{}{}data: [DONE]\n\n",
            event(&model, &json!({}), &json!("stop"), None),
            event(
                &model,
                &json!({"role": "assistant", "content": ""}),
                &json!(null),
                Some(&usage)
            ),
        );
        let end = [&*framed(&end), b"0\r\n\r\n"].concat();
        Self {
            writes: writes(&model, &events, &end),
            tokens: events.iter().map(|event| framed(event).into()).collect(),
            end: end.into(),
            whole: whole(&model, &usage),
            around,
            model,
        }
    }

    /// A token that says when it was made.
    pub(super) fn stamped(&self) -> Vec<u8> {
        let (before, behind) = &self.around;
        framed(&format!("{before}\"{} \"{behind}", clock::nanos()))
    }
}

/// Bytes as one chunk of HTTP's chunked coding.
fn framed(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn writes(model: &Model, events: &[String], end: &[u8]) -> Vec<Bytes> {
    let mut writes = Vec::new();
    let (mut write, mut tokens) = (STREAM_HEAD.to_vec(), 0);
    let mut pending = String::new();
    for event in events {
        let full = match model.batch {
            0 => !pending.is_empty() && pending.len() + event.len() > WRITE_BYTES,
            batch => tokens == batch,
        };
        if full {
            write.extend_from_slice(&framed(&pending));
            writes.push(std::mem::take(&mut write).into());
            pending.clear();
            tokens = 0;
        }
        pending.push_str(event);
        tokens += 1;
    }
    if !pending.is_empty() {
        write.extend_from_slice(&framed(&pending));
    }
    if model.batch == 0 {
        write.extend_from_slice(end);
        writes.push(write.into());
    } else {
        writes.push(write.into());
        writes.push(end.to_vec().into());
    }
    writes
}

fn head(model: &Model, object: &str) -> String {
    format!(
        r#"{{"id":"gen-1764000000-LoadTestLoadTestLoad","provider":"LoadTest","model":"{model}","object":"{object}","created":1764000000"#
    )
}

fn around(model: &Model) -> (String, String) {
    let before = format!(
        r#"data: {},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"#,
        head(model, "chat.completion.chunk")
    );
    let behind = "},\"finish_reason\":null,\"native_finish_reason\":null,\"logprobs\":null}]}\n\n";
    (before, behind.to_owned())
}

fn event(
    model: &Model,
    delta: &serde_json::Value,
    finish: &serde_json::Value,
    usage: Option<&serde_json::Value>,
) -> String {
    let usage = usage.map(|usage| format!(r#","usage":{usage}"#));
    format!(
        "data: {},\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish},\"native_finish_reason\":{finish},\"logprobs\":null}}]{}}}\n\n",
        head(model, "chat.completion.chunk"),
        usage.unwrap_or_default(),
    )
}

fn whole(model: &Model, usage: &serde_json::Value) -> Bytes {
    let message = json!({"role": "assistant", "content": model.text(), "refusal": null});
    let body = format!(
        r#"{},"choices":[{{"index":0,"logprobs":null,"finish_reason":"stop","native_finish_reason":"stop","message":{message}}}],"usage":{usage}}}"#,
        head(model, "chat.completion"),
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_holds_as_many_tokens_as_are_asked_for() {
        let each = Rendered::new(Model {
            tokens: 5,
            batch: 1,
            ..Model::default()
        });
        // The end has a write of its own there.
        assert_eq!(each.writes.len(), 6);
        let burst = Rendered::new(Model::default());
        assert!(burst.writes.len() < 10);
        assert!(
            burst
                .writes
                .iter()
                .all(|write| write.len() < 2 * WRITE_BYTES)
        );
    }

    #[test]
    fn what_is_sent_is_valid_json() {
        let reply = Rendered::new(Model {
            tokens: 4,
            ..Model::default()
        });
        for token in &reply.tokens {
            let text = std::str::from_utf8(token).unwrap();
            let data = text.split_once("data: ").unwrap().1.trim_end();
            serde_json::from_str::<serde_json::Value>(data).unwrap();
        }
        let whole = std::str::from_utf8(&reply.whole).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(whole.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], reply.model.text());
    }
}

//! Answers that are not streamed: completions, lists and errors, and their faults.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::chat::ChatRequest;
use super::chunk::PROVIDER;
use super::errors::ErrorCase;
use super::fault::{Fault, Stage};
use super::script::{Script, Source};
use crate::counters::Meter;
use crate::http::{Answer, Body, Connection, Framing, Gone, Next};

/// Waits and plays faults as the script has them before the first byte of an answer.
///
/// Returns what becomes of the connection when that was all of the answer.
pub(crate) async fn before(
    connection: &mut Connection,
    meter: &Meter,
    script: &Script,
    fails: bool,
) -> Result<Option<Next>, Gone> {
    if !script.pace.headers.is_zero() {
        connection.wait(sleep(script.pace.headers)).await?;
    }
    for gate in &script.head_holds {
        connection.wait(gate.pass()).await?;
    }
    let Some(fault) = script.head_fault().filter(|_| fails) else {
        return Ok(None);
    };
    meter.change(|counters| counters.faults_played += 1);
    match fault {
        Fault::NoHeaders => connection.wait(std::future::pending()).await,
        Fault::HalfHeaders => {
            connection
                .write(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")
                .await?;
            connection.wait(std::future::pending()).await
        }
        Fault::ResetEarly => Ok(Some(Next::Reset)),
        Fault::CloseEarly => Ok(Some(Next::Close)),
        Fault::Answer(case) => send(connection, meter, script, false, case.answer())
            .await
            .map(Some),
        Fault::Reset
        | Fault::End
        | Fault::Cut
        | Fault::Stall
        | Fault::StallComments
        | Fault::Error(_)
        | Fault::Garbage
        | Fault::LongLine(_)
        | Fault::LongComment(_) => Ok(None),
    }
}

/// Sends an answer with its length; faults of the body take place after half of it.
pub(crate) async fn send(
    connection: &mut Connection,
    meter: &Meter,
    script: &Script,
    fails: bool,
    mut answer: Answer,
) -> Result<Next, Gone> {
    for (name, value) in &script.headers {
        answer = answer.header(name, value);
    }
    let mut severed = None;
    let planned = script.faults.planned.iter().map(|(fault, _)| fault);
    let planned = planned.filter(|fault| fails && fault.stage() == Stage::Body);
    for fault in planned {
        meter.change(|counters| counters.faults_played += 1);
        match fault {
            Fault::Error(_) => answer.body = replacement(),
            Fault::Garbage => answer.body.truncate(answer.body.len() / 2),
            Fault::LongLine(length) | Fault::LongComment(length) => {
                answer.body.splice(0..0, std::iter::repeat_n(b' ', *length));
            }
            Fault::Reset | Fault::End | Fault::Cut | Fault::Stall | Fault::StallComments => {
                severed = Some(fault);
                break;
            }
            Fault::NoHeaders
            | Fault::HalfHeaders
            | Fault::ResetEarly
            | Fault::CloseEarly
            | Fault::Answer(_) => {}
        }
    }
    let split = script.wire.split.clone();
    let mut body = Body::new(connection, answer.head(), Framing::Plain, split);
    let Some(fault) = severed else {
        body.pending().extend_from_slice(&answer.body);
        body.finish().await?;
        return Ok(Next::KeepAlive);
    };
    body.pending()
        .extend_from_slice(&answer.body[..answer.body.len() / 2]);
    body.flush().await?;
    match fault {
        Fault::Reset => Ok(Next::Reset),
        Fault::Stall | Fault::StallComments => body.wait(std::future::pending()).await,
        _ => Ok(Next::Close),
    }
}

fn replacement() -> Vec<u8> {
    ErrorCase::named("error_in_choice")
        .map(|case| case.answer().body)
        .unwrap_or_default()
}

/// Makes the answer to a chat completion request that asks for no stream.
pub(crate) fn completion(script: &Script, request: &ChatRequest<'_>) -> Answer {
    let reply = &script.reply;
    let last_message = match reply.source {
        Source::Echo => request.last_user_message(),
        Source::Generated | Source::Exact(_) | Source::Raw(_) => String::new(),
    };
    let envelope = request.envelope();
    let text = reply.text(&last_message);
    let reasoning = reply.reasoning();
    let fragments: usize = reply
        .tools
        .iter()
        .map(|call| 1 + call.arguments.len())
        .sum();
    let mut message = json!({
        "role": "assistant",
        "content": text.joined(),
        "refusal": null,
        "reasoning": (reasoning.len() > 0).then(|| reasoning.joined()),
    });
    if !reply.tools.is_empty() {
        let calls = reply.tools.iter().enumerate().map(|(index, call)| {
            json!({
                "index": index, "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.concat()},
            })
        });
        message["tool_calls"] = calls.collect();
    }
    let body = json!({
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "provider": PROVIDER,
        "choices": [{
            "index": 0,
            "logprobs": null,
            "finish_reason": reply.finish_reason(),
            "native_finish_reason": reply.finish_reason(),
            "message": message,
        }],
        "usage": request.tally(script).usage(reasoning.len() + text.len() + fragments),
    });
    let blank = "\n         ".repeat(script.wire.newlines);
    Answer::new(200, "application/json", format!("{blank}{body}"))
        .header("X-Generation-Id", &envelope.id)
}

/// Returns how long a completion takes that would be streamed at this pace.
pub(crate) fn thinking_time(script: &Script, request: &ChatRequest<'_>) -> Duration {
    let tokens = match script.reply.source {
        Source::Echo => request.last_user_message().split(' ').count(),
        Source::Generated | Source::Exact(_) | Source::Raw(_) => script.reply.text("").len(),
    };
    let writes = tokens.div_ceil(script.pace.batch) as u32;
    script.pace.first + script.pace.between_writes() * writes
}

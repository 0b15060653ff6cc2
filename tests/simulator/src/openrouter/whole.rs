//! Answers that are not streamed: completions, lists and errors, and their faults.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::api::Api;
use super::chat::ChatRequest;
use super::chunk::PROVIDER;
use super::errors::ErrorCase;
use super::fault::{Fault, Stage};
use super::script::Script;
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
    api: Api,
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
        Fault::Answer(case) => send(connection, meter, script, fails, case.answer())
            .await
            .map(Some),
        Fault::Status(status) => {
            let answer = api.error(*status).answer();
            send(connection, meter, script, fails, answer)
                .await
                .map(Some)
        }
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
    let rupture = if fails {
        spoil(&mut answer, meter, script)
    } else {
        None
    };
    let split = script.wire.split.clone();
    let mut body = Body::new(connection, answer.head(), Framing::Plain, split);
    let Some(rupture) = rupture else {
        body.pending().extend_from_slice(&answer.body);
        body.finish().await?;
        return Ok(Next::KeepAlive);
    };
    body.pending()
        .extend_from_slice(&answer.body[..answer.body.len() / 2]);
    body.flush().await?;
    match rupture {
        Rupture::Sever(next) => Ok(next),
        Rupture::Stall => body.wait(std::future::pending()).await,
    }
}

/// How an answer breaks off in the middle of its body.
#[derive(Debug, Clone, Copy)]
enum Rupture {
    Sever(Next),
    Stall,
}

/// Applies the faults of the body, up to the first that breaks the answer off.
fn spoil(answer: &mut Answer, meter: &Meter, script: &Script) -> Option<Rupture> {
    let planned = script.faults.planned.iter().map(|(fault, _)| fault);
    for fault in planned.filter(|fault| fault.stage() == Stage::Body) {
        meter.change(|counters| counters.faults_played += 1);
        match fault {
            Fault::Error(_) => answer.body = replacement(),
            Fault::Garbage => answer.body.truncate(answer.body.len() / 2),
            Fault::LongLine(length) | Fault::LongComment(length) => {
                answer.body.splice(0..0, std::iter::repeat_n(b' ', *length));
            }
            Fault::Reset => return Some(Rupture::Sever(Next::Reset)),
            Fault::End | Fault::Cut => return Some(Rupture::Sever(Next::Close)),
            Fault::Stall | Fault::StallComments => return Some(Rupture::Stall),
            // Faults of the head are played before an answer begins.
            Fault::NoHeaders
            | Fault::HalfHeaders
            | Fault::ResetEarly
            | Fault::CloseEarly
            | Fault::Answer(_)
            | Fault::Status(_) => {}
        }
    }
    None
}

fn replacement() -> Vec<u8> {
    ErrorCase::named("error_in_choice")
        .map(|case| case.answer().body)
        .unwrap_or_default()
}

/// Makes the answer to a chat completion request that asks for no stream.
pub(crate) fn completion(script: &Script, request: &ChatRequest<'_>) -> Answer {
    let reply = &script.reply;
    let envelope = request.envelope();
    let text = request.reply_text(script);
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
    let writes = request
        .reply_text(script)
        .len()
        .div_ceil(script.pace.batch()) as u32;
    script.pace.first + script.pace.between_writes(script.pace.batch()) * writes
}

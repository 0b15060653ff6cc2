//! `/ws/chat`.

use serde_json::{Value, json};

use crate::helpers::{Socket, TestApp, content_of};

mod added;
mod cancelling;
mod deleted;
mod flow;
mod frames;
mod history;
mod lifecycle;
mod order;
pub mod raw;
mod repeated;
mod watching;

/// `start_conversation`, by a client of the ancestor.
fn start(conversation: &str) -> Value {
    json!({
        "type": "start_conversation",
        "conversation_id": conversation,
        "character_id": "character",
    })
}

/// `message`, by a client of the ancestor.
fn message(conversation: &str, text: &str) -> Value {
    json!({"type": "message", "conversation_id": conversation, "message": text})
}

/// The value with another member.
fn with(mut message: Value, name: &str, value: impl Into<Value>) -> Value {
    message[name] = value.into();
    message
}

/// A socket that has begun a conversation.
async fn begun(app: &TestApp, conversation: &str) -> Socket {
    let mut socket = app.socket().await;
    socket.send(start(conversation)).await;
    let started = socket.next().await;
    assert_eq!(started["type"], "conversation_started");
    socket
}

/// A socket that sees all events of a conversation.
async fn watching(app: &TestApp, conversation: &str) -> Socket {
    let mut socket = app.socket().await;
    socket.send(with(start(conversation), "watch", true)).await;
    let started = socket.next().await;
    assert_eq!(started["type"], "conversation_started");
    socket
}

/// Fails unless nothing is on its way to the client: the next message is the answer to a ping.
async fn assert_silent(socket: &mut Socket) {
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
}

/// The types of messages, chunks in a row told once: how text is cut is nobody's promise.
fn course(messages: &[Value]) -> Vec<&str> {
    let mut course = crate::helpers::types(messages);
    course.dedup_by(|next, before| next == before && *next == "chunk");
    course
}

/// What every turn consists of.
const TURN: [&str; 4] = [
    "message_received",
    "response_start",
    "chunk",
    "response_complete",
];

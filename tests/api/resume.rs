//! Going on where a client had come to: over sockets and streams of events, to the byte.

use serde_json::{Value, json};

use crate::helpers::{Socket, TestApp, within};

mod again;
mod browser;
mod cuts;
pub mod event_source;
mod killed;
mod one_order;
mod resets;
mod sockets;
mod stopped;
mod storms;
mod streams;

/// `resume`, with what the client has.
pub fn resume(conversation: &str, has: &[(&str, &Value)]) -> Value {
    let mut message = json!({"type": "resume", "conversation_id": conversation});
    for (name, value) in has {
        message[*name] = (*value).clone();
    }
    message
}

/// A socket that goes on, and the `resumed` that it is told.
async fn resumed(app: &TestApp, conversation: &str, has: &[(&str, &Value)]) -> (Socket, Value) {
    let mut socket = app.socket().await;
    socket.send(resume(conversation, has)).await;
    let resumed = socket.next().await;
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    (socket, resumed)
}

/// Events without their places, and with the texts in a row joined: how text is cut is nobody's
/// promise.
fn joined(events: &[Value]) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for event in events {
        let mut event = event.clone();
        event.as_object_mut().unwrap().remove("cursor");
        let is_text = event["type"] == "chunk" || event["type"] == "reasoning";
        match joined.last_mut() {
            Some(last) if is_text && last["type"] == event["type"] => {
                let text = |event: &Value| event["content"].as_str().unwrap().to_owned();
                last["content"] = (text(last) + &text(&event)).into();
            }
            _ => joined.push(event),
        }
    }
    joined
}

/// A conversation as a client puts it together from what it is told.
///
/// It knows no more than the wire says: messages by their ids; the text of a reply grows by chunks,
/// each of which says where it begins; a `reset` says how much of a text holds.
#[derive(Debug, Default, Clone)]
pub struct Picture {
    /// Role, id and text, in order.
    pub messages: Vec<(String, Value, String)>,
    /// Ids of replies that have ended, and how.
    pub ended: Vec<(Value, Value)>,
    /// Turns whose reply is, or was, told, and its id.
    replies: Vec<(Value, Value)>,
    /// Whether text that is told again is placed where it says that it begins. A client whose own
    /// messages came again, or waited, is told of more turns than one at once.
    places: Places,
    /// Whether all was said to be told anew.
    anew: Anew,
    /// The last place.
    pub cursor: Option<Value>,
}

/// Whether messages may come that are there already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Anew {
    #[default]
    No,
    /// In the next `resumed`.
    Yes,
}

/// Where text may come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Behind what is there.
    #[default]
    AtTheEnd,
    /// Also where it is already, as the same text.
    Anywhere,
}

impl Picture {
    /// Of a client that also speaks.
    pub fn of_a_speaker() -> Self {
        Self {
            places: Places::Anywhere,
            ..Self::default()
        }
    }

    /// Takes a message of the socket, or an event of the stream.
    pub fn take(&mut self, told: &Value) {
        if told["cursor"].is_string() {
            self.cursor = Some(told["cursor"].clone());
        }
        match told["type"].as_str().unwrap() {
            "user_message" => {
                let text = told["content"].as_str().unwrap();
                self.add("user", &told["message_id"], text);
            }
            // The client knows what it said.
            "message_received" => {}
            "response_start" => self.begin(&told["turn_id"], &told["message_id"]),
            "chunk" => self.grow(&told["turn_id"], &told["offset"], &told["content"]),
            "response_complete" => {
                if told["message_id"].is_string() {
                    let end = (told["message_id"].clone(), told["finish_reason"].clone());
                    self.ended.push(end);
                }
            }
            "reset" => self.reset(told),
            "resumed" => {
                for message in told["messages"].as_array().unwrap() {
                    let text = message["content"].as_str().unwrap_or_default();
                    self.add(message["role"].as_str().unwrap(), &message["id"], text);
                    if message["role"] == "assistant" {
                        self.ended
                            .push((message["id"].clone(), message["finish_reason"].clone()));
                    }
                }
                if let Some(turn) = told.get("turn") {
                    self.begin(&turn["turn_id"], &turn["message_id"]);
                    self.grow(&turn["turn_id"], &turn["offset"], &turn["content"]);
                }
                self.anew = Anew::No;
            }
            "error"
            | "seam"
            | "pong"
            | "conversation_started"
            | "reasoning"
            | "history_truncated" => {}
            other => panic!("not expected: {other}: {told}"),
        }
    }

    /// A message is there, or whole.
    pub fn add(&mut self, role: &str, id: &Value, text: &str) {
        match self.messages.iter_mut().find(|known| known.1 == *id) {
            // It has been whole before, or is whole now.
            Some(known) => {
                // Of its own turns a speaker may have seen more than a kill left.
                let strict = self.places == Places::AtTheEnd;
                assert!(
                    !strict || self.anew == Anew::Yes || role == "assistant",
                    "told twice: {known:?}"
                );
                let grows = !strict || text.starts_with(&known.2);
                assert!(grows, "{known:?} is now {text:?}");
                text.clone_into(&mut known.2);
            }
            None => self.messages.push((role.into(), id.clone(), text.into())),
        }
    }

    fn begin(&mut self, turn: &Value, reply: &Value) {
        if !self.replies.iter().any(|(known, _)| known == turn) {
            self.replies.push((turn.clone(), reply.clone()));
        }
    }

    fn reply_of(&self, turn: &Value) -> Option<Value> {
        let (_, id) = self.replies.iter().find(|(known, _)| known == turn)?;
        Some(id.clone())
    }

    fn grow(&mut self, turn: &Value, offset: &Value, text: &Value) {
        let (offset, text) = (offset.as_u64().unwrap(), text.as_str().unwrap());
        let id = self.reply_of(turn).expect("text of no reply");
        let position = self.messages.iter().position(|known| known.1 == id);
        let position = position.unwrap_or_else(|| {
            self.messages.push(("assistant".into(), id, String::new()));
            self.messages.len() - 1
        });
        let known = &mut self.messages[position].2;
        if self.places == Places::Anywhere && offset < known.len() as u64 {
            let again = &known[usize::try_from(offset).unwrap()..];
            let both = again.len().min(text.len());
            assert_eq!(again[..both], text[..both], "told again, and otherwise");
            known.push_str(&text[both..]);
            return;
        }
        assert_eq!(known.len() as u64, offset, "a gap, or text told twice");
        known.push_str(text);
        if known.is_empty() {
            self.messages.remove(position);
        }
    }

    /// Of a turn that was being told, so much holds; what else there is, is told again.
    fn reset(&mut self, told: &Value) {
        self.anew = Anew::Yes;
        if let (Some(id), Some(offset)) = (self.reply_of(&told["turn_id"]), told["offset"].as_u64())
        {
            for known in self.messages.iter_mut().filter(|known| known.1 == id) {
                known.2.truncate(usize::try_from(offset).unwrap());
            }
            self.messages.retain(|known| !known.2.is_empty());
        }
    }

    /// Role and text, in order.
    pub fn said(&self) -> Vec<(String, String)> {
        let said = |it: &(String, Value, String)| (it.0.clone(), it.2.clone());
        self.messages.iter().map(said).collect()
    }
}

/// Fails unless a client has exactly the document.
async fn assert_whole(app: &TestApp, conversation: &str, picture: &Picture) {
    assert_eq!(picture.said(), app.said(conversation).await);
}

/// Takes what a socket is told until a turn ends.
async fn take_until_the_end(socket: &mut Socket, picture: &mut Picture) -> Vec<Value> {
    let told = within("the end of a turn", socket.until("response_complete")).await;
    for message in &told {
        picture.take(message);
    }
    told
}

/// Writes the file of a conversation of another server: `message 0` is its user's.
fn long_document(data: &std::path::Path, messages: usize) {
    let said = |number: usize| {
        let role = ["user", "assistant"][number % 2];
        json!({"role": role, "content": format!("message {number}"),
            "timestamp": "2025-01-01T00:00:00"})
    };
    let document = json!({"id": "c1", "created_at": "2025-01-01T00:00:00",
        "updated_at": "2025-01-01T00:00:00", "messages": (0..messages).map(said).collect::<Vec<_>>()});
    let folder = data.join("conversations");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("c1.json"), document.to_string()).unwrap();
}

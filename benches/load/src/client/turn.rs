//! One turn of one client, over each of the ways there are to ask for it.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    field::Field,
    http::{Body, Http},
    peer::Peer,
    reply::{Known, Reply},
    stamps::Seen,
    websocket::Socket,
};
use crate::error::LoadError;

/// How a turn is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// A streamed completion of the upstream's own shape.
    Completions,
    /// The same, whole.
    WholeCompletion,
    /// `POST /chat/stream`.
    ChatStream,
    /// `POST /chat`.
    Chat,
    /// A `message` on `/ws/chat`.
    WebSocket,
}

impl Ask {
    fn path(self) -> &'static str {
        match self {
            Self::Completions | Self::WholeCompletion => "/api/v1/chat/completions",
            Self::ChatStream => "/chat/stream",
            Self::Chat => "/chat",
            Self::WebSocket => "/ws/chat",
        }
    }

    /// What is sent for a turn.
    fn body(self, model: Option<&str>, conversation: Option<&str>) -> Value {
        const TEXT: &str = "Tell me how your day has been, and what you would like to do tomorrow.";
        let messages = json!([{"role": "user", "content": TEXT}]);
        let mut body = match self {
            Self::Completions => json!({"messages": messages, "stream": true}),
            Self::WholeCompletion | Self::ChatStream | Self::Chat => json!({"messages": messages}),
            Self::WebSocket => json!({"type": "message", "message": TEXT, "character_id": "load"}),
        };
        if let Some(model) = model {
            body["model"] = model.into();
        }
        if let Some(conversation) = conversation {
            body["conversation_id"] = conversation.into();
        }
        body
    }
}

/// A client's connection.
enum Connection {
    Http(Http),
    Socket(Socket),
}

/// What a turn took.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) begun: Instant,
    pub(super) first: Option<Instant>,
    pub(super) over: Instant,
    pub(super) deltas: u64,
    /// Of a reply whose tokens say when they were sent.
    pub(super) seen: Vec<Seen>,
}

/// What is looked for in an event.
struct Fields {
    kind: Field,
    content: Field,
}

impl Fields {
    fn new() -> Self {
        Self {
            kind: Field::new("type"),
            content: Field::new("content"),
        }
    }
}

/// One client.
pub(super) struct Client {
    ask: Ask,
    connection: Connection,
    fields: Fields,
    event: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(peer: &Peer, ask: Ask) -> Result<Self, LoadError> {
        let connection = match ask {
            Ask::WebSocket => Connection::Socket(Socket::open(peer).await?),
            _ => Connection::Http(Http::connect(peer).await?),
        };
        Ok(Self {
            ask,
            connection,
            fields: Fields::new(),
            event: Vec::new(),
        })
    }

    /// Asks, and reads the whole reply.
    pub(super) async fn turn(
        &mut self,
        model: Option<&str>,
        conversation: Option<&str>,
        known: Known<'_>,
    ) -> Result<Taken, LoadError> {
        let body = self.ask.body(model, conversation).to_string();
        let begun = Instant::now();
        let mut reply = Reply::new(known);
        match &mut self.connection {
            Connection::Socket(socket) => {
                socket.send(body).await?;
                socket_reply(socket, &mut reply).await?;
            }
            Connection::Http(http) => {
                let head = http.ask("POST", self.ask.path(), &body).await?;
                if head.status != 200 {
                    let text = http.rest(head.body).await?;
                    let text = String::from_utf8_lossy(&text).into_owned();
                    return Err(LoadError::TurnFailed(format!("{}: {text}", head.status)));
                }
                match self.ask {
                    Ask::Chat | Ask::WholeCompletion => {
                        let whole = http.rest(head.body).await?;
                        let text = self.fields.content.get(&whole)?;
                        reply.take(&text.unwrap_or_default())?;
                    }
                    _ => {
                        events(http, head.body, &self.fields, &mut self.event, &mut reply).await?;
                    }
                }
            }
        }
        let seen = reply.end()?;
        Ok(Taken {
            seen,
            begun,
            first: reply.first,
            over: Instant::now(),
            deltas: reply.deltas,
        })
    }
}

/// Whether the last event of a reply was there.
#[derive(Debug, PartialEq, Eq)]
enum Finish {
    Awaited,
    Seen,
}

async fn events(
    http: &mut Http,
    mut body: Body,
    fields: &Fields,
    buffer: &mut Vec<u8>,
    reply: &mut Reply<'_>,
) -> Result<(), LoadError> {
    buffer.clear();
    let mut finish = Finish::Awaited;
    while body != Body::Over {
        http.more(&mut body, buffer).await?;
        let mut start = 0;
        while let Some(length) = memchr::memmem::find(&buffer[start..], b"\n\n") {
            let event = &buffer[start..start + length];
            start += length + 2;
            if finish == Finish::Seen {
                let event = String::from_utf8_lossy(event);
                return Err(LoadError::Protocol(format!("behind the end came {event}")));
            }
            if let Some(data) = event.strip_prefix(b"data: ") {
                finish = one(data, fields, reply)?;
            } else if !event.starts_with(b":") {
                let event = String::from_utf8_lossy(event);
                return Err(LoadError::Protocol(format!("no event: {event}")));
            }
        }
        buffer.drain(..start);
    }
    match finish {
        Finish::Seen if buffer.is_empty() => Ok(()),
        _ => Err(LoadError::TurnFailed(
            "the stream ended without its end".to_owned(),
        )),
    }
}

fn one(data: &[u8], fields: &Fields, reply: &mut Reply<'_>) -> Result<Finish, LoadError> {
    if data == b"[DONE]" {
        return Ok(Finish::Seen);
    }
    // A chunk has no type of its own: the text, which comes first, has all that is looked for.
    if let Some(text) = fields.content.get(data)? {
        reply.take(&text)?;
        return Ok(Finish::Awaited);
    }
    match fields.kind.get(data)?.as_deref() {
        Some("done") => Ok(Finish::Seen),
        Some("error") => Err(LoadError::TurnFailed(
            String::from_utf8_lossy(data).into_owned(),
        )),
        _ if data.starts_with(b"{\"error\"") => Err(LoadError::TurnFailed(
            String::from_utf8_lossy(data).into_owned(),
        )),
        _ => Ok(Finish::Awaited),
    }
}

/// Reads the events of a turn to their end.
pub(super) async fn socket_reply(
    socket: &mut Socket,
    reply: &mut Reply<'_>,
) -> Result<(), LoadError> {
    let fields = Fields::new();
    loop {
        let event = socket.next().await?;
        match fields.kind.get(&event)?.as_deref() {
            Some("chunk") => {
                let text = fields.content.get(&event)?;
                reply.take(&text.unwrap_or_default())?;
            }
            Some("response_complete") => return Ok(()),
            Some("error") => {
                let event = String::from_utf8_lossy(&event).into_owned();
                return Err(LoadError::TurnFailed(event));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(data: &str, reply: &mut Reply<'_>) -> Result<Finish, LoadError> {
        one(data.as_bytes(), &Fields::new(), reply)
    }

    #[test]
    fn text_is_taken_and_the_end_is_seen() {
        let mut reply = Reply::new(Known::Text("a\"b"));
        let chunk = r#"{"id":"x","choices":[{"index":0,"delta":{"content":"a\"b"}}]}"#;
        assert_eq!(seen(chunk, &mut reply).unwrap(), Finish::Awaited);
        assert_eq!(seen("[DONE]", &mut reply).unwrap(), Finish::Seen);
        let done = r#"{"conversation_id":"c","type":"done"}"#;
        assert_eq!(seen(done, &mut reply).unwrap(), Finish::Seen);
        reply.end().unwrap();
    }

    #[test]
    fn an_error_fails_the_turn() {
        let mut reply = Reply::new(Known::Nothing);
        assert!(seen(r#"{"type":"error","error":"no"}"#, &mut reply).is_err());
        assert!(seen(r#"{"error":{"message":"no"}}"#, &mut reply).is_err());
    }
}

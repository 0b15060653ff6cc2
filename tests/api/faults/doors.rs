//! One turn through any of the three doors, told alike.

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::helpers::{Socket, TestApp, say, text_of, within};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Chat,
    Stream,
    Socket,
}

pub const DOORS: [Door; 3] = [Door::Chat, Door::Stream, Door::Socket];

/// What a client was told of a turn.
#[derive(Debug)]
pub struct Told {
    /// The text as it came; what a door that shows nothing on the way showed at the end.
    pub text: String,
    /// The last thing told: of a whole reply, or of a failure.
    pub end: Result<Value, Value>,
    /// HTTP status; none on a socket.
    pub status: Option<u16>,
    /// The response header.
    pub retry_after: Option<String>,
    pub turn: Option<String>,
    /// Id that the reply was announced under; none where the door does not announce it.
    pub reply: Option<String>,
}

impl Told {
    pub fn finish_reason(&self) -> &str {
        let end = self.end.as_ref().unwrap();
        let choice = &end["choices"][0]["finish_reason"];
        choice.as_str().or(end["finish_reason"].as_str()).unwrap()
    }

    pub fn usage(&self) -> &Value {
        &self.end.as_ref().unwrap()["usage"]
    }

    pub fn error(&self) -> &Value {
        match &self.end {
            Err(error) => error,
            Ok(end) => panic!("a turn that should fail ended well: {end}"),
        }
    }
}

/// A client that keeps what it has open.
pub struct Client<'a> {
    app: &'a TestApp,
    door: Door,
    socket: Option<Socket>,
}

impl<'a> Client<'a> {
    pub async fn new(app: &'a TestApp, door: Door) -> Self {
        let socket = match door {
            Door::Socket => Some(app.socket().await),
            Door::Chat | Door::Stream => None,
        };
        Self { app, door, socket }
    }

    /// Says something, and listens to the end of the turn. The model tells the upstream what to do.
    pub async fn ask(&mut self, conversation: &str, text: &str, model: &str) -> Told {
        let mut body = say(conversation, text);
        body["model"] = model.into();
        let turn = async {
            match self.door {
                Door::Chat => self.chat(body).await,
                Door::Stream => self.stream(body).await,
                Door::Socket => self.speak(conversation, text, model).await,
            }
        };
        // Pings and keep-alives come even where nothing else does.
        within(&format!("the end of a turn of {model}"), turn).await
    }

    async fn chat(&self, body: Value) -> Told {
        let response = self.app.post("/chat", body).await;
        let status = response.status();
        let header = |name| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
        let retry_after = header("retry-after");
        let body: Value = response.json().await.unwrap();
        Told {
            text: string(&body["choices"][0]["message"]["content"]).unwrap_or_default(),
            status: Some(status.as_u16()),
            retry_after,
            turn: string(&body["turn_id"]),
            reply: string(&body["message_id"]),
            end: match status.is_success() {
                true => Ok(body),
                false => Err(body),
            },
        }
    }

    async fn stream(&self, body: Value) -> Told {
        let mut events = self.app.stream(body).await.all().await;
        assert_eq!(events[0]["type"], "conversation_start", "{events:?}");
        let end = events.pop().unwrap();
        let chunks = &events[1..];
        assert!(
            chunks
                .iter()
                .all(|it| it["object"] == "chat.completion.chunk"),
            "something but chunks before the end: {chunks:?}"
        );
        Told {
            text: text_of(chunks),
            status: Some(200),
            retry_after: None,
            turn: string(&events[0]["turn_id"]),
            reply: string(&end["message_id"]),
            end: match end["type"].as_str() {
                Some("done") => Ok(end),
                Some("error") => Err(end),
                _ => panic!("the stream ends with {end}"),
            },
        }
    }

    async fn speak(&mut self, conversation: &str, text: &str, model: &str) -> Told {
        let socket = self.socket.as_mut().unwrap();
        socket
            .send(json!({
                "type": "message",
                "conversation_id": conversation,
                "message": text,
                "model": model,
            }))
            .await;
        let received = socket.next().await;
        assert_eq!(received["type"], "message_received");
        let start = socket.next().await;
        assert_eq!(start["type"], "response_start");
        let mut shown = String::new();
        let end = loop {
            let message = socket.next().await;
            assert_eq!(message["conversation_id"], conversation, "{message}");
            assert_eq!(message["turn_id"], start["turn_id"], "{message}");
            match message["type"].as_str() {
                Some("chunk") => {
                    assert_eq!(message["offset"], shown.len(), "{message}");
                    shown += message["content"].as_str().unwrap();
                }
                Some("response_complete") => break Ok(message),
                Some("error") => break Err(message),
                _ => panic!("{message} in a turn"),
            }
        };
        Told {
            text: shown,
            status: None,
            retry_after: None,
            turn: string(&start["turn_id"]),
            reply: string(&start["message_id"]),
            end,
        }
    }
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A failure that a row of a table promises.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Option list of the upstream.
    pub options: &'static str,
    /// Status where the answer has not begun.
    pub status: u16,
    pub code: &'static str,
    pub retry: Retry,
    /// The text that comes before it, and is kept.
    pub partial: Partial,
    /// Words that the error must have in it.
    pub words: &'static str,
}

/// What a failure tells of the time to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Untold,
    Told,
    After(u64),
}

/// The part of a reply that was there before the failure.
#[derive(Debug, Clone, Copy)]
pub enum Partial {
    Nothing,
    Tokens(usize),
    Text(&'static str),
}

impl Partial {
    fn text(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Tokens(count) => idol_simulator::reply_text(0, count),
            Self::Text(text) => text.to_owned(),
        }
    }
}

/// A row: a failure before any text, of which nothing but its code is special.
pub const fn fails(options: &'static str, status: u16, code: &'static str) -> Failure {
    Failure {
        options,
        status,
        code,
        retry: Retry::Untold,
        partial: Partial::Nothing,
        words: "",
    }
}

impl Failure {
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    pub const fn keeps(mut self, partial: Partial) -> Self {
        self.partial = partial;
        self
    }

    pub const fn saying(mut self, words: &'static str) -> Self {
        self.words = words;
        self
    }
}

/// So many conversations at once: enough that deadlines pass side by side.
const AT_ONCE: usize = 16;

/// Plays every row through every door, and leaves nothing behind.
pub async fn expect_failures(app: &TestApp, table: &[Failure]) {
    stream::iter(rows(table))
        .for_each_concurrent(AT_ONCE, |(number, door)| async move {
            expect_failure(app, door, &format!("{door:?}-{number}"), &table[number]).await;
        })
        .await;
    app.assert_nothing_left().await;
}

/// The number of each row with each door.
pub fn rows<T>(table: &[T]) -> impl Iterator<Item = (usize, Door)> {
    (0..table.len()).flat_map(|number| DOORS.map(|door| (number, door)))
}

async fn expect_failure(app: &TestApp, door: Door, conversation: &str, row: &Failure) {
    let mut client = Client::new(app, door).await;
    let model = format!("sim/tokens=9,{}", row.options);

    let told = client.ask(conversation, "hello", &model).await;

    let context = format!("{door:?} {row:?}: {told:?}");
    expect_error(&told, door, conversation, row, &context);
    expect_kept(app, &told, conversation, &row.partial.text(), &context).await;
    let next = client
        .ask(conversation, "again", "sim/tokens=3,seed=8")
        .await;
    assert_eq!(next.text, idol_simulator::reply_text(8, 3), "{context}");
    assert_eq!(next.finish_reason(), "stop", "{context}");
}

fn expect_error(told: &Told, door: Door, conversation: &str, row: &Failure, context: &str) {
    let error = told.error();
    assert_eq!(error["code"], row.code, "{context}");
    assert_eq!(error["conversation_id"], conversation, "{context}");
    let sentence = error["error"].as_str().unwrap();
    assert!(sentence.contains(row.words), "{context}");
    match row.retry {
        Retry::Untold => assert!(error.get("retry_after").is_none(), "{context}"),
        Retry::Told => assert!(error["retry_after"].as_u64().unwrap() > 0, "{context}"),
        Retry::After(seconds) => assert_eq!(error["retry_after"], seconds, "{context}"),
    }
    match door {
        Door::Chat => {
            assert_eq!(told.status, Some(row.status), "{context}");
            assert_eq!(error["detail"], error["error"], "{context}");
            let in_body = error["retry_after"].as_u64().map(|wait| wait.to_string());
            assert_eq!(told.retry_after, in_body, "{context}");
        }
        Door::Stream => {}
        Door::Socket => assert_eq!(error["turn_id"].as_str(), told.turn.as_deref(), "{context}"),
    }
}

/// What the document keeps of a failed turn: the user's message, and the text that came.
async fn expect_kept(app: &TestApp, told: &Told, conversation: &str, partial: &str, context: &str) {
    let document = app.document(conversation).await;
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages[0]["content"], "hello", "{context}");
    if partial.is_empty() {
        assert_eq!(messages.len(), 1, "{context} {document}");
    } else {
        assert_eq!(messages.len(), 2, "{context} {document}");
        let reply = &messages[1];
        assert_eq!(reply["role"], "assistant", "{context}");
        assert_eq!(reply["content"], partial, "{context}");
        assert_eq!(reply["finish_reason"], "error", "{context}");
        assert_eq!(reply["turn_id"], messages[0]["turn_id"], "{context}");
        if let Some(announced) = &told.reply {
            assert_eq!(reply["id"], **announced, "{context}");
        }
    }
    // A failed POST /chat shows no text.
    if told.status.is_none_or(|status| status == 200) {
        assert_eq!(told.text, partial, "{context}");
        assert_eq!(
            messages[0]["turn_id"].as_str(),
            told.turn.as_deref(),
            "{context}"
        );
    }
}

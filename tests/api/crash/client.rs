//! A client that talks until its server dies, and remembers all that it was told.

use std::{net::SocketAddr, time::Instant};

use idol_simulator::reply_text;
use serde_json::{Value, json};

use crate::helpers::{Events, Socket, client as http, within};

/// How a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/ws/chat`.
    Socket,
    /// `POST /chat/stream`.
    Stream,
    /// `POST /chat`.
    Whole,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// One reply to each message.
    Once,
    /// Now and then another one, which takes the place of the last. It has its conversation for
    /// itself: so it knows which that is.
    AgainNowAndThen,
}

/// How long a client goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Going {
    /// Until the server is gone; many replies are slow, or few.
    OnUntilCut { slow: bool },
    /// Until its last request is answered.
    UntilAnswered,
}

/// One request, with all its repeats.
#[derive(Debug)]
pub struct Request {
    pub key: String,
    pub what: What,
    /// The message that is to be answered.
    pub text: String,
    pub model: String,
    /// What the upstream would say, all of it.
    pub whole: String,
    pub told: Told,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A reply to a message.
    Reply,
    /// Another reply to the last message.
    Another,
}

/// What a client was told about its request, the last time it sent it.
#[derive(Debug, Default)]
pub struct Told {
    pub received: Option<Received>,
    /// Pieces of the reply, and when they came.
    pub shown: Vec<(Instant, String)>,
    pub end: Option<End>,
    /// Text of an earlier try that must be there.
    pub kept: String,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub turn: String,
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub text: String,
    pub finish_reason: String,
}

/// The server is gone.
struct Cut;

#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub conversation: String,
    door: Door,
    asks: Asks,
    random: fastrand::Rng,
    pub requests: Vec<Request>,
    /// A socket was told `conversation_started`.
    started: bool,
}

impl Client {
    pub fn new(number: usize, conversation: String, door: Door, asks: Asks, seed: u64) -> Self {
        Self {
            number,
            conversation,
            door,
            asks,
            random: fastrand::Rng::with_seed(seed),
            requests: Vec::new(),
            started: false,
        }
    }

    /// Whether it was told anything at all of its conversation.
    pub fn was_told(&self) -> bool {
        self.started || self.requests.iter().any(|it| it.told.received.is_some())
    }

    pub fn assert_answered(&self) {
        for request in &self.requests {
            assert!(request.told.end.is_some(), "no answer: {request:?}");
        }
    }

    pub async fn talk(mut self, address: SocketAddr, going: Going) -> Self {
        // Why it ends is known: the server is gone, or the last answer there.
        match self.door {
            Door::Socket => drop(self.over_a_socket(address, going).await),
            Door::Stream | Door::Whole => drop(self.over_http(address, going).await),
        }
        self
    }

    /// The index of the request to send next: the last one again, if it has no answer.
    fn next(&mut self, going: Going) -> Option<usize> {
        let open = self.requests.last().is_some_and(|it| it.told.end.is_none());
        if !open {
            let Going::OnUntilCut { slow } = going else {
                return None;
            };
            let another = self.another(slow);
            self.requests.push(another);
        }
        Some(self.requests.len() - 1)
    }

    fn another(&mut self, slow: bool) -> Request {
        let (client, ordinal) = (self.number, self.requests.len());
        let seed = self.random.u32(..);
        // At once; as a person reads; long, in large pieces.
        let slow_of_ten = if slow { 5 } else { 1 };
        let (tokens, pace) = match self.random.u8(..10) {
            tenth if tenth < slow_of_ten => (200, ",gap=20"),
            9 => (1_500, ",batch=50,gap=1"),
            _ => (8, ""),
        };
        let last = self.requests.last().map(|it| it.text.clone());
        let again = self.asks == Asks::AgainNowAndThen && self.random.u8(..3) == 0;
        let (what, text) = match last.filter(|_| again) {
            Some(last) => (What::Another, last),
            None => {
                let text = format!("client {client} says {ordinal}: \"{seed}\"\n—");
                (What::Reply, text)
            }
        };
        Request {
            key: format!("key-of-client-{client}-request-{ordinal}"),
            what,
            text,
            model: format!("sim/tokens={tokens},seed={seed}{pace}"),
            whole: reply_text(seed.into(), tokens),
            told: Told::default(),
        }
    }

    async fn over_http(&mut self, address: SocketAddr, going: Going) -> Result<(), Cut> {
        let http = http();
        while let Some(index) = self.next(going) {
            let (path, body) = (self.path(index), self.body(index));
            let sent = http
                .post(format!("http://{address}{path}"))
                .header("Idempotency-Key", &self.requests[index].key)
                .json(&body)
                .send();
            let told = self.tell_anew(index);
            let response = within("an answer", sent).await.map_err(|_gone| Cut)?;
            let status = response.status();
            match path.as_str() {
                "/chat" => {
                    let text = within("an answer's body", response.text()).await;
                    let text = text.map_err(|_gone| Cut)?;
                    assert_eq!(status, 200, "{text}");
                    told.answered(&serde_json::from_str(&text).unwrap());
                }
                _ => {
                    assert_eq!(status, 200);
                    let mut events = Events::of(response);
                    while let Some(event) = events.next().await {
                        told.event(&event);
                    }
                    if told.end.is_none() {
                        return Err(Cut);
                    }
                }
            }
        }
        Ok(())
    }

    fn path(&self, index: usize) -> String {
        match (self.requests[index].what, self.door) {
            (What::Another, _) => format!("/conversation/{}/regenerate", self.conversation),
            (What::Reply, Door::Whole) => "/chat".to_owned(),
            (What::Reply, Door::Stream | Door::Socket) => "/chat/stream".to_owned(),
        }
    }

    fn body(&self, index: usize) -> Value {
        let request = &self.requests[index];
        if request.what == What::Another {
            return json!({"model": request.model});
        }
        json!({
            "conversation_id": self.conversation,
            "model": request.model,
            "messages": [{"role": "user", "content": request.text}],
        })
    }

    fn tell_anew(&mut self, index: usize) -> &mut Told {
        let told = &mut self.requests[index].told;
        told.shown.clear();
        told
    }

    async fn over_a_socket(&mut self, address: SocketAddr, going: Going) -> Result<(), Cut> {
        let mut socket = Socket::try_connect(address).await.ok_or(Cut)?;
        let start = json!({"type": "start_conversation", "conversation_id": self.conversation,
            "character_id": "nova"});
        socket.try_send(start).await.ok_or(Cut)?;
        let started = socket.next_or_close().await.map_err(|_gone| Cut)?;
        assert_eq!(started["type"], "conversation_started", "{started}");
        self.started = true;
        while let Some(index) = self.next(going) {
            let request = &self.requests[index];
            let mut message = json!({"type": "regenerate", "conversation_id": self.conversation,
                "model": request.model, "client_message_id": request.key});
            if request.what == What::Reply {
                message["type"] = "message".into();
                message["message"] = request.text.as_str().into();
            }
            let told = self.tell_anew(index);
            socket.try_send(message).await.ok_or(Cut)?;
            while told.end.is_none() {
                let message = socket.next_or_close().await.map_err(|_gone| Cut)?;
                told.message(&message);
            }
        }
        Ok(())
    }
}

fn text_in(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Told {
    /// What was shown the last time.
    pub fn text(&self) -> String {
        self.shown.iter().map(|(_, piece)| piece.as_str()).collect()
    }

    /// What had been shown by then.
    pub fn text_by(&self, then: Instant) -> String {
        let by = self.shown.iter().take_while(|(at, _)| *at <= then);
        by.map(|(_, piece)| piece.as_str()).collect()
    }

    fn receive(&mut self, value: &Value) {
        let received = Received {
            turn: text_in(&value["turn_id"]),
            message: value["message_id"].as_str().map(str::to_owned),
        };
        if let Some(before) = &self.received {
            assert_eq!(before.turn, received.turn, "one turn for one key");
        }
        self.received = Some(received);
    }

    fn end(&mut self, finish_reason: &Value) {
        self.end = Some(End {
            text: self.text(),
            finish_reason: text_in(finish_reason),
        });
    }

    /// The answer of `POST /chat`.
    fn answered(&mut self, answer: &Value) {
        let mut received = answer.clone();
        // Here it is the reply's.
        received["message_id"] = Value::Null;
        self.receive(&received);
        let choice = &answer["choices"][0];
        let text = text_in(&choice["message"]["content"]);
        self.shown.push((Instant::now(), text));
        self.end(&choice["finish_reason"]);
    }

    /// An event of `POST /chat/stream`.
    fn event(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("conversation_start") => self.receive(event),
            Some("done") => self.end(&event["finish_reason"]),
            Some(_) => panic!("{event}"),
            None => {
                if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
                    self.shown.push((Instant::now(), text.to_owned()));
                }
            }
        }
    }

    /// A message of a socket.
    fn message(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("message_received") => self.receive(message),
            Some("history_truncated" | "response_start") => {}
            Some("chunk") => {
                let text = text_in(&message["content"]);
                self.shown.push((Instant::now(), text));
            }
            Some("response_complete") => self.end(&message["finish_reason"]),
            _ => panic!("{message}"),
        }
    }
}

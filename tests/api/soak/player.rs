//! One client of the soak.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Said, any_model};
use crate::{
    helpers::{DEADLINE, Events, Socket, client, within},
    resume::{Picture, event_source::EventSource, resume},
};

/// How a client talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Over a socket, both ways.
    Socket,
    /// Writes over HTTP, reads an event stream.
    Stream,
    /// Reads an event stream.
    Reader,
}

/// A client, and what it has.
pub struct Player {
    number: usize,
    pub conversation: String,
    door: Door,
    random: fastrand::Rng,
    picture: Picture,
    /// What it says and was not told of: key, text, model.
    owed: Option<(String, String, String)>,
    spoke: usize,
    /// Ids of messages that it was told are there.
    pub acknowledged: Vec<String>,
    pub drops: u64,
    pub resets: u64,
    pub cancels: u64,
    pub regenerates: u64,
    /// The last of what it was told.
    told: VecDeque<String>,
}

/// What a client was told that is kept for the report of a failure.
const TOLD_MAX: usize = 20_000;
/// Events told around one that is about the message in question.
const AROUND: usize = 6;

/// A client takes a breath between what it does.
fn breath(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(random.u64(5..60))
}

impl Player {
    pub fn new(number: usize, conversation: String, door: Door, seed: u64) -> Self {
        Self {
            number,
            conversation,
            door,
            random: fastrand::Rng::with_seed(seed),
            picture: match door {
                Door::Socket => Picture::of_a_speaker(),
                Door::Stream | Door::Reader => Picture::default(),
            },
            owed: None,
            spoke: 0,
            acknowledged: Vec::new(),
            drops: 0,
            resets: 0,
            cancels: 0,
            regenerates: 0,
            told: VecDeque::new(),
        }
    }

    /// Plays until `ends`, and until what it said is answered.
    pub async fn play(mut self, server: watch::Receiver<SocketAddr>, ends: Instant) -> Self {
        self.begin(&server).await;
        while Instant::now() < ends {
            let address = *server.borrow();
            let _cut = match self.door {
                Door::Socket => self.over_a_socket(address, Some(ends)).await,
                Door::Stream | Door::Reader => self.over_a_stream(address, Some(ends)).await,
            };
            self.drops += 1;
            tokio::time::sleep(breath(&mut self.random)).await;
        }
        // What it said is answered, however often it must be said.
        self.goes_on_until(&server, |player, _| {
            let (_, text, _) = player.owed.as_ref()?;
            Some(format!("an answer to {text}"))
        })
        .await;
        self
    }

    /// Reads on until it was told all that there is. Nobody says anything more.
    pub async fn rests(mut self, server: watch::Receiver<SocketAddr>) -> Self {
        self.goes_on_until(&server, |player, document| player.lacks(document))
            .await;
        self
    }

    async fn goes_on_until(
        &mut self,
        server: &watch::Receiver<SocketAddr>,
        lacking: impl Fn(&Self, &[Said]) -> Option<String>,
    ) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let address = *server.borrow();
            let over = match self.door {
                Door::Socket => self.over_a_socket(address, None).await,
                Door::Stream | Door::Reader => self.over_a_stream(address, None).await,
            };
            let lacking = match (over, self.document(address).await) {
                (Some(()), Some(document)) => lacking(self, &super::messages_of(&document)),
                _ => Some("a connection".to_owned()),
            };
            let Some(lacking) = lacking else { return };
            let who = format!("client {} of {}", self.number, self.conversation);
            assert!(
                Instant::now() < deadline,
                "{who} does not come to rest: {lacking}\n{:#?}",
                self.told_of(&lacking)
            );
            tokio::time::sleep(breath(&mut self.random)).await;
        }
    }

    async fn document(&self, address: SocketAddr) -> Option<Value> {
        let url = format!("http://{address}/conversation/{}", self.conversation);
        let response = within("the document", client().get(url).send())
            .await
            .ok()?;
        response.json().await.ok()
    }

    /// The first of a conversation begins it, and so do all others.
    async fn begin(&mut self, server: &watch::Receiver<SocketAddr>) {
        let address = *server.borrow();
        let mut socket = Socket::connect(address).await;
        let start = json!({"type": "start_conversation", "character_id": "nova",
            "conversation_id": self.conversation});
        socket.send(start).await;
        assert_eq!(socket.next().await["type"], "conversation_started");
    }

    fn lacks(&self, messages: &[Said]) -> Option<String> {
        messages.iter().find_map(|(id, text, _)| {
            let known = self.picture.messages.iter().find(|known| known.1 == *id);
            // A message without text has nothing to be told.
            let known = known.map(|known| known.2.as_str());
            let lacks = known.unwrap_or_default() != text;
            lacks.then(|| format!("{id} with {text:?}: it has {known:?}"))
        })
    }

    pub fn assert_has(&self, messages: &[Said]) {
        if let Some(lacking) = self.lacks(messages) {
            panic!(
                "client {} of {} lacks {lacking}: {:?}",
                self.number, self.conversation, self.picture
            );
        }
        for (id, _, finish_reason) in messages {
            let told = self
                .picture
                .ended
                .iter()
                .rev()
                .find(|(ended, _)| ended == id);
            if let (Some((_, told)), Some(finish_reason)) = (told, finish_reason) {
                assert_eq!(told, finish_reason, "the end of {id}");
            }
        }
    }

    /// The last of what it was told of a message, and what came around it.
    fn told_of(&self, lacking: &str) -> Vec<&String> {
        let id = lacking.split('"').nth(1).unwrap_or_default();
        let names = |told: &&String| told.contains(id);
        let turn = self.told.iter().find(names).and_then(|told| {
            let told: Value = serde_json::from_str(told).ok()?;
            Some(told["turn_id"].as_str()?.to_owned())
        });
        let about = |told: &String| {
            told.contains(id) || turn.as_ref().is_some_and(|turn| told.contains(turn))
        };
        let near = |index: usize| {
            let around = index.saturating_sub(AROUND)..self.told.len().min(index + AROUND + 1);
            self.told.range(around).any(about)
        };
        let told = self.told.iter().enumerate();
        let told = told.filter(|(index, _)| near(*index));
        told.map(|(_, told)| told).collect()
    }

    fn take(&mut self, told: &Value) {
        self.told.push_back(told.to_string());
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        self.resets += u64::from(told["type"] == "reset");
        if told["type"] == "message_received"
            && let Some((key, text, _)) = &self.owed
            && told["client_message_id"] == *key
        {
            let text = text.clone();
            self.picture.add("user", &told["message_id"], &text);
        }
        let mine = self
            .owed
            .as_ref()
            .is_some_and(|(key, _, _)| told["client_message_id"] == *key);
        if mine && told["message_id"].is_string() {
            self.acknowledged
                .push(told["message_id"].as_str().unwrap().to_owned());
            self.owed = None;
        }
        self.picture.take(told);
    }

    fn something_to_say(&mut self) -> (String, String, String) {
        if self.owed.is_none() {
            self.spoke += 1;
            let key = format!("client-{}-message-{}-key", self.number, self.spoke);
            let text = format!("message {} of client {}", self.spoke, self.number);
            self.owed = Some((key, text, any_model(&mut self.random)));
        }
        self.owed.clone().unwrap()
    }

    /// Some while over one socket; none if it was cut.
    async fn over_a_socket(&mut self, address: SocketAddr, ends: Option<Instant>) -> Option<()> {
        let mut socket = Socket::try_connect(address).await?;
        let place = self.picture.cursor.clone();
        let has: Vec<_> = place.iter().map(|place| ("cursor", place)).collect();
        socket.try_send(resume(&self.conversation, &has)).await?;
        self.until_pong(&mut socket).await?;
        let steps = self.random.usize(1..12);
        for _ in 0..steps {
            match (ends, self.random.u8(..20)) {
                (Some(_), 0..=3) => self.say_on(&mut socket).await?,
                (Some(_), 4) => {
                    self.cancels += 1;
                    let cancel = json!({"type": "cancel", "conversation_id": self.conversation});
                    socket.try_send(cancel).await?;
                }
                (Some(_), 5) => {
                    self.regenerates += 1;
                    let again = json!({"type": "regenerate", "model": any_model(&mut self.random),
                        "conversation_id": self.conversation});
                    socket.try_send(again).await?;
                }
                (None, _) if self.owed.is_some() => self.say_on(&mut socket).await?,
                _ => {}
            }
            tokio::time::sleep(breath(&mut self.random)).await;
            self.until_pong(&mut socket).await?;
        }
        Some(())
    }

    async fn say_on(&mut self, socket: &mut Socket) -> Option<()> {
        let (key, text, model) = self.something_to_say();
        let message = json!({"type": "message", "conversation_id": self.conversation,
            "message": text, "model": model, "client_message_id": key});
        socket.try_send(message).await
    }

    /// Reads what has come.
    async fn until_pong(&mut self, socket: &mut Socket) -> Option<()> {
        socket.try_send(json!({"type": "ping"})).await?;
        loop {
            let told = socket.next_or_close().await.ok()?;
            if told["type"] == "pong" {
                return Some(());
            }
            self.take(&told);
        }
    }

    /// Some while over one stream; none if it was cut.
    async fn over_a_stream(&mut self, address: SocketAddr, ends: Option<Instant>) -> Option<()> {
        let http = client();
        let url = format!("http://{address}/conversation/{}/events", self.conversation);
        let place = self.picture.cursor.clone();
        let last = place.as_ref().and_then(Value::as_str);
        let request = http
            .get(&url)
            .header("Last-Event-ID", last.unwrap_or_default());
        let response = within("an answer", request.send()).await.ok()?;
        let mut source = EventSource::of(response, last);
        let speaks = self.door == Door::Stream && self.random.u8(..3) == 0;
        if self.owed.is_some() || (ends.is_some() && speaks) {
            self.say_over_http(&http, address).await?;
        }
        let until = Instant::now() + Duration::from_millis(self.random.u64(20..600));
        while let Ok(told) = tokio::time::timeout_at(until.into(), source.next()).await {
            self.take(&told?);
        }
        Some(())
    }

    /// Sends what is owed; goes away before the answer is over.
    async fn say_over_http(&mut self, http: &reqwest::Client, address: SocketAddr) -> Option<()> {
        let (key, text, model) = self.something_to_say();
        let body = json!({"conversation_id": self.conversation, "model": model,
            "messages": [{"role": "user", "content": text}]});
        let request = http
            .post(format!("http://{address}/chat/stream"))
            .header("Idempotency-Key", key)
            .json(&body);
        let answer = within("an answer", request.send()).await.ok()?;
        if [429, 503].contains(&answer.status().as_u16()) {
            return Some(());
        }
        assert_eq!(answer.status(), 200);
        // What is told first: that the message is there.
        let start = Events::of(answer).next().await?;
        assert_eq!(start["type"], "conversation_start", "{start}");
        self.acknowledged
            .push(start["message_id"].as_str().unwrap().to_owned());
        self.owed = None;
        Some(())
    }
}

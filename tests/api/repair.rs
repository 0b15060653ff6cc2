//! What is done about an upstream that fails: asked again, another model asked, a reply that broke
//! off continued, a model left alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    faults::doors::Door,
    helpers::{Setup, TestApp, say, text_of, within},
};

mod after;
mod before;
mod many;
mod protection;

/// A turn as a client saw it.
#[derive(Debug)]
struct Seen {
    text: String,
    /// Where the reply was continued, as told; none at a door that shows nothing on the way.
    seams: Vec<Value>,
    /// The last thing told.
    end: Result<Value, Value>,
    status: u16,
}

impl Seen {
    #[track_caller]
    fn whole(&self) -> &Value {
        self.end
            .as_ref()
            .unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    fn error(&self) -> &Value {
        self.end.as_ref().expect_err("a failure")
    }

    fn finish_reason(&self) -> &str {
        let end = self.whole();
        let choice = &end["choices"][0]["finish_reason"];
        choice.as_str().or(end["finish_reason"].as_str()).unwrap()
    }
}

/// One turn of these models at this door; a socket cannot name more than one.
async fn turn(app: &TestApp, door: Door, conversation: &str, models: &[&str]) -> Seen {
    let mut body = say(conversation, "hello");
    body["model"] = models[0].into();
    if models.len() > 1 {
        body["models"] = models[1..].into();
    }
    let seen = async {
        match door {
            Door::Chat => chat(app, body).await,
            Door::Stream => stream(app, body).await,
            Door::Socket => socket(app, conversation, models[0]).await,
        }
    };
    within(&format!("the end of a turn of {models:?}"), Box::pin(seen)).await
}

async fn chat(app: &TestApp, body: Value) -> Seen {
    let response = app.post("/chat", body).await;
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = &body["choices"][0]["message"]["content"];
    Seen {
        text: text.as_str().unwrap_or_default().to_owned(),
        seams: Vec::new(),
        status,
        end: if status == 200 { Ok(body) } else { Err(body) },
    }
}

async fn stream(app: &TestApp, body: Value) -> Seen {
    let mut events = app.stream(body).await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event);
    }
    let raw = String::from_utf8(std::mem::take(&mut events.raw)).unwrap();
    let mut shown = 0;
    let mut seams = Vec::new();
    for line in raw.lines() {
        if let Some(seam) = line.strip_prefix(": seam ") {
            let seam: Value = serde_json::from_str(seam).unwrap();
            assert_eq!(seam["offset"], shown, "{raw}");
            seams.push(seam);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            shown += text_of(&[data]).len();
        }
    }
    let end = told.pop().unwrap();
    Seen {
        text: text_of(&told),
        seams,
        status: 200,
        end: match end["type"].as_str() {
            Some("done") => Ok(end),
            _ => Err(end),
        },
    }
}

async fn socket(app: &TestApp, conversation: &str, model: &str) -> Seen {
    let mut socket = app.socket().await;
    socket
        .send(json!({
            "type": "message", "conversation_id": conversation, "message": "hello", "model": model,
        }))
        .await;
    let (mut text, mut seams) = (String::new(), Vec::new());
    let end = loop {
        let message = socket.next().await;
        match message["type"].as_str().unwrap() {
            "chunk" => {
                assert_eq!(message["offset"], text.len(), "{message}");
                text += message["content"].as_str().unwrap();
            }
            "seam" => {
                assert_eq!(message["offset"], text.len(), "{message}");
                assert_eq!(message["conversation_id"], conversation, "{message}");
                seams.push(message);
            }
            "response_complete" => break Ok(message),
            "error" => break Err(message),
            _ => {}
        }
    };
    Seen {
        text,
        seams,
        end,
        status: 200,
    }
}

/// Models that have a turn at each door, so that their requests are counted apart.
fn keyed(options: &str, door: Door) -> String {
    format!("sim/{options},key={door:?}")
}

/// The models of the requests that the upstream received, with how often.
fn asked(app: &TestApp) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for request in app.simulator.chat_requests() {
        let body = request.json().unwrap();
        *asked
            .entry(body["model"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    asked
}

/// A silence is noticed after a second.
fn impatient() -> Setup {
    Setup::new()
        .set("OPENROUTER_SILENCE_TIMEOUT_SECS", "1")
        .set("OPENROUTER_FIRST_TOKEN_TIMEOUT_SECS", "1")
}

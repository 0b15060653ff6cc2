//! Speech over sockets: what is spoken when, and how a socket ends.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use idol_simulator::elevenlabs::{AudioFormat, voice_audio};
use idol_simulator::{Counters, Script, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::audio_client::decoded;
use crate::client::DEADLINE;

const SINGLE: &str = "stream-input?model_id=eleven_flash_v2_5&output_format=pcm_16000";
const MULTI: &str = "multi-stream-input?model_id=eleven_flash_v2_5&output_format=pcm_16000";
const BEGIN: &str = r#"{"text":" ","voice_settings":{"stability":0.5}}"#;
const END: &str = r#"{"text":""}"#;

/// A client's end of a socket.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// How a socket ended, after what it told.
#[derive(Debug, PartialEq, Eq)]
enum Closed {
    Code(u16, String),
    Broken,
}

impl Socket {
    async fn open(
        simulator: &Simulator,
        rest: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let base = simulator.elevenlabs_url().replace("http:", "ws:");
        let mut request = format!("{base}/text-to-speech/voice/{rest}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        Ok(Self(connect_async(request).await?.0))
    }

    async fn begin(simulator: &Simulator, rest: &str) -> Self {
        Self::open(simulator, rest, &[]).await.unwrap()
    }

    async fn tell(&mut self, messages: &[&str]) {
        for message in messages {
            self.0.send(Message::text(*message)).await.unwrap();
        }
    }

    /// The next message, or how the socket ended.
    async fn next(&mut self) -> Result<String, Closed> {
        let next = timeout(DEADLINE, self.0.next());
        match next.await.expect("the socket tells nothing") {
            Some(Ok(Message::Text(text))) => Ok(text.to_string()),
            Some(Ok(Message::Close(Some(frame)))) => {
                // Sends the answer to the close; the other end may be gone by then.
                drop(self.0.flush().await);
                Err(Closed::Code(frame.code.into(), frame.reason.to_string()))
            }
            Some(Ok(other)) => panic!("{other:?}"),
            None | Some(Err(_)) => Err(Closed::Broken),
        }
    }

    async fn frame(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap()).unwrap()
    }

    /// Reads so many characters of speech, and returns them and their audio.
    async fn hear(&mut self, characters: usize) -> (String, Vec<u8>) {
        let (mut text, mut audio) = (String::new(), Vec::new());
        while text.chars().count() < characters {
            let frame = self.frame().await;
            let alignment = &frame["alignment"];
            assert_eq!(frame["isFinal"], Value::Null);
            assert_eq!(
                alignment["charStartTimesMs"][0], 0,
                "times are of the frame"
            );
            let chars = alignment["chars"].as_array().unwrap();
            assert_eq!(
                alignment["charsDurationsMs"].as_array().unwrap().len(),
                chars.len()
            );
            let piece = decoded(&frame["audio"]);
            // 60 ms of 16-bit samples for each.
            assert_eq!(piece.len(), chars.len() * 60 * 16 * 2);
            text.extend(chars.iter().map(|one| one.as_str().unwrap()));
            audio.extend(piece);
        }
        (text, audio)
    }

    /// Reads to the end, and returns the messages and how it ended.
    async fn rest(&mut self) -> (Vec<Value>, Closed) {
        let mut told = Vec::new();
        loop {
            match self.next().await {
                Ok(text) => told.push(serde_json::from_str(&text).unwrap_or(json!(text))),
                Err(closed) => return (told, closed),
            }
        }
    }
}

fn audio(text: &str) -> Vec<u8> {
    voice_audio(text, AudioFormat::named("pcm_16000").unwrap())
}

async fn wait(simulator: &Simulator, condition: impl Fn(&Counters) -> bool) -> Counters {
    simulator.wait_for("it", condition, DEADLINE).await.unwrap()
}

#[tokio::test]
async fn text_is_spoken_when_it_is_flushed_and_at_the_end() {
    let simulator = Simulator::start().unwrap();
    let mut socket = Socket::begin(&simulator, SINGLE).await;
    let there = r#"{"text":"there. ","flush":true}"#;
    socket.tell(&[BEGIN, r#"{"text":"Hello "}"#, there]).await;
    let first = socket.hear(13).await;
    assert_eq!(first.0, "Hello there. ");
    socket
        .tell(&[r#"{"text":" "}"#, r#"{"text":"Grüße 東京"}"#, END])
        .await;
    let second = socket.hear(8).await;
    let whole = [first.1, second.1].concat();
    assert_eq!(whole, audio("Hello there. Grüße 東京"));
    let (told, closed) = socket.rest().await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["isFinal"], &told[0]["audio"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(closed, Closed::Code(1000, String::new()));
    let messages = simulator.elevenlabs().socket_messages();
    assert_eq!(messages.len(), 6);
    assert_eq!(
        (messages[1].socket, messages[1].json().unwrap()),
        (1, json!({"text": "Hello "}))
    );
    let counters = wait(&simulator, |counters| counters.open_speech_sockets == 0).await;
    assert_eq!(
        (counters.generations_completed, counters.speech_sockets),
        (2, 1)
    );
    assert_eq!(counters.client_disconnects, 0);
}

#[tokio::test]
async fn the_schedule_decides_when_nothing_else_does() {
    let simulator = Simulator::start().unwrap();
    let mut socket = Socket::begin(&simulator, SINGLE).await;
    let begin = r#"{"text":" ","generation_config":{"chunk_length_schedule":[50]}}"#;
    let half = json!({"text": "x".repeat(30)}).to_string();
    socket.tell(&[begin, &half]).await;
    wait(&simulator, |counters| counters.socket_messages == 2).await;
    socket.tell(&[&half]).await;
    assert_eq!(socket.hear(60).await.0, "x".repeat(60));
    let mut auto = Socket::begin(&simulator, &format!("{SINGLE}&auto_mode=true")).await;
    auto.tell(&[BEGIN, r#"{"text":"One. "}"#]).await;
    assert_eq!(auto.hear(5).await.0, "One. ");
}

#[tokio::test]
async fn contexts_are_spoken_and_ended_apart() {
    let simulator = Simulator::start().unwrap();
    let mut socket = Socket::begin(&simulator, MULTI).await;
    let begin = |id: &str| json!({"text": " ", "context_id": id}).to_string();
    let say =
        |id: &str, text: &str| json!({"text": text, "context_id": id, "flush": true}).to_string();
    let keep = |id: &str| json!({"text": "", "context_id": id}).to_string();
    let close = |id: &str| json!({"context_id": id, "close_context": true}).to_string();
    socket
        .tell(&[
            &begin("c1"),
            &say("c1", "First. "),
            &keep("c1"),
            &close("c1"),
        ])
        .await;
    assert_eq!(socket.hear(7).await, ("First. ".into(), audio("First. ")));
    assert_eq!(
        socket.frame().await,
        json!({"is_final": true, "contextId": "c1"})
    );
    socket.tell(&[&say("c2", "Second.")]).await;
    let frame = socket.frame().await;
    assert_eq!(
        (&frame["contextId"], &frame["isFinal"]),
        (&json!("c2"), &Value::Null)
    );
    socket.tell(&[r#"{"close_socket":true}"#]).await;
    let (told, closed) = socket.rest().await;
    assert_eq!(
        told,
        [json!({"audio": null, "isFinal": true, "contextId": "c2"})]
    );
    assert_eq!(closed, Closed::Code(1000, String::new()));

    let mut crowd = Socket::begin(&simulator, MULTI).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        crowd.tell(&[&begin(id)]).await;
    }
    assert_eq!(
        crowd.rest().await,
        (vec![], Closed::Code(1008, "Too many contexts".into()))
    );
}

#[tokio::test]
async fn a_breach_of_the_rules_is_told_and_closes() {
    let simulator = Simulator::start().unwrap();
    let mut typo = Socket::begin(&simulator, SINGLE).await;
    typo.tell(&[r#"{"txt":"typo"}"#]).await;
    let (told, closed) = typo.rest().await;
    let message = "Message could not be understood";
    assert_eq!(
        told,
        [json!({"message": message, "error": "invalid_input_message", "code": 1008})]
    );
    assert_eq!(closed, Closed::Code(1008, message.into()));

    simulator
        .elevenlabs()
        .set_input_timeout(Some(Duration::from_millis(20)));
    let mut silent = Socket::begin(&simulator, SINGLE).await;
    silent.tell(&[BEGIN]).await;
    let (told, closed) = silent.rest().await;
    assert_eq!(told[0]["error"], "input_timeout_exceeded");
    assert_eq!(
        closed,
        Closed::Code(1008, "No new text for 0 seconds".into())
    );

    simulator.elevenlabs().set_input_timeout(None);
    let mut old = Socket::begin(&simulator, "stream-input?model_id=eleven_v3").await;
    old.tell(&[BEGIN]).await;
    assert_eq!(old.rest().await.0[0]["error"], "unsupported_model");
}

#[tokio::test]
async fn the_key_is_asked_for_in_the_handshake_or_in_the_first_message() {
    let simulator = Simulator::start().unwrap();
    simulator.elevenlabs().require_key(Some("k"));
    let refused = Socket::open(&simulator, SINGLE, &[("xi-api-key", "x")]).await;
    let Err(Error::Http(answer)) = refused.map(|_| ()) else {
        panic!("a wrong key was taken");
    };
    assert_eq!(answer.status().as_u16(), 401);
    let mut known = Socket::open(&simulator, SINGLE, &[("xi-api-key", "k")])
        .await
        .unwrap();
    let mut told = Socket::begin(&simulator, SINGLE).await;
    told.tell(&[r#"{"text":" ","xi_api_key":"k"}"#]).await;
    for socket in [&mut known, &mut told] {
        socket.tell(&[r#"{"text":"Hi.","flush":true}"#]).await;
        assert_eq!(socket.hear(3).await.0, "Hi.");
    }
    let mut unknown = Socket::begin(&simulator, SINGLE).await;
    unknown.tell(&[BEGIN]).await;
    let (told, closed) = unknown.rest().await;
    assert_eq!(told[0]["error"], "invalid_api_key");
    assert_eq!(closed, Closed::Code(1008, "Invalid API key".into()));
    let tape = Socket::open(&simulator, "stream-input?output_format=wav_8000", &[]).await;
    assert!(matches!(tape.map(|_| ()), Err(Error::Http(answer)) if answer.status() == 422));
}

#[tokio::test]
async fn a_socket_ends_where_it_is_told() {
    let simulator = Simulator::start().unwrap();
    let quota =
        "This request exceeds your quota of 10000. You have 3 credits remaining, while 4 cr";
    for (fault, told, closed) in [
        ("reset", None, Closed::Broken),
        ("cut", None, Closed::Broken),
        ("end", None, Closed::Code(1000, String::new())),
        ("error:1011", None, Closed::Code(1011, String::new())),
        (
            "error:quota_exceeded",
            None,
            Closed::Code(1008, quota.into()),
        ),
        (
            "error:system_busy",
            Some("system_busy"),
            Closed::Code(1008, "system_busy".into()),
        ),
    ] {
        let script = format!("fault={fault},after=6");
        simulator.elevenlabs().script_socket(Script::from(&*script));
        let mut socket = Socket::begin(&simulator, SINGLE).await;
        socket
            .tell(&[
                BEGIN,
                r#"{"text":"One. ","flush":true}"#,
                r#"{"text":"Two.","flush":true}"#,
            ])
            .await;
        assert_eq!(socket.hear(6).await.0, "One. T", "{fault}");
        let (rest, end) = socket.rest().await;
        assert_eq!(
            rest.first().and_then(|frame| frame["error"].as_str()),
            told,
            "{fault}"
        );
        assert_eq!(end, closed, "{fault}");
    }
    for fault in ["garbage", "long_line:100000"] {
        simulator
            .elevenlabs()
            .script_socket(Script::from(&*format!("fault={fault},after=1")));
        let mut socket = Socket::begin(&simulator, SINGLE).await;
        socket.tell(&[r#"{"text":"Hi. "}"#, END]).await;
        assert_eq!(socket.hear(1).await.0, "H");
        let odd = socket.next().await.unwrap();
        assert!(odd.len() > 100_000 || serde_json::from_str::<Value>(&odd).is_err());
        assert_eq!(socket.hear(3).await.0, "i. ");
        assert_eq!(socket.rest().await.1, Closed::Code(1000, String::new()));
    }
    simulator
        .elevenlabs()
        .script_socket("fault=elevenlabs:system_busy");
    let busy = Socket::open(&simulator, SINGLE, &[]).await;
    assert!(matches!(busy.map(|_| ()), Err(Error::Http(answer)) if answer.status() == 429));
}

#[tokio::test]
async fn a_socket_waits_and_stalls_and_is_listened_to_meanwhile() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    let script = Script::from("fault=stall,after=5").hold_at(3, &gate);
    simulator.elevenlabs().script_socket(script);
    let mut socket = Socket::begin(&simulator, SINGLE).await;
    socket
        .tell(&[BEGIN, r#"{"text":"Hello.","flush":true}"#])
        .await;
    assert_eq!(socket.hear(3).await.0, "Hel");
    gate.reached(1, DEADLINE).await.unwrap();
    socket.tell(&[r#"{"text":"More. "}"#]).await;
    let counters = wait(&simulator, |counters| counters.socket_messages == 3).await;
    assert_eq!(counters.active_generations, 1);
    gate.open();
    assert_eq!(socket.hear(2).await.0, "lo");
    drop(socket);
    let counters = wait(&simulator, |counters| counters.open_speech_sockets == 0).await;
    assert_eq!(
        (counters.active_generations, counters.faults_played),
        (0, 1)
    );
}

#[tokio::test]
async fn a_client_may_close_in_order() {
    let simulator = Simulator::start().unwrap();
    let mut socket = Socket::begin(&simulator, MULTI).await;
    socket.tell(&[BEGIN]).await;
    socket.0.close(None).await.unwrap();
    let answer = timeout(DEADLINE, socket.0.next()).await.unwrap();
    assert!(
        matches!(answer, Some(Ok(Message::Close(None)))),
        "{answer:?}"
    );
    assert!(timeout(DEADLINE, socket.0.next()).await.unwrap().is_none());
    let counters = wait(&simulator, |counters| counters.open_speech_sockets == 0).await;
    assert_eq!(counters.client_disconnects, 0);
}

#[tokio::test]
async fn a_socket_counts_against_the_limit_only_while_it_speaks() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    simulator.elevenlabs().limit_generations(Some(1));
    simulator
        .elevenlabs()
        .script_socket(Script::new().hold_at(1, &gate));
    let mut first = Socket::begin(&simulator, SINGLE).await;
    let mut second = Socket::begin(&simulator, SINGLE).await;
    let mut third = Socket::begin(&simulator, SINGLE).await;
    first.tell(&[r#"{"text":"Hi.","flush":true}"#]).await;
    gate.reached(1, DEADLINE).await.unwrap();
    second.tell(&[r#"{"text":"Hi.","flush":true}"#]).await;
    let (told, closed) = second.rest().await;
    assert_eq!(told[0]["error"], "concurrent_limit_exceeded");
    assert_eq!(
        closed,
        Closed::Code(1008, "Concurrency limit reached".into())
    );
    gate.open();
    assert_eq!(first.hear(3).await.0, "Hi.");
    wait(&simulator, |counters| counters.active_generations == 0).await;
    third.tell(&[r#"{"text":"Hi.","flush":true}"#]).await;
    assert_eq!(third.hear(3).await.0, "Hi.");
    assert_eq!(simulator.counters().most_generations, 1);
}

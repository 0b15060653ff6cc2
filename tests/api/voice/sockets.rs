//! Replies that are spoken over `/ws/chat`.

use idol_simulator::{
    Route, Script,
    elevenlabs::{CHARACTER_MS, alignment},
};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::{MaybeTlsStream, client_async, tungstenite::Message};

use super::{audio_of, decoded};
use crate::helpers::{DEADLINE, Setup, Socket, TestApp, types, until, within};

/// A reply of four sentences.
pub(super) const REPLY: &str = "The morning came quietly over the river and nobody spoke. \
    We walked along the water until the sun was high. \
    Then somebody asked me whether we would ever go home again. \
    I said that I would rather stay for a while longer.";

/// Small enough for a test, and a millisecond is 16 bytes of it.
pub(super) const FORMAT: &str = "pcm_8000";

/// Bytes of a millisecond.
pub(super) const MS_BYTES: usize = 16;

/// A server that speaks and listens, whose replies are the simulator's default.
pub(super) async fn scripted() -> TestApp {
    let setup = Setup::new().voiced().set("DEFAULT_MODEL", "any");
    let app = setup.start().await;
    app.simulator.set_default(Script::new().text(REPLY));
    app
}

/// A message whose reply is to be spoken.
pub(super) fn aloud(conversation: &str, text: &str) -> Value {
    json!({
        "type": "message",
        "conversation_id": conversation,
        "message": text,
        "voice": {"format": FORMAT},
    })
}

/// A message whose reply is to be read.
pub(super) fn written(conversation: &str, text: &str) -> Value {
    json!({"type": "message", "conversation_id": conversation, "message": text})
}

/// A sentence as a client puts it together from what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) audio: Vec<u8>,
    pub(super) chars: String,
    pub(super) starts_ms: Vec<u64>,
    pub(super) durations_ms: Vec<u64>,
    /// The code of what went wrong with it.
    pub(super) error: Option<String>,
}

impl Sentence {
    /// A sentence as the simulator speaks it.
    pub(super) fn of(text: &str, format: &str) -> Self {
        let times = alignment(text);
        Self {
            text: text.to_owned(),
            audio: audio_of(text, format),
            chars: text.to_owned(),
            durations_ms: vec![CHARACTER_MS; times.starts_ms.len()],
            starts_ms: times.starts_ms,
            error: None,
        }
    }

    /// Fails unless it was told as the simulator spoke it, whole.
    pub(super) fn assert_whole(&self, format: &str) {
        assert_eq!(*self, Self::of(&self.text, format));
    }
}

/// The sentences that these messages tell, in order; fails where their numbers have a gap.
pub(super) fn sentences(messages: &[Value]) -> Vec<Sentence> {
    let told = messages.iter().filter(|message| {
        let kind = message["type"].as_str().unwrap();
        kind == "audio" || kind == "audio_error"
    });
    let mut sentences: Vec<Sentence> = Vec::new();
    for (sequence, message) in told.enumerate() {
        assert_eq!(message["sequence"], sequence, "{message}");
        let number = usize::try_from(message["sentence"].as_u64().unwrap()).unwrap();
        if number == sentences.len() {
            sentences.push(Sentence::default());
        }
        assert_eq!(number + 1, sentences.len(), "out of order: {message}");
        let sentence = &mut sentences[number];
        assert_eq!(sentence.error, None, "goes on behind its error: {message}");
        if message["type"] == "audio_error" {
            sentence.error = Some(message["code"].as_str().unwrap().to_owned());
            continue;
        }
        sentence.text = message["text"].as_str().unwrap().to_owned();
        sentence.audio.extend(decoded(&message["audio_base64"]));
        let Some(alignment) = message.get("alignment") else {
            continue;
        };
        let list = |name: &str| alignment[name].as_array().unwrap().clone();
        let numbers = |name| list(name).into_iter().map(|it| it.as_u64().unwrap());
        let chars = list("chars").into_iter();
        let chars = chars.map(|it| it.as_str().unwrap().to_owned());
        sentence.chars.extend(chars);
        sentence.starts_ms.extend(numbers("char_start_times_ms"));
        sentence.durations_ms.extend(numbers("char_durations_ms"));
    }
    sentences
}

/// The text of sentences, as if they had been said in one go.
pub(super) fn joined(sentences: &[Sentence]) -> String {
    let texts: Vec<_> = sentences.iter().map(|it| it.text.as_str()).collect();
    texts.join(" ")
}

/// Where a reply goes on behind its first so many sentences, in words.
pub(super) fn words_of(sentences: usize) -> usize {
    let ends = REPLY.split(' ').enumerate();
    let mut ends = ends.filter(|(_, word)| word.ends_with('.'));
    ends.nth(sentences - 1).unwrap().0 + 1
}

/// The words of the chunks among these messages.
fn content_of(messages: &[Value]) -> String {
    let chunks = messages.iter().filter(|it| it["type"] == "chunk");
    chunks.map(|it| it["content"].as_str().unwrap()).collect()
}

/// Fails unless these messages are a reply, and all of it spoken.
fn assert_spoken(messages: &[Value], reply: &str, format: &str) {
    let sentences = sentences(messages);
    for sentence in &sentences {
        sentence.assert_whole(format);
    }
    assert_eq!(joined(&sentences), reply);
    assert_eq!(content_of(messages), reply);
    let (last, others) = messages.split_last().unwrap();
    assert_eq!(last["type"], "audio_complete");
    assert!(!types(others).contains(&"audio_complete"));
    let spoken: usize = sentences.iter().map(|it| it.text.chars().count()).sum();
    assert_eq!(last["characters"], spoken);
    let turn = &messages[0]["turn_id"];
    for message in messages {
        assert_eq!(message["turn_id"], *turn, "{message}");
    }
}

#[tokio::test]
async fn a_reply_is_spoken_sentence_by_sentence_while_it_is_written() {
    let app = scripted().await;
    let gate = app.simulator.gate();
    // The next word tells that a sentence is over.
    app.simulator
        .script(Script::new().text(REPLY).hold_at(words_of(1) + 1, &gate));
    let mut socket = app.socket().await;

    socket.send(aloud("c1", "Tell me a story")).await;
    let mut messages = socket.until("audio").await;
    assert!(!types(&messages).contains(&"response_complete"));
    assert_eq!(app.simulator.counters().active_streams, 1);
    gate.open();
    messages.extend(socket.until("audio_complete").await);

    assert_spoken(&messages, REPLY, FORMAT);
    let last = messages.last().unwrap();
    let spoken = last["characters"].as_u64().unwrap();
    assert_eq!(last["duration_ms"], spoken * CHARACTER_MS);
    let places = [
        "message_received",
        "response_start",
        "audio",
        "response_complete",
    ]
    .map(|kind| types(&messages).iter().position(|it| *it == kind).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    let asked = app.simulator.requests_on(Route::Speech);
    let sentences = sentences(&messages);
    assert_eq!(asked.len(), sentences.len());
    for (asked, number) in asked.iter().zip(0..) {
        let told: Value = asked.json().unwrap();
        assert!(asked.target.contains("/stream/with-timestamps?"));
        assert!(asked.target.contains("output_format=pcm_8000"));
        let before: Option<usize> = sentences
            .iter()
            .position(|it| told["text"] == it.text)
            .unwrap()
            .checked_sub(1);
        let before = before.map_or(Value::Null, |before| json!(sentences[before].text));
        assert_eq!(told["previous_text"], before, "{number}");
    }
    assert_eq!(app.said("c1").await[1].1, REPLY);
}

#[tokio::test]
async fn the_voice_and_the_format_are_the_clients_to_choose() {
    let app = scripted().await;
    for (voice, path, model, format) in [
        (
            json!({}),
            "/text-to-speech/21m00Tcm4TlvDq8ikWAM/",
            "eleven_turbo_v2_5",
            "mp3_44100_128",
        ),
        (
            json!({"voice_id": "another", "model_id": "eleven_flash_v2_5", "format": "ulaw_8000"}),
            "/text-to-speech/another/",
            "eleven_flash_v2_5",
            "ulaw_8000",
        ),
    ] {
        app.simulator.take_requests();
        let mut socket = app.socket().await;
        let mut message = written("c1", "hi");
        message["voice"] = voice;
        socket.send(message).await;

        let messages = socket.until("audio_complete").await;

        assert_spoken(&messages, REPLY, format);
        let audio = messages.iter().filter(|it| it["type"] == "audio");
        audio.for_each(|it| assert_eq!(it["format"], format));
        for asked in app.simulator.requests_on(Route::Speech) {
            assert!(asked.path().contains(path), "{}", asked.path());
            assert!(asked.target.contains(format), "{}", asked.target);
            assert_eq!(asked.json().unwrap()["model_id"], model);
        }
    }
}

#[tokio::test]
async fn audio_comes_in_binary_frames_if_that_is_wanted() {
    let app = scripted().await;
    let mut socket = app.socket().await;
    let mut message = aloud("c1", "hi");
    message["voice"]["binary"] = json!(true);
    socket.send(message).await;

    let mut heads: Vec<(Value, Vec<u8>)> = Vec::new();
    let mut awaited = false;
    let complete = loop {
        let frame = within("a frame", futures::StreamExt::next(&mut socket.stream));
        match frame.await.unwrap().unwrap() {
            Message::Text(text) => {
                assert!(!awaited, "not right behind its head: {text}");
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str().unwrap() {
                    "audio" => {
                        awaited = true;
                        heads.push((message, Vec::new()));
                    }
                    "audio_complete" => break message,
                    _ => {}
                }
            }
            Message::Binary(frame) => {
                assert!(awaited, "without a head");
                awaited = false;
                let (head, audio) = heads.last_mut().unwrap();
                let turn = uuid::Uuid::parse_str(head["turn_id"].as_str().unwrap()).unwrap();
                assert_eq!(frame[..16], *turn.as_bytes());
                let sequence = u32::from_be_bytes(frame[16..20].try_into().unwrap());
                assert_eq!(head["sequence"], sequence);
                *audio = frame[20..].to_vec();
                assert_eq!(head["audio_size_bytes"], audio.len());
                assert!(head.get("audio_base64").is_none());
            }
            _ => {}
        }
    };

    assert_eq!(complete["turn_id"], heads[0].0["turn_id"]);
    let texts: Vec<_> = heads.iter().map(|(head, _)| &head["text"]).collect();
    let mut told = texts.clone();
    told.dedup();
    let expected = told
        .iter()
        .flat_map(|it| audio_of(it.as_str().unwrap(), FORMAT));
    let audio: Vec<u8> = heads.iter().flat_map(|(_, audio)| audio.clone()).collect();
    assert_eq!(audio, expected.collect::<Vec<u8>>());
}

#[tokio::test]
async fn who_asks_for_no_voice_hears_none() {
    let app = scripted().await;
    let mut socket = app.socket().await;
    for message in [written("c1", "hi"), {
        let mut message = written("c1", "hi");
        message["voice"] = Value::Null;
        message
    }] {
        socket.send(message).await;
        let messages = socket.until("response_complete").await;
        assert_eq!(content_of(&messages), REPLY);
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(socket.next().await["type"], "pong");
    }
    assert!(app.simulator.requests_on(Route::Speech).is_empty());
}

#[tokio::test]
async fn a_first_message_and_a_reply_made_again_are_spoken_too() {
    let app = scripted().await;
    app.simulator.script(Script::new().text(REPLY));
    let again = "This is another reply. It is not the same as before.";
    app.simulator.script(Script::new().text(again));
    let mut socket = app.socket().await;
    socket
        .send(json!({
            "type": "start_conversation", "conversation_id": "c1", "character_id": "character",
            "message": "hi", "voice": {"format": FORMAT},
        }))
        .await;
    assert_eq!(socket.next().await["type"], "conversation_started");
    assert_spoken(&socket.until("audio_complete").await, REPLY, FORMAT);

    socket
        .send(json!({"type": "regenerate", "conversation_id": "c1", "voice": {"format": FORMAT}}))
        .await;

    let mut messages = socket.until("audio_complete").await;
    // Of the reply before, which the client has not played.
    if messages[0]["type"] == "audio_stop" {
        messages.remove(0);
    }
    messages.retain(|it| it["type"] != "history_truncated");
    assert_spoken(&messages, again, FORMAT);
    assert_eq!(app.said("c1").await[1].1, again);
}

#[tokio::test]
async fn a_bad_voice_is_named_and_nothing_is_asked() {
    let app = scripted().await;
    let mut socket = app.socket().await;
    for (voice, name) in [
        (json!("loud"), "voice"),
        (json!({"voice_id": "../x"}), "voice_id"),
        (json!({"model_id": "a/b"}), "model_id"),
        (json!({"format": "mp3"}), "format"),
        (json!({"format": "wav_44100"}), "format"),
        (json!({"stability": 2}), "stability"),
        (json!({"binary": "perhaps"}), "binary"),
    ] {
        let mut message = written("c1", "hi");
        message["voice"] = voice.clone();
        socket.send(message).await;

        let error = socket.next().await;

        assert_eq!(error["type"], "error", "{voice}: {error}");
        assert_eq!(error["code"], "invalid_request", "{voice}: {error}");
        let sentence = error["error"].as_str().unwrap();
        assert!(sentence.contains(name), "{voice}: {error}");
    }
    assert!(app.simulator.chat_requests().is_empty());
}

#[tokio::test]
async fn without_a_speech_provider_the_text_goes_on() {
    let app = TestApp::start().await;
    app.simulator.script(Script::new().text(REPLY));
    let mut socket = app.socket().await;

    socket.send(aloud("c1", "hi")).await;

    let messages = socket.until("response_complete").await;
    assert_eq!(content_of(&messages), REPLY);
    let told: Vec<_> = types(&messages)
        .into_iter()
        .filter(|kind| kind.starts_with("audio"))
        .collect();
    assert_eq!(told, ["audio_error", "audio_complete"]);
    let error = messages.iter().find(|it| it["type"] == "audio_error");
    let error = error.unwrap();
    assert_eq!(error["code"], "provider_not_configured");
    assert_eq!(error["turn_id"], messages.last().unwrap()["turn_id"]);
}

#[tokio::test]
async fn only_who_asked_hears() {
    let app = scripted().await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = app.socket().await;
        socket
            .send(json!({
                "type": "start_conversation", "conversation_id": "c1",
                "character_id": "character", "watch": true,
            }))
            .await;
        assert_eq!(socket.next().await["type"], "conversation_started");
        sockets.push(socket);
    }

    sockets[0].send(aloud("c1", "hi")).await;

    let spoken = sockets[0].until("audio_complete").await;
    assert_spoken(&spoken, REPLY, FORMAT);
    let seen = sockets[1].until("response_complete").await;
    assert_eq!(content_of(&seen), REPLY);
    sockets[1].send(json!({"type": "ping"})).await;
    assert_eq!(sockets[1].next().await["type"], "pong");
    assert!(types(&seen).iter().all(|kind| !kind.starts_with("audio")));
}

/// A socket whose client has hardly any room for what it does not read.
async fn narrow(app: &TestApp) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = within("a connection", socket.connect(app.address)).await;
    let url = format!("ws://{}/ws/chat", app.address);
    let upgrade = client_async(url, MaybeTlsStream::Plain(stream.unwrap()));
    let (stream, _) = within("the upgrade", upgrade).await.unwrap();
    Socket { stream }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_synthesis() {
    const SENTENCES: usize = 60;
    // 96 kB for a second: some 1.3 MB for a sentence as base64.
    const LOUD: &str = "pcm_48000";
    let app = scripted().await;
    let reply: Vec<_> = (0..SENTENCES)
        .map(|number| {
            let words = "and so it goes on and on ".repeat(7);
            format!(
                "This is the long sentence of number {number} {}.",
                words.trim()
            )
        })
        .collect();
    let reply = reply.join(" ");
    app.simulator.script(Script::new().text(&reply));
    let mut socket = narrow(&app).await;
    let mut message = aloud("c1", "hi");
    message["voice"]["format"] = json!(LOUD);
    socket.send(message).await;

    // It has come to rest once no more is asked for at many looks in a row.
    let (mut asked, mut looks) = (0, 0);
    until("the synthesis to rest", async || {
        let counters = app.simulator.counters();
        let now = counters.speech_requests;
        looks = if now == asked && now > 0 {
            looks + 1
        } else {
            0
        };
        asked = now;
        (looks > 100).then_some(())
    })
    .await;
    assert!(asked < SENTENCES as u64 / 2, "{asked} were asked for");

    let messages = socket.until("audio_complete").await;
    assert_spoken(&messages, &reply, LOUD);
    assert!(app.simulator.counters().most_generations <= 3);
}

#[tokio::test]
async fn a_socket_that_closes_ends_the_synthesis_and_not_the_turn() {
    let app = scripted().await;
    let (written_on, spoken_on) = (app.simulator.gate(), app.simulator.gate());
    let script = Script::new().text(REPLY);
    app.simulator
        .script(script.hold_at(words_of(1) + 1, &written_on));
    app.simulator
        .elevenlabs()
        .script(Script::new().hold_at(0, &spoken_on));
    let mut socket = app.socket().await;
    socket.send(aloud("c1", "hi")).await;
    spoken_on.reached(1, DEADLINE).await.unwrap();

    drop(socket);

    let silent = app.simulator.wait_for(
        "the end of the synthesis",
        |counters| counters.active_generations == 0,
        DEADLINE,
    );
    silent.await.unwrap();
    assert_eq!(app.simulator.counters().active_streams, 1);
    written_on.open();
    until("the whole reply", async || {
        let said = app.said("c1").await;
        (said.get(1)?.1 == REPLY).then_some(())
    })
    .await;
    assert_eq!(app.simulator.counters().speech_requests, 1);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_server_that_stops_tells_a_spoken_reply_to_its_end() {
    let app = Setup::new()
        .voiced()
        .set("SHUTDOWN_GRACE_SECS", "20")
        .start()
        .await;
    let gate = app.simulator.gate();
    app.simulator.script(Script::new().text(REPLY));
    app.simulator
        .elevenlabs()
        .script(Script::new().hold_at(4, &gate));
    let mut socket = app.socket().await;
    socket.send(aloud("c1", "hi")).await;
    gate.reached(1, DEADLINE).await.unwrap();
    let mut messages = socket.until("response_complete").await;

    let stopping = tokio::spawn(app.stop());
    gate.open();
    messages.extend(socket.until("audio_complete").await);

    assert_spoken(&messages, REPLY, FORMAT);
    stopping.await.unwrap();
}

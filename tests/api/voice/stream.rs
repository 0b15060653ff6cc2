//! `POST /tts/stream`: a reply spoken while it is written.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use idol_simulator::{Counters, Route, Script};
use serde_json::{Value, json};

use super::{audio_of, voiced};
use crate::helpers::{DEADLINE, Setup, TestApp, refused, say, until, within};

/// Three sentences of six words.
const SENTENCES: [&str; 3] = [
    "The first sentence is here now.",
    "The second one follows it soon.",
    "And the third one ends everything.",
];

fn reply() -> Script {
    Script::new().text(&SENTENCES.join(" "))
}

/// What the voice was asked to say since this was asked last, in the order of the reply. How a reply
/// is cut depends on when its text comes.
fn asked(app: &TestApp) -> Vec<String> {
    let requests = app.simulator.take_requests();
    let texts = requests
        .iter()
        .filter(|request| request.path().contains("/text-to-speech/"))
        .map(|request| request.json().unwrap()["text"].as_str().unwrap().to_owned());
    let mut texts: Vec<_> = texts.collect();
    let reply = SENTENCES.join(" ");
    texts.sort_by_key(|text| reply.find(text));
    texts
}

/// These texts, spoken one behind the other.
fn spoken(texts: &[String], format: &str) -> Vec<u8> {
    let audio = texts.iter().map(|text| audio_of(text, format));
    audio.collect::<Vec<_>>().concat()
}

/// Audio as it comes.
struct Audio(Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>);

impl Audio {
    fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        Self(Box::pin(response.bytes_stream()))
    }

    /// Its beginning.
    async fn first(&mut self) -> Vec<u8> {
        let piece = within("the first sound", self.0.next()).await;
        let piece = piece.unwrap().unwrap();
        assert!(!piece.is_empty());
        piece.into()
    }

    /// The rest, and whether it came to its end.
    async fn rest(mut self) -> (Vec<u8>, reqwest::Result<()>) {
        let mut audio = Vec::new();
        loop {
            match within("the end of the audio", self.0.next()).await {
                Some(Ok(piece)) => audio.extend_from_slice(&piece),
                Some(Err(error)) => return (audio, Err(error)),
                None => return (audio, Ok(())),
            }
        }
    }
}

#[tokio::test]
async fn the_first_sentence_is_heard_before_the_second_is_written() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator.script(reply().hold_at(6, &gate));

    let response = app.post("/tts/stream", say("c1", "hi")).await;
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "audio/mpeg");
    assert_eq!(headers["x-conversation-id"], "c1");
    assert_eq!(headers["cache-control"], "no-cache");
    let mut audio = Audio::of(response);
    let mut heard = audio.first().await;
    let mut texts = asked(&app);
    assert!(SENTENCES[0].starts_with(&texts[0]), "{texts:?}");
    assert_eq!(gate.arrived(), 1);
    assert_eq!(app.simulator.counters().streams_completed, 0);

    gate.open();
    let (rest, end) = audio.rest().await;
    end.unwrap();
    heard.extend(rest);
    texts.extend(asked(&app));
    assert_eq!(texts.join(" "), SENTENCES.join(" "));
    assert_eq!(heard, spoken(&texts, "mp3_44100_128"));
    let document = app.document("c1").await;
    let reply = &document["messages"][1];
    assert_eq!(reply["content"], SENTENCES.join(" "));
    assert_eq!(headers["x-message-id"], reply["id"].as_str().unwrap());
    assert_eq!(headers["x-turn-id"], reply["turn_id"].as_str().unwrap());
    app.assert_nothing_left().await;
}

/// Cancels a conversation's turns.
async fn cancel(app: &TestApp) {
    let cancelled = app.post("/conversation/c1/cancel", json!({})).await;
    assert_eq!(cancelled.status(), 200);
}

#[tokio::test]
async fn whoever_cancels_ends_the_audio_where_it_is() {
    let app = voiced().await;
    // While it is written, and when it is written to its end.
    for amid in [true, false] {
        let (text, voice) = (app.simulator.gate(), app.simulator.gate());
        let script = if amid {
            reply().hold_at(9, &text)
        } else {
            reply()
        };
        app.simulator.script(script);
        app.simulator
            .elevenlabs()
            .set_default(Script::new().hold_at(3, &voice));
        let answer = app.post("/tts/stream", say("c1", "hi")).await;
        let mut audio = Audio::of(answer);
        audio.first().await;
        if amid {
            text.reached(1, DEADLINE).await.unwrap();
        } else {
            until("the whole text", async || {
                let said = app.said("c1").await;
                (said.last()?.1 == SENTENCES.join(" ")).then_some(())
            })
            .await;
        }

        cancel(&app).await;

        // No gate was opened.
        let (_, end) = audio.rest().await;
        end.unwrap();
        let closed =
            |counters: &Counters| counters.active_generations == 0 && counters.active_streams == 0;
        let closed = app
            .simulator
            .wait_for("the end of both upstream calls", closed, DEADLINE);
        closed.await.unwrap();
        let requests = app.simulator.counters().speech_requests;
        voice.open();
        app.chat("c1", "and then?").await;
        assert_eq!(app.simulator.counters().speech_requests, requests);
    }
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn a_reply_that_was_cancelled_is_spoken_again_as_far_as_it_came() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator.script(reply().hold_at(12, &gate));
    let ask = async || {
        let request = app.http.post(app.url("/tts/stream"));
        let request = request.header("Idempotency-Key", "the-key-of-this-request");
        let sent = request.json(&say("c1", "hi")).send();
        Audio::of(within("an answer", sent).await.unwrap())
    };
    let mut audio = ask().await;
    audio.first().await;
    gate.reached(1, DEADLINE).await.unwrap();
    cancel(&app).await;
    audio.rest().await.1.unwrap();
    let kept = until("the reply as it is kept", async || {
        let (role, text) = app.said("c1").await.pop()?;
        (role == "assistant").then_some(text)
    })
    .await;
    asked(&app);

    let (again, end) = ask().await.rest().await;

    end.unwrap();
    let texts = asked(&app);
    assert_eq!(texts.join(" "), kept.trim_end());
    assert_eq!(again, spoken(&texts, "mp3_44100_128"));
}

#[tokio::test]
async fn the_format_may_be_chosen_and_wav_may_not() {
    let app = voiced().await;
    for (format, media) in [
        ("mp3_22050_32", "audio/mpeg"),
        ("pcm_16000", "audio/pcm;rate=16000"),
        ("ulaw_8000", "audio/basic"),
    ] {
        app.simulator.script(reply());
        let mut body = say("c1", "hi");
        body["output_format"] = json!(format);
        let response = app.post("/tts/stream", body).await;
        assert_eq!(response.headers()["content-type"], media);
        let (audio, end) = Audio::of(response).rest().await;
        end.unwrap();
        assert_eq!(audio, spoken(&asked(&app), format), "{format}");
    }
    let mut body = say("c2", "hi");
    body["output_format"] = json!("wav_16000");
    let response = app.post("/tts/stream", body).await;
    let error = refused(response, 422, "invalid_request").await;
    assert_eq!(error["detail"][0]["loc"], json!(["body", "output_format"]));
    assert_eq!(app.get("/conversation/c2").await.status(), 404);
}

/// A server that shows what its upstreams do wrong.
async fn shown() -> TestApp {
    let setup = Setup::new().voiced().asking_once();
    let setup = setup.set("MIDSTREAM_REPAIR", "off");
    setup.set("ELEVENLABS_ATTEMPTS", "1").start().await
}

#[tokio::test]
async fn what_fails_before_the_first_sound_has_a_status() {
    let app = shown().await;
    for (fault, status, code) in [
        ("elevenlabs:invalid_api_key", 502, "upstream_auth"),
        ("elevenlabs:quota_exceeded", 503, "upstream_credits"),
        ("elevenlabs:voice_not_found", 400, "upstream_rejected"),
        ("elevenlabs:system_busy", 429, "upstream_rate_limited"),
        ("reset_early", 502, "upstream_failed"),
        ("html:200", 502, "upstream_failed"),
    ] {
        app.simulator.script(reply());
        let fault = format!("fault={fault}");
        app.simulator.elevenlabs().set_default(&*fault);
        let response = app.post("/tts/stream", say("c1", "hi")).await;
        let error = refused(response, status, code).await;
        assert_eq!(error["conversation_id"], "c1", "{fault}");
    }
    // The replies are written all the same.
    until("the replies in the document", async || {
        let said = app.said("c1").await;
        let replies = said.iter().filter(|(_, text)| *text == SENTENCES.join(" "));
        (replies.count() == 6).then_some(())
    })
    .await;

    app.simulator.elevenlabs().set_default("");
    app.simulator.script("fault=status:401");
    let response = app.post("/tts/stream", say("c2", "hi")).await;
    refused(response, 502, "upstream_auth").await;

    let silent = TestApp::start().await;
    let response = silent.post("/tts/stream", say("c1", "hi")).await;
    refused(response, 503, "provider_not_configured").await;
    assert!(silent.simulator.chat_requests().is_empty());
}

#[tokio::test]
async fn what_fails_behind_it_breaks_the_audio_off() {
    let app = shown().await;
    for fault in ["elevenlabs:quota_exceeded", "reset_early", "cut,after=4"] {
        let gate = app.simulator.gate();
        app.simulator.script(reply().hold_at(6, &gate));
        app.simulator.elevenlabs().set_default("");
        let response = app.post("/tts/stream", say("c1", "hi")).await;
        let mut audio = Audio::of(response);
        let mut heard = audio.first().await;

        let script = format!("fault={fault}");
        app.simulator.elevenlabs().set_default(&*script);
        gate.open();

        let (rest, end) = audio.rest().await;
        assert!(end.is_err(), "{fault}");
        heard.extend(rest);
        let whole = spoken(&asked(&app), "mp3_44100_128");
        assert!(whole.starts_with(&heard), "{fault}");
        assert!(heard.len() < whole.len(), "{fault}");
    }
    // The writing breaks off.
    let gate = app.simulator.gate();
    let script = reply().with("fault=reset,after=8").hold_at(6, &gate);
    app.simulator.script(script);
    app.simulator.elevenlabs().set_default("");
    let mut audio = Audio::of(app.post("/tts/stream", say("c2", "hi")).await);
    audio.first().await;
    gate.open();
    assert!(audio.rest().await.1.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_silences_the_voice_and_not_the_turn() {
    let app = voiced().await;
    let writing = app.simulator.gate();
    app.simulator.script(reply().hold_at(6, &writing));
    // Half a minute of it.
    let slow = "batch=1,gap=1s";
    app.simulator.elevenlabs().script(slow);
    let mut audio = Audio::of(app.post("/tts/stream", say("c1", "hi")).await);
    audio.first().await;

    drop(audio);

    let silent = |counters: &Counters| counters.active_generations == 0;
    let ended = app.simulator.wait_for("silence", silent, DEADLINE);
    ended.await.unwrap();
    assert_eq!(app.simulator.counters().generations_completed, 0);
    writing.open();
    until("the reply in the document", async || {
        let said = app.said("c1").await;
        said.get(1)
            .is_some_and(|(_, text)| *text == SENTENCES.join(" "))
            .then_some(())
    })
    .await;
    assert_eq!(app.simulator.requests_on(Route::Speech).len(), 1);
    let reply = &app.document("c1").await["messages"][1];
    assert_eq!(reply["finish_reason"], Value::from("stop"));
    app.assert_nothing_left().await;
}

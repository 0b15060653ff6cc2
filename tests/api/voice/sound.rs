//! Real sound, as microphones' programs make it: what reaches the upstream is what was sent, told as
//! what it is.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use idol_simulator::whisper::transcript;

use super::{
    listening::{audio_end, audio_start, say_aloud},
    sockets::{aloud, sentences},
    transcribe::{file, upload},
    voiced,
};
use crate::helpers::within;

/// What a program writes that reads this.
async fn run(program: &str, arguments: &[&str], input: Vec<u8>) -> Vec<u8> {
    let started = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut process = started
        .unwrap_or_else(|error| panic!("{program}: {error}: `make sound` installs it from Debian"));
    let mut stdin = process.stdin.take().unwrap();
    let feed = async move { stdin.write_all(&input).await };
    let ended = async { tokio::join!(feed, process.wait_with_output()) };
    let (fed, output) = within(program, ended).await;
    let output = output.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaint}");
    fed.unwrap();
    output.stdout
}

/// A spoken sentence as WAV.
async fn wav() -> Vec<u8> {
    let sentence = "Good evening. I would like to talk about sushi.";
    run("espeak-ng", &["--stdout", sentence], Vec::new()).await
}

/// The same in a container and a code.
async fn coded(wav: &[u8], container: &str, codec: &str) -> Vec<u8> {
    let arguments = ["-loglevel", "error", "-i", "pipe:0", "-codec:a", codec];
    let arguments = [&arguments[..], &["-f", container, "pipe:1"]].concat();
    run("ffmpeg", &arguments, wav.to_vec()).await
}

#[tokio::test]
async fn sound_that_is_said_over_a_socket_is_what_it_was() {
    let app = voiced().await;
    let wav = wav().await;
    let mp3 = coded(&wav, "mp3", "libmp3lame").await;
    let webm = coded(&wav, "webm", "libopus").await;
    let mut socket = app.socket().await;
    for (sound, format, name, media) in [
        (&wav, "audio/wav", "audio.wav", "audio/wav"),
        (&mp3, "mp3", "audio.mp3", "audio/mpeg"),
        (&webm, "audio/webm;codecs=opus", "audio.webm", "audio/webm"),
    ] {
        let mut start = audio_start("c1");
        start["format"] = format.into();
        socket.send(start).await;
        say_aloud(&mut socket, sound).await;
        socket.send(audio_end()).await;
        let heard = socket.until("response_complete").await;
        assert_eq!(heard[0]["text"], transcript(sound.len()));
        let uploads = app.simulator.whisper().uploads();
        let sent = uploads.last().unwrap();
        assert!(sent.file == *sound, "{format}");
        assert_eq!(sent.file_name.as_deref(), Some(name));
        assert_eq!(sent.content_type.as_deref(), Some(media));
    }
}

#[tokio::test]
async fn a_text_without_a_word_is_answered_without_audio() {
    let app = crate::observability::without_upstream().start().await;
    for format in ["mp3", "pcm"] {
        let body = json!({"input": "😀", "voice": "nova", "response_format": format});
        let answer = app.post("/v1/audio/speech", body).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.unwrap().is_empty(), "{format}");
    }
    let body = json!({"input": "😀", "voice": "nova", "stream_format": "sse"});
    let events = app.post("/v1/audio/speech", body).await.text().await;
    let events = events.unwrap();
    assert!(events.contains("speech.audio.done"), "{events}");
    assert!(!events.contains("speech.audio.delta"), "{events}");
}

#[tokio::test]
async fn the_demo_speaks() {
    let app = crate::observability::without_upstream().start().await;
    let mut socket = app.socket().await;
    let mut message = aloud("c1", "My name is Alice.");
    message["voice"]["format"] = "pcm_16000".into();
    socket.send(message).await;
    let messages = socket.until("audio_complete").await;
    let text = crate::helpers::content_of(&messages);
    assert!(sentences(&messages).iter().all(|it| it.error.is_none()));
    let complete = messages.last().unwrap();
    assert!(!text.is_empty() && complete["duration_ms"].as_u64() > Some(500));
    // It says what it is.
    assert_eq!(complete["model"], "embedded/tones");

    let mut body = crate::helpers::say("c1", "What is my name?");
    body["model_id"] = "eleven_v3".into();
    let response = app.post("/tts?download=true", body).await;
    assert_eq!(response.headers()["x-speech-model"], "embedded/tones");
    assert_eq!(response.headers()["content-type"], "audio/mpeg");
    let audio = response.bytes().await.unwrap();
    assert!(audio.len() > 8_000 && audio[0] == 0xFF, "{}", audio.len());
    // A decoder that knows nothing of us finds sound in it.
    let decoded = run(
        "ffmpeg",
        &[
            "-loglevel",
            "error",
            "-i",
            "pipe:0",
            "-f",
            "s16le",
            "pipe:1",
        ],
        audio.to_vec(),
    );
    let decoded = decoded.await;
    let samples = decoded
        .chunks_exact(2)
        .map(|it| i16::from_le_bytes([it[0], it[1]]));
    assert!(samples.map(i16::unsigned_abs).max().unwrap() > 1_000);
    assert!(app.simulator.requests().is_empty(), "the demo is offline");
}

#[tokio::test]
async fn sound_reaches_the_upstream_as_it_is_and_told_as_what_it_is() {
    let app = voiced().await;
    let wav = wav().await;
    let mp3 = coded(&wav, "mp3", "libmp3lame").await;
    let webm = coded(&wav, "webm", "libopus").await;
    let ogg = coded(&wav, "ogg", "libopus").await;
    for path in ["/transcribe", "/v1/audio/transcriptions"] {
        for (sound, ending, media, sniffed) in [
            (&wav, "wav", "audio/wav", "audio/x-wav"),
            (&mp3, "mp3", "audio/mpeg", "audio/mpeg"),
            (&webm, "webm", "audio/webm;codecs=opus", "audio/webm"),
            (&ogg, "ogg", "audio/ogg;codecs=opus", "audio/ogg"),
        ] {
            assert!(sound.len() > 10_000, "{ending}: {} bytes", sound.len());
            let whole = format!("speech.{ending}");
            for (name, given, told_name, told) in [
                (&*whole, media, &*whole, media),
                (&whole, "", &whole, sniffed),
                ("blob", media, &format!("blob.{ending}"), media),
                ("", "", &format!("audio.{ending}"), sniffed),
            ] {
                let form = file(sound.clone(), name, given);
                let response = upload(&app, path, form).await;
                let status = response.status();
                let answer: Value = response.json().await.unwrap();
                assert_eq!(status, 200, "{path} {ending}: {answer}");
                let text = answer["text"].as_str().unwrap();
                assert!(text.contains(&sound.len().to_string()), "{text}");
                let uploads = app.simulator.whisper().uploads();
                let sent = uploads.last().unwrap();
                assert!(sent.file == *sound, "{path} {name:?} {given:?}");
                assert_eq!(sent.file_name.as_deref(), Some(told_name));
                assert_eq!(sent.content_type.as_deref(), Some(told), "{name:?}");
            }
        }
    }
}

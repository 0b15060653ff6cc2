//! Real sound, as microphones' programs make it: what reaches the upstream is what was sent, told as
//! what it is.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{
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

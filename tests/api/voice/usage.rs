//! What is spoken and heard is counted for its conversation, for good.

use serde_json::{Value, json};

use super::{
    listening::{audio_end, audio_start, say_aloud},
    sockets::{REPLY, aloud, scripted},
    transcribe::{file, upload},
};
use crate::helpers::{Setup, TestApp, until};

/// What a document says, once it says this many characters.
async fn counted(app: &TestApp, conversation: &str, characters: u64) -> Value {
    until("the characters to be counted", async || {
        let document = app.document(conversation).await;
        let usage = document.get("voice_usage")?.clone();
        (usage["characters_spoken"] == characters).then_some(usage)
    })
    .await
}

/// Characters of a reply that are asked for: spaces between sentences are not.
fn spoken(text: &str) -> u64 {
    let ends = text.matches(". ").count();
    (text.chars().count() - ends) as u64
}

/// Two seconds of silence as a WAV file.
fn two_seconds() -> Vec<u8> {
    let samples = 2 * 8_000 * 2_u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + samples).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1, 0, 1, 0]);
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(samples.to_le_bytes());
    wav.resize(44 + samples as usize, 0);
    wav
}

#[tokio::test]
async fn a_conversation_tells_what_was_spoken_and_heard_in_it_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || {
        let setup = Setup::new().voiced().set("DEFAULT_MODEL", "any");
        setup.data_dir(dir.path())
    };
    let app = setup().start().await;
    app.simulator
        .set_default(idol_simulator::Script::new().text(REPLY));
    app.chat("c0", "hi").await;
    let mut socket = app.socket().await;
    socket.send(aloud("c1", "hi")).await;
    socket.until("audio_complete").await;
    let first = spoken(REPLY);
    assert_eq!(
        counted(&app, "c1", first).await,
        json!({"characters_spoken": first})
    );

    // What is heard before there is a conversation is counted with its first message.
    socket.send(audio_start("c2")).await;
    say_aloud(&mut socket, &two_seconds()).await;
    socket.send(audio_end()).await;
    socket.until("response_complete").await;
    let usage = app.document("c2").await["voice_usage"].clone();
    assert_eq!(usage, json!({"seconds_heard": 2.0}));

    let form = file(two_seconds(), "a.wav", "audio/wav").text("conversation_id", "c1");
    let heard: Value = upload(&app, "/transcribe", form)
        .await
        .json()
        .await
        .unwrap();
    let both = first + heard["text"].as_str().unwrap().chars().count() as u64;
    let usage = counted(&app, "c1", both).await;
    assert_eq!(
        usage,
        json!({"characters_spoken": both, "seconds_heard": 2.0})
    );
    let response = app
        .post("/tts", crate::helpers::say("c1", "and then?"))
        .await;
    assert_eq!(response.status(), 200);
    let all = both + REPLY.chars().count() as u64;
    let usage = counted(&app, "c1", all).await;
    assert_eq!(app.document("c0").await.get("voice_usage"), None);

    // Its file says the same, and so does a server that has only that.
    let path = app.data_dir().join("conversations/c1.json");
    until("the file to say it", async || {
        let file: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        (file["voice_usage"] == usage).then_some(())
    })
    .await;
    drop(socket);
    app.stop().await;
    let app = setup().start().await;
    assert_eq!(app.document("c1").await["voice_usage"], usage);

    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("conversations")).unwrap();
    std::fs::copy(&path, other.path().join("conversations/c1.json")).unwrap();
    let app = Setup::new().data_dir(other.path()).start().await;
    assert_eq!(app.document("c1").await["voice_usage"], usage);
}

#[tokio::test]
async fn a_reply_that_is_cut_short_is_counted_as_far_as_it_was_spoken() {
    let app = scripted().await;
    let mut socket = app.socket().await;
    let gate = app.simulator.gate();
    let script = idol_simulator::Script::new().text(REPLY);
    app.simulator
        .script(script.hold_at(super::sockets::words_of(1) + 1, &gate));
    socket.send(aloud("c1", "hi")).await;
    let first = loop {
        let message = socket.next().await;
        if message["type"] == "audio" {
            break message["text"].as_str().unwrap().chars().count() as u64;
        }
    };
    let completed = app.simulator.wait_for(
        "the sentence",
        |counters| counters.generations_completed >= 1,
        crate::helpers::DEADLINE,
    );
    completed.await.unwrap();
    socket
        .send(json!({"type": "cancel", "conversation_id": "c1"}))
        .await;
    socket.until("response_complete").await;

    // Whether its end had come by then, or not.
    until("an account of it", async || {
        let document = app.document("c1").await;
        let usage = document.get("voice_usage");
        println!("{usage:?} {first}");
        (usage?["characters_spoken"] == first).then_some(())
    })
    .await;
}

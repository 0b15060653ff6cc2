//! What is said aloud over `/ws/chat`.

use idol_simulator::{Gate, Route, Script, whisper::transcript};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    sockets::{FORMAT, aloud, scripted, sentences, written},
    voiced,
};
use crate::{
    helpers::{DEADLINE, Setup, Socket, TestApp, prompt, types, until},
    resilience::Commits,
};

/// `audio_start`.
pub(super) fn audio_start(conversation: &str) -> Value {
    json!({"type": "audio_start", "conversation_id": conversation, "format": "webm"})
}

pub(super) fn audio_end() -> Value {
    json!({"type": "audio_end"})
}

/// Bytes that are like no others, half a second of them at most.
fn sound(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect()
}

pub(super) async fn say_aloud(socket: &mut Socket, audio: &[u8]) {
    for piece in audio.chunks(1_000) {
        socket.send_raw(Message::binary(piece.to_vec())).await;
    }
}

/// Says two things, of which the first is not written down until the gate opens.
async fn say_two(app: &TestApp, socket: &mut Socket, gate: &Gate) {
    let whisper = app.simulator.whisper();
    whisper.script(Script::new().text("the first").hold_headers(gate));
    whisper.set_default(Script::new().text("the second"));
    for number in 0..2 {
        socket.send(audio_start("c1")).await;
        say_aloud(socket, &sound(20 + number, 3_000)).await;
        socket.send(audio_end()).await;
        if number == 0 {
            gate.reached(1, DEADLINE).await.unwrap();
        }
    }
    let heard = app.simulator.wait_for(
        "both uploads",
        |counters| counters.transcription_requests >= 2,
        DEADLINE,
    );
    heard.await.unwrap();
}

/// Fails unless nothing is on its way to the client.
async fn assert_silent(socket: &mut Socket) {
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn what_is_said_is_passed_on_while_it_is_said_and_answered() {
    let app = voiced().await;
    let audio = sound(1, 8_000);
    let mut socket = app.socket().await;
    let mut start = audio_start("c1");
    start["language"] = json!("de");
    start["client_message_id"] = json!("message-1");
    socket.send(start).await;
    say_aloud(&mut socket, &audio).await;
    let arrived = app.simulator.wait_for(
        "the audio before its end",
        |counters| counters.audio_bytes_received > 8_000,
        DEADLINE,
    );
    let counters = arrived.await.unwrap();
    assert_eq!(
        (
            counters.audio_uploads_begun,
            counters.transcription_requests
        ),
        (1, 0)
    );
    assert_silent(&mut socket).await;

    socket.send(audio_end()).await;

    let messages = socket.until("response_complete").await;
    let text = transcript(audio.len());
    assert_eq!(
        messages[0],
        json!({
            "type": "transcript", "conversation_id": "c1", "text": text,
            "client_message_id": "message-1",
        })
    );
    assert_eq!(messages[1]["type"], "message_received");
    assert_eq!(messages[1]["client_message_id"], "message-1");
    let kinds = types(&messages);
    assert!(kinds.iter().all(|kind| !kind.starts_with("audio")));
    let said = app.said("c1").await;
    assert_eq!(said[0], ("user".to_owned(), text.clone()));
    let asked = &app.simulator.chat_requests()[0];
    assert_eq!(prompt(asked), [json!({"role": "user", "content": text})]);
    let upload = &app.simulator.whisper().uploads()[0];
    assert_eq!(upload.file, audio);
    assert_eq!(upload.file_name.as_deref(), Some("audio.webm"));
    assert_eq!(upload.content_type.as_deref(), Some("audio/webm"));
    assert_eq!(upload.field("language"), Some("de"));
    assert_eq!(upload.field("model"), Some("whisper-1"));
    drop(socket);
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn the_answer_is_spoken_if_that_is_wanted() {
    let app = voiced().await;
    let mut socket = app.socket().await;
    let mut start = audio_start("c1");
    start["voice"] = json!({"format": FORMAT});
    app.simulator
        .script(Script::new().text("I have heard every word of it."));
    socket.send(start).await;
    say_aloud(&mut socket, &sound(2, 5_000)).await;
    socket.send(audio_end()).await;

    let messages = socket.until("audio_complete").await;

    assert_eq!(messages[0]["type"], "transcript");
    let sentences = sentences(&messages);
    sentences.iter().for_each(|it| it.assert_whole(FORMAT));
    assert_eq!(sentences[0].text, "I have heard every word of it.");
}

#[tokio::test]
async fn much_audio_arrives_byte_by_byte() {
    let app = voiced().await;
    let audio = sound(3, 3 << 20);
    let mut socket = app.socket().await;
    socket.send(audio_start("c1")).await;
    for piece in audio.chunks(50_001) {
        socket.send_raw(Message::binary(piece.to_vec())).await;
    }
    socket.send(audio_end()).await;

    assert_eq!(socket.next().await["text"], transcript(audio.len()));
    assert!(app.simulator.whisper().uploads()[0].file == audio);
}

#[tokio::test]
async fn raw_samples_become_a_wav_file() {
    let app = voiced().await;
    let audio = sound(4, 16_000);
    let mut socket = app.socket().await;
    let mut start = audio_start("c1");
    start["format"] = json!("pcm_16000");
    socket.send(start).await;
    say_aloud(&mut socket, &audio).await;
    socket.send(audio_end()).await;

    assert_eq!(socket.next().await["text"], transcript(audio.len() + 44));
    let upload = &app.simulator.whisper().uploads()[0];
    let (header, samples) = upload.file.split_at(44);
    assert_eq!(samples, audio);
    assert_eq!(
        (&header[..4], &header[8..16]),
        (&b"RIFF"[..], &b"WAVEfmt "[..])
    );
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!((number(24), number(28)), (16_000, 32_000));
    assert_eq!(upload.file_name.as_deref(), Some("audio.wav"));
}

#[tokio::test]
async fn what_is_taken_back_is_not_heard() {
    let app = voiced().await;
    let mut socket = app.socket().await;
    let before = app.simulator.counters().open_connections;
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(5, 5_000)).await;
    let begun = |counters: &idol_simulator::Counters| counters.audio_bytes_received > 5_000;
    let arrived = app.simulator.wait_for("the upload", begun, DEADLINE);
    arrived.await.unwrap();

    socket.send(json!({"type": "audio_abort"})).await;

    let closed = app.simulator.wait_for(
        "the end of the upload",
        |counters| counters.open_connections <= before,
        DEADLINE,
    );
    closed.await.unwrap();
    assert_silent(&mut socket).await;
    // Another one is heard.
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(6, 4_000)).await;
    socket.send(audio_end()).await;
    assert_eq!(socket.next().await["text"], transcript(4_000));
    assert_eq!(app.simulator.counters().transcription_requests, 1);
}

#[tokio::test]
async fn a_socket_that_closes_takes_back_what_it_was_saying() {
    let app = voiced().await;
    let before = app.simulator.counters().open_connections;
    let mut socket = app.socket().await;
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(7, 5_000)).await;
    let begun = |counters: &idol_simulator::Counters| counters.audio_bytes_received > 5_000;
    let arrived = app.simulator.wait_for("the upload", begun, DEADLINE);
    arrived.await.unwrap();

    drop(socket);

    let closed = app.simulator.wait_for(
        "the end of the upload",
        |counters| counters.open_connections <= before,
        DEADLINE,
    );
    closed.await.unwrap();
    assert_eq!(app.simulator.counters().transcription_requests, 0);
    assert!(app.simulator.chat_requests().is_empty());
}

#[tokio::test]
async fn too_much_audio_is_refused_once() {
    let app = Setup::new()
        .voiced()
        .set("MAX_AUDIO_BYTES", "10000")
        .start()
        .await;
    let mut socket = app.socket().await;
    socket.send(audio_start("c1")).await;

    say_aloud(&mut socket, &sound(8, 20_000)).await;
    socket.send(audio_end()).await;

    let error = socket.next().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!("payload_too_large"))
    );
    // What was on its way meanwhile is passed over.
    assert_silent(&mut socket).await;
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(9, 10_000)).await;
    socket.send(audio_end()).await;
    assert_eq!(socket.next().await["text"], transcript(10_000));
}

#[tokio::test]
async fn what_is_out_of_place_is_refused() {
    let app = voiced().await;
    let mut socket = app.socket().await;
    let refused = async |socket: &mut Socket, words: &str| {
        let error = socket.next().await;
        assert_eq!(error["type"], "error");
        assert_eq!(error["code"], "invalid_request");
        let sentence = error["error"].as_str().unwrap();
        assert!(sentence.contains(words), "{sentence}");
    };
    say_aloud(&mut socket, b"audio").await;
    refused(&mut socket, "audio_start").await;
    socket.send(audio_end()).await;
    refused(&mut socket, "audio_start").await;
    socket
        .send(json!({"type": "audio_start", "format": "webm"}))
        .await;
    refused(&mut socket, "conversation_id is required").await;
    socket
        .send(json!({"type": "audio_start", "conversation_id": "c1"}))
        .await;
    refused(&mut socket, "format is required").await;
    socket.send(audio_start("c1")).await;
    socket.send(audio_end()).await;
    refused(&mut socket, "Empty audio file").await;

    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(10, 2_000)).await;
    socket.send(audio_start("c2")).await;
    refused(&mut socket, "Only one utterance at a time").await;
    // The first goes on.
    say_aloud(&mut socket, &sound(11, 2_000)).await;
    socket.send(audio_end()).await;
    let heard = socket.next().await;
    assert_eq!(heard["text"], transcript(4_000));
    assert_eq!(heard["conversation_id"], "c1");
}

#[tokio::test]
async fn an_upstream_that_fails_is_said_and_the_next_is_heard() {
    let setup = Setup::new().voiced().set("OPENROUTER_BREAKER_PERCENT", "0");
    let app = setup.start().await;
    let mut socket = app.socket().await;
    for (fault, code) in [
        ("openai:invalid_api_key", "upstream_auth"),
        ("openai:invalid_format", "upstream_rejected"),
        ("openai:insufficient_quota", "upstream_credits"),
        ("reset_early", "upstream_failed"),
        ("html:200", "upstream_failed"),
    ] {
        app.simulator
            .whisper()
            .set_default(&*format!("fault={fault}"));
        let mut start = audio_start("c1");
        start["client_message_id"] = json!(format!("utterance-{fault}"));
        socket.send(start).await;
        say_aloud(&mut socket, &sound(12, 3_000)).await;
        socket.send(audio_end()).await;

        let error = socket.next().await;

        assert_eq!(error["type"], "error", "{fault}");
        assert_eq!(error["code"], code, "{fault}: {error}");
        assert_eq!(error["conversation_id"], "c1");
        assert_eq!(error["client_message_id"], format!("utterance-{fault}"));
        assert_silent(&mut socket).await;
    }
    app.simulator.whisper().set_default(Script::new());
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(13, 3_000)).await;
    socket.send(audio_end()).await;
    let messages = socket.until("response_complete").await;
    assert_eq!(messages[0]["type"], "transcript");
    assert_eq!(app.said("c1").await.len(), 2);
}

#[tokio::test]
async fn an_upstream_that_refuses_amid_the_speech_is_said_once() {
    let app = voiced().await;
    app.simulator
        .whisper()
        .set_default("upload=500,fault=openai:invalid_api_key");
    let mut socket = app.socket().await;
    socket.send(audio_start("c1")).await;

    // Until it is told; the rest is on its way meanwhile.
    let audio = sound(14, 1_000);
    let error = loop {
        say_aloud(&mut socket, &audio).await;
        socket.send(json!({"type": "ping"})).await;
        let message = socket.next().await;
        if message["type"] != "pong" {
            break message;
        }
    };
    assert_eq!(socket.next().await["type"], "pong");
    say_aloud(&mut socket, &audio).await;
    socket.send(audio_end()).await;

    assert_eq!(error["code"], "upstream_auth", "{error}");
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn who_says_nothing_is_not_answered() {
    let app = voiced().await;
    app.simulator.whisper().script(Script::new().text(" \n"));
    let mut socket = app.socket().await;
    let start = json!({"type": "audio_start", "conversation_id": "c1", "format": "webm"});
    socket.send(start).await;
    say_aloud(&mut socket, &sound(15, 3_000)).await;
    socket.send(audio_end()).await;

    let heard = socket.next().await;

    assert_eq!(
        (&heard["type"], &heard["text"]),
        (&json!("transcript"), &json!(""))
    );
    assert_silent(&mut socket).await;
    assert!(app.simulator.chat_requests().is_empty());
    assert_eq!(app.get("/conversation/c1").await.status(), 404);
}

#[tokio::test]
async fn without_a_transcription_provider_that_is_said_once() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(16, 3_000)).await;
    socket.send(audio_end()).await;

    let error = socket.next().await;

    assert_eq!(error["code"], "provider_not_configured");
    assert_silent(&mut socket).await;
}

#[tokio::test]
async fn who_speaks_is_answered_behind_what_was_written_before() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("one two").hold_at(1, &gate));
    let mut socket = app.socket().await;
    let mut message = aloud("c1", "first");
    message["voice"].take();
    socket.send(message).await;
    gate.reached(1, DEADLINE).await.unwrap();
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(17, 3_000)).await;
    socket.send(audio_end()).await;
    let mut messages = socket.until("transcript").await;
    gate.open();
    for _ in 0..2 {
        messages.extend(socket.until("response_complete").await);
    }

    // A reply that is read is not interrupted by who speaks.
    assert!(!types(&messages).contains(&"audio_stop"));
    let said = app.said("c1").await;
    assert_eq!(said[1].1, "one two");
    assert_eq!(said[2].1, transcript(3_000));
    assert!(app.simulator.requests_on(Route::Speech).is_empty());
}

#[tokio::test]
async fn what_is_said_in_a_row_is_answered_in_that_order() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    let mut socket = app.socket().await;
    say_two(&app, &mut socket, &gate).await;
    assert_silent(&mut socket).await;

    gate.open();

    let mut messages = Vec::new();
    for _ in 0..2 {
        messages.extend(socket.until("response_complete").await);
    }
    let transcripts = messages.iter().filter(|it| it["type"] == "transcript");
    let transcripts: Vec<_> = transcripts.map(|it| it["text"].clone()).collect();
    assert_eq!(transcripts, ["the first", "the second"]);
    let said = app.said("c1").await;
    assert_eq!((&*said[0].1, &*said[2].1), ("the first", "the second"));
}

#[tokio::test]
async fn what_was_said_is_answered_though_its_client_left() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    let mut socket = app.socket().await;
    say_two(&app, &mut socket, &gate).await;

    drop(socket);
    until("the socket to be gone", async || {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains("idol_router_websockets 0\n").then_some(())
    })
    .await;
    gate.open();

    let said = until("both to be answered", async || {
        let response = app.get("/conversation/c1").await;
        let is_there = response.status() == 200;
        let said = if is_there {
            app.said("c1").await
        } else {
            vec![]
        };
        (said.len() == 4).then_some(said)
    })
    .await;
    assert_eq!((&*said[0].1, &*said[2].1), ("the first", "the second"));
    app.assert_nothing_left().await;
}

#[tokio::test]
async fn what_was_heard_while_another_message_is_kept_is_answered_though_its_client_left() {
    let commits = Commits::default();
    let failpoint = commits.failpoint();
    let setup = Setup::new().voiced();
    let setup = setup.tuning(|tuning| tuning.log.before_commit = Some(failpoint));
    let app = setup.start().await;
    app.chat("c1", "before").await;
    commits.hold();
    let mut socket = app.socket().await;
    socket.send(written("c1", "the first")).await;
    app.simulator
        .whisper()
        .script(Script::new().text("the second"));
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(80, 3_000)).await;
    socket.send(audio_end()).await;
    let heard = app.simulator.wait_for(
        "the transcript",
        |counters| counters.transcription_requests == 1 && counters.active_requests == 0,
        DEADLINE,
    );
    heard.await.unwrap();
    assert_silent(&mut socket).await;

    drop(socket);
    until("the socket to be gone", async || {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains("idol_router_websockets 0\n").then_some(())
    })
    .await;
    commits.release();

    let said = until("both to be answered", async || {
        let said = app.said("c1").await;
        (said.len() == 6).then_some(said)
    })
    .await;
    assert_eq!((&*said[2].1, &*said[4].1), ("the first", "the second"));
}

#[tokio::test]
async fn a_start_that_cannot_be_read_leaves_the_utterance_that_is_under_way() {
    let app = voiced().await;
    let mut socket = app.socket().await;
    let audio = sound(81, 4_000);
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &audio).await;
    let mut wrong = audio_start("c1");
    wrong["format"] = json!(7);
    socket.send(wrong).await;
    assert_eq!(socket.next().await["type"], "error");

    socket.send(audio_end()).await;

    assert_eq!(socket.next().await["text"], transcript(audio.len()));
}

#[tokio::test]
async fn only_a_few_utterances_are_written_down_at_once() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator
        .whisper()
        .set_default(Script::new().text("so").hold_headers(&gate));
    let mut socket = app.socket().await;
    for number in 0..6 {
        socket.send(audio_start("c1")).await;
        say_aloud(&mut socket, &sound(30 + number, 2_000)).await;
        socket.send(audio_end()).await;
    }

    for _ in 0..2 {
        assert_eq!(socket.next().await["code"], "conversation_busy");
    }
    assert_silent(&mut socket).await;
    gate.open();
    for _ in 0..4 {
        socket.until("response_complete").await;
    }
    assert_eq!(app.simulator.counters().transcription_requests, 4);
    assert_eq!(app.said("c1").await.len(), 8);
}

#[tokio::test]
async fn audio_behind_a_start_that_was_refused_is_passed_over() {
    let app = voiced().await;
    let mut socket = app.socket().await;
    let mut wrong_voice = audio_start("c1");
    wrong_voice["voice"] = json!({"stability": 7});
    for start in [
        json!({"type": "audio_start"}),
        json!({"type": "audio_start", "conversation_id": "c1"}),
        json!({"type": "audio_start", "conversation_id": "c1", "format": "ulaw_8000"}),
        json!({"type": "audio_start", "conversation_id": "c1", "format": "a\r\nb"}),
        wrong_voice,
    ] {
        socket.send(start.clone()).await;
        say_aloud(&mut socket, &sound(40, 2_000)).await;
        socket.send(audio_end()).await;
        assert_eq!(socket.next().await["type"], "error", "{start}");
        assert_silent(&mut socket).await;
    }
    // As what was on its way of one that was taken back.
    socket.send(audio_start("c1")).await;
    socket.send(json!({"type": "audio_abort"})).await;
    say_aloud(&mut socket, &sound(41, 2_000)).await;
    assert_silent(&mut socket).await;
    assert_eq!(app.simulator.counters().transcription_requests, 0);
}

#[tokio::test]
async fn who_speaks_is_not_spoken_to() {
    for ends in [true, false] {
        let app = scripted().await;
        let gate = app.simulator.gate();
        let whisper = app.simulator.whisper();
        whisper.script(Script::new().text("one thing").hold_headers(&gate));
        whisper.set_default(Script::new().text("another thing"));
        app.simulator
            .set_default(Script::new().text("I have heard every word of it."));
        let mut start = audio_start("c1");
        start["voice"] = json!({"format": FORMAT});
        let mut socket = app.socket().await;
        socket.send(start.clone()).await;
        say_aloud(&mut socket, &sound(50, 2_000)).await;
        socket.send(audio_end()).await;
        gate.reached(1, DEADLINE).await.unwrap();
        // The client goes on speaking, and only then the first is answered.
        socket.send(start).await;
        say_aloud(&mut socket, &sound(51, 2_000)).await;
        gate.open();
        let spoken = app.simulator.wait_for(
            "the sentence",
            |counters| counters.generations_completed >= 1,
            DEADLINE,
        );
        spoken.await.unwrap();
        let messages = socket.until("response_complete").await;
        let kinds = types(&messages);
        assert!(!kinds.iter().any(|it| it.starts_with("audio")), "{kinds:?}");
        assert_silent(&mut socket).await;

        if ends {
            socket.send(audio_end()).await;
            let mut messages = socket.until("transcript").await;
            messages.extend(socket.until("response_start").await);
            let kinds = types(&messages);
            assert!(kinds.contains(&"audio_stop"), "{kinds:?}");
            assert!(!kinds.contains(&"audio"), "{kinds:?}");
            let turn = messages.last().unwrap()["turn_id"].clone();
            let messages = socket.until("audio_complete").await;
            let of_another = |it: &&Value| it["type"] == "audio" && it["turn_id"] != turn;
            assert_eq!(messages.iter().find(of_another), None);
        } else {
            socket.send(json!({"type": "audio_abort"})).await;
            let messages = socket.until("audio_complete").await;
            sentences(&messages)[0].assert_whole(FORMAT);
        }
    }
}

#[tokio::test]
async fn who_speaks_up_before_the_first_sound_has_interrupted() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text("Let me think.").hold_headers(&gate));
    let mut socket = app.socket().await;
    socket.send(aloud("c1", "first")).await;
    gate.reached(1, DEADLINE).await.unwrap();

    socket.send(audio_start("c1")).await;

    socket.until("audio_stop").await;
    let messages = socket.until("response_complete").await;
    assert_eq!(messages.last().unwrap()["finish_reason"], "cancelled");
    // It was not opened.
    assert_eq!(gate.arrived(), 1);
    assert_eq!(app.simulator.counters().speech_requests, 0);
}

#[tokio::test]
async fn a_server_that_stops_tells_what_was_said() {
    let setup = Setup::new().voiced().set("SHUTDOWN_GRACE_SECS", "20");
    let app = setup.start().await;
    let gate = app.simulator.gate();
    app.simulator
        .whisper()
        .script(Script::new().text("so").hold_headers(&gate));
    let (mut socket, mut idle) = (app.socket().await, app.socket().await);
    socket.send(audio_start("c1")).await;
    say_aloud(&mut socket, &sound(60, 2_000)).await;
    socket.send(audio_end()).await;
    gate.reached(1, DEADLINE).await.unwrap();

    let stopping = tokio::spawn(app.stop());
    // All sockets are told of it in one go.
    idle.next_or_close().await.unwrap_err();
    gate.open();

    let heard = socket.next().await;
    assert_eq!(
        (&heard["type"], &heard["text"]),
        (&json!("transcript"), &json!("so"))
    );
    // It is not answered any more, and that is said.
    assert_eq!(socket.next().await["code"], "shutting_down");
    while socket.next_or_close().await.is_ok() {}
    stopping.await.unwrap();
}

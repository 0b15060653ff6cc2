//! OpenAI's doors for audio, as its clients knock.

use idol_simulator::Route;
use serde_json::{Value, json};

use super::{
    audio_of,
    transcribe::{audio, file, upload},
    voiced,
};
use crate::helpers::until;

#[tokio::test]
async fn what_the_door_does_not_know_is_told_in_its_own_shape() {
    let app = voiced().await;
    for (path, status, code) in [
        ("/v1/audio/speech", 405, "method_not_allowed"),
        ("/v1/audio/translations", 404, "not_found"),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        let body: Value = response.json().await.unwrap();
        let error = &body["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert_eq!(error["code"], code, "{body}");
        assert!(error["message"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn speech_is_streamed_in_the_format_that_was_asked_for() {
    let app = voiced().await;
    for (format, ours, media) in [
        (None, "mp3_44100_128", "audio/mpeg"),
        (Some("pcm"), "pcm_24000", "audio/pcm;rate=24000"),
        (Some("wav"), "wav_24000", "audio/wav"),
    ] {
        let mut body = json!({"model": "tts-1", "voice": "alloy", "input": "Hello there."});
        if let Some(format) = format {
            body["response_format"] = json!(format);
        }
        let response = app.post("/v1/audio/speech", body).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], media);
        assert_eq!(
            response.bytes().await.unwrap(),
            audio_of("Hello there.", ours)
        );
    }
    // OpenAI's names mean nothing to the provider; its own do.
    let body = json!({"model": "eleven_v3", "voice": "xyz", "input": "Hi.", "speed": 4});
    app.post("/v1/audio/speech", body).await;
    let asked = app.simulator.requests_on(Route::Speech);
    assert!(asked[0].path().contains("/21m00Tcm4TlvDq8ikWAM/"));
    assert!(asked[3].path().contains("/xyz/"));
    let told: Value = asked[3].json().unwrap();
    assert_eq!(told["model_id"], "eleven_v3");
    assert_eq!(told["voice_settings"]["speed"], 1.2);
}

#[tokio::test]
async fn errors_have_openais_shape() {
    let app = voiced().await;
    let post = async |body: Value| {
        let response = app.post("/v1/audio/speech", body).await;
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        (status, answer["error"].clone())
    };
    let (status, error) = post(json!({"voice": "alloy"})).await;
    assert_eq!(
        (status, &error["type"], &error["param"]),
        (400, &json!("invalid_request_error"), &json!("input"))
    );
    let (status, error) = post(json!({"input": "x", "response_format": "flac"})).await;
    assert_eq!((status, &error["param"]), (400, &json!("response_format")));
    let (status, error) = post(json!({"input": "x", "stream_format": "wave"})).await;
    assert_eq!((status, &error["param"]), (400, &json!("stream_format")));
    app.simulator
        .elevenlabs()
        .script("fault=elevenlabs:quota_exceeded");
    let (status, error) = post(json!({"input": "x"})).await;
    assert_eq!(status, 503);
    assert_eq!(error["type"], "server_error");
    assert_eq!(error["code"], "upstream_credits");
    assert_eq!(error["param"], Value::Null);
}

#[tokio::test]
async fn speech_that_breaks_off_amid_its_events_ends_with_an_error() {
    let app = voiced().await;
    app.simulator
        .elevenlabs()
        .script("fault=reset,after=5,batch=5");
    let body = json!({"input": "Hello there, and good morning.", "stream_format": "sse"});
    let response = app.post("/v1/audio/speech", body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");

    let text = response.text().await.unwrap();

    let events = text.split_terminator("\n\n").map(|line| {
        let json = line.strip_prefix("data: ").unwrap();
        serde_json::from_str::<Value>(json).unwrap()
    });
    let events: Vec<_> = events.collect();
    assert_eq!(events[0]["type"], "speech.audio.delta");
    let error = &events.last().unwrap()["error"];
    assert_eq!(error["code"], "upstream_failed");
    assert_eq!(error["type"], "server_error");
}

#[tokio::test]
async fn what_is_spoken_is_counted_also_if_it_breaks_off() {
    let app = voiced().await;
    let input = "Hello there, and good morning.";
    for fault in ["", "fault=reset,after=5,batch=5"] {
        app.simulator.elevenlabs().script(fault);
        let response = app.post("/v1/audio/speech", json!({"input": input})).await;
        drop(response.bytes().await);
    }
    let whole = 2 * input.len();
    until("both to be counted", async || {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        let told = format!("characters_spoken_total {whole}\n");
        metrics.contains(&told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_transcript_comes_in_the_form_that_was_asked_for() {
    let app = voiced().await;
    for (format, media) in [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain"),
    ] {
        app.simulator
            .whisper()
            .script(idol_simulator::Script::new().text("Hello."));
        let form = file(audio(), "talk.webm", "audio/webm")
            .text("model", "whisper-1")
            .text("response_format", format)
            .text("language", "de");
        let response = upload(&app, "/v1/audio/transcriptions", form).await;
        assert_eq!(response.status(), 200, "{format}");
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(media)
        );
        assert!(response.text().await.unwrap().contains("Hello."));
    }
    for upload in app.simulator.whisper().uploads() {
        assert_eq!(upload.file, audio());
        assert_eq!(upload.file_name.as_deref(), Some("talk.webm"));
        assert_eq!(upload.content_type.as_deref(), Some("audio/webm"));
        assert_eq!(upload.field("language"), Some("de"));
    }
}

#[tokio::test]
async fn what_is_unknown_here_is_told_and_what_whisper_cpp_adds_is_not() {
    let app = voiced().await;
    app.simulator
        .whisper()
        .set_default(idol_simulator::Script::new().text(" Hello.\n How are you?\n"));
    let form = |format: &'static str| {
        file(audio(), "talk.webm", "audio/webm")
            .percent_encode_noop()
            .text("response_format", format)
            .text("without_timestamps", "true")
            .text("keywords[]", "idol")
            .text("stream", "true")
            .text("bad name", "x")
    };
    let response = upload(&app, "/v1/audio/transcriptions", form("json")).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["text"], "Hello. How are you?", "{answer}");
    let response = upload(&app, "/v1/audio/transcriptions", form("text")).await;
    let media = response.headers()["content-type"].clone();
    assert_eq!(media, "text/plain; charset=utf-8");
    assert_eq!(response.text().await.unwrap(), "Hello. How are you?\n");

    for upload in app.simulator.whisper().uploads() {
        assert_eq!(upload.field("without_timestamps"), Some("true"));
        assert_eq!(upload.field("keywords[]"), Some("idol"));
        let names: Vec<_> = upload.fields.iter().map(|(name, _)| &**name).collect();
        assert!(!names.contains(&"stream") && !names.contains(&"bad name"));
    }
}

#[tokio::test]
async fn who_takes_no_audio_does_not_keep_others_from_speaking() {
    let setup = crate::helpers::Setup::new()
        .voiced()
        .set("ELEVENLABS_MAX_CONCURRENCY", "1");
    let app = setup.start().await;
    let text = "and so it goes on and on and on. ".repeat(120);
    let body = json!({"input": text, "response_format": "pcm"});
    // Its answer begins, and nobody reads on.
    let stalled = app.post("/v1/audio/speech", body).await;
    assert_eq!(stalled.status(), 200);

    let body = json!({"input": "Hello there.", "response_format": "pcm"});
    let response = app.post("/v1/audio/speech", body).await;

    assert_eq!(response.status(), 200);
    let spoken = response.bytes().await.unwrap();
    assert_eq!(spoken, audio_of("Hello there.", "pcm_24000"));
    drop(stalled);
}

//! `POST /transcribe`: what reaches the upstream, what is kept, and what is said of failures.

use std::collections::BTreeMap;

use idol_simulator::{Route, Script, Simulator, whisper::transcript};
use reqwest::{
    Response,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{audio_of, decoded, voiced};
use crate::helpers::{DEADLINE, Setup, TestApp, prompt, refused, within};

/// Every byte there is, long enough to be heard.
pub(super) fn audio() -> Vec<u8> {
    (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect()
}

/// A file as a client's form has it.
pub(super) fn part(bytes: Vec<u8>, name: &str, media: &str) -> Part {
    let part = Part::bytes(bytes);
    let part = match name {
        "" => part,
        name => part.file_name(name.to_owned()),
    };
    match media {
        "" => part,
        media => part.mime_str(media).unwrap(),
    }
}

/// A form with nothing but a file.
pub(super) fn file(bytes: Vec<u8>, name: &str, media: &str) -> Form {
    Form::new().part("file", part(bytes, name, media))
}

/// The form's answer.
pub(super) async fn upload(app: &TestApp, path: &str, form: Form) -> Response {
    let request = app.http.post(app.url(path)).multipart(form);
    within("an answer", request.send()).await.unwrap()
}

async fn transcribed(app: &TestApp, form: Form) -> Value {
    let response = upload(app, "/transcribe", form).await;
    let status = response.status();
    let answer = response.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn an_upload_reaches_the_upstream_as_it_is_and_with_what_it_may_know() {
    let app = voiced().await;
    let form = Form::new()
        .text("language", "de")
        .text("prompt", "Größe, \"Idol\"\r\nend")
        .text("user_id", "u1")
        .text("text", "not this")
        .text("model", "")
        .part("file", part(audio(), "talk.webm", "audio/webm;codecs=opus"))
        .text("temperature", "0.2")
        .text("response_format", "srt")
        .text("voice_id", "another")
        .text("anything", "else");

    let answer = transcribed(&app, form).await;

    let heard = transcript(100_000);
    assert_eq!(answer["text"], heard);
    assert_eq!(answer["conversation_id"], Value::Null);
    let spoken = audio_of(&heard, "mp3_44100_128");
    assert_eq!(decoded(&answer["audio_base64"]), spoken);
    assert_eq!(answer["audio_format"], "mp3");
    assert_eq!(answer["audio_size_bytes"], spoken.len());

    let uploads = app.simulator.whisper().uploads();
    let [sent] = &*uploads else {
        panic!("{} uploads", uploads.len());
    };
    assert_eq!(sent.file, audio());
    assert_eq!(sent.file_name.as_deref(), Some("talk.webm"));
    assert_eq!(sent.content_type.as_deref(), Some("audio/webm;codecs=opus"));
    let fields: BTreeMap<&str, &str> = sent
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let told = [
        ("language", "de"),
        ("model", "whisper-1"),
        ("prompt", "Größe, \"Idol\"\r\nend"),
        ("response_format", "json"),
        ("temperature", "0.2"),
    ];
    assert_eq!(fields, BTreeMap::from(told));
    assert_eq!(sent.fields.len(), told.len());
    let asked = &app.simulator.requests_on(Route::Transcription)[0];
    assert_eq!(asked.header("authorization"), Some("Bearer sk-test"));
    let spoken = &app.simulator.requests_on(Route::Speech)[0];
    assert!(spoken.path().contains("/another/"), "{}", spoken.path());
}

#[tokio::test]
async fn a_model_may_be_named_before_the_file_or_behind_it() {
    let app = voiced().await;
    let named = |form: Form| form.text("model", "gpt-4o-transcribe");
    let with_file = |form: Form| form.part("file", part(audio(), "größe.mp3", "audio/mpeg"));
    transcribed(&app, with_file(named(Form::new()))).await;
    transcribed(&app, named(with_file(Form::new()))).await;
    for sent in app.simulator.whisper().uploads() {
        assert_eq!(sent.field("model"), Some("gpt-4o-transcribe"));
        assert_eq!(sent.file_name.as_deref(), Some("größe.mp3"));
        assert_eq!(sent.file, audio());
    }
}

/// So long that it is heard.
fn padded(start: &[u8]) -> Vec<u8> {
    let mut file = start.to_vec();
    file.resize(4_000, 0);
    file
}

#[tokio::test]
async fn a_file_that_does_not_say_what_it_is_is_told_as_what_it_is() {
    let webm = b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\xF7\x81\x01\x42\xF2\x81\x04\x42\xF3\x81\x08\x42\x82\x84webm";
    let opus = b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x01";
    let wav = b"RIFF\x24\x08\0\0WAVEfmt ";
    let app = voiced().await;
    for (name, media, start, told_name, told_media) in [
        // Chromium, Firefox and Safari, whose recordings are blobs.
        (
            "blob",
            "audio/webm;codecs=opus",
            &webm[..],
            "blob.webm",
            "audio/webm;codecs=opus",
        ),
        (
            "blob",
            "audio/ogg;codecs=opus",
            opus,
            "blob.ogg",
            "audio/ogg;codecs=opus",
        ),
        ("blob", "audio/mp4", b"?", "blob.m4a", "audio/mp4"),
        ("blob", "", webm, "blob.webm", "audio/webm"),
        (
            "",
            "application/octet-stream",
            webm,
            "audio.webm",
            "audio/webm",
        ),
        ("", "", opus, "audio.ogg", "audio/ogg"),
        ("", "", wav, "audio.wav", "audio/x-wav"),
        ("", "", b"fLaC\0\0\0\x22", "audio.flac", "audio/x-flac"),
        ("voice", "", b"ID3\x04", "voice.mp3", "audio/mpeg"),
        // Its word is taken.
        ("talk.ogg", "audio/ogg", webm, "talk.ogg", "audio/ogg"),
    ] {
        transcribed(&app, file(padded(start), name, media)).await;
        let uploads = app.simulator.whisper().uploads();
        let sent = uploads.last().unwrap();
        assert_eq!(
            (sent.file_name.as_deref(), sent.content_type.as_deref()),
            (Some(told_name), Some(told_media)),
            "{name:?} {media:?}"
        );
        assert_eq!(sent.file, padded(start));
    }
}

async fn posted(app: &TestApp, path: &str, form: &[(&str, &str)]) -> Response {
    let request = app.http.post(app.url(path)).form(form);
    within("an answer", request.send()).await.unwrap()
}

#[tokio::test]
async fn a_text_is_spoken_as_it_is() {
    let app = voiced().await;
    for form in ["multipart", "urlencoded"] {
        let fields = [
            ("text", " Hello, you & me. "),
            ("output_format", "pcm_16000"),
        ];
        let answer = match form {
            "multipart" => {
                let form = fields.into_iter();
                let form = form.fold(Form::new(), |form, (name, text)| form.text(name, text));
                transcribed(&app, form).await
            }
            _ => {
                let response = posted(&app, "/transcribe", &fields).await;
                response.json().await.unwrap()
            }
        };
        assert_eq!(answer["text"], "Hello, you & me.", "{form}");
        assert_eq!(answer["audio_format"], "pcm");
        assert_eq!(
            decoded(&answer["audio_base64"]),
            audio_of("Hello, you & me.", "pcm_16000")
        );
    }
    assert_eq!(app.simulator.counters().audio_uploads_begun, 0);
}

#[tokio::test]
async fn what_cannot_be_heard_is_refused_in_the_ancestors_words() {
    const NEITHER: &str = "Either 'file' or 'text' must be provided";
    let app = voiced().await;
    let said = async |response: Response, sentence: &str| {
        let error = refused(response, 400, "invalid_request").await;
        assert_eq!(error["detail"], sentence);
        assert_eq!(error["error"], sentence);
    };
    for (fields, sentence) in [
        (&[][..], NEITHER),
        (&[("text", "")], NEITHER),
        (&[("text", " \n")], "Empty text provided"),
    ] {
        said(posted(&app, "/transcribe", fields).await, sentence).await;
    }
    for (form, sentence) in [
        (Form::new().text("language", "de"), NEITHER),
        (Form::new().text("text", "\t"), "Empty text provided"),
        (file(Vec::new(), "a.mp3", "audio/mpeg"), "Empty audio file"),
        (
            file(Vec::new(), "a.mp3", "").text("text", "Hello."),
            "Empty audio file",
        ),
        // What a browser sends where no file was chosen.
        (file(Vec::new(), "", "application/octet-stream"), NEITHER),
    ] {
        said(upload(&app, "/transcribe", form).await, sentence).await;
    }
    app.simulator.whisper().script(Script::new().text(" \n"));
    let silent = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
    said(silent, "No speech was heard in the audio").await;
    assert_eq!(app.simulator.counters().audio_uploads_begun, 1);
    assert_eq!(app.simulator.counters().speech_requests, 0);
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let app = voiced().await;
    for (name, value) in [
        ("temperature", "1.5"),
        ("temperature", "warm"),
        ("stability", "2"),
        ("output_format", "mp3"),
    ] {
        let form = Form::new().text(name, value).text("text", "Hello.");
        let response = upload(&app, "/transcribe", form).await;
        let error = refused(response, 422, "invalid_request").await;
        assert_eq!(error["detail"][0]["loc"], json!(["body", name]), "{value}");
    }
    let form = Form::new().text("conversation_id", "a b").text("text", "x");
    refused(upload(&app, "/transcribe", form).await, 422, "invalid_id").await;
}

#[tokio::test]
async fn too_short_and_too_long_have_their_own_errors() {
    let setup = Setup::new().voiced().set("MAX_AUDIO_BYTES", "3000000");
    let app = setup.start().await;
    let short = upload(&app, "/transcribe", file(vec![1; 100], "a.mp3", "")).await;
    let error = refused(short, 422, "invalid_request").await;
    assert_eq!(error["detail"][0]["loc"], json!(["body", "file"]));
    assert_eq!(error["detail"][0]["type"], "audio_too_short");

    // Ours, found on the way.
    let long = upload(&app, "/transcribe", file(vec![1; 3_000_001], "a.mp3", "")).await;
    let error = refused(long, 413, "payload_too_large").await;
    let sentence = error["error"].as_str().unwrap();
    assert_eq!(sentence, "The audio is larger than 3000000 bytes");
    app.assert_nothing_left().await;

    // The upstream's.
    app.simulator.whisper().limit_bytes(50_000);
    let long = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
    let error = refused(long, 413, "payload_too_large").await;
    let sentence = error["error"].as_str().unwrap();
    assert!(sentence.contains("50000"), "{sentence}");
}

#[tokio::test]
async fn a_file_wins_over_a_text() {
    let app = voiced().await;
    let file = || part(audio(), "a.mp3", "audio/mpeg");
    let before = Form::new().text("text", "Not this.").part("file", file());
    let behind = Form::new().part("file", file()).text("text", "Not this.");
    for form in [before, behind] {
        assert_eq!(transcribed(&app, form).await["text"], transcript(100_000));
    }
}

#[tokio::test]
async fn the_speech_may_be_downloaded() {
    let app = voiced().await;
    for id in ["", "c1"] {
        let fields = [("text", "Hello, Zoë!"), ("conversation_id", id)];
        let response = posted(&app, "/transcribe?download=true", &fields).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "audio/mpeg");
        assert_eq!(
            header("content-disposition"),
            "attachment; filename=\"tts-Hello Zo.mp3\"; filename*=UTF-8''tts-Hello%2C%20Zo%C3%AB%21.mp3"
        );
        assert_eq!(header("x-conversation-id"), id);
        let audio = audio_of("Hello, Zoë!", "mp3_44100_128");
        assert_eq!(response.bytes().await.unwrap(), audio);
    }
}

#[tokio::test]
async fn what_was_heard_is_kept_in_its_conversation_and_in_no_other() {
    let app = voiced().await;
    let spoken = || file(audio(), "a.mp3", "audio/mpeg");

    let none = transcribed(&app, spoken()).await;
    assert_eq!(none["conversation_id"], Value::Null);
    let list: Value = app.get("/conversations").await.json().await.unwrap();
    assert_eq!(list["conversations"], json!([]));

    let kept = transcribed(&app, spoken().text("conversation_id", "c1")).await;
    assert_eq!(kept["conversation_id"], "c1");
    let heard = transcript(100_000);
    let user = |text: &str| ("user".to_owned(), text.to_owned());
    assert_eq!(app.said("c1").await, [user(&heard)]);
    assert!(app.simulator.chat_requests().is_empty());

    app.chat("c1", "And you?").await;
    let asked = prompt(&app.simulator.chat_requests()[0]);
    assert_eq!(
        asked,
        [
            json!({"role": "user", "content": heard}),
            json!({"role": "user", "content": "And you?"}),
        ]
    );
}

#[tokio::test]
async fn a_voice_that_fails_does_not_lose_what_was_heard() {
    let app = voiced().await;
    let fault = "fault=elevenlabs:voice_not_found";
    app.simulator.elevenlabs().set_default(fault);
    let form = file(audio(), "a.mp3", "").text("conversation_id", "c1");
    let response = upload(&app, "/transcribe", form).await;
    let error = refused(response, 400, "upstream_rejected").await;
    assert_eq!(error["text"], transcript(100_000));
    assert_eq!(error["conversation_id"], "c1");
    let message = &app.document("c1").await["messages"][0];
    assert_eq!(error["message_id"], message["id"]);
    assert_eq!(error["turn_id"], message["turn_id"]);

    let response = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
    let error = refused(response, 400, "upstream_rejected").await;
    assert_eq!(error["text"], transcript(100_000));
    assert_eq!(error.get("conversation_id"), None);
    assert_eq!(error.get("turn_id"), None);
}

#[tokio::test]
async fn other_servers_shapes_are_understood() {
    let simulator = Simulator::start().unwrap();
    let setup = Setup::new()
        .set("ELEVENLABS_API_KEY", "xi-test")
        .set("OPENAI_BASE_URL", &simulator.whispercpp_url())
        .set("OPENAI_TRANSCRIPTIONS_PATH", "/inference");
    let app = setup.start_with(simulator).await;
    let told = " Hello there.\n How are you?\n";
    app.simulator.whisper().script(Script::new().text(told));
    let form = || file(audio(), "a.mp3", "").text("language", "ja");
    let answer = transcribed(&app, form()).await;
    assert_eq!(answer["text"], "Hello there. How are you?");
    let asked = &app.simulator.requests_on(Route::Transcription)[0];
    assert!(asked.path().ends_with("/inference"), "{}", asked.path());
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        app.simulator.whisper().uploads()[0].field("language"),
        Some("ja")
    );

    // speaches: a base URL with a slash at its end, and no key.
    let simulator = Simulator::start().unwrap();
    let setup = Setup::new()
        .set("ELEVENLABS_API_KEY", "xi-test")
        .set("OPENAI_BASE_URL", &format!("{}/", simulator.whisper_url()))
        .set("WHISPER_MODEL", "Systran/faster-whisper-small");
    let app = setup.start_with(simulator).await;
    app.simulator
        .whisper()
        .script(Script::new().text(" Hello."));
    assert_eq!(transcribed(&app, form()).await["text"], "Hello.");
    let sent = &app.simulator.whisper().uploads()[0];
    assert_eq!(sent.field("model"), Some("Systran/faster-whisper-small"));
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused_before_it_is_written_down() {
    let app = voiced().await;
    let form = Form::new()
        .text("stability", "7")
        .part("file", part(audio(), "a.mp3", ""));
    let response = upload(&app, "/transcribe", form).await;
    let error = refused(response, 422, "invalid_request").await;
    assert_eq!(error["detail"][0]["loc"], json!(["body", "stability"]));
    assert_eq!(app.simulator.counters().audio_uploads_begun, 0);

    // Behind the file: no transcript is waited for.
    let gate = app.simulator.gate();
    app.simulator
        .whisper()
        .script(Script::new().text("late").hold_headers(&gate));
    let form = file(audio(), "a.mp3", "").text("conversation_id", "");
    let form = form.text("similarity_boost", "no");
    let response = upload(&app, "/transcribe", form).await;
    refused(response, 422, "invalid_request").await;
}

#[tokio::test]
async fn the_same_upload_is_kept_once_however_it_is_written_down() {
    let app = voiced().await;
    let send = async |bytes: Vec<u8>, key: &str| {
        let form = file(bytes, "a.mp3", "").text("conversation_id", "c1");
        let request = app.http.post(app.url("/transcribe")).multipart(form);
        let request = request.header("Idempotency-Key", key);
        within("an answer", request.send()).await.unwrap()
    };
    for text in ["One way.", "Another way."] {
        app.simulator.whisper().script(Script::new().text(text));
        let response = send(audio(), "key-0123456789ab").await;
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["text"], "One way.", "what was kept was said");
        let said = app.said("c1").await;
        assert_eq!(said, [("user".to_owned(), "One way.".to_owned())]);
    }

    // Another file with that key is a mistake; what was heard of it is not lost.
    let other = audio().into_iter().rev().collect();
    let error = refused(
        send(other, "key-0123456789ab").await,
        422,
        "idempotency_mismatch",
    );
    let error = error.await;
    assert_eq!(error["text"], transcript(100_000));
    assert_eq!(error["detail"][0]["type"], "idempotency_mismatch");
    assert_eq!(app.said("c1").await.len(), 1);
}

#[tokio::test]
async fn an_upload_that_comes_again_is_not_written_down_again() {
    let app = voiced().await;
    let send = async |bytes: Vec<u8>| {
        let form = Form::new().text("conversation_id", "c1");
        let form = form.part("file", part(bytes, "a.mp3", ""));
        let request = app.http.post(app.url("/transcribe")).multipart(form);
        let request = request.header("Idempotency-Key", "key-0123456789ab");
        within("an answer", request.send()).await.unwrap()
    };
    for _ in 0..2 {
        let response = send(audio()).await;
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["text"], transcript(100_000));
        assert_eq!(app.simulator.counters().audio_uploads_begun, 1);
    }
    let usage = app.document("c1").await["voice_usage"].clone();
    assert_eq!(usage["seconds_heard"], 7.0, "{usage}");

    let other = audio().into_iter().rev().collect();
    refused(send(other).await, 422, "idempotency_mismatch").await;

    assert_eq!(app.simulator.counters().audio_uploads_begun, 1);
    assert_eq!(app.said("c1").await.len(), 1);
}

#[tokio::test]
async fn an_upload_that_comes_again_while_it_is_heard_is_not_passed_on() {
    let app = voiced().await;
    let gate = app.simulator.gate();
    app.simulator
        .whisper()
        .script(Script::new().text("Once.").hold_headers(&gate));
    let send = || {
        let form = Form::new().text("conversation_id", "c1");
        let form = form.part("file", part(audio(), "a.mp3", ""));
        let request = app.http.post(app.url("/transcribe")).multipart(form);
        request.header("Idempotency-Key", "key-0123456789ab").send()
    };
    let first = tokio::spawn(send());
    gate.reached(1, DEADLINE).await.unwrap();

    let second = within("an answer", send()).await.unwrap();

    refused(second, 429, "conversation_busy").await;
    gate.open();
    let first = within("an answer", first).await.unwrap().unwrap();
    assert_eq!(first.status(), 200);
    let again = within("an answer", send()).await.unwrap();
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["text"], "Once.");
    assert_eq!(app.simulator.counters().audio_uploads_begun, 1);
}

#[tokio::test]
async fn a_text_that_is_too_long_is_refused_before_any_of_it_is_spoken() {
    let app = voiced().await;
    let text = "and so on ".repeat(4_001);
    let response = posted(&app, "/transcribe", &[("text", &text)]).await;
    let error = refused(response, 422, "invalid_request").await;
    assert_eq!(error["detail"][0]["loc"], json!(["body", "text"]));
    assert_eq!(app.simulator.counters().speech_requests, 0);
}

#[tokio::test]
async fn an_upload_that_says_it_is_too_large_is_refused_before_it_comes() {
    let setup = Setup::new().voiced().set("MAX_AUDIO_BYTES", "100000");
    let app = setup.start().await;
    let url = app.url("/transcribe");
    let address = url.strip_prefix("http://").unwrap();
    let (address, _) = address.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\
        Content-Type: multipart/form-data; boundary=B\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();

    // Nothing of it was sent.
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn fields_that_are_too_large_together_are_named() {
    let app = voiced().await;
    let mut form = Form::new();
    for number in 0..5 {
        form = form.text(format!("field{number}"), "x".repeat(60_000));
    }
    let form = form.part("file", part(audio(), "a.mp3", ""));
    let response = upload(&app, "/v1/audio/transcriptions", form).await;
    assert_eq!(response.status(), 400);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["param"], "field4");
    assert_eq!(app.simulator.counters().audio_uploads_begun, 0);
}

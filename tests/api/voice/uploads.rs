//! Uploads on their way: passed on while they come in, given up with their client, and the errors
//! of whoever takes them.

use bytes::Bytes;
use idol_simulator::{Counters, Script, Simulator};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::transcribe::{audio, file, upload};
use crate::helpers::{DEADLINE, Setup, TestApp, refused, within};

/// A server whose transcription has an upstream of its own, so that its connections are told apart.
async fn heard_by(hearing: &Simulator) -> TestApp {
    let setup = Setup::new().voiced();
    let setup = setup.set("OPENAI_BASE_URL", &hearing.whisper_url());
    setup.start().await
}

/// An upload that its test sends piece by piece.
struct Upload {
    pieces: mpsc::Sender<std::io::Result<Bytes>>,
    answer: tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>,
}

impl Upload {
    async fn begin(app: &TestApp) -> Self {
        let upload = Self::open(app);
        let head = "--B\r\nContent-Disposition: form-data; name=\"conversation_id\"\r\n\r\nc1\r\n";
        upload.send(head.into()).await;
        upload.send(FILE_HEAD.into()).await;
        upload
    }

    /// A form with nothing in it yet.
    fn open(app: &TestApp) -> Self {
        let (pieces, receiver) = mpsc::channel(1);
        let body = futures::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        let request = app
            .http
            .post(app.url("/transcribe"))
            .header("Content-Type", "multipart/form-data; boundary=B")
            .body(reqwest::Body::wrap_stream(body));
        Self {
            pieces,
            answer: tokio::spawn(request.send()),
        }
    }

    async fn send(&self, piece: Vec<u8>) {
        let sent = self.pieces.send(Ok(piece.into()));
        within("room for a piece", sent).await.unwrap();
    }

    async fn end(self) -> reqwest::Response {
        self.send(b"\r\n--B--\r\n".to_vec()).await;
        drop(self.pieces);
        within("an answer", self.answer).await.unwrap().unwrap()
    }
}

/// Where its file begins.
const FILE_HEAD: &str =
    "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n";

async fn wait_for(hearing: &Simulator, what: &str, so: impl Fn(&Counters) -> bool) {
    hearing.wait_for(what, so, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn an_upload_is_passed_on_while_it_comes_in() {
    let hearing = Simulator::start().unwrap();
    let app = heard_by(&hearing).await;
    let upload = Upload::begin(&app).await;
    let piece = vec![7; 256 << 10];
    for number in 1..=32 {
        upload.send(piece.clone()).await;
        // All of it but what waits in a buffer of some pieces; the client has not sent the end.
        let bytes = number * piece.len() - (64 << 10);
        let passed = |counters: &Counters| counters.audio_bytes_received >= bytes as u64;
        wait_for(&hearing, "the beginning of an upload", passed).await;
    }
    assert_eq!(hearing.counters().transcription_requests, 0);

    assert_eq!(upload.end().await.status(), 200);
    let sent = &hearing.whisper().uploads()[0];
    assert_eq!(sent.file.len(), 32 * piece.len());
    assert!(sent.file.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upload_with_it() {
    let hearing = Simulator::start().unwrap();
    let app = heard_by(&hearing).await;
    let upload = Upload::begin(&app).await;
    upload.send(vec![7; 256 << 10]).await;
    let begun = |counters: &Counters| counters.audio_uploads_begun == 1;
    wait_for(&hearing, "the beginning of an upload", begun).await;

    upload.answer.abort();

    let closed = |counters: &Counters| counters.open_connections == 0;
    wait_for(&hearing, "the end of the upstream's connection", closed).await;
    assert_eq!(hearing.counters().transcription_requests, 0);
    assert_eq!(app.get("/conversation/c1").await.status(), 404);
    assert_eq!(app.simulator.counters().speech_requests, 0);
}

#[tokio::test]
async fn an_upstream_that_refuses_early_need_not_take_the_rest() {
    let hearing = Simulator::start().unwrap();
    let app = heard_by(&hearing).await;
    let script = "upload=1000,fault=openai:invalid_api_key";
    hearing.whisper().script(script);
    let upload = Upload::begin(&app).await;
    upload.send(vec![7; 256 << 10]).await;
    // No end is sent.
    let response = within("an answer", upload.answer).await.unwrap().unwrap();
    refused(response, 502, "upstream_auth").await;
}

#[tokio::test]
async fn each_failure_of_the_upstream_has_its_status_and_code() {
    let setup = Setup::new()
        .voiced()
        .set("OPENROUTER_BREAKER_PERCENT", "0")
        .set("OPENAI_ANSWER_TIMEOUT_SECS", "1");
    let app = setup.start().await;
    for (fault, status, code) in [
        ("openai:too_large", 413, "payload_too_large"),
        ("openai:too_large_html", 413, "payload_too_large"),
        ("openai:invalid_format", 400, "upstream_rejected"),
        ("openai:audio_too_short", 422, "invalid_request"),
        ("openai:too_long", 400, "upstream_rejected"),
        ("openai:unsupported_value", 400, "upstream_rejected"),
        ("openai:rate_limit", 429, "upstream_rate_limited"),
        ("openai:rate_limit_no_hint", 429, "upstream_rate_limited"),
        ("openai:insufficient_quota", 503, "upstream_credits"),
        ("openai:invalid_api_key", 502, "upstream_auth"),
        ("openai:server_error", 502, "upstream_failed"),
        ("openai:bad_gateway", 502, "upstream_failed"),
        ("openai:overloaded", 502, "upstream_failed"),
        ("speaches:model_not_installed", 400, "upstream_rejected"),
        ("speaches:invalid_api_key", 502, "upstream_auth"),
        ("speaches:undecodable", 400, "upstream_rejected"),
        ("speaches:missing_file", 400, "upstream_rejected"),
        ("whispercpp:ok_error", 502, "upstream_failed"),
        ("whispercpp:unreadable", 400, "upstream_rejected"),
        ("whispercpp:invalid_request", 400, "upstream_rejected"),
        ("whispercpp:file_not_found", 400, "upstream_rejected"),
        ("whispercpp:loading", 502, "upstream_failed"),
        ("whispercpp:failed", 502, "upstream_failed"),
        ("html:200", 502, "upstream_failed"),
        ("reset_early", 502, "upstream_failed"),
        ("cut", 502, "upstream_failed"),
        ("garbage", 502, "upstream_failed"),
        ("no_headers", 504, "upstream_timeout"),
        ("stall", 504, "upstream_timeout"),
    ] {
        let fault = format!("fault={fault}");
        app.simulator.whisper().script(&*fault);
        let before = app.simulator.counters().audio_uploads_begun;
        let response = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
        let answered = response.status();
        let error: Value = response.json().await.unwrap();
        assert_eq!(
            (answered.as_u16(), error["code"].as_str()),
            (status, Some(code)),
            "{fault}: {error}"
        );
        assert!(!error.to_string().contains("sk-test"), "{error}");
        // What was sent is gone, so nothing is asked twice.
        let asked = app.simulator.counters().audio_uploads_begun - before;
        assert_eq!(asked, 1, "{fault}");
    }
    assert_eq!(app.simulator.counters().speech_requests, 0);
    app.simulator.whisper().script(Script::new().text("Hello."));
    let response = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_form_without_its_last_boundary_is_refused_when_it_ends() {
    let app = super::voiced().await;
    let field = "--B\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nhello\r\n";
    for body in [field.to_owned(), format!("{FILE_HEAD}sound\r\n")] {
        for path in ["/transcribe", "/v1/audio/transcriptions"] {
            let request = app
                .http
                .post(app.url(path))
                .header("Content-Type", "multipart/form-data; boundary=B")
                .body(body.clone());
            let answer = within("an answer", request.send()).await.unwrap();
            assert_eq!(answer.status(), 400, "{path}");
            let error = answer.text().await.unwrap();
            assert!(error.contains("incomplete"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_asked_again_a_few_times() {
    // Nobody listens where somebody has.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let setup = Setup::new().voiced();
    let setup = setup.set("OPENAI_BASE_URL", &format!("http://{address}/v1"));
    let app = setup.start().await;
    let left = async || {
        let ready: Value = app.get("/ready").await.json().await.unwrap();
        ready["transcription"]["retries_left"].as_u64().unwrap()
    };
    let before = left().await;

    let response = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;

    refused(response, 502, "upstream_failed").await;
    // Nothing of the upload was asked for yet: it could be sent anew.
    assert_eq!(before - left().await, 2);
}

#[tokio::test]
async fn an_upstream_that_has_heard_enough_loses_nothing_of_the_form() {
    // Answers once some audio is there, and reads on; tells no seconds.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut buffer, mut bytes) = ([0; 4_096], 0);
        while bytes < 10_000 {
            bytes += stream.read(&mut buffer).await.unwrap();
        }
        let body = r#"{"text":"Early."}"#;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    });
    let setup = Setup::new().voiced();
    let setup = setup.set("OPENAI_BASE_URL", &format!("http://{address}/v1"));
    let app = setup.start().await;
    let upload = Upload::open(&app);
    upload.send(FILE_HEAD.into()).await;
    upload.send(vec![7; 64 << 10]).await;
    let field = "\r\n--B\r\nContent-Disposition: form-data; name=\"conversation_id\"\r\n\r\nc1";
    upload.send(field.into()).await;

    let answer: Value = upload.end().await.json().await.unwrap();

    assert_eq!(
        (&answer["text"], &answer["conversation_id"]),
        (&json!("Early."), &json!("c1"))
    );
    assert_eq!(app.said("c1").await[0].1, "Early.");
    upstream.abort();
}

#[tokio::test]
async fn a_form_that_goes_on_without_a_part_is_not_read_on() {
    let app = Setup::new().voiced().start().await;
    for start in ["", "--B\r\nX: "] {
        let upload = Upload::open(&app);
        upload.send(start.into()).await;
        // More than is gathered for a head; no end is sent.
        for _ in 0..40 {
            if upload
                .pieces
                .send(Ok(vec![b'x'; 16 << 10].into()))
                .await
                .is_err()
            {
                break;
            }
        }
        let response = within("an answer", upload.answer).await.unwrap().unwrap();
        refused(response, 413, "payload_too_large").await;
    }
    assert_eq!(app.simulator.counters().audio_uploads_begun, 0);
}

#[tokio::test]
async fn a_provider_that_is_missing_is_named() {
    let setup = Setup::new().set("ELEVENLABS_API_KEY", "xi-test");
    let app = setup.start().await;
    let response = upload(&app, "/transcribe", file(audio(), "a.mp3", "")).await;
    let error = refused(response, 503, "provider_not_configured").await;
    let sentence = error["error"].as_str().unwrap();
    assert!(sentence.contains("OPENAI_API_KEY"), "{sentence}");
}

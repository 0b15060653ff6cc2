//! Transcription: what arrives is kept, and what is answered has the shape of its server.

use idol_simulator::whisper::transcript;
use idol_simulator::{Route, Script, Simulator};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::audio_client::{form, upload, upload_request};
use crate::client::{DEADLINE, End, connect, read_reply, read_until};

const TARGET: &str = "/whisper/v1/audio/transcriptions";
/// A file that is long enough to be heard.
const FILE: &[u8] = &[7; 20_000];

/// A form with this file name and these fields beside the model.
fn heard(name: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![("model", "whisper-1")];
    all.extend_from_slice(fields);
    form(Some((name, "audio/webm", FILE)), &all)
}

#[tokio::test]
async fn what_was_uploaded_is_kept() {
    let simulator = Simulator::start().unwrap();
    let file: Vec<u8> = (0..70_000_u32)
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let fields = [
        ("model", "m"),
        ("language", "de"),
        ("prompt", "Grüße"),
        ("temperature", "0"),
    ];
    let sent = form(Some(("a b.webm", "audio/webm;codecs=opus", &file)), &fields);
    let reply = upload(&simulator, TARGET, &sent).await;
    assert_eq!(reply.json()["text"], transcript(file.len()));
    let uploads = simulator.whisper().uploads();
    let kept = &uploads[0];
    assert_eq!(
        (kept.file.as_ref(), kept.body_len),
        (file.as_slice(), sent.len())
    );
    assert_eq!(kept.file_name.as_deref(), Some("a b.webm"));
    assert_eq!(kept.content_type.as_deref(), Some("audio/webm;codecs=opus"));
    assert_eq!(kept.field("prompt"), Some("Grüße"));
    assert_eq!(kept.field("language"), Some("de"));
    assert_eq!(
        kept.order,
        ["model", "language", "prompt", "temperature", "file"]
    );
    // Of the bytes 0 to 255, as the standard tool tells it.
    let all: Vec<u8> = (0..=255).collect();
    upload(
        &simulator,
        TARGET,
        &form(Some(("x.wav", "audio/wav", &all)), &[("model", "m")]),
    )
    .await;
    assert_eq!(
        simulator.whisper().uploads()[1].sha256(),
        "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"
    );
    assert_eq!(simulator.requests_on(Route::Transcription).len(), 2);
}

#[tokio::test]
async fn an_upload_is_seen_to_begin_before_it_ends() {
    let simulator = Simulator::start().unwrap();
    let sent = form(Some(("a.webm", "audio/webm", FILE)), &[("model", "m")]);
    for (chunked, first) in [(false, 6_000), (true, 7_000)] {
        let begun = simulator.counters();
        let mut socket = connect(simulator.address()).await;
        let whole = if chunked {
            let coded = [
                format!("{:x}\r\n", sent.len()).as_bytes(),
                &sent,
                b"\r\n0\r\n\r\n",
            ]
            .concat();
            upload_request(TARGET, &[("Transfer-Encoding", "chunked")], &coded)
        } else {
            upload_request(TARGET, &[], &sent)
        };
        let (head, rest) = whole.split_at(first);
        socket.write_all(head).await.unwrap();
        let arrived = simulator.wait_for(
            "beginning of an upload",
            |counters| {
                counters.audio_uploads_begun == begun.audio_uploads_begun + 1
                    && counters.audio_bytes_received > begun.audio_bytes_received + 5_000
            },
            DEADLINE,
        );
        let now = arrived.await.unwrap();
        assert_eq!(now.transcription_requests, begun.transcription_requests);
        socket.write_all(rest).await.unwrap();
        assert_eq!(read_reply(&mut socket).await.status(), 200);
        let arrived = simulator.counters().audio_bytes_received - begun.audio_bytes_received;
        assert!(arrived >= sent.len() as u64);
    }
}

#[tokio::test]
async fn each_format_has_its_shape() {
    let simulator = Simulator::start().unwrap();
    simulator
        .whisper()
        .set_default(Script::new().text("Hello there."));
    let ask = async |format: &str| {
        let form = heard("a.webm", &[("response_format", format)]);
        upload(&simulator, TARGET, &form).await
    };
    let json = ask("json").await.json();
    assert_eq!(
        json,
        json!({"text": "Hello there.", "usage": {"type": "duration", "seconds": 2.0}})
    );
    let text = ask("text").await;
    assert_eq!(text.raw, b"Hello there.\n");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let verbose = ask("verbose_json").await.json();
    assert_eq!(
        (&verbose["language"], &verbose["duration"]),
        (&json!("english"), &json!(1.25))
    );
    assert_eq!(verbose["segments"][0]["text"], " Hello there.");
    let form = form(
        Some(("a.webm", "audio/webm", FILE)),
        &[("model", "gpt-4o-transcribe")],
    );
    let json = upload(&simulator, TARGET, &form).await.json();
    assert_eq!(json["usage"]["type"], "tokens");
}

#[tokio::test]
async fn whisper_cpp_answers_in_its_own_way() {
    let simulator = Simulator::start().unwrap();
    // It knows neither models nor extensions.
    let plain = form(Some(("blob", "audio/wav", FILE)), &[]);
    let reply = upload(&simulator, "/inference", &plain).await;
    assert_eq!(
        reply.json(),
        json!({"text": " transcript of 20000 bytes\n"})
    );
    let told = form(
        Some(("a.wav", "audio/wav", FILE)),
        &[("response_format", "text")],
    );
    simulator
        .whisper()
        .script(Script::new().text(" Hello there.\n How are you?\n"));
    let reply = upload(&simulator, "/inference", &told).await;
    assert_eq!(reply.raw, b" Hello there.\n How are you?\n");
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    simulator.whisper().script("fault=status:500");
    let reply = upload(&simulator, "/inference", &plain).await;
    assert_eq!(
        (reply.status(), reply.json()),
        (500, json!({"error": "failed to process audio"}))
    );
    let reply = upload(&simulator, "/inference", &form(None, &[])).await;
    assert_eq!(
        (reply.status(), reply.json()["error"].is_string()),
        (400, true)
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_told_as_openai_does() {
    let simulator = Simulator::start().unwrap();
    let whisper = simulator.whisper();
    let ask = async |form: &[u8]| {
        let reply = upload(&simulator, TARGET, form).await;
        let error = reply.json()["error"].clone();
        (
            reply.status(),
            error["param"].clone(),
            error["code"].clone(),
        )
    };
    let none = serde_json::Value::Null;
    let tiny = form(Some(("a.webm", "audio/webm", b"x")), &[("model", "m")]);
    let told = [
        ("model", "gpt-4o-transcribe"),
        ("response_format", "verbose_json"),
    ];
    let told = form(Some(("a.webm", "audio/webm", FILE)), &told);
    let modelless = form(Some(("a.webm", "audio/webm", FILE)), &[]);
    for (sent, param, code) in [
        (&b"no form"[..], none.clone(), none.clone()),
        (&form(None, &[("model", "m")]), json!("file"), none.clone()),
        (&modelless, none.clone(), none.clone()),
        (&heard("a.txt", &[]), none.clone(), none.clone()),
        (&heard("webm", &[]), none.clone(), none.clone()),
        (&tiny, json!("file"), json!("audio_too_short")),
        (&told, json!("response_format"), json!("unsupported_value")),
    ] {
        assert_eq!(ask(sent).await, (400, param, code));
    }
    whisper.limit_bytes(20_000);
    let reply = upload(&simulator, TARGET, &heard("a.webm", &[])).await;
    assert_eq!(
        (reply.status(), &reply.json()["error"]["type"]),
        (413, &json!("server_error"))
    );
    whisper.require_key(Some("k"));
    assert_eq!(
        ask(&heard("a.webm", &[])).await,
        (401, none, json!("invalid_api_key"))
    );
}

#[tokio::test]
async fn errors_of_every_server_on_demand() {
    let simulator = Simulator::start().unwrap();
    for (fault, status, retry_after, body) in [
        ("openai:rate_limit", 429, Some("2"), "Rate limit reached"),
        ("openai:rate_limit_no_hint", 429, None, "Rate limit reached"),
        ("openai:insufficient_quota", 429, None, "insufficient_quota"),
        ("openai:too_large_html", 413, None, "<html>"),
        ("openai:invalid_api_key", 401, None, "invalid_api_key"),
        (
            "speaches:model_not_installed",
            404,
            None,
            r#"{"detail":"Model"#,
        ),
        (
            "speaches:invalid_api_key",
            403,
            None,
            r#"{"detail":"Invalid"#,
        ),
        ("speaches:missing_file", 422, None, r#"{"detail":[{"#),
        ("whispercpp:ok_error", 200, None, r#"{"error":"failed"#),
        ("whispercpp:file_not_found", 404, None, "File Not Found"),
        ("status:502", 502, None, "<html>"),
        ("status:500", 500, None, "The server had an error"),
    ] {
        simulator
            .whisper()
            .script(Script::from(&*format!("fault={fault}")));
        let reply = upload(&simulator, TARGET, &heard("a.webm", &[])).await;
        assert_eq!(
            (reply.status(), reply.header("retry-after")),
            (status, retry_after),
            "{fault}"
        );
        let told = String::from_utf8(reply.raw).unwrap();
        assert!(told.contains(body), "{fault}: {told}");
    }
    let failing = form(
        Some(("a.webm", "audio/webm", FILE)),
        &[("model", "sim/fault=status:503,fail=1")],
    );
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(upload(&simulator, TARGET, &failing).await.status());
    }
    assert_eq!(statuses, [503, 200]);
}

#[tokio::test]
async fn an_answer_is_late_or_breaks() {
    let simulator = Simulator::start().unwrap();
    let whisper = simulator.whisper();
    let gate = simulator.gate();
    let sent = heard("a.webm", &[]);
    whisper.script(Script::new().hold_headers(&gate));
    let asked = upload(&simulator, TARGET, &sent);
    let opened = async {
        gate.reached(1, DEADLINE).await.unwrap();
        assert_eq!(simulator.counters().transcription_requests, 1);
        gate.open();
    };
    let (reply, ()) = tokio::join!(asked, opened);
    assert_eq!(reply.status(), 200);
    for (fault, end) in [("cut", End::Fin), ("reset", End::Reset)] {
        whisper.script(Script::from(&*format!("fault={fault}")));
        let reply = upload(&simulator, TARGET, &sent).await;
        let announced: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert_eq!((reply.raw.len(), reply.end), (announced / 2, end));
    }
    whisper.script("fault=stall");
    let mut leaving = connect(simulator.address()).await;
    leaving
        .write_all(&upload_request(TARGET, &[], &sent))
        .await
        .unwrap();
    read_until(&mut leaving, "\r\n\r\n{").await;
    drop(leaving);
    let gone = simulator.wait_for("end", |counters| counters.client_disconnects == 1, DEADLINE);
    gone.await.unwrap();
}

#[tokio::test]
async fn an_upload_may_be_held_up_or_answered_before_its_end() {
    let simulator = Simulator::start().unwrap();
    let whisper = simulator.whisper();
    let gate = simulator.gate();
    let sent = upload_request(TARGET, &[], &heard("a.webm", &[]));
    let (head, rest) = sent.split_at(sent.len() - 9_000);

    whisper.script(Script::from("upload=5000").hold_headers(&gate));
    let mut held = connect(simulator.address()).await;
    held.write_all(head).await.unwrap();
    gate.reached(1, DEADLINE).await.unwrap();
    let counters = simulator.counters();
    assert_eq!(
        (
            counters.audio_uploads_begun,
            counters.transcription_requests
        ),
        (1, 0)
    );
    assert!(counters.audio_bytes_received >= 5_000);
    gate.open();
    held.write_all(rest).await.unwrap();
    assert_eq!(read_reply(&mut held).await.status(), 200);
    assert_eq!(whisper.uploads()[0].file, FILE);

    whisper.script("upload=5000,fault=openai:invalid_api_key");
    let mut refused = connect(simulator.address()).await;
    refused.write_all(head).await.unwrap();
    read_until(&mut refused, "invalid_api_key").await;
    refused.write_all(rest).await.unwrap();
    read_reply(&mut refused).await;

    whisper.script("upload=5000,fault=reset_early");
    let mut reset = connect(simulator.address()).await;
    reset.write_all(head).await.unwrap();
    assert_eq!(read_reply(&mut reset).await.end, End::Reset);
    let counters = simulator.counters();
    assert_eq!(
        (
            counters.audio_uploads_begun,
            counters.transcription_requests
        ),
        (3, 1)
    );
}

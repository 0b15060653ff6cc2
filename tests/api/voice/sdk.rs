//! OpenAI's own SDK for Python, which is an application's way to `/v1/audio/…`.

use std::{path::Path, process::Stdio};

use idol_simulator::whisper::transcript;
use serde_json::{Value, json};

use super::{audio_of, decoded, transcribe::audio, voiced};
use crate::helpers::within;

/// What it does there.
const PROGRAM: &str = include_str!("sdk.py");

/// Runs the program with these arguments; what it prints.
async fn run(arguments: [&str; 2]) -> Value {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openai-sdk/bin/python");
    let python = std::env::var_os("OPENAI_SDK_PYTHON").unwrap_or_else(|| made.into());
    let output = tokio::process::Command::new(&python)
        .args(["-c", PROGRAM])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the end of the SDK's program", output).await;
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{}: {error}: `make sdk` installs OpenAI's SDK, OPENAI_SDK_PYTHON names a Python that has it",
            python.display()
        )
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn openais_own_sdk_speaks_and_listens() {
    let app = voiced().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("talk.webm");
    std::fs::write(&path, audio()).unwrap();
    let whisper = app.simulator.whisper();
    for script in [
        "",
        "",
        "",
        "",
        "fault=openai:rate_limit",
        "fault=openai:invalid_format",
        "fault=openai:invalid_api_key",
        "fault=openai:too_large",
    ] {
        whisper.script(script);
    }

    let told = run([&app.url(""), path.to_str().unwrap()]).await;

    let spoken = |format| audio_of("Hello there.", format);
    assert_eq!(decoded(&told["whole"]), spoken("mp3_44100_128"));
    assert_eq!(decoded(&told["streamed"]), spoken("pcm_24000"));
    let wave: String = spoken("wav_24000")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(told["events"], json!([wave, "speech.audio.done"]));
    let heard = transcript(100_000);
    assert_eq!(
        told["deltas"],
        json!([
            ["transcript.text.delta", heard],
            ["transcript.text.done", heard]
        ])
    );
    assert_eq!(told["json"], heard);
    assert_eq!(told["text"], format!("{heard}\n"));
    assert_eq!(told["verbose_json"], json!([heard, "english", 0.0]));
    assert_eq!(
        told["errors"],
        json!([
            [
                "BadRequestError",
                400,
                "invalid_request_error",
                "response_format",
                "invalid_request"
            ],
            [
                "BadRequestError",
                400,
                "invalid_request_error",
                "input",
                "invalid_request"
            ],
            [
                "RateLimitError",
                429,
                "rate_limit_error",
                null,
                "upstream_rate_limited"
            ],
            [
                "BadRequestError",
                400,
                "invalid_request_error",
                null,
                "upstream_rejected"
            ],
            [
                "InternalServerError",
                502,
                "server_error",
                null,
                "upstream_auth"
            ],
            [
                "APIStatusError",
                413,
                "invalid_request_error",
                null,
                "payload_too_large"
            ],
            [
                "BadRequestError",
                400,
                "invalid_request_error",
                "file",
                "invalid_request"
            ],
        ])
    );

    let uploads = whisper.uploads();
    assert!(uploads[..3].iter().all(|sent| sent.file == audio()));
    assert_eq!(uploads[0].file_name.as_deref(), Some("talk.webm"));
    for (name, value) in [
        ("language", "de"),
        ("prompt", "Idols."),
        ("temperature", "0.5"),
        ("model", "whisper-1"),
    ] {
        assert_eq!(uploads[0].field(name), Some(value));
    }
    let granularities = uploads[2]
        .fields
        .iter()
        .filter(|(name, _)| name == "timestamp_granularities[]")
        .map(|(_, value)| value.as_str());
    assert_eq!(granularities.collect::<Vec<_>>(), ["word", "segment"]);
}

//! Requests to the audio APIs, written as they are meant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use idol_simulator::Simulator;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::client::{Reply, connect, read_reply};
use crate::supabase_client::render;

/// What the tests have spoken.
pub(crate) const TEXT: &str = "Grüße, speak to me. 東京!";

/// Asks for speech with these headers, on a connection of its own.
pub(crate) async fn speak_with(
    simulator: &Simulator,
    rest: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let target = format!("/elevenlabs/v1/text-to-speech/voice{rest}");
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    let mut socket = connect(simulator.address()).await;
    let request = render("POST", &target, &headers, body.as_bytes());
    socket.write_all(&request).await.unwrap();
    read_reply(&mut socket).await
}

/// Asks for [`TEXT`]; `rest` is what the path has after the voice.
pub(crate) async fn speak(simulator: &Simulator, rest: &str) -> Reply {
    let body = json!({"text": TEXT, "model_id": "eleven_flash_v2_5"});
    speak_with(simulator, rest, &[], &body.to_string()).await
}

/// Asks for what `GET` gives.
pub(crate) async fn get(simulator: &Simulator, target: &str, headers: &[(&str, &str)]) -> Reply {
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    let mut socket = connect(simulator.address()).await;
    let request = render("GET", target, &headers, b"");
    socket.write_all(&request).await.unwrap();
    read_reply(&mut socket).await
}

/// Decodes the audio of a JSON answer or message.
pub(crate) fn decoded(audio: &Value) -> Vec<u8> {
    STANDARD.decode(audio.as_str().unwrap()).unwrap()
}

/// The boundary of the forms of these tests.
const BOUNDARY: &str = "the-boundary-of-the-test";

/// Renders a form of a file and fields.
pub(crate) fn form(file: Option<(&str, &str, &[u8])>, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        let part = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        form.extend_from_slice(part.as_bytes());
    }
    if let Some((name, media_type, bytes)) = file {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: {media_type}\r\n\r\n"
        );
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    form
}

/// Renders the request that uploads a form.
pub(crate) fn upload_request(target: &str, headers: &[(&str, &str)], form: &[u8]) -> Vec<u8> {
    let media_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let mut all = vec![
        ("Content-Type", media_type.as_str()),
        ("Connection", "close"),
    ];
    all.extend_from_slice(headers);
    render("POST", target, &all, form)
}

/// Uploads a form on a connection of its own.
pub(crate) async fn upload(simulator: &Simulator, target: &str, form: &[u8]) -> Reply {
    let mut socket = connect(simulator.address()).await;
    let request = upload_request(target, &[], form);
    socket.write_all(&request).await.unwrap();
    read_reply(&mut socket).await
}

//! Frames: their sizes, their pieces, and those that break the protocol.

use serde_json::json;

use super::raw::{BINARY, CONTINUATION, FIN, PING, Raw, TEXT, frame, head};
use crate::helpers::{TestApp, until};

const LIMIT: usize = 1 << 20;
const PONG: &str = r#"{"type":"pong"}"#;

/// A ping of exactly so many bytes.
fn ping_of(bytes: usize) -> String {
    let empty = json!({"type": "ping", "pad": ""}).to_string().len();
    json!({"type": "ping", "pad": "x".repeat(bytes - empty)}).to_string()
}

/// Fails unless the server closes with this code, keeps nothing, and serves the next client.
async fn assert_closes(app: &TestApp, mut raw: Raw, code: u16, why: &str) {
    assert_eq!(raw.close_code().await, Some(code), "{why}");
    drop(raw);
    until("the end of the socket", async || {
        app.sockets.is_empty().then_some(())
    })
    .await;
    let mut next = Raw::connect(app.address).await;
    next.send_text(r#"{"type":"ping"}"#).await;
    assert_eq!(next.next_json().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_frame_of_a_mebibyte_is_read_and_a_larger_one_closes_with_1009() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;

    raw.send_text(&ping_of(LIMIT)).await;
    assert_eq!(raw.next().await.unwrap().payload, PONG);

    raw.send_text(&ping_of(LIMIT + 1)).await;
    assert_closes(&app, raw, 1009, "a byte too much").await;
}

#[tokio::test]
async fn a_frame_is_judged_by_what_it_announces_not_gathered_first() {
    let app = TestApp::start().await;
    for announced in [LIMIT as u64 + 1, 1 << 40, u64::MAX >> 1, u64::MAX] {
        let mut raw = Raw::connect(app.address).await;

        raw.send(&head(FIN | TEXT, announced)).await;

        assert_closes(&app, raw, 1009, "announced too much").await;
    }
}

#[tokio::test]
async fn a_message_in_pieces_is_put_together_around_control_frames() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;
    let text = json!({"type": "message", "conversation_id": "c1", "message": "Grüße 🚀", "model": "sim/echo"})
        .to_string();
    let bytes = text.as_bytes();
    // Inside a character.
    let cut = text.find('ü').unwrap() + 1;

    raw.send(&frame(TEXT, &bytes[..cut])).await;
    raw.send(&frame(FIN | PING, b"still there?")).await;
    raw.send(&frame(CONTINUATION, &[])).await;
    raw.send(&frame(FIN | CONTINUATION, &bytes[cut..])).await;

    assert_eq!(raw.next().await.unwrap().payload, "still there?");
    while raw.next_json().await["type"] != "response_complete" {}
    assert_eq!(app.said("c1").await[0].1, "Grüße 🚀");
}

#[tokio::test]
async fn pieces_may_not_be_larger_than_a_message() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;
    let half = vec![b'x'; LIMIT / 2];

    raw.send(&frame(TEXT, &half)).await;
    raw.send(&frame(CONTINUATION, &half)).await;
    raw.send(&frame(FIN | CONTINUATION, b"x")).await;

    assert_closes(&app, raw, 1009, "too much in pieces").await;
}

#[tokio::test]
async fn a_binary_frame_is_refused_and_the_socket_stays() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;

    raw.send(&frame(FIN | BINARY, br#"{"type":"ping"}"#)).await;
    let whole = raw.next_json().await;
    raw.send(&frame(BINARY, b"in ")).await;
    raw.send(&frame(FIN | CONTINUATION, b"pieces")).await;
    let pieces = raw.next_json().await;

    assert_eq!(
        (&whole["type"], &whole["code"]),
        (&json!("error"), &json!("invalid_request"))
    );
    assert_eq!(whole, pieces);
    raw.send_text(r#"{"type":"ping"}"#).await;
    assert_eq!(raw.next_json().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007() {
    let app = TestApp::start().await;
    let mut whole = Raw::connect(app.address).await;
    whole.send(&frame(FIN | TEXT, b"{\"type\":\"\xff\"}")).await;
    assert_closes(&app, whole, 1007, "in one frame").await;

    let mut pieces = Raw::connect(app.address).await;
    pieces.send(&frame(TEXT, b"{\"type\":\"\xc3")).await;
    pieces.send(&frame(FIN | CONTINUATION, b"\"}")).await;
    assert_closes(&app, pieces, 1007, "in pieces").await;
}

#[tokio::test]
async fn a_violation_of_the_protocol_closes_with_1002() {
    let app = TestApp::start().await;
    let unmasked = [FIN | TEXT, 2, b'{', b'}'].to_vec();
    for (bytes, why) in [
        (unmasked, "unmasked"),
        (frame(FIN | 0x3, b"x"), "a reserved opcode"),
        (frame(FIN | 0x40 | TEXT, b"{}"), "a reserved bit"),
        (frame(FIN | CONTINUATION, b"x"), "nothing to continue"),
        (frame(PING, b"x"), "a ping in pieces"),
        (frame(FIN | PING, &[b'x'; 126]), "a long ping"),
        (
            [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(),
            "a message inside another",
        ),
    ] {
        let mut raw = Raw::connect(app.address).await;
        raw.send(&bytes).await;
        assert_closes(&app, raw, 1002, why).await;
    }
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_read() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;

    for byte in frame(FIN | TEXT, br#"{"type":"ping"}"#) {
        raw.send(&[byte]).await;
    }

    assert_eq!(raw.next_json().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_thousand_frames_in_one_write_are_all_answered() {
    let app = TestApp::start().await;
    let mut raw = Raw::connect(app.address).await;
    let one = frame(FIN | TEXT, br#"{"type":"ping"}"#);

    raw.send(&one.repeat(1_000)).await;

    for _ in 0..1_000 {
        assert_eq!(raw.next().await.unwrap().payload, PONG);
    }
}

//! What becomes of a connection, and who is let in.

use idol_simulator::Simulator;
use idol_simulator::supabase::{ANON_KEY, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{DEADLINE, connect, read_to_end, read_until};
use crate::supabase_client::{KEY, put, raw, render, signed, start, write};

const DUPLICATE: &str = "/storage/v1/object/chats/a.json";
const INFO: &str = "/storage/v1/object/info/chats/a.json";
/// A body that the sockets of both sides swallow, and that spoils the connection.
const LARGE: usize = 512 * 1024;
/// The longest body that does not.
const HARMLESS: usize = 192 * 1024;

/// Uploads onto a key that is taken, reads the refusal, and asks again on the same connection.
async fn refused_then_asked(simulator: &Simulator, target: &str, size: usize) -> TcpStream {
    let mut socket = connect(simulator.address()).await;
    write(&mut socket, "POST", target, &[], &vec![b'x'; size]).await;
    read_until(&mut socket, "\"statusCode\"").await;
    write(&mut socket, "GET", INFO, &[], b"").await;
    socket
}

#[tokio::test]
async fn a_refused_upload_of_a_large_body_spoils_its_connection() {
    let simulator = start();
    assert_eq!(put(&simulator, "a.json", "1").await, 200);
    for target in [DUPLICATE, "/storage/v1/object/chats/%23.json"] {
        let mut spoiled = refused_then_asked(&simulator, target, LARGE).await;
        // What was sent before the end would have been answered before the end.
        spoiled.shutdown().await.unwrap();
        let (answered, _) = read_to_end(&mut spoiled).await;
        assert_eq!(String::from_utf8_lossy(&answered), "");
        assert_eq!(simulator.supabase().requests(Target::Info), 0);
        let closed = simulator.wait_for(
            "end of the spoiled connection",
            |counters| counters.open_connections == 0,
            DEADLINE,
        );
        closed.await.unwrap();
    }
}

#[tokio::test]
async fn a_very_large_body_of_a_refused_upload_is_not_taken() {
    let simulator = start();
    put(&simulator, "a.json", "1").await;
    let mut socket = connect(simulator.address()).await;
    let request = render(
        "POST",
        DUPLICATE,
        &signed(&[]),
        &vec![b'x'; 48 * 1024 * 1024],
    );
    let (mut reading, mut writing) = socket.split();
    let mut written = 0;
    let mut refusal = Vec::new();
    // Both at once, as a client should: the refusal comes, and the body never gets through.
    let exchange = async {
        while !String::from_utf8_lossy(&refusal).contains("KeyAlreadyExists") {
            tokio::select! {
                sent = writing.write(&request[written..]) => written += sent.unwrap(),
                read = reading.read_buf(&mut refusal) => assert_ne!(read.unwrap(), 0),
            }
        }
    };
    timeout(DEADLINE, exchange).await.expect("no refusal came");
    assert!(written < request.len(), "the whole body was taken");
}

#[tokio::test]
async fn a_refused_upload_of_a_small_body_does_not() {
    let simulator = start();
    put(&simulator, "a.json", "1").await;
    let mut socket = refused_then_asked(&simulator, DUPLICATE, HARMLESS).await;
    read_until(&mut socket, "\"version\"").await;
}

#[tokio::test]
async fn a_refusal_for_its_size_does_not_either() {
    let simulator = start();
    put(&simulator, "a.json", "1").await;
    simulator
        .supabase()
        .set_file_size_limit("chats", Some(1024));
    let mut socket = connect(simulator.address()).await;
    let head = render(
        "PUT",
        DUPLICATE,
        &signed(&[("Content-Type", "application/json")]),
        &vec![b'x'; 16 * 1024 * 1024],
    );
    // The answer comes before the body: half of it is still to be sent.
    let (first, rest) = head.split_at(head.len() / 2);
    socket.write_all(first).await.unwrap();
    read_until(&mut socket, "EntityTooLarge").await;
    socket.write_all(rest).await.unwrap();
    write(&mut socket, "GET", INFO, &[], b"").await;
    read_until(&mut socket, "\"size\":1,").await;
}

#[tokio::test]
async fn a_client_that_wants_the_connection_closed_gets_its_refusal_and_the_end() {
    let simulator = start();
    put(&simulator, "a.json", "1").await;
    let headers = signed(&[("Connection", "close")]);
    let reply = raw(&simulator, "POST", DUPLICATE, &headers, &vec![b'x'; LARGE]).await;
    assert_eq!(
        (reply.status(), reply.json()["statusCode"].as_str()),
        (400, Some("409"))
    );
}

#[tokio::test]
async fn a_chunked_body_passes_the_limit() {
    let simulator = start();
    simulator.supabase().set_file_size_limit("chats", Some(4));
    let headers = signed(&[("Transfer-Encoding", "chunked"), ("Connection", "close")]);
    let body = b"5\r\nhello\r\n0\r\n\r\n";
    let target = "/storage/v1/object/chats/chunked";
    let reply = raw(&simulator, "POST", target, &headers, body).await;
    assert_eq!(reply.status(), 200);
    let stored = simulator.supabase().object("chats", "chunked").unwrap();
    assert_eq!(stored.bytes, "hello");
    assert_eq!(stored.content_type, "application/octet-stream");
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_nothing() {
    let simulator = start();
    let mut socket = connect(simulator.address()).await;
    let request = render("PUT", DUPLICATE, &signed(&[]), &[b'x'; 100]);
    socket
        .write_all(&request[..request.len() - 1])
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(simulator.supabase().objects("chats").is_empty());
    assert_eq!(simulator.counters().uploads, 0);
}

#[tokio::test]
async fn the_gateway_and_both_services_refuse_in_their_own_shapes() {
    let simulator = start();
    let secret = "sb_secret_simulator";
    let storage = "/storage/v1/object/chats/a.json";
    let rest = "/rest/v1/chats";
    let ask = async |target: &str, headers: &[(&str, &str)]| {
        let mut headers = headers.to_vec();
        headers.push(("Connection", "close"));
        let reply = raw(&simulator, "GET", target, &headers, b"").await;
        let body = reply.json();
        let code = body["code"].as_str().or(body["message"].as_str());
        (reply.status(), code.unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    for target in [storage, rest] {
        assert_eq!(
            ask(target, &[]).await,
            is(401, "No API key found in request")
        );
        let unknown = [
            ("apikey", "sb_secret_other"),
            ("Authorization", "Bearer sb_secret_other"),
        ];
        assert_eq!(ask(target, &unknown).await, is(401, "Invalid API key"));
    }
    let wrong = [
        ("apikey", "a.wrong.key"),
        ("Authorization", "Bearer a.wrong.key"),
    ];
    assert_eq!(ask(storage, &wrong).await, is(400, "AccessDenied"));
    assert_eq!(ask(rest, &wrong).await, is(401, "PGRST301"));
    assert_eq!(
        ask(storage, &[("apikey", KEY)]).await,
        is(400, "InvalidRequest")
    );

    simulator.require_service_key(Some(secret));
    let bearer = format!("Bearer {secret}");
    let right = [("apikey", secret), ("Authorization", bearer.as_str())];
    assert_eq!(ask(storage, &right).await, is(400, "NoSuchKey"));
    let mut browser = right.to_vec();
    browser.push(("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"));
    assert_eq!(ask(storage, &browser).await.0, 401);
    let anonymous = format!("Bearer {ANON_KEY}");
    let mixed = [("apikey", secret), ("Authorization", anonymous.as_str())];
    simulator.supabase().put_object("chats", "a.json", "{}");
    assert_eq!(ask(storage, &mixed).await, is(400, "NoSuchKey"));
}

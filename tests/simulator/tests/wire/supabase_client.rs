//! Requests to the simulated Supabase, written as they are meant.

use idol_simulator::Simulator;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Reply, connect, read_reply};

/// A service key with the form of a JWT.
pub(crate) const KEY: &str = "header.service.signature";

/// Starts a simulator that asks for [`KEY`] and has the bucket `chats`.
pub(crate) fn start() -> Simulator {
    let simulator = Simulator::start().unwrap();
    simulator.require_service_key(Some(KEY));
    simulator.supabase().create_bucket("chats");
    simulator
}

/// Renders a request without credentials; a body has its length told unless a header says else.
pub(crate) fn render(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
    if !chunked && (!body.is_empty() || method == "POST") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Adds the credentials of the service role.
pub(crate) fn signed<'h>(headers: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let mut signed = vec![
        ("apikey", KEY),
        ("Authorization", "Bearer header.service.signature"),
    ];
    signed.extend_from_slice(headers);
    signed
}

/// Writes a request of the service role on a connection that stays open.
pub(crate) async fn write(
    socket: &mut TcpStream,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    let request = render(method, target, &signed(headers), body);
    socket.write_all(&request).await.unwrap();
}

/// Sends a request of the service role on a connection of its own and returns the answer.
pub(crate) async fn ask(
    simulator: &Simulator,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut headers = signed(headers);
    headers.push(("Connection", "close"));
    raw(simulator, method, target, &headers, body).await
}

/// Sends a request with these headers alone; one of them should close the connection.
pub(crate) async fn raw(
    simulator: &Simulator,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut socket = connect(simulator.address()).await;
    let request = render(method, target, headers, body);
    socket.write_all(&request).await.unwrap();
    read_reply(&mut socket).await
}

/// Uploads JSON over whatever is there, and returns the status.
pub(crate) async fn put(simulator: &Simulator, key: &str, body: &str) -> u16 {
    let target = format!("/storage/v1/object/chats/{key}");
    let headers = [("x-upsert", "true"), ("Content-Type", "application/json")];
    let reply = ask(simulator, "POST", &target, &headers, body.as_bytes()).await;
    reply.status()
}

/// Downloads an object.
pub(crate) async fn get(simulator: &Simulator, key: &str) -> Reply {
    let target = format!("/storage/v1/object/authenticated/chats/{key}");
    ask(simulator, "GET", &target, &[], b"").await
}

/// Reads an object's info.
pub(crate) async fn info(simulator: &Simulator, key: &str) -> Reply {
    let target = format!("/storage/v1/object/info/chats/{key}");
    ask(simulator, "GET", &target, &[], b"").await
}

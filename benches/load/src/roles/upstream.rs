//! A test double for an upstream of chat completions that costs as little as it can.
//!
//! Speaks enough HTTP/1.1 for the clients of this workspace: `POST …/chat/completions`, whole or as
//! a stream in OpenRouter's shape, and `GET …/models`, which lists none. What it answers stands in
//! the model's name, see [`Model`]; a name that it does not know is answered with 400. It knows no
//! faults: the simulator in `tests/simulator` has them.

mod rendered;

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Write as _},
    rc::Rc,
};

use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::Instant,
};

use self::rendered::Rendered;
use crate::{
    error::LoadError,
    model::{Model, Words},
};

const MODELS: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"data\":[]}";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 44\r\n\r\n{\"error\":{\"code\":400,\"message\":\"bad model\"}}";

/// Replies that were asked for before, by model name.
type Known = Rc<RefCell<HashMap<String, Rc<Rendered>>>>;

/// Serves until the process is ended.
pub(crate) fn run() -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::io("a runtime"))?;
    LocalSet::new().block_on(&runtime, async {
        let listener = listen()?;
        let known = Known::default();
        loop {
            let (stream, _) = listener.accept().await.map_err(LoadError::io("accept"))?;
            // A connection that breaks is its client's affair.
            spawn_local(serve(stream, Rc::clone(&known)));
        }
    })
}

fn listen() -> Result<TcpListener, LoadError> {
    let listener = tokio::net::TcpSocket::new_v4()
        .and_then(|socket| {
            socket.bind(([127, 0, 0, 1], 0).into())?;
            socket.listen(4096)
        })
        .map_err(LoadError::io("a listening socket"))?;
    let address = listener.local_addr().map_err(LoadError::io("an address"))?;
    writeln!(io::stdout(), "listening on http://{address}").map_err(LoadError::io("stdout"))?;
    Ok(listener)
}

/// What a request asks for.
enum Asked {
    Models,
    Completion { model: String, stream: bool },
    Unknown,
}

#[derive(Deserialize)]
struct Body {
    model: String,
    #[serde(default)]
    stream: bool,
}

async fn serve(mut stream: TcpStream, known: Known) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(4096);
    while let Some(asked) = request(&mut stream, &mut buffer).await? {
        match asked {
            Asked::Models => stream.write_all(MODELS).await?,
            Asked::Unknown => stream.write_all(NOT_FOUND).await?,
            Asked::Completion {
                model,
                stream: as_stream,
            } => match reply(&known, &model) {
                None => stream.write_all(REFUSED).await?,
                Some(reply) if as_stream => send(&mut stream, &reply).await?,
                Some(reply) => {
                    let asked = &reply.model;
                    tokio::time::sleep(asked.first() + asked.gap() * asked.tokens).await;
                    stream.write_all(&reply.whole).await?;
                }
            },
        }
    }
    Ok(())
}

fn reply(known: &Known, name: &str) -> Option<Rc<Rendered>> {
    if let Some(reply) = known.borrow().get(name) {
        return Some(Rc::clone(reply));
    }
    let reply = Rc::new(Rendered::new(name.parse::<Model>().ok()?));
    known
        .borrow_mut()
        .insert(name.to_owned(), Rc::clone(&reply));
    Some(reply)
}

/// Reads one request; none: the client has gone.
async fn request(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Asked>> {
    loop {
        if let Some((asked, length)) = parse(buffer)? {
            buffer.advance(length);
            return Ok(Some(asked));
        }
        buffer.reserve(4096);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Asked, usize)>> {
    let bad = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).map_err(|error| bad(&error))? else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(0);
    let end = start + length;
    let Some(body) = bytes.get(start..end) else {
        return Ok(None);
    };
    let path = head.path.unwrap_or_default();
    let asked = match head.method {
        Some("GET") if path.contains("/models") => Asked::Models,
        Some("POST") if path.ends_with("/chat/completions") => {
            let body: Body = serde_json::from_slice(body).map_err(|error| bad(&error))?;
            Asked::Completion {
                model: body.model,
                stream: body.stream,
            }
        }
        _ => Asked::Unknown,
    };
    Ok(Some((asked, end)))
}

/// Sends a reply as its model's name says.
async fn send(stream: &mut TcpStream, reply: &Rendered) -> io::Result<()> {
    let model = &reply.model;
    if model.first == 0 && model.gap == 0 && model.words == Words::Fixed {
        for write in &reply.writes {
            stream.write_all(write).await?;
        }
        return Ok(());
    }
    stream.write_all(rendered::STREAM_HEAD).await?;
    let mut due = Instant::now() + model.first();
    for number in 0..model.tokens {
        tokio::time::sleep_until(due).await;
        match reply.tokens.get(number as usize) {
            Some(token) => stream.write_all(token).await?,
            None => stream.write_all(&reply.stamped()).await?,
        }
        due += model.gap();
    }
    stream.write_all(&reply.end).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_when_it_is_whole() {
        let body = br#"{"model":"load/","messages":[],"stream":true}"#;
        let mut text = format!(
            "POST /api/v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        assert!(parse(&text).unwrap().is_none());
        text.extend_from_slice(body);
        let (asked, length) = parse(&text).unwrap().unwrap();
        assert_eq!(length, text.len());
        assert!(matches!(asked, Asked::Completion { model, stream: true } if model == "load/"));
    }
}

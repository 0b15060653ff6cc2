//! A request as it arrived, kept whole so that a test can assert on it.

use bytes::Bytes;
use serde_json::Value;

/// The longest request head that is read.
pub(crate) const HEAD_MAX: usize = 64 * 1024;
/// The longest request body that is read.
pub(crate) const BODY_MAX: usize = 64 * 1024 * 1024;
const HEADERS_MAX: usize = 64;

/// One request a client sent, with every byte of its body.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The request target: path and query.
    pub target: String,
    /// The body with the transfer coding removed.
    pub body: Bytes,
    /// The headers in the order they were sent, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Returns the target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns the first header of this name; the name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Parses the body as JSON.
    ///
    /// # Errors
    ///
    /// When the body is not JSON.
    pub fn json(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.body)
    }

    /// Returns the bytes this record holds, for the bound of the log.
    pub(crate) fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.method.len() + self.target.len() + self.body.len() + headers
    }
}

/// How the client delimits its request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    Exact(usize),
    Chunked,
}

/// Whether the connection may serve another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    Keep,
    Close,
}

/// A parsed request head.
#[derive(Debug)]
pub(crate) struct Head {
    /// The request so far, without its body.
    pub(crate) request: Request,
    /// Bytes of the head in the read buffer.
    pub(crate) len: usize,
    pub(crate) body: BodyLength,
    pub(crate) persistence: Persistence,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// Parses a head; `Ok(None)` means that more bytes are needed.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(len) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        body: Bytes::new(),
        headers,
    };
    let wants = |name: &str, token: &str| {
        request
            .header(name)
            .is_some_and(|value| value.to_ascii_lowercase().contains(token))
    };
    let body = if wants("transfer-encoding", "chunked") {
        BodyLength::Chunked
    } else {
        let length = request
            .header("content-length")
            .and_then(|value| value.trim().parse().ok());
        BodyLength::Exact(length.unwrap_or(0))
    };
    let old = parsed.version == Some(0);
    let persistence = if wants("connection", "close") || (old && !wants("connection", "keep-alive"))
    {
        Persistence::Close
    } else {
        Persistence::Keep
    };
    let expects_continue = wants("expect", "100-continue");
    Ok(Some(Head {
        request,
        len,
        body,
        persistence,
        expects_continue,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_once_it_is_whole() {
        let bytes = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        assert!(parse_head(&bytes[..30]).unwrap().is_none());
        let head = parse_head(bytes).unwrap().unwrap();
        assert_eq!(head.len, bytes.len() - 3);
        assert_eq!(head.body, BodyLength::Exact(3));
        assert_eq!(head.persistence, Persistence::Keep);
        assert_eq!(head.request.path(), "/v1/x");
        assert_eq!(head.request.header("host"), Some("a"));
    }

    #[test]
    fn http_1_0_closes_unless_it_asks_to_stay() {
        let closes = parse_head(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert_eq!(closes.persistence, Persistence::Close);
        let stays = parse_head(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(stays.persistence, Persistence::Keep);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(parse_head(b"\x00\x01\r\n\r\n").is_err());
    }
}

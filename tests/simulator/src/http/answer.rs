//! A response head, and answers that are small enough to be one write.

use super::{Connection, Gone};

/// A response with its headers and a body given whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Makes an answer of this media type.
    pub(crate) fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self {
            status,
            headers,
            body: body.into(),
        }
    }

    /// Makes a JSON answer.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// Makes an answer without a body.
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Sets a header; one of the same name is replaced.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Renders the head, with the length of the body.
    pub(crate) fn head(&self) -> Vec<u8> {
        let length = self.body.len().to_string();
        response_head(self.status, &[("Content-Length", &length)], &self.headers)
    }

    /// Writes the answer in one piece.
    pub(crate) async fn send(&self, connection: &mut Connection) -> Result<(), Gone> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        connection.write(&bytes).await
    }

    /// Writes the head alone, as the answer to a `HEAD`; it tells the length of the body.
    pub(crate) async fn send_head(&self, connection: &mut Connection) -> Result<(), Gone> {
        connection.write(&self.head()).await
    }
}

/// Renders a response head, blank line included; `own` headers replace `usual` ones.
pub(crate) fn response_head(
    status: u16,
    usual: &[(&str, &str)],
    own: &[(String, String)],
) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    let usual = usual
        .iter()
        .filter(|(name, _)| {
            own.iter()
                .all(|(known, _)| !known.eq_ignore_ascii_case(name))
        })
        .copied();
    let own = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in usual.chain(own) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Payload Too Large",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        // 524, 529 and 544 have no registered phrase, and nothing reads it.
        _ => "Status",
    }
}

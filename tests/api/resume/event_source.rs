//! A client that does what a browser's `EventSource` does, and no more (WHATWG HTML, 9.2).

use futures::StreamExt;
use serde_json::Value;

use crate::helpers::within;

/// One connection of it; `last_event_id` outlives the connection.
pub struct EventSource {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
    /// Of the last event; sent when it connects again.
    pub last_event_id: Option<String>,
    /// Milliseconds before it connects again.
    pub retry: Option<u64>,
}

impl EventSource {
    /// Connects; sends the id of the last event, if there was one.
    pub async fn connect(http: &reqwest::Client, url: &str, last: Option<&str>) -> Self {
        let mut request = http.get(url).header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = within("an answer", request.send()).await.unwrap();
        Self::of(response, last)
    }

    /// Reads an answer.
    pub fn of(response: reqwest::Response, last: Option<&str>) -> Self {
        assert_eq!(response.status(), 200, "it would never connect again");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: Box::pin(response.bytes_stream()),
            buffer: Vec::new(),
            id: None,
            data: Vec::new(),
            last_event_id: last.map(str::to_owned),
            retry: None,
        }
    }

    /// The next event's JSON; none once the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                if let Some(data) = self.line(line.trim_end_matches('\n')) {
                    return Some(serde_json::from_str(&data).unwrap());
                }
            }
            let piece = within("the next event", self.body.next()).await?;
            self.buffer.extend_from_slice(&piece.ok()?);
        }
    }

    /// Events up to and including the first of this type.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let event = event.unwrap_or_else(|| panic!("ended before {kind}: {events:?}"));
            let last = event["type"] == kind;
            events.push(event);
            if last {
                return events;
            }
        }
    }

    /// Takes a line; an empty one dispatches the event.
    fn line(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            if let Some(id) = self.id.clone() {
                self.last_event_id = Some(id);
            }
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then(|| data.join("\n"));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.data.push(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "retry" => self.retry = Some(value.parse().unwrap()),
            "" => {}
            other => panic!("no field of an event stream: {other}"),
        }
        None
    }
}

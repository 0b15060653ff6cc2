//! What a document must hold, given what clients were told.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::client::{Client, End, Request, What};

/// Compares a conversation's document with all that its clients were told.
pub fn document(id: &str, document: &Value, clients: &[Client]) {
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(document["id"], id);
    assert_valid(id, messages);
    let mut known: HashSet<usize> = HashSet::new();
    for client in clients.iter().filter(|it| it.conversation == id) {
        let mut last = None;
        for request in &client.requests {
            let places = places(id, messages, request);
            if let Some(said) = places.said {
                let behind = match request.what {
                    What::Reply => last < Some(said),
                    // The message of the request before it, which has been answered.
                    What::Another => last > Some(said),
                };
                assert!(behind, "{id}: order of {request:?}");
                last = last.max(Some(said));
            }
            if let Some(reply) = places.reply {
                // One that took another's place stands there.
                let behind = match request.what {
                    What::Reply => last < Some(reply),
                    What::Another => last == Some(reply),
                };
                assert!(behind, "{id}: order of {request:?}");
                last = Some(reply);
            }
            known.extend([places.said, places.reply].into_iter().flatten());
        }
    }
    let strange = (0..messages.len()).find(|it| !known.contains(it));
    assert_eq!(
        strange.map(|it| &messages[it]),
        None,
        "{id}: nobody's message"
    );
}

fn assert_valid(id: &str, messages: &[Value]) {
    let ids: HashSet<_> = messages
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), messages.len(), "{id}: an id twice");
    for pair in messages.windows(2) {
        let at = |message: &Value| message["timestamp"].as_str().unwrap().to_owned();
        assert!(at(&pair[0]) < at(&pair[1]), "{id}: order of time: {pair:?}");
    }
}

/// Where the message that a request is about and the reply are, if they are.
struct Places {
    said: Option<usize>,
    reply: Option<usize>,
}

/// Fails unless they are as they must be.
fn places(id: &str, messages: &[Value], request: &Request) -> Places {
    let told = &request.told;
    let said: Vec<usize> = (0..messages.len())
        .filter(|it| messages[*it]["role"] == "user" && messages[*it]["content"] == request.text)
        .collect();
    assert!(said.len() <= 1, "{id}: said twice: {request:?}");
    let Some(&said) = said.first() else {
        assert!(told.received.is_none(), "{id}: lost: {request:?}");
        return Places {
            said: None,
            reply: None,
        };
    };
    if let Some(message) = told.received.as_ref().and_then(|it| it.message.as_ref()) {
        assert_eq!(messages[said]["id"], *message, "{id}: {request:?}");
    }
    let turn = match (request.what, &told.received) {
        (What::Reply, received) => {
            let turn = &messages[said]["turn_id"];
            if let Some(received) = received {
                assert_eq!(*turn, received.turn, "{id}: {request:?}");
            }
            Some(turn.clone())
        }
        (What::Another, received) => received.as_ref().map(|it| it.turn.as_str().into()),
    };
    let replies = replies(messages, request, turn.as_ref());
    assert!(replies.len() <= 1, "{id}: answered twice: {request:?}");
    let Some((reply, message)) = replies.first() else {
        assert_eq!(told.end, None, "{id}: a reply is lost: {request:?}");
        assert_eq!(told.kept, "", "{id}: seen text is lost: {request:?}");
        return Places {
            said: Some(said),
            reply: None,
        };
    };
    assert_reply(id, message, request);
    Places {
        said: Some(said),
        reply: Some(*reply),
    }
}

/// The replies of a turn, shown or replaced, and where they, or what replaced them, stand. A turn
/// that the client was not told of has those that the upstream was asked for in its name.
fn replies<'a>(
    messages: &'a [Value],
    request: &Request,
    turn: Option<&Value>,
) -> Vec<(usize, &'a Value)> {
    let is_its = |it: &Value| match turn {
        Some(turn) => it["turn_id"] == *turn,
        None => it["model"] == request.model.as_str(),
    };
    let all = messages.iter().enumerate().flat_map(|(place, message)| {
        let replaced = message["alternatives"].as_array().into_iter().flatten();
        let versions = replaced.chain([message]);
        versions.map(move |version| (place, version))
    });
    all.filter(|(_, it)| it["role"] == "assistant" && is_its(it))
        .collect()
}

fn assert_reply(id: &str, reply: &Value, request: &Request) {
    let stored = End {
        text: reply["content"].as_str().unwrap().to_owned(),
        finish_reason: reply["finish_reason"].as_str().unwrap().to_owned(),
    };
    if let Some(end) = &request.told.end {
        assert_eq!(stored, *end, "{id}: {request:?}");
    }
    match stored.finish_reason.as_str() {
        "stop" => assert_eq!(
            stored.text, request.whole,
            "{id}: a cut reply is marked complete"
        ),
        "interrupted" => assert!(
            request.whole.starts_with(&stored.text) && !stored.text.is_empty(),
            "{id}: {:?} of {request:?}",
            stored.text
        ),
        other => panic!("{id}: {other}: {request:?}"),
    }
    let kept = &request.told.kept;
    assert!(
        stored.text.starts_with(kept),
        "{id}: seen text is lost: {request:?}"
    );
}

/// How often what is looked for was there to be looked for.
#[derive(Debug, Default)]
pub struct Seen {
    /// Replies told to their end.
    ended: usize,
    /// Requests without an answer at a kill.
    cut: usize,
    /// Those among them whose text had been seen long enough to be kept.
    kept: usize,
    /// Replies among those told to their end that took the place of another.
    replaced: usize,
    by_reason: HashMap<String, usize>,
}

impl Seen {
    /// Notes what a kill did; remembers which text must be there from now on.
    pub fn count(&mut self, clients: &mut [Client], killed: Instant, seen_before: Duration) {
        let by = killed.checked_sub(seen_before).unwrap();
        self.by_reason.clear();
        (self.ended, self.replaced) = (0, 0);
        for request in clients.iter_mut().flat_map(|it| &mut it.requests) {
            match &request.told.end {
                Some(end) => {
                    self.ended += 1;
                    self.replaced += usize::from(request.what == What::Another);
                    *self.by_reason.entry(end.finish_reason.clone()).or_default() += 1;
                }
                None => {
                    self.cut += 1;
                    let text = request.told.text();
                    assert!(request.whole.starts_with(&text), "{text:?} of {request:?}");
                    let kept = request.told.text_by(by);
                    if !kept.is_empty() {
                        self.kept += 1;
                        request.told.kept = kept;
                    }
                }
            }
        }
    }

    /// Fails if something was never there to be lost.
    pub fn assert_some_of_each(&self, rounds: usize) {
        assert!(self.ended > 0 && self.cut > 0, "{self}");
        assert!(self.replaced > 0, "{self}");
        assert!(rounds < super::LONG_ROUND || self.kept > 0, "{self}");
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ended,
            cut,
            kept,
            replaced,
            ..
        } = self;
        write!(
            f,
            "{ended} replies told to their end ({:?}; {replaced} in the place of another), {cut} cut by kills, {kept} of them with text that had to be kept",
            self.by_reason
        )
    }
}

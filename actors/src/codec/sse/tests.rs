use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Data(Vec<u8>),
    Error(Vec<u8>),
}

impl From<SseEvent<'_>> for Owned {
    fn from(event: SseEvent<'_>) -> Self {
        match event {
            SseEvent::Data(data) => Self::Data(data.to_vec()),
            SseEvent::Error(data) => Self::Error(data.to_vec()),
        }
    }
}

/// Events of a stream that arrives in these reads, and of what is left at its end.
fn events<'r>(
    limit: usize,
    reads: impl IntoIterator<Item = &'r [u8]>,
) -> (Vec<Owned>, Result<(), SseError>) {
    let mut reader = SseReader::new(limit);
    let mut seen = Vec::new();
    for read in reads {
        let mut rest = read;
        loop {
            match reader.read(&mut rest) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(error) => return (seen, Err(error)),
            }
        }
        assert!(rest.is_empty(), "`None` means that the read is used up");
    }
    match reader.finish() {
        Ok(event) => seen.extend(event.map(Owned::from)),
        Err(error) => return (seen, Err(error)),
    }
    (seen, Ok(()))
}

fn whole(stream: &[u8]) -> Vec<Owned> {
    events(EVENT_BYTES_MAX, [stream]).0
}

fn data(texts: &[&str]) -> Vec<Owned> {
    texts
        .iter()
        .map(|text| Owned::Data(text.as_bytes().to_vec()))
        .collect()
}

/// The specification followed step by step, with no eye to speed.
fn naive(stream: &[u8]) -> Vec<Owned> {
    let stream = stream.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(stream);
    let mut lines = vec![Vec::new()];
    let mut bytes = stream.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                lines.push(Vec::new());
            }
            b'\n' => lines.push(Vec::new()),
            other => lines.last_mut().unwrap().push(other),
        }
    }
    // The end of the stream acts as the end of its last line and of its last event.
    lines.push(Vec::new());
    let mut events = Vec::new();
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut is_error = false;
    for line in lines {
        if line.is_empty() {
            let joined = parts.join(&b'\n');
            parts.clear();
            let was_error = std::mem::take(&mut is_error);
            if !joined.is_empty() {
                events.push(if was_error {
                    Owned::Error(joined)
                } else {
                    Owned::Data(joined)
                });
            }
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (&line[..], &[][..]),
        };
        match name {
            b"data" => parts.push(value.to_vec()),
            b"error" => {
                is_error = true;
                parts.push(value.to_vec());
            }
            b"event" => is_error = value == b"error",
            _ => {}
        }
    }
    events
}

fn split_at_sizes<'s>(stream: &'s [u8], sizes: &[usize]) -> Vec<&'s [u8]> {
    let mut reads = Vec::new();
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (read, tail) = rest.split_at((*size).min(rest.len()));
        reads.push(read);
        rest = tail;
    }
    reads
}

/// Streams made of the pieces that matter to a reader, in any order.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "data:",
        "data: ",
        "data",
        ": ",
        ":",
        "event: error",
        "event: x",
        "error: ",
        "error",
        "id: 1",
        "retry: 3",
        "unknown",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "é",
        "🚀",
        "\u{feff}",
        "{\"a\":1}",
        " ",
        "[DONE]",
    ]);
    let text = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![4 => text, 1 => bytes]
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_events_of_the_specification(
        stream in streams(),
        sizes in prop::collection::vec(1usize..12, 1..20),
    ) {
        let expected = naive(&stream);
        prop_assert_eq!(&whole(&stream), &expected);
        let split = events(EVENT_BYTES_MAX, split_at_sizes(&stream, &sizes));
        prop_assert_eq!(split, (expected, Ok(())));
    }

    #[test]
    fn a_limit_is_met_at_the_same_event_however_the_bytes_are_split(
        stream in streams(),
        sizes in prop::collection::vec(1usize..12, 1..20),
        limit in 0usize..30,
    ) {
        let split = events(limit, split_at_sizes(&stream, &sizes));
        prop_assert_eq!(split, events(limit, [&stream[..]]));
    }
}

#[test]
fn an_empty_read_changes_nothing() {
    let (seen, end) = events(100, [&b"data: a\r"[..], b"", b"\n", b"", b"\n"]);
    assert_eq!((seen, end), (data(&["a"]), Ok(())));
}

#[test]
fn an_error_field_and_an_event_named_error_are_errors() {
    let seen = whole(b"error: {\"a\":1}\n\nevent: error\ndata: x\n\ndata: y\n\n");
    let error = |text: &str| Owned::Error(text.as_bytes().to_vec());
    assert_eq!(seen[..2], [error("{\"a\":1}"), error("x")]);
    assert_eq!(seen[2..], data(&["y"]));
}

#[test]
fn an_unterminated_last_event_is_given_at_the_end() {
    assert_eq!(whole(b"data: a\n\ndata: [DONE]"), data(&["a", "[DONE]"]));
    assert_eq!(whole(b"data: a\n"), data(&["a"]));
    assert_eq!(whole(b": only a comment"), []);
}

#[test]
fn an_event_within_one_read_is_not_copied() {
    let read = b"data: abc\n\n";
    let mut rest = &read[..];
    let mut reader = SseReader::default();
    let Ok(Some(SseEvent::Data(found))) = reader.read(&mut rest) else {
        panic!("no event");
    };
    assert!(std::ptr::eq(found, &read[6..9]));
}

#[test]
fn a_line_of_four_mebibytes_is_read_and_its_buffer_given_back() {
    let text = "x".repeat(4 * 1024 * 1024);
    let stream = format!("data: {text}\n\ndata: b\n\n");
    let mut reader = SseReader::default();
    let mut lengths = Vec::new();
    for read in stream.as_bytes().chunks(16 * 1024) {
        let mut rest = read;
        while let Some(event) = reader.read(&mut rest).unwrap() {
            let SseEvent::Data(data) = event else {
                panic!("no error was sent");
            };
            lengths.push(data.len());
        }
    }
    assert_eq!(lengths, [text.len(), 1]);
    assert!(reader.line.capacity() + reader.event.data.capacity() <= 2 * BUFFER_BYTES_KEPT);
}

#[test]
fn a_line_without_end_is_refused() {
    let (seen, end) = events(1000, std::iter::repeat_n(&b"data: xxxxxxxxxxxxx"[..], 100));
    assert_eq!(
        (seen, end),
        (vec![], Err(SseError::TooLong { limit: 1000 }))
    );
    let (_, end) = events(1000, std::iter::repeat_n(&b"data: x\n"[..], 1001));
    assert_eq!(end, Err(SseError::TooLong { limit: 1000 }));
}

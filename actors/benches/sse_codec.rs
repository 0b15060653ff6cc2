//! Bytes per second and time per token of the event reader, beside `eventsource-stream`; and of the
//! whole way from bytes to deltas.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::{convert::Infallible, hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eventsource_stream::Eventsource as _;
use futures::{StreamExt as _, executor::block_on, stream};
use idol_actors::{codec::sse::SseReader, provider::openrouter::reply::ReplyReader};

const TOKENS: usize = 1000;

fn chunks() -> Vec<Bytes> {
    (0..TOKENS)
        .map(|number| {
            let content = if number % 20 == 0 { "\\n" } else { " token" };
            Bytes::from(format!(
                "data: {{\"id\":\"gen-1790000000-AbCdEfGhIjKlMnOpQrSt\",\"provider\":\"ExampleHost\",\
                 \"model\":\"example/model-1\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1790000000,\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\
                 \"content\":\"{content}\"}},\"finish_reason\":null,\"native_finish_reason\":null,\
                 \"logprobs\":null}}]}}\n\n"
            ))
        })
        .collect()
}

fn ours(reads: &[Bytes]) -> usize {
    let mut reader = SseReader::default();
    let mut events = 0;
    for read in reads {
        let mut rest = &read[..];
        while let Some(event) = reader.read(&mut rest).unwrap() {
            black_box(event);
            events += 1;
        }
    }
    events
}

fn theirs(reads: &[Bytes]) -> usize {
    let reads = stream::iter(reads.iter().cloned().map(Ok::<_, Infallible>));
    block_on(
        reads
            .eventsource()
            .map(|event| black_box(event.unwrap()))
            .count(),
    )
}

fn deltas(reads: &[Bytes]) -> usize {
    let mut reader = ReplyReader::new(usize::MAX);
    let mut deltas = 0;
    for read in reads {
        let mut of_read = Vec::new();
        assert!(reader.read(read, &mut of_read).is_none());
        deltas += black_box(of_read).len();
    }
    deltas
}

fn sse_codec(criterion: &mut Criterion) {
    let chunks = chunks();
    let whole = Bytes::from(chunks.concat());
    let pages: Vec<Bytes> = whole.chunks(4096).map(Bytes::copy_from_slice).collect();
    assert_eq!((ours(&pages), theirs(&pages)), (TOKENS, TOKENS));
    for (unit, throughput) in [
        ("bytes", Throughput::Bytes(whole.len() as u64)),
        ("tokens", Throughput::Elements(TOKENS as u64)),
    ] {
        let mut group = criterion.benchmark_group(unit);
        group
            .throughput(throughput)
            .sample_size(20)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2));
        for (reads, name) in [(&pages, "4 KiB reads"), (&chunks, "one chunk per read")] {
            let mut bench = |what, run: fn(&[Bytes]) -> usize| {
                let id = BenchmarkId::new(what, name);
                group.bench_with_input(id, reads, |bencher, reads| bencher.iter(|| run(reads)));
            };
            bench("SseReader", ours);
            bench("eventsource-stream", theirs);
            bench("ReplyReader", deltas);
        }
        group.finish();
    }
}

criterion_group!(benches, sse_codec);
criterion_main!(benches);

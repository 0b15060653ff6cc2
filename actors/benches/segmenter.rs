//! What cutting a reply into segments costs, by what is in it.
//!
//! A reply comes in tokens of some four bytes; the time is that of one token, and must not depend
//! on how long the reply is or on whether there is punctuation in it.

#![allow(missing_docs)]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use idol_actors::voice::segmenter::{Segmenter, SegmenterOptions};

/// Bytes of a token; all texts are ASCII.
const TOKEN_BYTES: usize = 4;

const PROSE: &str = "Of course I remember! We walked along the beach, and it rained all day. ";
const CHAT: &str = "*smiles softly* I **really** missed you... See [this](https://a.bc/d)! ";
const LETTERS: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OPENINGS: &str = "*a [b (c <d *e [f (g <h *i [j (k <l *m [n (o <p *q [r (s <t *u [v (w <x ";

fn speak(tokens: &[&str]) -> usize {
    let mut segmenter = Segmenter::new(SegmenterOptions::default());
    let mut segments = 0;
    for token in tokens {
        segments += segmenter.push(black_box(token), Duration::ZERO).len();
    }
    segments + segmenter.finish().segments.len()
}

fn segmenter(criterion: &mut Criterion) {
    for (name, text) in [
        ("prose", PROSE),
        ("chat", CHAT),
        ("letters", LETTERS),
        ("openings", OPENINGS),
    ] {
        let mut group = criterion.benchmark_group(format!("segmenter/{name}"));
        for times in [10, 1_000] {
            let reply = text.repeat(times);
            let tokens: Vec<&str> = (0..reply.len())
                .step_by(TOKEN_BYTES)
                .map(|at| &reply[at..reply.len().min(at + TOKEN_BYTES)])
                .collect();
            group.throughput(Throughput::Elements(tokens.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(tokens.len()), |bencher| {
                bencher.iter(|| speak(&tokens));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, segmenter);
criterion_main!(benches);

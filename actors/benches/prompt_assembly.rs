//! What putting a prompt together costs, by the length of the history.
//!
//! With a window that holds everything the cost is that of copying the text; with a window of
//! 8,192 tokens it must not grow with the history.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use idol_actors::{
    conversation::{
        document::{TurnRecord, TurnState},
        message::{Draft, Role, Stamp, StoredMessage},
        prompt::{Parameters, assemble},
    },
    id::MessageId,
    json_text::JsonText,
    time::Timestamp,
};

fn message(role: Role, number: usize) -> StoredMessage {
    let text = format!("Message {number}: I went for a walk by the sea, and it rained \"cats\".\n");
    let draft = Draft::text(role, JsonText::escape(&text));
    let stamp = Stamp {
        timestamp: Timestamp::from_micros(1_800_000_000_000_000),
        id: MessageId::now(),
        turn: None,
        model: None,
        models: &[],
        finish_reason: None,
    };
    StoredMessage::new(&draft, &stamp)
}

fn history(messages: usize) -> Vec<TurnRecord> {
    (0..messages / 2)
        .map(|turn| TurnRecord {
            turn: None,
            reply_id: None,
            messages: [
                message(Role::User, turn * 2),
                message(Role::Assistant, turn * 2 + 1),
            ]
            .into_iter()
            .collect(),
            runs: smallvec::SmallVec::from_iter([1]),
            state: TurnState::Imported,
            key: None,
            branch: None,
        })
        .collect()
}

fn prompt_assembly(criterion: &mut Criterion) {
    let parameters = Parameters {
        model: "nousresearch/hermes-3-llama-3.1-70b".into(),
        fallbacks: Vec::new(),
        system: JsonText::escape("You are a companion."),
        max_tokens: 1_000,
        members: "\"temperature\":0.7,\"max_tokens\":1000".into(),
    };
    for (window, tokens) in [("all", u32::MAX), ("8k", 8_192)] {
        let mut group = criterion.benchmark_group(format!("prompt_assembly/{window}"));
        for messages in [10, 100, 1_000, 10_000] {
            let history = history(messages);
            let new = [message(Role::User, messages)];
            let body = assemble(&parameters, history.as_slice().into(), &new, tokens);
            group.throughput(Throughput::Bytes(body.json().len() as u64));
            group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
                bencher.iter(|| {
                    assemble(
                        black_box(&parameters),
                        history.as_slice().into(),
                        &new,
                        tokens,
                    )
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, prompt_assembly);
criterion_main!(benches);

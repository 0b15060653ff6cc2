//! Streams as providers send them, byte for byte, to replay.

/// The streams, under the names that the option `replay` knows.
const STREAMS: [(&str, &[u8]); 17] = [
    (
        "basic",
        include_bytes!("../../fixtures/openrouter_stream_basic.sse"),
    ),
    (
        "usage_empty_choices",
        include_bytes!("../../fixtures/openrouter_stream_usage_empty_choices.sse"),
    ),
    (
        "usage_every_chunk",
        include_bytes!("../../fixtures/openrouter_stream_usage_every_chunk.sse"),
    ),
    (
        "reasoning",
        include_bytes!("../../fixtures/openrouter_stream_reasoning.sse"),
    ),
    (
        "toolcalls",
        include_bytes!("../../fixtures/openrouter_stream_toolcalls.sse"),
    ),
    (
        "debug_empty_first",
        include_bytes!("../../fixtures/openrouter_stream_debug_empty_first.sse"),
    ),
    (
        "done_without_finish",
        include_bytes!("../../fixtures/openrouter_stream_done_without_finish.sse"),
    ),
    (
        "no_done",
        include_bytes!("../../fixtures/openrouter_stream_no_done.sse"),
    ),
    (
        "midstream_error",
        include_bytes!("../../fixtures/openrouter_midstream_error.sse"),
    ),
    (
        "midstream_error_only",
        include_bytes!("../../fixtures/openrouter_midstream_error_only.sse"),
    ),
    (
        "midstream_error_string_code",
        include_bytes!("../../fixtures/openrouter_midstream_error_string_code.sse"),
    ),
    (
        "llamacpp_ping",
        include_bytes!("../../fixtures/llamacpp_stream_ping.sse"),
    ),
    (
        "llamacpp_error_line",
        include_bytes!("../../fixtures/llamacpp_legacy_error_line.sse"),
    ),
    (
        "vllm_midstream_error",
        include_bytes!("../../fixtures/vllm_midstream_error.sse"),
    ),
    ("ollama", include_bytes!("../../fixtures/ollama_stream.sse")),
    (
        "lmstudio_midstream_error",
        include_bytes!("../../fixtures/lmstudio_midstream_error.sse"),
    ),
    (
        "sse_torture",
        include_bytes!("../../fixtures/sse_framing_torture.sse"),
    ),
];

/// Returns a recorded stream by the name that the option `replay` takes.
pub fn stream(name: &str) -> Option<&'static [u8]> {
    STREAMS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, bytes)| *bytes)
}
